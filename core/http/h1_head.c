/* Heads: our scan finds the end and refuses what is not clean, http-parser then reads what has a grammar of its own:
 * the start line, and the fields that frame a message.
 *
 * Of any other field it could only tell where name and value end, and it takes a step of its machine for each byte to
 * find out: fed whole heads, it was a third of all that a plain request costs outside of the kernel. The scan has let
 * nothing pass but lines in which a name ends at the first colon and a value at the CR, so they are split there; lines
 * split otherwise than the scan counted them are refused.
 *
 * What http-parser thinks of the message's length, its connection and its upgrade is not asked (framing.c decides
 * that), only whether it would refuse it, and it never sees a body. Methods: it knows a fixed set and refuses others,
 * so it is fed "PUT" in place of whatever stands there; only CONNECT is fed as it is, since its target has a form of
 * its own. A head on whose target the two readings differ is refused. */
#include "http/h1.h"

#include "http/h1_scan.h"

#include <http_parser.h>

#include <pthread.h>

/* The empty lines before a request line that some old clients send (RFC 9112 2.2). */
enum { EMPTY_LINES_MAX = 4 };
/* Room for the fields that the proxy and its scripts add. */
enum { FIELDS_ADDED = 6 };

struct reading {
    struct slice target, reason;
    bool complete;
};

/* ---- http-parser's callbacks. Each comes once, since a line is fed whole. */

static struct reading *reading_of(const http_parser *parser) { return parser->data; }

static int reading_on_url(http_parser *parser, const char *at, size_t n) {
    reading_of(parser)->target = slice_make(at, n);
    return 0;
}

static int reading_on_status(http_parser *parser, const char *at, size_t n) {
    reading_of(parser)->reason = slice_make(at, n);
    return 0;
}

static int reading_on_headers_complete(http_parser *parser) {
    reading_of(parser)->complete = true;
    return 2; /* no body, and nothing of the next message */
}

static const http_parser_settings settings = {
    .on_url = reading_on_url,
    .on_status = reading_on_status,
    .on_headers_complete = reading_on_headers_complete,
};

/* Its own limit of 80 KiB is in our way: ours is the site's. */
static void lift_limit(void) { http_parser_set_max_header_size(UINT32_MAX); }

static void prepare_parser(http_parser *parser, enum http_parser_type type, struct reading *reading) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, lift_limit);
    http_parser_init(parser, type);
    parser->data = reading;
}

static bool feed(http_parser *parser, struct slice bytes) {
    return http_parser_execute(parser, &settings, bytes.p, bytes.n) == bytes.n;
}

static bool is_list(struct slice value) { return value.n && memchr(value.p, ',', value.n); }

/* But for a list of lengths, which it refuses: framing.c knows where there may be one (RFC 9110 8.6). */
static bool frames(const struct header *h) {
    return (h->id == HEADER_CONTENT_LENGTH && !is_list(h->value)) || h->id == HEADER_TRANSFER_ENCODING;
}

/* It refuses a second Content-Length, and one beside Transfer-Encoding, with words of its own: we make it forget that
 * it saw one, and framing.c judges. */
static bool feed_framing(http_parser *parser, struct slice line) {
    bool taken = feed(parser, line);
    parser->flags &= ~(unsigned)F_CONTENTLENGTH;
    return taken;
}

/* The field lines of a clean head and the empty line behind them. */
static bool read_fields(http_parser *parser, struct slice lines, struct headers *headers) {
    const char *at = lines.p;
    struct slice name, value;
    while (h1_cut_field(&lines, &name, &value)) {
        const struct header *h = headers_add(headers, name, value);
        if (frames(h) && !feed_framing(parser, slice_make(at, (size_t)(lines.p - at)))) return false;
        at = lines.p;
    }
    return feed(parser, lines);
}

/* Both readings of it, the start line's first. */
static bool read_head(http_parser *parser, struct slice start, struct slice lines, uint32_t fields,
                      struct headers *headers) {
    headers_reserve(headers, fields + FIELDS_ADDED);
    if (!feed(parser, start) || !read_fields(parser, lines, headers)) return false;
    return reading_of(parser)->complete && headers->count == fields;
}

/* The first line with its end; `head` stands behind it. */
static struct slice cut_line(struct slice *head) {
    struct slice line = slice_cut(head, '\n');
    return slice_make(line.p, line.n + 1);
}

static enum failure why_refused(const http_parser *parser) {
    switch (HTTP_PARSER_ERRNO(parser)) {
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
    case HPE_INVALID_TRANSFER_ENCODING: return FAIL_BAD_FRAMING;
    default: return FAIL_BAD_REQUEST;
    }
}

/* ---- finding the end */

typedef enum h1_result (*scan_function)(struct h1_scan *, const char *, uint32_t, const struct h1_limits *,
                                        enum failure *);

static uint32_t at_most(size_t n, uint32_t limit) { return n < limit ? (uint32_t)n : limit; }

static enum h1_result fail(enum failure *why, enum failure what) {
    *why = what;
    return H1_FAILED;
}

/* Usually the head lies in one piece at the front; if not, it is gathered. */
static enum h1_result scan_head(struct h1_scan *scan, struct buffer *in, const struct h1_limits *limits,
                                scan_function scan_bytes, enum failure *why) {
    struct slice run = buffer_front(in);
    uint32_t n = at_most(run.n, limits->head);
    enum h1_result result = n > scan->seen ? scan_bytes(scan, run.p, n, limits, why) : H1_MORE;
    if (result == H1_MORE && n < limits->head && run.n < in->size) {
        n = at_most(in->size, limits->head);
        run = buffer_gather(in, n);
        result = scan_bytes(scan, run.p, n, limits, why);
    }
    if (result != H1_MORE || n < limits->head) return result;
    return fail(why, scan->state < SCAN_FIELD ? FAIL_TARGET_TOO_LONG : FAIL_HEADERS_TOO_LARGE);
}

static struct slice take_head(struct h1_scan *scan, struct buffer *in, struct arena *arena) {
    struct slice head = arena_copy(arena, buffer_gather(in, scan->seen));
    buffer_drop(in, head.n);
    return head;
}

/* ---- requests */

static enum h1_result skip_empty_lines(struct h1_scan *scan, struct buffer *in, enum failure *why) {
    while (in->size && *buffer_front(in).p == '\r') {
        char line[2];
        if (in->size < sizeof line) return H1_MORE;
        buffer_peek(in, line, sizeof line);
        if (line[1] != '\n' || scan->lines == EMPTY_LINES_MAX) return fail(why, FAIL_BAD_REQUEST);
        scan->lines++;
        buffer_drop(in, sizeof line);
    }
    if (!in->size) return H1_MORE;
    scan->started = true;
    scan->lines = 0;
    return H1_DONE;
}

static enum failure read_request(struct slice head, uint32_t fields, struct arena *arena, struct request *request) {
    struct slice lines = head, start = cut_line(&lines), rest = start, method = slice_cut(&rest, ' ');
    struct reading reading = { .complete = false };
    http_parser parser;
    headers_init(&request->headers, arena);
    headers_init(&request->trailers, arena);
    prepare_parser(&parser, HTTP_REQUEST, &reading);
    request->method_name = method;
    request->method = method_of(method);

    bool stands_in = request->method != METHOD_CONNECT;
    if (stands_in && !feed(&parser, SLICE("PUT"))) return why_refused(&parser);
    if (!read_head(&parser, stands_in ? slice_skip(start, method.n) : start, lines, fields, &request->headers))
        return why_refused(&parser);
    if (reading.target.p != rest.p) return FAIL_BAD_REQUEST;
    request->version = parser.http_minor ? HTTP_1_1 : HTTP_1_0;
    request->target = (struct target){ .raw = reading.target };
    request->framing = (struct framing){ 0 };
    return FAIL_NONE;
}

enum h1_result h1_read_request(struct h1_scan *scan, struct buffer *in, const struct h1_limits *limits,
                               struct arena *arena, struct request *request, enum failure *why) {
    enum h1_result result = scan->started ? H1_DONE : skip_empty_lines(scan, in, why);
    if (result == H1_DONE) result = scan_head(scan, in, limits, h1_scan_request, why);
    if (result != H1_DONE) return result;
    struct slice head = take_head(scan, in, arena);
    *why = read_request(head, scan->lines, arena, request);
    return *why ? H1_FAILED : H1_DONE;
}

/* ---- responses */

static bool read_response(struct slice head, uint32_t fields, struct arena *arena, struct response *response) {
    struct slice lines = head, start = cut_line(&lines);
    struct reading reading = { .reason = SLICE("") };
    http_parser parser;
    headers_init(&response->headers, arena);
    headers_init(&response->trailers, arena);
    prepare_parser(&parser, HTTP_RESPONSE, &reading);

    if (!read_head(&parser, start, lines, fields, &response->headers)) return false;
    response->status = parser.status_code;
    response->version = parser.http_minor ? HTTP_1_1 : HTTP_1_0;
    response->reason = reading.reason;
    response->framing = (struct framing){ 0 };
    return true;
}

enum h1_result h1_read_response(struct h1_scan *scan, struct buffer *in, const struct h1_limits *limits,
                                struct arena *arena, struct response *response, enum failure *why) {
    if (in->size) scan->started = true;
    enum h1_result result = scan_head(scan, in, limits, h1_scan_response, why);
    if (result == H1_FAILED) {
        bool large = *why == FAIL_HEADERS_TOO_LARGE || *why == FAIL_TARGET_TOO_LONG;
        return fail(why, large ? FAIL_RESPONSE_HEADERS_TOO_LARGE : FAIL_BAD_RESPONSE);
    }
    if (result != H1_DONE) return result;
    struct slice head = take_head(scan, in, arena);
    return read_response(head, scan->lines, arena, response) ? H1_DONE : fail(why, FAIL_BAD_RESPONSE);
}
