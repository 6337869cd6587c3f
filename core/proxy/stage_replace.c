/* Plain text replaced in a stream.
 *
 * Bytes that match nothing are passed on by reference. A place where something could match that has not come whole
 * yet stays in `in`, at most as long as the longest text, and is looked at again when more has come: that is all there
 * is to borders.
 *
 * One text is searched with memmem. Several are searched byte by byte for a pair of bytes with which one of them
 * begins (a table of 64 Ki bits: a load and a test per byte, whatever their number), and there compared, the longest
 * first. An automaton (Aho-Corasick) would bound the worst case, texts that all but match everywhere, and was rejected
 * for its size: 1 KiB for every byte of every text, made anew for each answer. */
#include "proxy/stages.h"

#include "base/must.h"

#include <stdlib.h>

enum { PAIR_WORDS = 65536 / 64 };

struct replace_stage {
    struct pipe_stage stage;
    struct replacement *list; /* by first byte, then the longest first */
    unsigned count;
    size_t longest;
    uint64_t *pairs;      /* bit first | second << 8; NULL: there is one text only */
    uint16_t begins[257]; /* where in `list` a first byte begins, and the next one */
};

static struct replace_stage *of_stage(struct pipe_stage *s) { return container_of(s, struct replace_stage, stage); }

/* ---- searching */

static unsigned char byte_at(const char *p) { return (unsigned char)*p; }

static bool has_pair(const struct replace_stage *r, const char *p) {
    unsigned pair = byte_at(p) | (unsigned)byte_at(p + 1) << 8;
    return r->pairs[pair / 64] >> pair % 64 & 1;
}

static bool begins_one(const struct replace_stage *r, unsigned char first) {
    return r->begins[first] != r->begins[first + 1];
}

/* Where something may begin; s.n: nowhere. */
static size_t find_first_of_many(const struct replace_stage *r, struct slice s) {
    size_t i = 0;
    for (; i + 1 < s.n; i++)
        if (has_pair(r, s.p + i)) return i;
    return i < s.n && begins_one(r, byte_at(s.p + i)) ? i : s.n;
}

static size_t find_only_one(const struct replace_stage *r, struct slice s) {
    struct slice from = r->list[0].from;
    const char *found = s.n >= from.n ? memmem(s.p, s.n, from.p, from.n) : NULL;
    if (found) return (size_t)(found - s.p);
    size_t i = s.n >= from.n ? s.n - from.n + 1 : 0;
    found = i < s.n ? memchr(s.p + i, from.p[0], s.n - i) : NULL;
    return found ? (size_t)(found - s.p) : s.n;
}

static size_t find_candidate(const struct replace_stage *r, struct slice s) {
    return r->pairs ? find_first_of_many(r, s) : find_only_one(r, s);
}

enum match { MATCH_NONE, MATCH_FOUND, MATCH_OPEN };

/* What stands at the front of `s`: a text, none, or perhaps one that is longer than `s`. */
static enum match match_front(const struct replace_stage *r, struct slice s, bool last,
                              const struct replacement **which) {
    unsigned char first = byte_at(s.p);
    for (unsigned i = r->begins[first]; i < r->begins[first + 1]; i++) {
        struct slice from = r->list[i].from;
        bool whole = from.n <= s.n;
        if ((!whole && last) || memcmp(from.p, s.p, whole ? from.n : s.n) != 0) continue;
        *which = &r->list[i];
        return whole ? MATCH_FOUND : MATCH_OPEN;
    }
    return MATCH_NONE;
}

/* ---- the stage */

/* Whether what stands `at` bytes into the first segment can be judged there. */
static bool is_contiguous(const struct replace_stage *r, const struct buffer *in, size_t at) {
    size_t there = buffer_front(in).n - at;
    return there >= r->longest || there == in->size - at;
}

/* Judges what stands at the front. False: not without more bytes. `*at`: how many bytes are settled now, to be passed
 * on as they are. */
static bool judge(const struct replace_stage *r, struct buffer *in, struct buffer *out, bool last, size_t *at) {
    const struct replacement *which;
    switch (match_front(r, slice_skip(buffer_front(in), *at), last, &which)) {
    case MATCH_OPEN: return false;
    case MATCH_NONE: ++*at; return true;
    case MATCH_FOUND: break;
    }
    buffer_move(out, in, *at);
    buffer_drop(in, which->from.n);
    buffer_append(out, which->to.p, which->to.n);
    *at = 0;
    return true;
}

static enum stage_result run(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    const struct replace_stage *r = of_stage(s);
    size_t at = 0; /* bytes at the front of `in` that are settled, but not moved yet */
    while (at < in->size && out->size + at < STAGE_BYTES) {
        struct slice front = buffer_front(in);
        at += find_candidate(r, slice_skip(front, at));
        if (at == front.n || !is_contiguous(r, in, at)) {
            bool candidate = at < front.n;
            buffer_move(out, in, at);
            at = 0;
            if (!candidate) continue;
            buffer_gather(in, in->size < r->longest ? in->size : r->longest);
        }
        if (judge(r, in, out, last, &at)) continue;
        buffer_move(out, in, at);
        return STAGE_HUNGRY;
    }
    buffer_move(out, in, at);
    return in->size ? STAGE_FULL : STAGE_HUNGRY;
}

static void close_stage(struct pipe_stage *s) {
    struct replace_stage *r = of_stage(s);
    free(r->pairs);
    free(r);
}

static const struct pipe_stage_ops ops = { run, close_stage };

/* ---- making one */

static int by_first_then_longest(const void *a, const void *b) {
    struct slice x = ((const struct replacement *)a)->from, y = ((const struct replacement *)b)->from;
    if (x.p[0] != y.p[0]) return byte_at(x.p) < byte_at(y.p) ? -1 : 1;
    return x.n == y.n ? 0 : x.n > y.n ? -1 : 1;
}

static void index_pairs(struct replace_stage *r) {
    r->pairs = must_calloc(PAIR_WORDS, sizeof *r->pairs);
    for (unsigned i = 0; i < r->count; i++) {
        struct slice from = r->list[i].from;
        unsigned low = from.n > 1 ? byte_at(from.p + 1) : 0, high = from.n > 1 ? low : 255;
        for (unsigned second = low; second <= high; second++) {
            unsigned pair = byte_at(from.p) | second << 8;
            r->pairs[pair / 64] |= UINT64_C(1) << pair % 64;
        }
    }
}

static void index_firsts(struct replace_stage *r) {
    unsigned i = 0;
    for (unsigned first = 0; first <= 256; first++) {
        while (i < r->count && byte_at(r->list[i].from.p) < first) i++;
        r->begins[first] = (uint16_t)i;
    }
}

static size_t text_size(const struct replacement *list, unsigned count) {
    size_t n = 0;
    for (unsigned i = 0; i < count; i++) n += list[i].from.n + list[i].to.n;
    return n;
}

static struct slice copy_text(char **at, struct slice s) {
    struct slice copy = { *at, s.n };
    if (s.n) memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

struct pipe_stage *stage_replace(struct replacement *list, unsigned count) {
    must(count > 0 && count <= REPLACEMENTS_MAX);
    struct replace_stage *r = must_malloc(sizeof *r + count * sizeof *list + text_size(list, count));
    *r = (struct replace_stage){ .stage = { .ops = &ops }, .count = count };
    r->list = (struct replacement *)(r + 1);
    char *text = (char *)(r->list + count);
    qsort(list, count, sizeof *list, by_first_then_longest);
    for (unsigned i = 0; i < count; i++) {
        r->list[i] = (struct replacement){ copy_text(&text, list[i].from), copy_text(&text, list[i].to) };
        if (list[i].from.n > r->longest) r->longest = list[i].from.n;
    }
    index_firsts(r);
    if (count > 1) index_pairs(r);
    return &r->stage;
}
