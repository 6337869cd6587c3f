/* Replacing in a stream: the whole, byte by byte and in odd steps give what a naive reference gives. The input is the
 * texts, one a line ("from=to"), an empty line, and the content. */
#include "base/must.h"
#include "proxy/stages.h"

#include <stdlib.h>

enum { PAIRS = 8 };

struct pairs {
    struct replacement list[PAIRS];
    unsigned count;
};

static bool has_from(const struct pairs *pairs, struct slice from) {
    for (unsigned i = 0; i < pairs->count; i++)
        if (slice_equal(pairs->list[i].from, from)) return true;
    return false;
}

static struct slice read_pairs(struct slice input, struct pairs *pairs) {
    struct slice rest = input;
    while (rest.p) {
        struct slice line = slice_cut(&rest, '\n');
        if (line.n == 0) break;
        struct slice to = line, from = slice_cut(&to, '=');
        if (from.n && pairs->count < PAIRS && !has_from(pairs, from))
            pairs->list[pairs->count++] = (struct replacement){ from, to };
    }
    return rest;
}

static void replace_naively(const struct pairs *pairs, struct slice s, struct buffer *out) {
    while (s.n) {
        const struct replacement *best = NULL;
        for (unsigned i = 0; i < pairs->count; i++)
            if (slice_starts_with(s, pairs->list[i].from) && (!best || pairs->list[i].from.n > best->from.n))
                best = &pairs->list[i];
        if (best) buffer_append(out, best->to.p, best->to.n);
        else buffer_append(out, s.p, 1);
        s = slice_skip(s, best ? best->from.n : 1);
    }
}

static void replace_in_steps(struct pairs pairs, struct slice s, size_t step, struct buffer *out) {
    struct pipe_stage *stage = stage_replace(pairs.list, pairs.count);
    struct buffer in = { 0 };
    do {
        size_t n = s.n < step ? s.n : step;
        buffer_append(&in, s.p, n);
        s = slice_skip(s, n);
        enum stage_result result;
        do {
            struct buffer made = { 0 };
            result = stage->ops->run(stage, &in, &made, s.n == 0);
            buffer_move(out, &made, made.size);
        } while (result == STAGE_FULL);
        must(result == STAGE_HUNGRY);
    } while (s.n);
    must(in.size == 0);
    stage->ops->close(stage);
}

static void must_be_equal(struct buffer *a, struct buffer *b) {
    must(a->size == b->size);
    must(slice_equal(buffer_gather(a, a->size), buffer_gather(b, b->size)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t steps[] = { SIZE_MAX, 1, 2, 7 };
    struct pairs pairs = { .count = 0 };
    struct buffer expected = { 0 };
    if (size > 8192) return 0;
    struct slice content = read_pairs(slice_make((const char *)data, size), &pairs);
    if (!content.p || !pairs.count) return 0;
    replace_naively(&pairs, content, &expected);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct buffer out = { 0 };
        replace_in_steps(pairs, content, steps[i], &out);
        must_be_equal(&out, &expected);
        buffer_fini(&out);
    }
    buffer_fini(&expected);
    return 0;
}
