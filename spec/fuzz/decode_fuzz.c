/* Content codings: one feed, byte by byte and with little room come to the same end and the same bytes; what was
 * decoded comes back from our own coding. The first byte says which coding. */
#include "base/must.h"
#include "http/coding.h"

struct outcome {
    enum coding_result result;
    struct buffer out;
};

enum { MOST = 1 << 20 };

static struct outcome decode(enum coding coding, struct slice s, size_t step, size_t room) {
    struct outcome o = { .result = CODING_HUNGRY };
    struct decoder *d = decoder_create(coding, MOST);
    struct buffer in = { 0 };
    do {
        size_t n = s.n < step ? s.n : step;
        buffer_append(&in, s.p, n);
        s = slice_skip(s, n);
        do {
            size_t before = o.out.size;
            o.result = decoder_run(d, &in, &o.out, room, s.n == 0);
            must(o.out.size - before <= room);
        } while (o.result == CODING_FULL);
    } while (o.result == CODING_HUNGRY && s.n);
    must(o.result != CODING_HUNGRY || in.size == 0);
    must(o.out.size <= MOST + room);
    buffer_fini(&in);
    decoder_destroy(d);
    return o;
}

/* zstd holds a frame against the size that its head tells only when it sees the frame whole, so that what is malformed
 * in this way alone may pass in pieces. */
static void must_agree(enum coding coding, struct outcome *a, struct outcome *b) {
    must(a->result == b->result || coding == CODING_ZSTD);
    if (a->result != CODING_HUNGRY || b->result != CODING_HUNGRY) return;
    must(a->out.size == b->out.size);
    must(slice_equal(buffer_gather(&a->out, a->out.size), buffer_gather(&b->out, b->out.size)));
}

static void encode_and_decode(enum coding coding, struct outcome *o) {
    struct buffer in = { 0 }, out = { 0 };
    struct encoder *e = encoder_create(coding, 1);
    buffer_share(&in, &o->out);
    while (encoder_run(e, &in, &out, 1000, true) == CODING_FULL) {}
    encoder_destroy(e);
    struct outcome again = decode(coding, buffer_gather(&out, out.size), SIZE_MAX, 65536);
    if (again.result != CODING_BOMB) must_agree(coding, &again, o);
    buffer_fini(&again.out);
    buffer_fini(&out);
    buffer_fini(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 16384) return 0;
    enum coding coding = CODING_GZIP + data[0] % (CODING_UNKNOWN - CODING_GZIP);
    struct slice s = { (const char *)data + 1, size - 1 };
    struct outcome whole = decode(coding, s, SIZE_MAX, 65536), apart = decode(coding, s, 1, 65536);
    struct outcome narrow = decode(coding, s, 7, 3);
    must_agree(coding, &whole, &apart);
    must_agree(coding, &whole, &narrow);
    if (whole.result == CODING_HUNGRY) encode_and_decode(coding, &whole);
    buffer_fini(&whole.out);
    buffer_fini(&apart.out);
    buffer_fini(&narrow.out);
    return 0;
}
