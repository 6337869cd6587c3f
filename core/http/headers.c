/* Header fields: an array in the order of arrival. Messages have some ten fields, so a scan over an array that
 * compares one byte per field beats any index that would have to be built per message. Names in the table of the
 * header get their id when they are added; others are compared as text, and only with others.
 *
 * Removing marks the place and keeps it: pointers that callers hold stay right, and order needs no moving. */
#include "http/headers.h"

#include "base/must.h"
#include "http/grammar.h"

enum { ROOM_FIRST = 16, NAME_MAX_BYTES = 256 };

/* ---- names */

enum { KNOWN_BYTES = 24 };

struct known_name {
    struct slice name;
    char text[KNOWN_BYTES]; /* the same with zeros behind, to be compared by words */
};

static const struct known_name known_names[HEADER_ID_COUNT] = { [HEADER_OTHER] = { { "", 0 }, "" },
#define HEADER_ROW(id, text) [HEADER_##id] = { { text, sizeof(text) - 1 }, text },
                                                                HEADERS(HEADER_ROW)
#undef HEADER_ROW
};

/* At most this many names of the table have one length; the spec adds up. */
enum { SAME_LENGTH = 6, LENGTH_MAX = 19 };

static const uint8_t ids_by_length[LENGTH_MAX + 1][SAME_LENGTH] = {
    [2] = { HEADER_TE },
    [3] = { HEADER_VIA, HEADER_AGE },
    [4] = { HEADER_HOST, HEADER_DATE, HEADER_ETAG },
    [6] = { HEADER_COOKIE, HEADER_SERVER, HEADER_EXPECT },
    [7] = { HEADER_REFERER, HEADER_UPGRADE, HEADER_TRAILER },
    [8] = { HEADER_LOCATION },
    [9] = { HEADER_FORWARDED },
    [10] = { HEADER_CONNECTION, HEADER_USER_AGENT, HEADER_SET_COOKIE, HEADER_KEEP_ALIVE },
    [11] = { HEADER_RETRY_AFTER },
    [12] = { HEADER_CONTENT_TYPE, HEADER_X_REQUEST_ID },
    [13] = { HEADER_CACHE_CONTROL, HEADER_AUTHORIZATION, HEADER_CONTENT_RANGE },
    [14] = { HEADER_CONTENT_LENGTH },
    [15] = { HEADER_ACCEPT_ENCODING, HEADER_X_FORWARDED_FOR },
    [16] = { HEADER_CONTENT_ENCODING, HEADER_X_FORWARDED_HOST, HEADER_PROXY_CONNECTION },
    [17] = { HEADER_TRANSFER_ENCODING, HEADER_X_FORWARDED_PROTO },
    [18] = { HEADER_PROXY_AUTHENTICATE },
    [19] = { HEADER_PROXY_AUTHORIZATION },
};

static uint64_t load_word(const char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* The `n` bytes, 1 to 7, and zeros behind. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
static uint64_t load_half(const char *p) {
    uint32_t half;
    memcpy(&half, p, sizeof half);
    return half;
}

static uint64_t load_byte(const char *p) { return (unsigned char)*p; }

/* Two halves that overlap, or three bytes that do. */
static uint64_t load_short(const char *p, size_t n) {
    if (n >= 4) return load_half(p) | load_half(p + n - 4) << 8 * (n - 4);
    return load_byte(p) | load_byte(p + n / 2) << 8 * (n / 2) | load_byte(p + n - 1) << 8 * (n - 1);
}
#else
static uint64_t load_short(const char *p, size_t n) {
    uint64_t word = 0;
    memcpy(&word, p, n);
    return word;
}
#endif

/* Both words without the case of letters. Names of the table are letters and "-" only, and a letter is where bit
 * 0x40 is set: there, and only there, the bit that makes lower case is ignored. */
static bool same_word(uint64_t known, uint64_t word) {
    uint64_t case_bits = (known & 0x4040404040404040u) >> 1;
    return (known | case_bits) == (word | case_bits);
}

static bool same_name(const char *known, const char *name, size_t n) {
    if (n < 8) return same_word(load_word(known), load_short(name, n));
    if (!same_word(load_word(known), load_word(name))) return false;
    if (n > 16 && !same_word(load_word(known + 8), load_word(name + 8))) return false;
    return same_word(load_word(known + n - 8), load_word(name + n - 8));
}

enum header_id header_id_of(struct slice name) {
    if (name.n > LENGTH_MAX || name.n == 0) return HEADER_OTHER;
    const uint8_t *ids = ids_by_length[name.n];
    for (int i = 0; i < SAME_LENGTH && ids[i]; i++)
        if (same_name(known_names[ids[i]].text, name.p, name.n)) return ids[i];
    return HEADER_OTHER;
}

struct slice header_name_of(enum header_id id) {
    return known_names[id].name;
}

bool header_name_valid(struct slice name) {
    if (name.n == 0 || name.n > NAME_MAX_BYTES) return false;
    for (size_t i = 0; i < name.n; i++)
        if (!byte_is(name.p[i], BYTE_TOKEN)) return false;
    return true;
}

bool header_value_valid(struct slice value) {
    for (size_t i = 0; i < value.n; i++)
        if (!byte_is(value.p[i], BYTE_VALUE)) return false;
    return true;
}

static bool name_is_one_of(struct slice name, const char *const *names) {
    for (; *names; names++)
        if (slice_equal_nocase(name, slice_of(*names))) return true;
    return false;
}

static bool name_starts_with(struct slice name, struct slice prefix) {
    return name.n >= prefix.n && slice_equal_nocase(slice_make(name.p, prefix.n), prefix);
}

static bool may_trail(struct slice name) {
    static const char *const forbidden[] = { "Cookie2",          "Expires", "HTTP2-Settings",
                                             "Max-Forwards",     "Pragma",  "Range",
                                             "Set-Cookie2",      "Vary",    "Warning",
                                             "WWW-Authenticate", NULL };
    enum header_id id = header_id_of(name);
    if (id != HEADER_OTHER) return id == HEADER_ETAG;
    return !name_starts_with(name, SLICE("Content-")) && !name_starts_with(name, SLICE("If-")) &&
           !name_starts_with(name, SLICE("Proxy-")) && !name_starts_with(name, SLICE("Sec-")) &&
           !name_starts_with(name, SLICE("X-Forwarded-")) && !name_is_one_of(name, forbidden);
}

/* Judged by what it doubles. What is cut off is longer than any of those names. */
bool header_may_trail(struct slice name) {
    char text[64];
    size_t n = name.n < sizeof text ? name.n : sizeof text;
    for (size_t i = 0; i < n; i++) text[i] = name.p[i] == '_' ? '-' : name.p[i];
    return may_trail(slice_make(text, n));
}

bool header_is_core(enum header_id id) {
    switch (id) {
    case HEADER_CONTENT_LENGTH:
    case HEADER_TRANSFER_ENCODING:
    case HEADER_CONNECTION:
    case HEADER_UPGRADE:
    case HEADER_TE:
    case HEADER_TRAILER:
    case HEADER_KEEP_ALIVE:
    case HEADER_PROXY_CONNECTION: return true;
    default: return false;
    }
}

/* ---- the list */

void headers_init(struct headers *headers, struct arena *arena) { *headers = (struct headers){ .arena = arena }; }

void headers_reserve(struct headers *headers, uint32_t n) {
    if (n <= headers->room) return;
    headers->list =
        arena_grow(headers->arena, headers->list, headers->room * sizeof *headers->list, n * sizeof *headers->list);
    headers->room = n;
}

static struct header *add_field(struct headers *headers, enum header_id id, struct slice name, struct slice value) {
    if (headers->count == headers->room) headers_reserve(headers, headers->room ? headers->room * 2 : ROOM_FIRST);
    struct header *h = &headers->list[headers->count++];
    *h = (struct header){ .name = name, .value = value, .id = (uint8_t)id };
    return h;
}

struct header *headers_add(struct headers *headers, struct slice name, struct slice value) {
    return add_field(headers, header_id_of(name), name, value);
}

struct header *headers_add_id(struct headers *headers, enum header_id id, struct slice value) {
    return add_field(headers, id, header_name_of(id), value);
}

struct header *headers_add_other(struct headers *headers, struct slice name, struct slice value) {
    return add_field(headers, HEADER_OTHER, name, value);
}

static struct header *search_id_from(const struct headers *headers, uint32_t i, enum header_id id) {
    for (; i < headers->count; i++)
        if (headers->list[i].id == id && !headers->list[i].removed) return &headers->list[i];
    return NULL;
}

static struct header *search_text_from(const struct headers *headers, uint32_t i, struct slice name) {
    for (; i < headers->count; i++) {
        struct header *h = &headers->list[i];
        if (h->id == HEADER_OTHER && !h->removed && slice_equal_nocase(h->name, name)) return h;
    }
    return NULL;
}

/* A search is for an id, or for a name that has none. */
static struct header *search_from(const struct headers *headers, uint32_t i, enum header_id id, struct slice name) {
    return id != HEADER_OTHER ? search_id_from(headers, i, id) : search_text_from(headers, i, name);
}

static void remove_from(struct headers *headers, uint32_t i, enum header_id id, struct slice name) {
    struct header *h;
    while ((h = search_from(headers, i, id, name))) {
        h->removed = true;
        i = (uint32_t)(h - headers->list) + 1;
    }
}

bool header_doubles(struct slice other, struct slice name) {
    if (other.n != name.n) return false;
    bool differ = false;
    for (size_t i = 0; i < name.n; i++) {
        if (other.p[i] == '_' && name.p[i] == '-') differ = true;
        else if (!slice_equal_nocase(slice_make(other.p + i, 1), slice_make(name.p + i, 1))) return false;
    }
    return differ;
}

void headers_drop_doubles(struct headers *headers, struct slice name) {
    headers_each(h, headers) if (h->id == HEADER_OTHER && header_doubles(h->name, name)) h->removed = true;
}

/* A value that is set is ours, whatever the peer said of the field it replaces: it is no longer hop-by-hop. Else a
 * client could make a field that a script sets for the backend vanish, by nominating it in Connection. */
void headers_replace(struct headers *headers, struct header *h, struct slice value) {
    h->value = value;
    h->hop = false;
    remove_from(headers, (uint32_t)(h - headers->list) + 1, (enum header_id)h->id, h->name);
    headers_remove_doubles(headers, h->name);
}

static void set_field(struct headers *headers, enum header_id id, struct slice name, struct slice value) {
    struct header *h = search_from(headers, 0, id, name);
    if (h) {
        headers_replace(headers, h, value);
        return;
    }
    headers_remove_doubles(headers, name);
    add_field(headers, id, name, value);
}

void headers_set(struct headers *headers, struct slice name, struct slice value) {
    set_field(headers, header_id_of(name), name, value);
}

void headers_set_id(struct headers *headers, enum header_id id, struct slice value) {
    set_field(headers, id, header_name_of(id), value);
}

static void remove_field(struct headers *headers, enum header_id id, struct slice name) {
    remove_from(headers, 0, id, name);
    headers_remove_doubles(headers, name);
}

void headers_remove(struct headers *headers, struct slice name) { remove_field(headers, header_id_of(name), name); }

void headers_remove_id(struct headers *headers, enum header_id id) { remove_field(headers, id, header_name_of(id)); }

struct header *headers_find(const struct headers *headers, struct slice name) {
    return search_from(headers, 0, header_id_of(name), name);
}

struct header *headers_find_other(const struct headers *headers, struct slice name) {
    return search_text_from(headers, 0, name);
}

struct header *headers_find_id(const struct headers *headers, enum header_id id) {
    return search_id_from(headers, 0, id);
}

struct header *headers_next(const struct headers *headers, const struct header *h) {
    return search_from(headers, (uint32_t)(h - headers->list) + 1, (enum header_id)h->id, h->name);
}

struct slice headers_get_id(const struct headers *headers, enum header_id id) {
    const struct header *h = headers_find_id(headers, id);
    return h ? h->value : (struct slice){ NULL, 0 };
}

/* ---- values */

/* Cookies are joined with "; ": the comma would become part of a cookie (RFC 6265 5.4, RFC 9113 8.2.3). */
static struct slice join_from(const struct headers *headers, const struct header *first) {
    struct slice by = first->id == HEADER_COOKIE ? SLICE("; ") : SLICE(", ");
    size_t n = first->value.n;
    for (const struct header *h = headers_next(headers, first); h; h = headers_next(headers, h)) n += by.n + h->value.n;

    char *p = arena_bytes(headers->arena, n), *at = p;
    for (const struct header *h = first; h; h = headers_next(headers, h)) {
        if (h != first) at = (char *)memcpy(at, by.p, by.n) + by.n;
        if (h->value.n) memcpy(at, h->value.p, h->value.n);
        at += h->value.n;
    }
    return slice_make(p, n);
}

static struct slice joined(const struct headers *headers, const struct header *first) {
    if (!first) return (struct slice){ NULL, 0 };
    if (first->id == HEADER_SET_COOKIE || !headers_next(headers, first)) return first->value;
    return join_from(headers, first);
}

struct slice headers_joined(const struct headers *headers, struct slice name) {
    return joined(headers, headers_find(headers, name));
}

struct slice headers_joined_id(const struct headers *headers, enum header_id id) {
    return joined(headers, headers_find_id(headers, id));
}

/* Where the member that begins at `p` ends: at a comma outside quotes, or at `end`. */
static const char *member_end(const char *p, const char *end) {
    bool quoted = false;
    for (; p < end; p++) {
        if (*p == '"') quoted = !quoted;
        else if (quoted && *p == '\\' && p + 1 < end) p++;
        else if (!quoted && *p == ',') break;
    }
    return p;
}

bool header_list_next(struct slice *rest, struct slice *member) {
    while (rest->p && rest->n) {
        const char *end = rest->p + rest->n;
        const char *stop = member_end(rest->p, end);
        *member = slice_trim(slice_make(rest->p, (size_t)(stop - rest->p)));
        *rest = stop < end ? slice_make(stop + 1, (size_t)(end - stop - 1)) : slice_make(end, 0);
        if (member->n) return true;
    }
    return false;
}

bool headers_list_has(const struct headers *headers, enum header_id id, struct slice wanted) {
    for (const struct header *h = headers_find_id(headers, id); h; h = headers_next(headers, h)) {
        struct slice rest = h->value, member;
        while (header_list_next(&rest, &member)) {
            if (slice_equal_nocase(member, wanted)) return true;
            struct slice parameters = member;
            if (slice_equal_nocase(slice_trim(slice_cut(&parameters, ';')), wanted)) return true;
        }
    }
    return false;
}

void headers_copy(struct headers *to, const struct headers *from) {
    headers_reserve(to, to->count + from->count);
    headers_each(h, from) to->list[to->count++] = *h;
    to->underscored |= from->underscored;
}

/* ---- writing */

static bool is_written(const struct header *h) { return !h->removed && !h->hop; }

size_t headers_written_size(const struct headers *headers) {
    size_t n = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *h = &headers->list[i];
        if (is_written(h)) n += h->name.n + h->value.n + 4;
    }
    return n;
}

char *headers_write_to(const struct headers *headers, char *at) {
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *h = &headers->list[i];
        if (!is_written(h)) continue;
        memcpy(at, h->name.p, h->name.n);
        at += h->name.n;
        *at++ = ':';
        *at++ = ' ';
        if (h->value.n) memcpy(at, h->value.p, h->value.n);
        at += h->value.n;
        *at++ = '\r';
        *at++ = '\n';
    }
    return at;
}

void headers_write(const struct headers *headers, struct buffer *out) {
    size_t n = headers_written_size(headers);
    if (n == 0) return;
    headers_write_to(headers, buffer_room(out, n));
    buffer_commit(out, n);
}
