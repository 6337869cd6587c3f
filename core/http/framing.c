/* How long a message is, and what of it ends here. The rules are RFC 9112 6.3 read strictly: where it lets a recipient
 * repair or refuse, we refuse, because the next hop may repair otherwise. One exception: a response may repeat its
 * Content-Length if all values are the same, as RFC 9110 8.6 allows and old servers do; one is written on.
 *
 * Fields that end at this hop are marked, not removed: scripts may read them. They are: Connection and what belongs to
 * it, the upgrade (the proxy writes it afresh when it tunnels), a client's credentials for this proxy, and the body's
 * length and coding, which the proxy writes afresh for the body it really sends. Trailer is not: RFC 9110 6.6.2 lets
 * it pass, and trailers do.
 *
 * Connection may nominate further fields, and RFC 9110 7.6.1 wants those removed. But a nomination is also a way to
 * have a field read here and hidden from the backend (a policy checks Cookie, the backend never sees it;
 * X-Forwarded-For vanishes on its way in). Every field that the house knows by id is meant for the far end, or is in
 * the list above. So a nomination takes effect for all other fields, and for these it is ignored. What a script sets
 * is ours and is sent in any case (headers_set clears the mark). */
#include "http/framing.h"

#include "http/uri.h"

/* One hop has a handful of options to say; each is looked for among all fields, so their number is bounded. */
enum { NOMINATIONS_MAX = 32 };

/* What one walk over the fields finds. Pointers are to the first of a kind. */
struct findings {
    struct header *length, *coding, *host, *expect, *connection, *upgrade;
    bool length_repeated, coding_repeated, host_repeated;
};

static void note_first(struct header **first, bool *repeated, struct header *h) {
    if (*first) *repeated = true;
    else *first = h;
}

/* Marks what always ends at this hop, and notes what the rest of this file asks about. */
static void find_fields(struct headers *headers, struct findings *found, bool is_request) {
    bool ignored;
    headers_each(h, headers) {
        switch ((enum header_id)h->id) {
        case HEADER_CONTENT_LENGTH: note_first(&found->length, &found->length_repeated, h); break;
        case HEADER_TRANSFER_ENCODING: note_first(&found->coding, &found->coding_repeated, h); break;
        case HEADER_HOST: note_first(&found->host, &found->host_repeated, h); continue;
        case HEADER_EXPECT: note_first(&found->expect, &ignored, h); continue;
        case HEADER_CONNECTION: note_first(&found->connection, &ignored, h); break;
        case HEADER_UPGRADE: note_first(&found->upgrade, &ignored, h); break;
        case HEADER_KEEP_ALIVE:
        case HEADER_PROXY_CONNECTION:
        case HEADER_TE: break;
        case HEADER_PROXY_AUTHORIZATION:
            if (!is_request) continue;
            break;
        case HEADER_OTHER:
            if (is_request && memchr(h->name.p, '_', h->name.n)) headers->underscored = true;
            continue;
        default: continue;
        }
        h->hop = true;
    }
}

/* Content_Length and its like: some servers would take them for the core's own (header_doubles). */
static void mark_doubles(struct headers *headers) {
    static const enum header_id own[] = { HEADER_CONTENT_LENGTH, HEADER_TRANSFER_ENCODING, HEADER_KEEP_ALIVE,
                                          HEADER_PROXY_CONNECTION };
    headers_each(h, headers) {
        for (size_t i = 0; h->id == HEADER_OTHER && i < sizeof own / sizeof *own; i++)
            h->hop |= header_doubles(h->name, header_name_of(own[i]));
    }
}

/* ---- Connection */

struct options {
    bool close, keep_alive, upgrade;
    int count;
};

static void mark_nominated(struct headers *headers, struct slice name) {
    if (header_id_of(name) != HEADER_OTHER) return;
    for (struct header *h = headers_find(headers, name); h; h = headers_next(headers, h)) h->hop = true;
}

static void take_option(struct headers *headers, struct options *options, struct slice option) {
    if (slice_equal_nocase(option, SLICE("close"))) options->close = true;
    else if (slice_equal_nocase(option, SLICE("keep-alive"))) options->keep_alive = true;
    else if (slice_equal_nocase(option, SLICE("upgrade"))) options->upgrade = true;
    else mark_nominated(headers, option);
}

/* False if there are too many. */
static bool read_options(struct headers *headers, const struct header *first, struct options *options) {
    for (const struct header *h = first; h; h = headers_next(headers, h)) {
        struct slice rest = h->value, option;
        while (header_list_next(&rest, &option)) {
            if (++options->count > NOMINATIONS_MAX) return false;
            take_option(headers, options, option);
        }
    }
    return true;
}

static bool keeps_alive(uint8_t version, const struct options *options) {
    if (options->close) return false;
    return version >= HTTP_1_1 || options->keep_alive;
}

bool framing_idle_timeout(const struct headers *headers, uint64_t *seconds) {
    for (const struct header *h = headers_find_id(headers, HEADER_KEEP_ALIVE); h; h = headers_next(headers, h)) {
        struct slice rest = h->value, value;
        while (header_list_next(&rest, &value)) {
            struct slice name = slice_trim(slice_cut(&value, '='));
            if (value.p && slice_equal_nocase(name, SLICE("timeout"))) return slice_to_u64(slice_trim(value), seconds);
        }
    }
    return false;
}

/* ---- upgrades */

/* A tunnel in which HTTP goes on would pass by every policy ("h2c smuggling"), and RFC 9113 has withdrawn the upgrade
 * to h2c: one that offers HTTP is as if it had not been asked for. */
static bool offers_http(struct slice value) {
    struct slice protocol;
    while (header_list_next(&value, &protocol)) {
        struct slice name = slice_cut(&protocol, '/');
        if (slice_equal_nocase(name, SLICE("h2c")) || slice_equal_nocase(name, SLICE("h2")) ||
            slice_equal_nocase(name, SLICE("HTTP")))
            return true;
    }
    return false;
}

static bool names_nothing(struct slice value) {
    struct slice protocol;
    return !header_list_next(&value, &protocol);
}

struct slice framing_upgrade(const struct headers *headers) {
    struct slice none = { NULL, 0 };
    struct slice value = headers_joined_id(headers, HEADER_UPGRADE);
    if (!value.p || value.n > UPGRADE_MAX || names_nothing(value) || offers_http(value)) return none;
    return headers_list_has(headers, HEADER_CONNECTION, SLICE("upgrade")) ? value : none;
}

/* ---- lengths */

/* Above this, sums of lengths could overflow; nobody sends it in earnest. */
static const uint64_t length_max = INT64_MAX;

static bool read_length(struct slice value, uint64_t *length) {
    uint64_t n;
    if (!slice_to_u64(value, &n) || n > length_max) return false;
    *length = n;
    return true;
}

static bool is_chunked(const struct findings *found) {
    return !found->coding_repeated && slice_equal_nocase(found->coding->value, SLICE("chunked"));
}

/* Behind chunked nothing may follow (RFC 9112 6.3), nor chunked again (6.1): nobody could tell where such a message
 * ends. What else is in the list is a coding that we do not know. */
static enum failure refuse_coding(const struct headers *headers, const struct header *first) {
    bool chunked = false;
    for (const struct header *h = first; h; h = headers_next(headers, h)) {
        struct slice rest = h->value, coding;
        while (header_list_next(&rest, &coding)) {
            if (chunked) return FAIL_BAD_FRAMING;
            chunked = slice_equal_nocase(coding, SLICE("chunked"));
        }
    }
    return FAIL_BAD_CODING;
}

static enum failure frame_request(struct request *request, const struct findings *found) {
    struct framing *framing = &request->framing;
    if (found->coding && (found->length || request->version < HTTP_1_1)) return FAIL_BAD_FRAMING;
    if (found->coding) {
        framing->kind = FRAMING_CHUNKED;
        return is_chunked(found) ? FAIL_NONE : refuse_coding(&request->headers, found->coding);
    }
    if (!found->length) return FAIL_NONE;
    if (found->length_repeated || !read_length(found->length->value, &framing->length)) return FAIL_BAD_FRAMING;
    framing->kind = FRAMING_LENGTH;
    return FAIL_NONE;
}

/* A CONNECT has no content (RFC 9110 9.3.6): what followed would be the tunnel's for one reader and a body for
 * another. */
static enum failure frame_connect(struct request *request) {
    struct framing *framing = &request->framing;
    if (framing->kind == FRAMING_CHUNKED || framing->length) return FAIL_BAD_FRAMING;
    framing->kind = FRAMING_NONE;
    return FAIL_NONE;
}

/* ---- requests */

static enum failure check_host(const struct request *request, const struct findings *found) {
    if (!found->host) return request->version >= HTTP_1_1 ? FAIL_BAD_HOST : FAIL_NONE;
    return found->host_repeated || !authority_valid(found->host->value) ? FAIL_BAD_HOST : FAIL_NONE;
}

/* HTTP/1.0 has no Expect, and without a body there is nothing to wait for (RFC 9110 10.1.1). */
static enum failure check_expect(struct request *request, const struct findings *found) {
    const struct headers *headers = &request->headers;
    struct framing *framing = &request->framing;
    bool has_body = framing->kind == FRAMING_CHUNKED || framing->length;
    if (request->version < HTTP_1_1) return FAIL_NONE;
    for (const struct header *h = found->expect; h; h = headers_next(headers, h)) {
        struct slice rest = h->value, expectation;
        while (header_list_next(&rest, &expectation)) {
            if (!slice_equal_nocase(expectation, SLICE("100-continue"))) return FAIL_EXPECTATION;
            framing->expect_continue = has_body;
        }
    }
    return FAIL_NONE;
}

enum failure framing_of_request(struct request *request) {
    struct findings found = { 0 };
    struct options options = { 0 };
    enum failure failed;
    request->framing = (struct framing){ .kind = FRAMING_NONE };
    find_fields(&request->headers, &found, true);
    if (request->headers.underscored) mark_doubles(&request->headers);
    if (!read_options(&request->headers, found.connection, &options)) return FAIL_BAD_REQUEST;
    if ((failed = frame_request(request, &found))) return failed;
    if (request->method == METHOD_CONNECT && (failed = frame_connect(request))) return failed;
    if ((failed = check_host(request, &found))) return failed;
    if ((failed = check_expect(request, &found))) return failed;
    request->framing.keep_alive = keeps_alive(request->version, &options);
    request->framing.upgrade = options.upgrade && request->version >= HTTP_1_1 && framing_upgrade(&request->headers).p;
    return FAIL_NONE;
}

/* ---- responses */

/* The same value however often, in one line or in several. */
static bool read_lengths(const struct headers *headers, const struct header *first, uint64_t *length) {
    bool any = false;
    for (const struct header *h = first; h; h = headers_next(headers, h)) {
        struct slice rest = h->value;
        while (rest.p) {
            uint64_t n;
            if (!read_length(slice_trim(slice_cut(&rest, ',')), &n) || (any && n != *length)) return false;
            *length = n;
            any = true;
        }
    }
    return any;
}

static bool frame_response(struct response *response, const struct findings *found) {
    struct framing *framing = &response->framing;
    if (found->coding) {
        framing->kind = FRAMING_CHUNKED;
        return !found->length && response->version >= HTTP_1_1 && is_chunked(found);
    }
    if (found->length) {
        framing->kind = FRAMING_LENGTH;
        return read_lengths(&response->headers, found->length, &framing->length);
    }
    framing->kind = FRAMING_UNTIL_CLOSE;
    return true;
}

/* In the answer to a HEAD and in a 304 Content-Length tells of a body that is not there (RFC 9110 8.6). It frames
 * nothing, so it is sent on, if it is clean. */
static void keep_described_length(struct response *response, enum method method, const struct findings *found) {
    uint64_t length;
    bool describes =
        response->status == 304 || (method == METHOD_HEAD && response->status >= 200 && response->status != 204);
    if (!describes || !found->length || found->length_repeated || found->coding) return;
    if (read_length(found->length->value, &length)) found->length->hop = false;
}

void framing_settle(struct response *response, enum method method) {
    struct header *length = headers_find_id(&response->headers, HEADER_CONTENT_LENGTH);
    if (length && (response_has_body(method, response->status) || response->status == 204)) length->hop = true;
}

enum failure framing_of_response(struct response *response, enum method method) {
    struct findings found = { 0 };
    struct options options = { 0 };
    struct framing *framing = &response->framing;
    *framing = (struct framing){ .kind = FRAMING_NONE };
    find_fields(&response->headers, &found, false);
    if (!read_options(&response->headers, found.connection, &options)) return FAIL_BAD_RESPONSE;
    if (!response_has_body(method, response->status) || response_opens_tunnel(method, response->status))
        keep_described_length(response, method, &found);
    else if (!frame_response(response, &found)) return FAIL_BAD_RESPONSE;

    framing->keep_alive = keeps_alive(response->version, &options) && framing->kind != FRAMING_UNTIL_CLOSE;
    framing->upgrade = response->status == 101 && framing_upgrade(&response->headers).p;
    return response->status == 101 && !framing->upgrade ? FAIL_BAD_RESPONSE : FAIL_NONE;
}
