/* A key is one record after the other: lengths, a lower-case name, the normalised value, and for Accept-Language the
 * language of the response. Whether a request matches is asked on the path of each hit, so its values are not
 * normalised into memory: one walk writes into a sink, and a sink counts, or stores, or compares with what was stored.
 *
 * A value has one of few forms, and its first byte says which. Only equal forms are equal, so that the short cuts for
 * Accept-Encoding and Accept-Language need not hold for every value: where they do not, the value is plain. */
#include "http/vary.h"

#include "http/coding.h"
#include "http/grammar.h"

#define VARY             SLICE("Vary")
#define ACCEPT_LANGUAGE  SLICE("Accept-Language")
#define CONTENT_LANGUAGE SLICE("Content-Language")

enum form { FORM_ABSENT = '-', FORM_PLAIN = '=', FORM_CODINGS = 'c', FORM_LANGUAGES = 'l' };

/* ---- the members of Vary */

/* What is no field name can be in no request: nothing matches it, as with "*". */
static bool line_is_names(struct slice line, bool *some) {
    struct slice name;
    while (header_list_next(&line, &name)) {
        if (slice_equal(name, SLICE("*")) || !header_name_valid(name)) return false;
        *some = true;
    }
    return true;
}

enum vary vary_of(const struct headers *response) {
    bool some = false;
    for (const struct header *h = headers_find_other(response, VARY); h; h = headers_next(response, h))
        if (!line_is_names(h->value, &some)) return VARY_ANY;
    return some ? VARY_NAMES : VARY_NONE;
}

/* ---- sinks */

struct sink {
    char *to;              /* where to store; NULL: count only */
    struct slice expected; /* compare with that; p NULL: do not */
    size_t n;
    bool differs;
};

static void put(struct sink *sink, const char *p, size_t n) {
    if (!n) return;
    if (sink->to) memcpy(sink->to + sink->n, p, n);
    if (sink->expected.p && !sink->differs)
        sink->differs = n > sink->expected.n - sink->n || memcmp(sink->expected.p + sink->n, p, n) != 0;
    sink->n += n;
}

static void put_byte(struct sink *sink, char c) { put(sink, &c, 1); }

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static void put_lower(struct sink *sink, struct slice s) {
    for (size_t i = 0; i < s.n; i++) put_byte(sink, lower(s.p[i]));
}

/* ---- members with a weight (RFC 9110 12.4.2) */

enum { Q_ONE = 1000, MEMBERS_MAX = 32 };

struct weighted {
    struct slice name;
    int q; /* thousandths */
};

static bool read_q(struct slice s, int *q) {
    static const int worth[] = { 100, 10, 1 };
    if (!s.n || s.n > 5 || (*s.p != '0' && *s.p != '1') || (s.n > 1 && s.p[1] != '.')) return false;
    *q = *s.p == '1' ? Q_ONE : 0;
    for (size_t i = 2; i < s.n; i++) {
        if (!byte_is(s.p[i], BYTE_DIGIT)) return false;
        *q += (s.p[i] - '0') * worth[i - 2];
    }
    return *q <= Q_ONE;
}

/* "name" or "name;q=0.5"; false for anything else. */
static bool read_weighted(struct slice text, struct weighted *w) {
    struct slice rest = text, key;
    w->q = Q_ONE;
    w->name = slice_trim(slice_cut(&rest, ';'));
    if (!header_name_valid(w->name)) return false;
    if (!rest.p) return true;
    key = slice_trim(slice_cut(&rest, '='));
    return rest.p && slice_equal_nocase(key, SLICE("q")) && read_q(slice_trim(rest), &w->q);
}

/* Of all lines. False if one is not understood, or there are too many. */
static bool read_all_weighted(const struct headers *request, const struct header *h, struct weighted *all, size_t *n) {
    *n = 0;
    for (; h; h = headers_next(request, h)) {
        struct slice rest = h->value, member;
        while (header_list_next(&rest, &member))
            if (*n == MEMBERS_MAX || !read_weighted(member, &all[(*n)++])) return false;
    }
    return true;
}

/* ---- Accept-Encoding */

/* What origins choose from. Beyond these the value is told whole. */
static const struct {
    char letter;
    enum coding coding;
} usual[] = { { 'b', CODING_BR }, { 'g', CODING_GZIP }, { 'z', CODING_ZSTD }, { 'i', CODING_IDENTITY } };

enum { USUAL = sizeof usual / sizeof usual[0] };

/* The weight of one coding; identity is acceptable unless it is refused (RFC 9110 12.5.3). */
static int weight_of(enum coding coding, const struct weighted *all, size_t n) {
    int q = coding == CODING_IDENTITY ? Q_ONE : 0;
    for (size_t i = 0; i < n; i++) {
        if (coding_named(all[i].name) == coding) return all[i].q;
        if (slice_equal(all[i].name, SLICE("*")) && (coding != CODING_IDENTITY || !all[i].q)) q = all[i].q;
    }
    return q;
}

static size_t read_codings(const struct headers *request, const struct header *first, char letters[USUAL]) {
    struct weighted all[MEMBERS_MAX];
    size_t n, count = 0;
    if (!read_all_weighted(request, first, all, &n)) return 0;
    for (size_t i = 0; i < USUAL; i++)
        if (weight_of(usual[i].coding, all, n)) letters[count++] = usual[i].letter;
    return count;
}

static bool put_codings(struct sink *sink, const struct headers *request, const struct header *first) {
    char letters[USUAL];
    size_t n = read_codings(request, first, letters);
    if (!n) return false;
    put_byte(sink, FORM_CODINGS);
    put(sink, letters, n);
    return true;
}

/* The letters stand for this request if the response has one of these codings: one that the client did not ask for, or
 * one without a letter, would be given to others who cannot read it. */
static bool suits_codings(const struct headers *request, const struct headers *response) {
    char letters[USUAL];
    enum coding coding = coding_of(response);
    size_t n = read_codings(request, headers_find_id(request, HEADER_ACCEPT_ENCODING), letters);
    for (size_t i = 0; i < USUAL; i++)
        if (usual[i].coding == coding) return memchr(letters, usual[i].letter, n) != NULL;
    return false;
}

/* ---- Accept-Language */

static int compare_languages(const struct weighted *a, const struct weighted *b) {
    size_t n = a->name.n < b->name.n ? a->name.n : b->name.n;
    int order = strncasecmp(a->name.p, b->name.p, n);
    if (!order) order = (a->name.n > b->name.n) - (a->name.n < b->name.n);
    return order ? order : (a->q > b->q) - (a->q < b->q);
}

static void sort_languages(struct weighted *all, size_t n) {
    for (size_t i = 1; i < n; i++) {
        struct weighted one = all[i];
        size_t j = i;
        for (; j && compare_languages(&one, &all[j - 1]) < 0; j--) all[j] = all[j - 1];
        all[j] = one;
    }
}

static bool put_languages(struct sink *sink, const struct headers *request, const struct header *first) {
    struct weighted all[MEMBERS_MAX];
    size_t n;
    if (!read_all_weighted(request, first, all, &n)) return false;
    sort_languages(all, n);
    put_byte(sink, FORM_LANGUAGES);
    for (size_t i = 0; i < n; i++) {
        const char q[] = { ';',
                           (char)('0' + all[i].q / 1000),
                           (char)('0' + all[i].q / 100 % 10),
                           (char)('0' + all[i].q / 10 % 10),
                           (char)('0' + all[i].q % 10),
                           ',' };
        put_lower(sink, all[i].name);
        put(sink, q, sizeof q);
    }
    return true;
}

/* Is this the one language that the request likes best? */
static bool prefers(const struct headers *request, const struct header *first, struct slice language) {
    struct weighted all[MEMBERS_MAX], best = { { NULL, 0 }, 0 };
    size_t n, same = 0;
    if (!language.n || !read_all_weighted(request, first, all, &n)) return false;
    for (size_t i = 0; i < n; i++) {
        if (all[i].q == best.q) same++;
        if (all[i].q <= best.q) continue;
        best = all[i];
        same = 1;
    }
    return same == 1 && slice_equal_nocase(best.name, language);
}

/* Empty unless there is exactly one. */
static struct slice language_of(const struct headers *response) {
    const struct header *h = headers_find_other(response, CONTENT_LANGUAGE);
    struct slice language = { NULL, 0 };
    if (!h || headers_next(response, h)) return language;
    language = slice_trim(h->value);
    return header_name_valid(language) ? language : (struct slice){ NULL, 0 };
}

/* ---- any other field */

/* White space round commas goes, but not in quotes; that at the ends was trimmed. */
static void put_list(struct sink *sink, struct slice s) {
    bool quoted = false;
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"') quoted = !quoted;
        else if (quoted && s.p[i] == '\\') i++;
        if (i >= s.n || quoted || s.p[i] != ',') continue;
        struct slice piece = slice_trim(slice_make(s.p + from, i - from));
        put(sink, piece.p, piece.n);
        put_byte(sink, ',');
        from = i + 1;
    }
    struct slice piece = slice_trim(slice_make(s.p + from, s.n - from));
    put(sink, piece.p, piece.n);
}

/* Cookies are no list, and their lines are joined otherwise (RFC 9113 8.2.3). */
static void put_plain(struct sink *sink, const struct headers *request, const struct header *first) {
    bool cookie = first->id == HEADER_COOKIE;
    put_byte(sink, FORM_PLAIN);
    for (const struct header *h = first; h; h = headers_next(request, h)) {
        struct slice value = slice_trim(h->value);
        if (h != first) put(sink, cookie ? "; " : ",", cookie ? 2 : 1);
        if (cookie) put(sink, value.p, value.n);
        else put_list(sink, value);
    }
}

/* Without Accept-Encoding origins send what they have, as to a client that names no coding. */
static void put_value(struct sink *sink, const struct headers *request, struct slice name, bool codings) {
    const struct header *first = headers_find(request, name);
    if (codings && header_id_of(name) == HEADER_ACCEPT_ENCODING && put_codings(sink, request, first)) return;
    if (!first) put_byte(sink, FORM_ABSENT);
    else if (!slice_equal_nocase(name, ACCEPT_LANGUAGE) || !put_languages(sink, request, first))
        put_plain(sink, request, first);
}

/* ---- records */

struct record {
    uint32_t name, value, language; /* bytes of each; they follow in this order */
};

static void put_record(struct sink *sink, const struct headers *response, const struct headers *request,
                       struct slice name) {
    struct sink value = { 0 };
    bool codings = suits_codings(request, response);
    put_value(&value, request, name, codings);
    struct slice language = slice_equal_nocase(name, ACCEPT_LANGUAGE) ? language_of(response) : SLICE("");
    struct record record = { (uint32_t)name.n, (uint32_t)value.n, (uint32_t)language.n };
    put(sink, (const char *)&record, sizeof record);
    put_lower(sink, name);
    put_value(sink, request, name, codings);
    put(sink, language.p, language.n);
}

static void put_records(struct sink *sink, const struct headers *response, const struct headers *request) {
    for (const struct header *h = headers_find_other(response, VARY); h; h = headers_next(response, h)) {
        struct slice rest = h->value, name;
        while (header_list_next(&rest, &name)) put_record(sink, response, request, name);
    }
}

struct slice vary_key(struct arena *arena, const struct headers *response, const struct headers *request) {
    struct sink sink = { 0 };
    enum vary vary = vary_of(response);
    if (vary != VARY_NAMES) return vary == VARY_NONE ? SLICE("") : (struct slice){ NULL, 0 };
    put_records(&sink, response, request);
    sink = (struct sink){ .to = arena_bytes(arena, sink.n) };
    put_records(&sink, response, request);
    return slice_make(sink.to, sink.n);
}

/* ---- matching */

static struct slice take_bytes(struct slice *rest, size_t n) {
    struct slice taken = slice_make(rest->p, n);
    *rest = slice_skip(*rest, n);
    return taken;
}

static bool next_record(struct slice *rest, struct slice *name, struct slice *value, struct slice *language) {
    struct record record;
    if (rest->n < sizeof record) return false;
    memcpy(&record, rest->p, sizeof record);
    *rest = slice_skip(*rest, sizeof record);
    *name = take_bytes(rest, record.name);
    *value = take_bytes(rest, record.value);
    *language = take_bytes(rest, record.language);
    return true;
}

static bool record_matches(const struct headers *request, struct slice name, struct slice value,
                           struct slice language) {
    struct sink sink = { .expected = value };
    put_value(&sink, request, name, *value.p == FORM_CODINGS);
    if (!sink.differs && sink.n == value.n) return true;
    return language.n && prefers(request, headers_find(request, name), language);
}

bool vary_matches(struct slice key, const struct headers *request) {
    struct slice name, value, language;
    if (!key.p) return false;
    while (next_record(&key, &name, &value, &language))
        if (!record_matches(request, name, value, language)) return false;
    return true;
}

bool vary_key_next(struct slice *rest, struct slice *name) {
    struct slice value, language;
    return next_record(rest, name, &value, &language);
}
