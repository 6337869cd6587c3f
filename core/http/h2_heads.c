/* Two bounds on a section. Beyond the first, the limits of the site, its fields are no longer kept, and the request is
 * answered with what is wrong. Beyond the second, a multiple of the first, the peer is told to go: by HPACK one byte
 * can stand for 4 KiB, and each of them is looked at again every time it is named. Or it stands for a field of no size,
 * which costs as much as another; so from the first bound on a field counts more than its bytes.
 *
 * A cookie may come in as many crumbs as there are cookies, so that HPACK finds them again (RFC 9113 8.2.3). They count
 * as one field, and are joined once, when all are there. */
#include "http/h2_heads.h"

#include "http/framing.h"
#include "http/grammar.h"

enum { EXCESS = 4, PSEUDO_FIELDS = 4, FIELD_BYTES = 32 /* as RFC 9113 6.5.2 counts a field */ };

static struct arena *arena_of(const struct h2_stream *s) { return s->message.request->headers.arena; }

static void fail_head(struct h2_stream *s, enum failure why) {
    if (!s->failed) s->failed = (uint8_t)why;
}

static bool is_target(struct slice text) {
    for (size_t i = 0; i < text.n; i++)
        if (!byte_is(text.p[i], BYTE_TARGET)) return false;
    return text.n > 0;
}

/* ---- field by field */

static void take_target(struct h2_stream *s, struct slice value, uint32_t most) {
    s->message.request->target.raw = value;
    if (!is_target(value)) fail_head(s, FAIL_BAD_REQUEST);
    if (value.n > most) fail_head(s, FAIL_TARGET_TOO_LONG);
}

static void take_request_pseudo(struct h2_stream *s, const struct h2_limits *limits, struct slice name,
                                struct slice value) {
    struct request *r = s->message.request;
    value = arena_copy(arena_of(s), value);
    if (slice_equal(name, SLICE(":method"))) {
        r->method_name = value;
        r->method = method_of(value);
    } else if (slice_equal(name, SLICE(":path"))) {
        take_target(s, value, limits->target);
    } else if (slice_equal(name, SLICE(":authority"))) {
        s->authority = value;
    } else if (slice_equal(name, SLICE(":scheme"))) {
        s->message.request->target.scheme = value;
    } else if (slice_equal(name, SLICE(":protocol"))) {
        s->protocol = value;
    }
}

static void take_status(struct response *r, struct slice value) {
    uint64_t status = 0;
    if (value.n == 3 && slice_to_u64(value, &status)) r->status = (int)status;
}

/* Names come in lower case; those that the house knows are written as it writes them, and need no copy. */
static void add_field(struct headers *headers, enum header_id id, struct slice name, struct slice value) {
    value = arena_copy(headers->arena, value);
    if (id != HEADER_OTHER) headers_add_id(headers, id, value);
    else headers_add_other(headers, arena_copy(headers->arena, name), value);
}

static void take_trailer(struct h2_stream *s, struct slice name, struct slice value) {
    if (header_may_trail(name)) add_field(s->trailers, header_id_of(name), name, value);
}

/* A crumb behind the first one does not count as a field. */
static void take_request_field(struct h2_stream *s, struct slice name, struct slice value) {
    struct headers *headers = &s->message.request->headers;
    enum header_id id = header_id_of(name);
    if (id == HEADER_COOKIE && headers_find_id(headers, id)) {
        s->fields--;
        s->head_bytes += FIELD_BYTES;
    }
    /* Beside :authority, Host may only say the same. */
    if (id != HEADER_HOST || !s->authority.p) add_field(headers, id, name, value);
    else if (!slice_equal_nocase(s->authority, value)) fail_head(s, FAIL_BAD_HOST);
}

static bool counts_within(struct h2_stream *s, enum h2_role role, const struct h2_limits *limits, struct slice name,
                          struct slice value) {
    s->head_bytes += (uint32_t)(name.n + value.n);
    if (s->deaf || s->failed) {
        s->head_bytes += FIELD_BYTES;
        return false;
    }
    s->fields++;
    if (s->head_bytes <= limits->head && s->fields <= limits->fields + PSEUDO_FIELDS) return true;
    fail_head(s, role == H2_SERVER ? FAIL_HEADERS_TOO_LARGE : FAIL_RESPONSE_HEADERS_TOO_LARGE);
    return false;
}

bool h2_take_field(struct h2_stream *s, enum h2_role role, const struct h2_limits *limits, struct slice name,
                   struct slice value) {
    bool pseudo = name.n && name.p[0] == ':';
    if (!counts_within(s, role, limits, name, value)) return s->head_bytes <= EXCESS * limits->head;
    if (s->body_next) take_trailer(s, name, value);
    else if (role == H2_CLIENT && pseudo) take_status(s->message.response, value);
    else if (role == H2_CLIENT) add_field(&s->message.response->headers, header_id_of(name), name, value);
    else if (pseudo) take_request_pseudo(s, limits, name, value);
    else take_request_field(s, name, value);
    return true;
}

/* ---- whole */

static void join_crumbs(struct headers *headers) {
    struct header *first = headers_find_id(headers, HEADER_COOKIE);
    size_t n = 0;
    if (!first || !headers_next(headers, first)) return;
    for (const struct header *h = first; h; h = headers_next(headers, h)) n += h->value.n + 2;
    char *text = arena_bytes(headers->arena, n), *at = text;
    for (const struct header *h = first; h; h = headers_next(headers, h)) {
        if (h->value.n) memcpy(at, h->value.p, h->value.n);
        at += h->value.n;
        *at++ = ';';
        *at++ = ' ';
    }
    headers_set_id(headers, HEADER_COOKIE, slice_make(text, n - 2));
}

/* An extended CONNECT (RFC 8441) is for everybody behind this file the upgrade it stands for. The key that HTTP/1 wants
 * proves nothing here; it is any. */
static void become_upgrade(struct h2_stream *s) {
    struct request *r = s->message.request;
    r->method = METHOD_GET;
    r->method_name = SLICE("GET");
    headers_add_id(&r->headers, HEADER_CONNECTION, SLICE("Upgrade"));
    headers_add_id(&r->headers, HEADER_UPGRADE, s->protocol);
    if (slice_equal_nocase(s->protocol, SLICE("websocket")) && !headers_find(&r->headers, SLICE("Sec-WebSocket-Key")))
        headers_add(&r->headers, SLICE("Sec-WebSocket-Key"), SLICE("bW9vbmdhdGUgaDIgd3MhIQ=="));
}

void h2_finish_request(struct h2_stream *s, bool end) {
    struct request *r = s->message.request;
    r->version = HTTP_2;
    join_crumbs(&r->headers);
    if (s->authority.p) headers_add_id(&r->headers, HEADER_HOST, s->authority);
    if (s->protocol.p) become_upgrade(s);
    else if (r->method == METHOD_CONNECT) r->target.raw = s->authority;
    enum failure why = framing_of_request(r);
    if (why != FAIL_NONE) fail_head(s, why);
    if (!end && !s->protocol.p && r->method != METHOD_CONNECT && r->framing.kind == FRAMING_NONE)
        r->framing.kind = FRAMING_CHUNKED;
}

void h2_finish_response(struct h2_stream *s, bool end) {
    struct response *r = s->message.response;
    r->version = HTTP_2;
    r->reason = status_reason(r->status);
    if (r->status < 100 || r->status > 599) fail_head(s, FAIL_BAD_RESPONSE); /* RFC 9110 15, as in h1_scan.c */
    if (framing_of_response(r, s->method) != FAIL_NONE) fail_head(s, FAIL_BAD_RESPONSE);
    if (end && r->framing.kind == FRAMING_UNTIL_CLOSE) r->framing = (struct framing){ .kind = FRAMING_NONE };
    if (r->framing.kind == FRAMING_UNTIL_CLOSE) r->framing.kind = FRAMING_CHUNKED; /* streams have ends of their own */
    r->framing.keep_alive = true;
}
