/* Header fields of a message (RFC 9110 5): in the order and the letter case they came in, repeated lines kept.
 * Names and values are slices of an arena. A field the house itself reads has an id, so
 * that finding it compares no text. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

/* HEADER(ID, "Name"): fields that some C code asks for by id. */
#define HEADERS(HEADER)                                                                                                \
    HEADER(ACCEPT_ENCODING, "Accept-Encoding")                                                                         \
    HEADER(AGE, "Age")                                                                                                 \
    HEADER(AUTHORIZATION, "Authorization")                                                                             \
    HEADER(CACHE_CONTROL, "Cache-Control")                                                                             \
    HEADER(CONNECTION, "Connection")                                                                                   \
    HEADER(CONTENT_ENCODING, "Content-Encoding")                                                                       \
    HEADER(CONTENT_LENGTH, "Content-Length")                                                                           \
    HEADER(CONTENT_RANGE, "Content-Range")                                                                             \
    HEADER(CONTENT_TYPE, "Content-Type")                                                                               \
    HEADER(COOKIE, "Cookie")                                                                                           \
    HEADER(DATE, "Date")                                                                                               \
    HEADER(ETAG, "ETag")                                                                                               \
    HEADER(EXPECT, "Expect")                                                                                           \
    HEADER(FORWARDED, "Forwarded")                                                                                     \
    HEADER(HOST, "Host")                                                                                               \
    HEADER(KEEP_ALIVE, "Keep-Alive")                                                                                   \
    HEADER(LOCATION, "Location")                                                                                       \
    HEADER(PROXY_AUTHENTICATE, "Proxy-Authenticate")                                                                   \
    HEADER(PROXY_AUTHORIZATION, "Proxy-Authorization")                                                                 \
    HEADER(PROXY_CONNECTION, "Proxy-Connection")                                                                       \
    HEADER(REFERER, "Referer")                                                                                         \
    HEADER(RETRY_AFTER, "Retry-After")                                                                                 \
    HEADER(SERVER, "Server")                                                                                           \
    HEADER(SET_COOKIE, "Set-Cookie")                                                                                   \
    HEADER(TE, "TE")                                                                                                   \
    HEADER(TRAILER, "Trailer")                                                                                         \
    HEADER(TRANSFER_ENCODING, "Transfer-Encoding")                                                                     \
    HEADER(UPGRADE, "Upgrade")                                                                                         \
    HEADER(USER_AGENT, "User-Agent")                                                                                   \
    HEADER(VIA, "Via")                                                                                                 \
    HEADER(X_FORWARDED_FOR, "X-Forwarded-For")                                                                         \
    HEADER(X_FORWARDED_HOST, "X-Forwarded-Host")                                                                       \
    HEADER(X_FORWARDED_PROTO, "X-Forwarded-Proto")                                                                     \
    HEADER(X_REQUEST_ID, "X-Request-Id")

enum header_id {
    HEADER_OTHER,
#define HEADER_ENUM(id, name) HEADER_##id,
    HEADERS(HEADER_ENUM)
#undef HEADER_ENUM
        HEADER_ID_COUNT
};

struct header {
    struct slice name, value;
    uint8_t id;   /* enum header_id */
    bool removed; /* skipped by everything; its place is kept */
    bool hop;     /* hop-by-hop, or nominated by Connection: never forwarded (framing marks it) */
};

struct headers {
    struct header *list;
    uint32_t count, room; /* of list, removed ones included */
    bool underscored;     /* a request's: some name without an id has an underscore (framing notes it) */
    struct arena *arena;
};

void headers_init(struct headers *, struct arena *);
/* Room for `n` fields in all, so that adding them does not grow the list. */
void headers_reserve(struct headers *, uint32_t n);

/* HEADER_OTHER for any name not in the table above. */
enum header_id header_id_of(struct slice name);
struct slice header_name_of(enum header_id); /* with the case of the table */
/* RFC 9110 5.6.2 token, 1 to 256 bytes. */
bool header_name_valid(struct slice name);
/* Has `other` underscores where `name` has hyphens, and else the same letters? To HTTP these are two names. Servers
 * that make variables of names (CGI, WSGI, Rack, PHP) take one for the other: an X_User would pass for the X-User that
 * policy vouches for. */
bool header_doubles(struct slice other, struct slice name);
/* RFC 9110 5.5: no CR, LF, NUL, no other control but HTAB; no white space at its ends is not demanded. */
bool header_value_valid(struct slice value);
/* May a field of that name stand behind the content (RFC 9110 6.5.1)? Of those with an id only ETag, and none that
 * tells of routing, authentication, conditions or the content; nor one that doubles such a field. */
bool header_may_trail(struct slice name);
/* A field that is the core's own (framing and connection: Content-Length, Transfer-Encoding, Connection, Upgrade, TE,
 * Trailer, Keep-Alive, Proxy-Connection): scripts may read but not set it. */
bool header_is_core(enum header_id);

/* The slices are kept, not copied: they must live in the arena or be static. */
struct header *headers_add(struct headers *, struct slice name, struct slice value);
struct header *headers_add_id(struct headers *, enum header_id, struct slice value);
struct header *headers_add_other(struct headers *, struct slice name, struct slice value); /* HEADER_OTHER, known */
/* Sets the first field of that name and removes the others, or adds it. In a request, to set or remove a field removes
 * its doubles, too (header_doubles). */
void headers_set(struct headers *, struct slice name, struct slice value);
void headers_set_id(struct headers *, enum header_id, struct slice value);
/* The same for the first field of its name, already found. */
void headers_replace(struct headers *, struct header *, struct slice value);
void headers_remove(struct headers *, struct slice name);
/* Done by setting and removing; for who adds what was not there. */
void headers_drop_doubles(struct headers *, struct slice name);
static inline void headers_remove_doubles(struct headers *headers, struct slice name) {
    if (headers->underscored) headers_drop_doubles(headers, name);
}
void headers_remove_id(struct headers *, enum header_id);

/* The first field; NULL when there is none. */
struct header *headers_find(const struct headers *, struct slice name);
struct header *headers_find_other(const struct headers *, struct slice name); /* its id is HEADER_OTHER, known */
struct header *headers_find_id(const struct headers *, enum header_id);
/* The next field of the same name after `h`. */
struct header *headers_next(const struct headers *, const struct header *h);
/* The first field's value; p NULL when there is none. */
struct slice headers_get_id(const struct headers *, enum header_id);
/* All values of that name joined with ", " (RFC 9110 5.3); Set-Cookie: the first only. p NULL: none. A single
 * value is returned as it is, a joined one lies in the arena. */
struct slice headers_joined(const struct headers *, struct slice name);
struct slice headers_joined_id(const struct headers *, enum header_id);
/* True if the comma-separated list in any field of that id has this member (case-insensitive, parameters not looked
 * at). */
bool headers_list_has(const struct headers *, enum header_id, struct slice member);
/* Visits the members of one list value: RFC 9110 5.6.1, quoted strings respected, empty members skipped, trimmed.
 * `while (list_next(&rest, &member))`. */
bool header_list_next(struct slice *rest, struct slice *member);

/* A shallow copy into another arena: the slices still point into the old one. */
void headers_copy(struct headers *to, const struct headers *from);
/* Appends "Name: value\r\n" for every field that is neither removed nor hop. */
void headers_write(const struct headers *, struct buffer *out);
/* The number of bytes that headers_write appends. */
size_t headers_written_size(const struct headers *);
/* The same into memory that has that much room; returns the place behind. */
char *headers_write_to(const struct headers *, char *at);

static inline struct header *headers_end(const struct headers *headers) {
    return headers->count ? headers->list + headers->count : headers->list;
}

#define headers_each(h, headers)                                                                                       \
    for (struct header *h = (headers)->list, *h##_end = headers_end(headers); h != h##_end; h++)                       \
        if (!h->removed)
