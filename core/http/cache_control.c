/* Cache-Control is read member by member: a name, perhaps "=" and a token or quoted string. A table says what each name
 * sets and what its argument may be.
 *
 * Commas and "=" in quotes are no separators, so that `x="max-age=9"` is one unknown directive. Where a quoted string
 * does not end, nobody knows what the origin wanted to forbid behind it: the message is then not stored at all.
 *
 * CDN-Cache-Control has the same directives in another syntax, whose numbers and names then go the same way. */
#include "http/cache_control.h"

#include "http/grammar.h"
#include "http/structured.h"

#define CDN_CACHE_CONTROL SLICE("CDN-Cache-Control")
#define PRAGMA            SLICE("Pragma")

enum argument {
    FORBIDS, /* no argument; one does not make it permit */
    PERMITS, /* no argument; with one it is another directive, unknown to us */
    SECONDS,
    FIELDS /* perhaps field names */
};

struct directive {
    struct slice name;
    enum argument argument;
    uint32_t bit;
    uint32_t fields;      /* FIELDS: the bit instead, when there are names */
    size_t place;         /* SECONDS: in struct cache_control */
    bool ignored_invalid; /* SECONDS: an invalid value is as if absent; else it is 0 */
    uint32_t otherwise;   /* SECONDS: without a value; 0: that is invalid */
};

#define FLAG(name, bit, argument)                                                                                      \
    { { name, sizeof(name) - 1 }, argument, bit, 0, 0, false, 0 }
#define NAMES(name, bit)                                                                                               \
    { { name, sizeof(name) - 1 }, FIELDS, bit, bit##_FIELDS, 0, false, 0 }
#define SPAN(name, bit, member, drop, otherwise)                                                                       \
    { { name, sizeof(name) - 1 }, SECONDS, bit, 0, offsetof(struct cache_control, member), drop, otherwise }

static const struct directive directives[] = {
    SPAN("max-age", CC_MAX_AGE, max_age, false, 0),
    SPAN("s-maxage", CC_S_MAXAGE, s_maxage, false, 0),
    FLAG("public", CC_PUBLIC, PERMITS),
    NAMES("private", CC_PRIVATE),
    NAMES("no-cache", CC_NO_CACHE),
    FLAG("no-store", CC_NO_STORE, FORBIDS),
    FLAG("must-revalidate", CC_MUST_REVALIDATE, FORBIDS),
    FLAG("proxy-revalidate", CC_PROXY_REVALIDATE, FORBIDS),
    FLAG("must-understand", CC_MUST_UNDERSTAND, PERMITS),
    FLAG("no-transform", CC_NO_TRANSFORM, FORBIDS),
    FLAG("immutable", CC_IMMUTABLE, PERMITS),
    FLAG("only-if-cached", CC_ONLY_IF_CACHED, FORBIDS),
    SPAN("stale-while-revalidate", CC_STALE_WHILE_REVALIDATE, stale_while_revalidate, false, 0),
    SPAN("stale-if-error", CC_STALE_IF_ERROR, stale_if_error, false, 0),
    SPAN("min-fresh", CC_MIN_FRESH, min_fresh, true, 0),
    SPAN("max-stale", CC_MAX_STALE, max_stale, true, DELTA_MAX),
};

enum { DIRECTIVES = sizeof directives / sizeof directives[0] };

static const struct directive *find_directive(struct slice name) {
    for (size_t i = 0; i < DIRECTIVES; i++)
        if (slice_equal_nocase(name, directives[i].name)) return &directives[i];
    return NULL;
}

static uint32_t *span_of(struct cache_control *cc, const struct directive *d) {
    return (uint32_t *)(void *)((char *)cc + d->place);
}

/* ---- field names in no-cache and private */

static bool names_are_valid(struct slice list) {
    struct slice name;
    bool some = false;
    while (header_list_next(&list, &name)) {
        if (!header_name_valid(name)) return false;
        some = true;
    }
    return some;
}

static bool names_have(struct slice list, struct slice field) {
    struct slice name;
    while (header_list_next(&list, &name))
        if (slice_equal_nocase(name, field)) return true;
    return false;
}

/* ---- a member of Cache-Control */

struct member {
    struct slice name, value; /* value.p NULL: no "=". Quotes round it are taken off, escapes in it stay: neither digits
                                 nor names need them */
    bool spaced;              /* white space round the "=" */
    bool open;                /* a quoted string in it does not end */
};

static bool quotes_close(struct slice s) {
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"') quoted = !quoted;
        else if (quoted && s.p[i] == '\\') i++;
    }
    return !quoted;
}

static struct slice unquote(struct slice s) {
    bool quoted = s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"';
    return quoted ? slice_make(s.p + 1, s.n - 2) : s;
}

static struct member split_member(struct slice text) {
    struct member m = { .open = !quotes_close(text) };
    struct slice rest = text, name = slice_cut(&rest, '=');
    m.name = slice_trim(name);
    if (!rest.p) return m;
    m.value = slice_trim(rest);
    m.spaced = m.name.n != name.n || m.value.n != rest.n;
    m.value = unquote(m.value);
    return m;
}

bool delta_seconds_read(struct slice s, uint32_t *seconds) {
    uint64_t n = DELTA_MAX;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_DIGIT)) return false;
    if (!s.n) return false;
    bool fits = slice_to_u64(s, &n);
    *seconds = !fits || n > DELTA_MAX ? DELTA_MAX : (uint32_t)n;
    return true;
}

static void take_seconds(struct cache_control *cc, const struct directive *d, const struct member *m) {
    uint32_t seconds = 0;
    if (cc->present & d->bit) return;
    bool valid = m->value.p ? !m->spaced && delta_seconds_read(m->value, &seconds) : d->otherwise > 0;
    if (!valid && d->ignored_invalid) return;
    cc->present |= d->bit;
    *span_of(cc, d) = valid && !m->value.p ? d->otherwise : seconds;
}

static void take_member(struct cache_control *cc, const struct directive *d, const struct member *m) {
    switch (d->argument) {
    case FORBIDS: cc->present |= d->bit; break;
    case PERMITS:
        if (!m->value.p) cc->present |= d->bit;
        break;
    case SECONDS: take_seconds(cc, d, m); break;
    case FIELDS: cc->present |= !m->spaced && names_are_valid(m->value) ? d->fields : d->bit; break;
    }
}

void cache_control_read(struct cache_control *cc, struct slice line) {
    struct slice text;
    while (header_list_next(&line, &text)) {
        struct member m = split_member(text);
        const struct directive *d = find_directive(m.name);
        if (m.open) cc->present |= CC_MALFORMED | CC_NO_STORE;
        if (d) take_member(cc, d, &m);
    }
}

/* True if there is such a field at all. */
static bool read_lines(struct cache_control *cc, const struct headers *headers) {
    const struct header *first = headers_find_id(headers, HEADER_CACHE_CONTROL);
    *cc = (struct cache_control){ 0 };
    for (const struct header *h = first; h; h = headers_next(headers, h)) cache_control_read(cc, h->value);
    return first != NULL;
}

void cache_control_of_request(struct cache_control *cc, const struct headers *headers) {
    if (read_lines(cc, headers)) return;
    for (const struct header *h = headers_find_other(headers, PRAGMA); h; h = headers_next(headers, h))
        if (names_have(h->value, SLICE("no-cache"))) cc->present |= CC_NO_CACHE | CC_PRAGMA;
}

/* ---- CDN-Cache-Control */

static bool is_text(const struct sf_value *value) { return value->type == SF_STRING || value->type == SF_TOKEN; }

static bool value_names(const struct sf_value *value, struct slice field) {
    struct slice rest = value->text;
    struct sf_value item;
    if (value->type != SF_INNER_LIST) return is_text(value) && names_have(value->text, field);
    while (sf_inner_next(&rest, &item))
        if (is_text(&item) && names_have(item.text, field)) return true;
    return false;
}

static bool value_is_names(const struct sf_value *value) {
    struct slice rest = value->text;
    struct sf_value item;
    bool some = false;
    if (value->type != SF_INNER_LIST) return is_text(value) && names_are_valid(value->text);
    while (sf_inner_next(&rest, &item)) {
        if (!is_text(&item) || !names_are_valid(item.text)) return false;
        some = true;
    }
    return some;
}

/* The last of several counts (RFC 8941 4.2.2), so what was read before goes. False: the wrong type. */
static bool take_targeted(struct cache_control *cc, const struct directive *d, const struct sf_value *value) {
    bool plain = value->type == SF_BOOLEAN && d->argument != SECONDS;
    cc->present &= ~(d->bit | d->fields);
    if (plain) cc->present |= value->number ? d->bit : 0;
    else if (d->argument == SECONDS && value->type == SF_INTEGER) {
        int64_t seconds = value->number;
        cc->present |= d->bit;
        *span_of(cc, d) = seconds < 0 ? 0 : seconds > DELTA_MAX ? DELTA_MAX : (uint32_t)seconds;
    } else if (d->argument == FIELDS && (is_text(value) || value->type == SF_INNER_LIST))
        cc->present |= value_is_names(value) ? d->fields : d->bit;
    else return false;
    return true;
}

static bool read_targeted(struct cache_control *cc, const struct headers *headers) {
    struct sf_reader reader;
    struct slice key;
    struct sf_value value;
    *cc = (struct cache_control){ .present = CC_TARGETED };
    sf_begin(&reader, headers_joined(headers, CDN_CACHE_CONTROL));
    while (sf_member_next(&reader, &key, &value)) {
        const struct directive *d = find_directive(key);
        if (d && !take_targeted(cc, d, &value)) return false;
    }
    return reader.begun && !reader.failed;
}

void cache_control_of_response(struct cache_control *cc, const struct headers *headers, bool targeted) {
    if (targeted && headers_find_other(headers, CDN_CACHE_CONTROL) && read_targeted(cc, headers)) return;
    read_lines(cc, headers);
}

/* ---- which fields are named */

static bool line_names(struct slice line, struct slice field) {
    struct slice text;
    while (header_list_next(&line, &text)) {
        struct member m = split_member(text);
        const struct directive *d = find_directive(m.name);
        if (d && d->argument == FIELDS && names_have(m.value, field)) return true;
    }
    return false;
}

static bool targeted_names(const struct headers *headers, struct slice field) {
    struct sf_reader reader;
    struct slice key;
    struct sf_value value;
    sf_begin(&reader, headers_joined(headers, CDN_CACHE_CONTROL));
    while (sf_member_next(&reader, &key, &value)) {
        const struct directive *d = find_directive(key);
        if (d && d->argument == FIELDS && value_names(&value, field)) return true;
    }
    return false;
}

bool cache_control_names(const struct cache_control *told, const struct headers *headers, struct slice field) {
    if (!(told->present & (CC_NO_CACHE_FIELDS | CC_PRIVATE_FIELDS))) return false;
    if (told->present & CC_TARGETED) return targeted_names(headers, field);
    for (const struct header *h = headers_find_id(headers, HEADER_CACHE_CONTROL); h; h = headers_next(headers, h))
        if (line_names(h->value, field)) return true;
    return false;
}
