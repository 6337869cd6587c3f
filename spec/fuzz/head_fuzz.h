/* Reading a head whole or in steps, for the fuzzers of heads. */
#pragma once

#include "base/must.h"
#include "http/framing.h"
#include "http/h1.h"

static const struct h1_limits limits = { .head = 4096, .target = 1024, .fields = 32 };

struct outcome {
    enum h1_result result;
    enum failure why;
    size_t taken;
    struct arena arena;
    union {
        struct request request;
        struct response response;
    };
};

/* What the bytes come to; the fuzzer's own `read_head` reads on. */
static enum h1_result read_head(struct outcome *, struct h1_scan *, struct buffer *in);

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
        o->result = read_head(o, &scan, &in);
    }
    o->taken = fed - in.size;
    buffer_fini(&in);
}

/* True: both have read the same number of bytes, to be compared further. */
static bool must_agree_so_far(const struct outcome *a, const struct outcome *b) {
    must(a->result == b->result);
    must(a->result != H1_FAILED || a->why == b->why);
    if (a->result != H1_DONE) return false;
    must(a->taken == b->taken);
    return true;
}
