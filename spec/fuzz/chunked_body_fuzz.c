/* Chunked bodies: one feed, byte by byte, and in steps with little room give the same content, the same trailers and
 * the same end. What was accepted comes back from our own writing. */
#include "base/must.h"
#include "http/h1.h"

static const struct framing chunked = { .kind = FRAMING_CHUNKED };

struct outcome {
    enum h1_result result;
    size_t taken;
    struct arena arena;
    struct headers trailers;
    struct buffer content;
};

static void read_in_steps(struct outcome *o, const uint8_t *data, size_t size, size_t step, size_t room) {
    struct buffer in = { 0 };
    struct h1_body body;
    size_t fed = 0, before;
    *o = (struct outcome){ .result = H1_MORE };
    arena_init(&o->arena);
    headers_init(&o->trailers, &o->arena);
    h1_body_start(&body, &chunked, &o->trailers);
    while (o->result == H1_MORE && fed < size) {
        size_t n = size - fed < step ? size - fed : step;
        buffer_append(&in, data + fed, n);
        fed += n;
        do {
            before = in.size;
            o->result = h1_body_read(&body, &in, &o->content, room);
        } while (o->result == H1_MORE && in.size && in.size < before);
    }
    o->taken = fed - in.size;
    buffer_fini(&in);
}

static void fini(struct outcome *o) {
    buffer_fini(&o->content);
    arena_fini(&o->arena);
}

static void must_agree(struct outcome *a, struct outcome *b) {
    size_t n = a->content.size;
    must(a->result == b->result && n == b->content.size);
    must(slice_equal(buffer_gather(&a->content, n), buffer_gather(&b->content, n)));
    must(a->trailers.count == b->trailers.count);
    must(a->result != H1_DONE || a->taken == b->taken);
}

static void write_and_read(struct outcome *o) {
    struct buffer body = { 0 }, wire = { 0 };
    struct outcome again;
    buffer_share(&body, &o->content);
    h1_write_body(&wire, &body, true);
    h1_write_last_chunk(&wire, &o->trailers);
    struct slice written = buffer_gather(&wire, wire.size);
    read_in_steps(&again, (const uint8_t *)written.p, written.n, SIZE_MAX, SIZE_MAX);
    must(again.taken == written.n);
    must_agree(&again, &(struct outcome){
                           .result = H1_DONE, .taken = written.n, .content = o->content, .trailers = o->trailers });
    fini(&again);
    buffer_fini(&wire);
    buffer_fini(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct outcome whole, apart, narrow;
    if (size > 32768) return 0;
    read_in_steps(&whole, data, size, SIZE_MAX, SIZE_MAX);
    read_in_steps(&apart, data, size, 1, SIZE_MAX);
    read_in_steps(&narrow, data, size, 7, 3);
    must_agree(&whole, &apart);
    must_agree(&whole, &narrow);
    must(whole.result == H1_FAILED || whole.content.size <= size);
    if (whole.result == H1_DONE) write_and_read(&whole);
    fini(&whole);
    fini(&apart);
    fini(&narrow);
    return 0;
}
