/* Request heads: whatever the bytes, the answer is the same whole and byte by byte; what is accepted is written afresh
 * as a head that is accepted again and says the same. */
#include "head_fuzz.h"

#include "http/uri.h"

static enum h1_result read_head(struct outcome *o, struct h1_scan *scan, struct buffer *in) {
    return h1_read_request(scan, in, &limits, &o->arena, &o->request, &o->why);
}

static void must_agree(const struct outcome *a, const struct outcome *b) {
    if (!must_agree_so_far(a, b)) return;
    must(slice_equal(a->request.method_name, b->request.method_name));
    must(slice_equal(a->request.target.raw, b->request.target.raw));
    must(a->request.version == b->request.version && a->request.headers.count == b->request.headers.count);
    for (uint32_t i = 0; i < a->request.headers.count; i++) {
        must(slice_equal(a->request.headers.list[i].name, b->request.headers.list[i].name));
        must(slice_equal(a->request.headers.list[i].value, b->request.headers.list[i].value));
    }
}

/* Everything that a proxy does with a head before it sends it on. */
static void use(struct request *request) {
    headers_each(h, &request->headers) {
        must(header_value_valid(h->value));
        must(memchr(h->name.p, ':', h->name.n) == NULL && h->name.n > 0);
    }
    if (framing_of_request(request)) return;
    struct slice host = headers_get_id(&request->headers, HEADER_HOST), raw = request->target.raw;
    struct arena *arena = request->headers.arena;
    if (target_parse(&request->target, arena, request->method, raw, host, SLICE("http"), false)) return;

    struct outcome again;
    struct buffer out = { 0 };
    h1_write_request(&out, request, target_write(arena, &request->target), SLICE("Host: added\r\n"));
    struct slice written = buffer_gather(&out, out.size);
    if (written.n <= limits.head && request->headers.count < limits.fields) {
        read_in_steps(&again, (const uint8_t *)written.p, written.n, SIZE_MAX);
        must(again.result == H1_DONE || again.why == FAIL_TARGET_TOO_LONG);
        must(again.result != H1_DONE || again.taken == written.n);
        arena_fini(&again.arena);
    }
    buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct outcome whole, apart;
    if (size > 2 * limits.head) return 0;
    read_in_steps(&whole, data, size, SIZE_MAX);
    read_in_steps(&apart, data, size, 1);
    must_agree(&whole, &apart);
    if (whole.result == H1_DONE) use(&whole.request);
    arena_fini(&whole.arena);
    arena_fini(&apart.arena);
    return 0;
}
