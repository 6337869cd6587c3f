/* Response heads: the same answer whole and in steps; what is accepted is written as a head that is accepted again.
 * The first byte picks the request's method. */
#include "base/must.h"
#include "http/framing.h"
#include "http/h1.h"

static const struct h1_limits limits = { .head = 4096, .target = 1024, .fields = 32 };

struct outcome {
    enum h1_result result;
    enum failure why;
    size_t taken;
    struct arena arena;
    struct response response;
};

static void read_in_steps(struct outcome *o, const uint8_t *data, size_t size, size_t step) {
    struct buffer in = { 0 };
    struct h1_scan scan = { 0 };
    size_t fed = 0;
    *o = (struct outcome){ .result = H1_MORE };
    arena_init(&o->arena);
    while (o->result == H1_MORE && fed < size) {
        size_t n = size - fed < step ? size - fed : step;
        buffer_append(&in, data + fed, n);
        fed += n;
        o->result = h1_read_response(&scan, &in, &limits, &o->arena, &o->response, &o->why);
    }
    o->taken = fed - in.size;
    buffer_fini(&in);
}

static void must_agree(const struct outcome *a, const struct outcome *b) {
    must(a->result == b->result);
    must(a->result != H1_FAILED || a->why == b->why);
    if (a->result != H1_DONE) return;
    must(a->taken == b->taken && a->response.status == b->response.status &&
         a->response.version == b->response.version);
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
