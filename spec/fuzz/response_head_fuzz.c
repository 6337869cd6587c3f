/* Response heads: the same answer whole and in steps; what is accepted is written as a head that is accepted again.
 * The first byte picks the request's method. */
#include "head_fuzz.h"

static enum h1_result read_head(struct outcome *o, struct h1_scan *scan, struct buffer *in) {
    return h1_read_response(scan, in, &limits, &o->arena, &o->response, &o->why);
}

static void must_agree(const struct outcome *a, const struct outcome *b) {
    if (!must_agree_so_far(a, b)) return;
    must(a->response.status == b->response.status && a->response.version == b->response.version);
    must(slice_equal(a->response.reason, b->response.reason));
    must(a->response.headers.count == b->response.headers.count);
}

static void use(struct response *response, enum method method) {
    must(response->status >= 100 && response->status <= 599);
    headers_each(h, &response->headers) must(header_value_valid(h->value));
    must(header_value_valid(response->reason));
    if (framing_of_response(response, method)) return;
    must(response->framing.kind != FRAMING_UNTIL_CLOSE || !response->framing.keep_alive);

    struct outcome again;
    struct buffer out = { 0 };
    h1_write_response(&out, response, SLICE(""));
    struct slice written = buffer_gather(&out, out.size);
    if (written.n <= limits.head) {
        read_in_steps(&again, (const uint8_t *)written.p, written.n, SIZE_MAX);
        must(again.result == H1_DONE && again.taken == written.n);
        must(again.response.status == response->status);
        arena_fini(&again.arena);
    }
    buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct outcome whole, apart;
    if (size < 1 || size > 2 * limits.head) return 0;
    enum method method = (enum method)(data[0] % (METHOD_PATCH + 1));
    read_in_steps(&whole, data + 1, size - 1, SIZE_MAX);
    read_in_steps(&apart, data + 1, size - 1, 1);
    must_agree(&whole, &apart);
    if (whole.result == H1_DONE) use(&whole.response, method);
    arena_fini(&whole.arena);
    arena_fini(&apart.arena);
    return 0;
}
