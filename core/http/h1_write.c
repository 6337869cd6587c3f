/* What is sent: made afresh from the parsed message, never a copy of what came. The size of a head is known before it
 * is written, so it goes into one piece of room without a check per part. */
#include "http/h1.h"

#include "base/must.h"

static char *put(char *at, struct slice s) {
    if (s.n) memcpy(at, s.p, s.n);
    return at + s.n;
}

void h1_write_request(struct buffer *out, const struct request *request, struct slice target, struct slice extra) {
    struct slice version = SLICE(" HTTP/1.1\r\n"), end = SLICE("\r\n");
    size_t n =
        request->method_name.n + 1 + target.n + version.n + headers_written_size(&request->headers) + extra.n + end.n;
    char *start = buffer_room(out, n), *at = start;
    at = put(at, request->method_name);
    *at++ = ' ';
    at = put(at, target);
    at = put(at, version);
    at = headers_write_to(&request->headers, at);
    at = put(at, extra);
    at = put(at, end);
    must((size_t)(at - start) == n);
    buffer_commit(out, n);
}

void h1_write_response(struct buffer *out, const struct response *response, struct slice extra) {
    struct slice version = SLICE("HTTP/1.1 "), end = SLICE("\r\n");
    size_t n = version.n + 4 + response->reason.n + end.n + headers_written_size(&response->headers) + extra.n + end.n;
    char *start = buffer_room(out, n), *at = start;
    at = put(at, version);
    *at++ = (char)('0' + response->status / 100 % 10);
    *at++ = (char)('0' + response->status / 10 % 10);
    *at++ = (char)('0' + response->status % 10);
    *at++ = ' ';
    at = put(at, response->reason);
    at = put(at, end);
    at = headers_write_to(&response->headers, at);
    at = put(at, extra);
    at = put(at, end);
    must((size_t)(at - start) == n);
    buffer_commit(out, n);
}

static void write_chunk_size(struct buffer *out, size_t n) {
    char line[2 * sizeof n + 2], *at = line + sizeof line;
    *--at = '\n';
    *--at = '\r';
    do *--at = "0123456789abcdef"[n & 15];
    while (n >>= 4);
    buffer_append(out, at, (size_t)(line + sizeof line - at));
}

void h1_write_body(struct buffer *out, struct buffer *body, bool chunked) {
    size_t n = body->size;
    if (n == 0) return; /* an empty chunk would be the last */
    if (chunked) write_chunk_size(out, n);
    buffer_move(out, body, n);
    if (chunked) buffer_append(out, "\r\n", 2);
}

void h1_write_last_chunk(struct buffer *out, const struct headers *trailers) {
    buffer_append(out, "0\r\n", 3);
    if (trailers) headers_write(trailers, out);
    buffer_append(out, "\r\n", 2);
}
