/* One member of a list of structured fields, its parameters in the order of RFC 9211 2. What they may say together is
 * decided here, so that callers need not: a hit was not forwarded, and what was not forwarded is not stored. */
#include "http/cache_status.h"

#include "http/structured.h"

#define CACHE_STATUS SLICE("Cache-Status")

static const char *const fwd_words[] = {
    [CACHE_HIT] = "hit",
    [CACHE_FWD_BYPASS] = "bypass",
    [CACHE_FWD_METHOD] = "method",
    [CACHE_FWD_URI_MISS] = "uri-miss",
    [CACHE_FWD_VARY_MISS] = "vary-miss",
    [CACHE_FWD_MISS] = "miss",
    [CACHE_FWD_REQUEST] = "request",
    [CACHE_FWD_STALE] = "stale",
    [CACHE_FWD_PARTIAL] = "partial",
    [CACHE_OWN] = "",
};

static const char *const result_words[] = {
#define CACHE_RESULT_WORD(id, word) [CACHE_RESULT_##id] = word,
    CACHE_RESULTS(CACHE_RESULT_WORD)
#undef CACHE_RESULT_WORD
};

const char *cache_result_word(enum cache_result result) { return result_words[result]; }

struct slice cache_fwd_word(enum cache_fwd fwd) {
    return slice_of(fwd_words[fwd]);
}

/* A token where it can be one. */
static struct slice write_word(struct arena *arena, struct slice word) {
    if (sf_is_token(word)) return word;
    char *text = arena_bytes(arena, sf_string_size(word));
    return slice_make(text, sf_string_write(text, word));
}

static int64_t round_down(int64_t ms) { return ms / 1000 - (ms % 1000 < 0); }

struct slice cache_status_write(struct arena *arena, const struct cache_status *s) {
    bool forwarded = s->fwd != CACHE_HIT && s->fwd != CACHE_OWN;
    struct slice parts[12];
    size_t n = 0;
    parts[n++] = write_word(arena, s->cache);
    parts[n++] = forwarded ? SLICE("; fwd=") : s->fwd == CACHE_HIT ? SLICE("; ") : SLICE("");
    parts[n++] = cache_fwd_word(s->fwd);
    if (forwarded && s->fwd_status) parts[n++] = arena_printf(arena, "; fwd-status=%d", s->fwd_status);
    if (s->has_ttl) parts[n++] = arena_printf(arena, "; ttl=%lld", (long long)round_down(s->ttl));
    if (forwarded && s->stored) parts[n++] = SLICE("; stored");
    if (forwarded && s->collapsed) parts[n++] = s->in_vain ? SLICE("; collapsed=?0") : SLICE("; collapsed");
    if (s->detail.p && sf_is_string(s->detail)) {
        parts[n++] = SLICE("; detail=");
        parts[n++] = write_word(arena, s->detail);
    }
    return arena_concat(arena, parts, n);
}

/* Members are strings or tokens (RFC 9211 2). Without any, a line of ours behind it would make a list that begins with
 * a comma. */
static bool is_list(struct slice text) {
    struct sf_reader reader;
    struct sf_value value;
    sf_begin(&reader, text);
    while (sf_list_next(&reader, &value))
        if (value.type != SF_STRING && value.type != SF_TOKEN) return false;
    return reader.begun && !reader.failed;
}

void cache_status_add(struct headers *headers, const struct cache_status *s) {
    if (!is_list(headers_joined(headers, CACHE_STATUS))) headers_remove(headers, CACHE_STATUS);
    headers_add_other(headers, CACHE_STATUS, cache_status_write(headers->arena, s));
}
