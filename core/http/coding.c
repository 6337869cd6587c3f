/* Content codings: names, negotiation, and one loop each for decoding and encoding over a table of libraries.
 *
 * The libraries want contiguous memory on both sides and keep their own place between calls. So a call is a step from
 * the front segment of one buffer into the room behind another; the loops here only decide when to step again. Output
 * that exactly fills its room says nothing about whether there is more: then one more step is made, later.
 *
 * "deflate" is zlib's format (RFC 9110 8.4.1.2), but servers have always sent raw deflate under that name as well:
 * the first two bytes tell. */
#include "http/coding.h"

#include "base/must.h"
#include "http/grammar.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <zlib.h>
#include <zstd.h>

/* ---- names */

static const struct {
    struct slice name;
    enum coding coding;
} names[] = {
    { { "identity", 8 }, CODING_IDENTITY }, { { "gzip", 4 }, CODING_GZIP },
    { { "deflate", 7 }, CODING_DEFLATE },   { { "br", 2 }, CODING_BR },
    { { "zstd", 4 }, CODING_ZSTD },         { { "unknown", 7 }, CODING_UNKNOWN },
};

struct slice coding_name(enum coding coding) {
    return names[coding].name;
}

enum coding coding_named(struct slice name) {
    if (slice_equal_nocase(name, SLICE("x-gzip"))) return CODING_GZIP;
    for (unsigned i = 0; i < CODING_UNKNOWN; i++)
        if (slice_equal_nocase(name, names[i].name)) return names[i].coding;
    return CODING_UNKNOWN;
}

enum coding coding_of(const struct headers *headers) {
    enum coding found = CODING_IDENTITY;
    for (const struct header *h = headers_find_id(headers, HEADER_CONTENT_ENCODING); h; h = headers_next(headers, h)) {
        struct slice rest = h->value, member;
        while (header_list_next(&rest, &member)) {
            enum coding coding = coding_named(member);
            if (coding == CODING_IDENTITY) continue;
            if (found != CODING_IDENTITY) return CODING_UNKNOWN;
            found = coding;
        }
    }
    return found;
}

/* ---- negotiation */

enum { Q_ONE = 1000, Q_NONE = -1 };

/* "0.8" as 800, RFC 9110 12.4.2; what is no weight counts as 0: a coding is not sent for a slip of the pen. */
static int read_weight(struct slice s) {
    static const int worth[] = { 100, 10, 1 };
    int q = 0;
    if (s.n == 0 || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1') || (s.n > 1 && s.p[1] != '.')) return 0;
    q = s.p[0] == '1' ? Q_ONE : 0;
    for (size_t i = 2; i < s.n; i++) {
        if (!byte_is(s.p[i], BYTE_DIGIT)) return 0;
        q += (s.p[i] - '0') * worth[i - 2];
    }
    return q <= Q_ONE ? q : 0;
}

/* The name of a member, and its weight. */
static struct slice read_member(struct slice member, int *q) {
    struct slice rest = member, name = slice_trim(slice_cut(&rest, ';'));
    *q = Q_ONE;
    while (rest.p) {
        struct slice value = slice_trim(slice_cut(&rest, ';')), key = slice_trim(slice_cut(&value, '='));
        if (slice_equal_nocase(key, SLICE("q"))) *q = value.p ? read_weight(slice_trim(value)) : 0;
    }
    return name;
}

/* What the field says of each coding; Q_NONE: nothing. */
static void read_accepted(const struct headers *headers, int q[CODING_UNKNOWN], int *others) {
    for (int i = 0; i < CODING_UNKNOWN; i++) q[i] = Q_NONE;
    *others = Q_NONE;
    for (const struct header *h = headers_find_id(headers, HEADER_ACCEPT_ENCODING); h; h = headers_next(headers, h)) {
        struct slice rest = h->value, member;
        while (header_list_next(&rest, &member)) {
            int weight;
            struct slice name = read_member(member, &weight);
            enum coding coding = coding_named(name);
            if (slice_equal(name, SLICE("*"))) *others = weight;
            else if (coding != CODING_UNKNOWN) q[coding] = weight;
        }
    }
}

enum coding coding_negotiate(const struct headers *request, const enum coding *offered, unsigned count) {
    int q[CODING_UNKNOWN], others;
    if (!headers_find_id(request, HEADER_ACCEPT_ENCODING)) return CODING_IDENTITY;
    read_accepted(request, q, &others);
    enum coding best = CODING_IDENTITY;
    /* A client that names identity with a weight has an opinion; else any coding it takes is better. */
    int most = q[CODING_IDENTITY] > 0 ? q[CODING_IDENTITY] - 1 : 0;
    for (unsigned i = 0; i < count; i++) {
        int weight = q[offered[i]] != Q_NONE ? q[offered[i]] : others;
        if (weight <= most) continue;
        best = offered[i];
        most = weight;
    }
    return best;
}

/* ---- steps */

struct step {
    const uint8_t *in;
    uint8_t *out;
    size_t in_left, out_left;
};

/* From the front of `in` into the room behind `out`, of which there is at most `room`. */
static struct step begin_step(const struct buffer *in, struct buffer *out, size_t room) {
    struct slice front = buffer_front(in);
    struct iovec vector;
    buffer_room_vectors(out, &vector, 1, room);
    return (struct step){ .in = (const uint8_t *)front.p,
                          .in_left = front.n,
                          .out = vector.iov_base,
                          .out_left = vector.iov_len < room ? vector.iov_len : room };
}

/* zlib counts in 32 bits. */
static unsigned at_most_uint(size_t n) { return n < UINT32_MAX ? (unsigned)n : UINT32_MAX; }

/* ---- decoding */

enum progress { PROGRESS_OK, PROGRESS_END, PROGRESS_BROKEN };

struct decoder_ops {
    enum progress (*step)(struct decoder *, struct step *);
    bool (*again)(struct decoder *); /* begins with the next member; false: there are none */
    void (*fini)(struct decoder *);
};

struct decoder {
    const struct decoder_ops *ops;
    enum coding coding;
    uint64_t most, taken, given;
    bool begun; /* the library is set up */
    bool ended; /* a member is complete, and no other has begun */
    union {
        z_stream z;
        BrotliDecoderState *br;
        ZSTD_DStream *zstd;
    } u;
};

static enum progress step_zlib(struct decoder *d, struct step *s) {
    z_stream *z = &d->u.z;
    unsigned in = at_most_uint(s->in_left), out = at_most_uint(s->out_left);
    z->next_in = (Bytef *)(uintptr_t)s->in;
    z->avail_in = in;
    z->next_out = s->out;
    z->avail_out = out;
    int result = inflate(z, Z_NO_FLUSH);
    s->in_left -= in - z->avail_in;
    s->out_left -= out - z->avail_out;
    if (result == Z_STREAM_END) return PROGRESS_END;
    return result == Z_OK || result == Z_BUF_ERROR ? PROGRESS_OK : PROGRESS_BROKEN;
}

static bool again_gzip(struct decoder *d) { return d->coding == CODING_GZIP && inflateReset(&d->u.z) == Z_OK; }

static void fini_zlib(struct decoder *d) { inflateEnd(&d->u.z); }

static enum progress step_br(struct decoder *d, struct step *s) {
    BrotliDecoderResult result =
        BrotliDecoderDecompressStream(d->u.br, &s->in_left, &s->in, &s->out_left, &s->out, NULL);
    if (result == BROTLI_DECODER_RESULT_SUCCESS) return PROGRESS_END;
    return result == BROTLI_DECODER_RESULT_ERROR ? PROGRESS_BROKEN : PROGRESS_OK;
}

static bool again_br(struct decoder *d) {
    (void)d;
    return false;
}

static void fini_br(struct decoder *d) { BrotliDecoderDestroyInstance(d->u.br); }

static enum progress step_zstd(struct decoder *d, struct step *s) {
    ZSTD_inBuffer in = { s->in, s->in_left, 0 };
    ZSTD_outBuffer out = { s->out, s->out_left, 0 };
    size_t result = ZSTD_decompressStream(d->u.zstd, &out, &in);
    if (ZSTD_isError(result)) return PROGRESS_BROKEN;
    s->in_left -= in.pos;
    s->out_left -= out.pos;
    return result == 0 ? PROGRESS_END : PROGRESS_OK;
}

static bool again_zstd(struct decoder *d) { return !ZSTD_isError(ZSTD_initDStream(d->u.zstd)); }

static void fini_zstd(struct decoder *d) { ZSTD_freeDStream(d->u.zstd); }

static const struct decoder_ops zlib_decoder = { step_zlib, again_gzip, fini_zlib };
static const struct decoder_ops br_decoder = { step_br, again_br, fini_br };
static const struct decoder_ops zstd_decoder = { step_zstd, again_zstd, fini_zstd };

enum { GZIP_WINDOW = 15 + 16, ZLIB_WINDOW = 15, RAW_WINDOW = -15, ZSTD_WINDOW_LOG = 23, RATIO_MAX = 250 };
static const uint64_t RATIO_FREE = 4 << 20;

/* zlib's header: method 8, window up to 32K, and a check that makes both bytes a multiple of 31 (RFC 1950 2.2). */
static bool is_zlib(const uint8_t head[2]) {
    return (head[0] & 0x0f) == 8 && head[0] >> 4 <= 7 && (head[0] << 8 | head[1]) % 31 == 0;
}

static void begin_zlib(struct decoder *d, int window) {
    d->ops = &zlib_decoder;
    must(inflateInit2(&d->u.z, window) == Z_OK);
}

/* False: two bytes are needed to tell what it is, and one is there. */
static bool begin_decoding(struct decoder *d, const struct buffer *in, bool last) {
    uint8_t head[2] = { 0 };
    switch (d->coding) {
    case CODING_GZIP: begin_zlib(d, GZIP_WINDOW); break;
    case CODING_DEFLATE:
        if (in->size < sizeof head && !last) return false;
        buffer_peek(in, head, in->size < sizeof head ? in->size : sizeof head);
        begin_zlib(d, is_zlib(head) ? ZLIB_WINDOW : RAW_WINDOW);
        break;
    case CODING_BR:
        d->ops = &br_decoder;
        must((d->u.br = BrotliDecoderCreateInstance(NULL, NULL, NULL)) != NULL);
        break;
    default:
        d->ops = &zstd_decoder;
        must((d->u.zstd = ZSTD_createDStream()) != NULL);
        ZSTD_DCtx_setParameter(d->u.zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
        break;
    }
    return d->begun = true;
}

struct decoder *decoder_create(enum coding coding, uint64_t most) {
    must(coding > CODING_IDENTITY && coding < CODING_UNKNOWN);
    struct decoder *d = must_calloc(1, sizeof *d);
    d->coding = coding;
    d->most = most;
    return d;
}

void decoder_destroy(struct decoder *d) {
    if (!d) return;
    if (d->begun) d->ops->fini(d);
    free(d);
}

static bool is_bomb(const struct decoder *d) {
    return d->given > d->most || (d->given > RATIO_FREE && d->given / RATIO_MAX > d->taken);
}

/* One step. `*idle`: the input is used up, and the room is not. */
static enum coding_result decode_step(struct decoder *d, struct buffer *in, struct buffer *out, size_t room,
                                      bool *idle) {
    struct step s = begin_step(in, out, room);
    size_t in_before = s.in_left, out_before = s.out_left;
    enum progress progress = d->ops->step(d, &s);
    size_t taken = in_before - s.in_left, given = out_before - s.out_left;
    buffer_commit(out, given);
    buffer_drop(in, taken);
    d->taken += taken;
    d->given += given;
    d->ended = progress == PROGRESS_END;
    *idle = !in->size && s.out_left;
    if (progress == PROGRESS_BROKEN || (!taken && !given && in->size && !d->ended)) return CODING_BROKEN;
    return is_bomb(d) ? CODING_BOMB : CODING_HUNGRY;
}

enum coding_result decoder_run(struct decoder *d, struct buffer *in, struct buffer *out, size_t room, bool last) {
    size_t full = out->size + room;
    bool idle = false;
    if (!d->begun && !in->size) return CODING_HUNGRY;
    if (!d->begun && !begin_decoding(d, in, last)) return CODING_HUNGRY;
    while (!idle && out->size < full) {
        if (d->ended && !in->size) return CODING_HUNGRY;
        if (d->ended && !d->ops->again(d)) return CODING_BROKEN;
        enum coding_result result = decode_step(d, in, out, full - out->size, &idle);
        if (result != CODING_HUNGRY) return result;
    }
    if (!idle) return CODING_FULL;
    return last && !d->ended ? CODING_BROKEN : CODING_HUNGRY;
}

/* ---- encoding */

/* What a step is to do with what it was given. */
enum wish { WISH_GO_ON, WISH_FLUSH, WISH_FINISH };

struct encoder_ops {
    bool (*step)(struct encoder *, struct step *, enum wish); /* true: the wish is fulfilled */
    void (*fini)(struct encoder *);
};

struct encoder {
    const struct encoder_ops *ops;
    union {
        z_stream z;
        BrotliEncoderState *br;
        ZSTD_CStream *zstd;
    } u;
};

static bool encode_zlib(struct encoder *e, struct step *s, enum wish wish) {
    static const int flushes[] = { Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH };
    z_stream *z = &e->u.z;
    unsigned in = at_most_uint(s->in_left), out = at_most_uint(s->out_left);
    z->next_in = (Bytef *)(uintptr_t)s->in;
    z->avail_in = in;
    z->next_out = s->out;
    z->avail_out = out;
    int result = deflate(z, flushes[wish]);
    s->in_left -= in - z->avail_in;
    s->out_left -= out - z->avail_out;
    return wish == WISH_FINISH ? result == Z_STREAM_END : z->avail_out > 0;
}

static void fini_deflate(struct encoder *e) { deflateEnd(&e->u.z); }

static bool encode_br(struct encoder *e, struct step *s, enum wish wish) {
    static const BrotliEncoderOperation operations[] = { BROTLI_OPERATION_PROCESS, BROTLI_OPERATION_FLUSH,
                                                         BROTLI_OPERATION_FINISH };
    must(BrotliEncoderCompressStream(e->u.br, operations[wish], &s->in_left, &s->in, &s->out_left, &s->out, NULL));
    return wish == WISH_FINISH ? BrotliEncoderIsFinished(e->u.br) : !BrotliEncoderHasMoreOutput(e->u.br);
}

static void fini_br_encoder(struct encoder *e) { BrotliEncoderDestroyInstance(e->u.br); }

static bool encode_zstd(struct encoder *e, struct step *s, enum wish wish) {
    static const ZSTD_EndDirective directives[] = { ZSTD_e_continue, ZSTD_e_flush, ZSTD_e_end };
    ZSTD_inBuffer in = { s->in, s->in_left, 0 };
    ZSTD_outBuffer out = { s->out, s->out_left, 0 };
    size_t left = ZSTD_compressStream2(e->u.zstd, &out, &in, directives[wish]);
    must(!ZSTD_isError(left));
    s->in_left -= in.pos;
    s->out_left -= out.pos;
    return wish == WISH_GO_ON ? true : left == 0;
}

static void fini_zstd_encoder(struct encoder *e) { ZSTD_freeCStream(e->u.zstd); }

static const struct encoder_ops zlib_encoder = { encode_zlib, fini_deflate };
static const struct encoder_ops br_encoder = { encode_br, fini_br_encoder };
static const struct encoder_ops zstd_encoder = { encode_zstd, fini_zstd_encoder };

/* Windows are small where the formats let us: an encoder lives as long as its answer, and there may be thousands. */
enum { MEMORY_LEVEL = 8, BR_WINDOW = 18, ZSTD_ENCODER_WINDOW = 18 };

static void begin_br(struct encoder *e, int level) {
    e->ops = &br_encoder;
    must((e->u.br = BrotliEncoderCreateInstance(NULL, NULL, NULL)) != NULL);
    BrotliEncoderSetParameter(e->u.br, BROTLI_PARAM_QUALITY,
                              level < 2 ? 2 : (uint32_t)level); /* 1 does not look beyond one step */
    BrotliEncoderSetParameter(e->u.br, BROTLI_PARAM_LGWIN, BR_WINDOW);
}

static void begin_zstd(struct encoder *e, int level) {
    e->ops = &zstd_encoder;
    must((e->u.zstd = ZSTD_createCStream()) != NULL);
    ZSTD_CCtx_setParameter(e->u.zstd, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(e->u.zstd, ZSTD_c_windowLog, ZSTD_ENCODER_WINDOW);
}

struct encoder *encoder_create(enum coding coding, int level) {
    must(coding > CODING_IDENTITY && coding < CODING_UNKNOWN);
    struct encoder *e = must_calloc(1, sizeof *e);
    if (coding == CODING_BR) begin_br(e, level);
    else if (coding == CODING_ZSTD) begin_zstd(e, level);
    else {
        e->ops = &zlib_encoder;
        must(deflateInit2(&e->u.z, level, Z_DEFLATED, coding == CODING_GZIP ? GZIP_WINDOW : ZLIB_WINDOW, MEMORY_LEVEL,
                          Z_DEFAULT_STRATEGY) == Z_OK);
    }
    return e;
}

void encoder_destroy(struct encoder *e) {
    if (!e) return;
    e->ops->fini(e);
    free(e);
}

/* zlib, given less room than a flush takes, flushes for ever. */
enum { ENCODER_ROOM = 4088 };

enum coding_result encoder_run(struct encoder *e, struct buffer *in, struct buffer *out, size_t room, bool last) {
    size_t full = out->size + room;
    while (out->size < full) {
        struct slice front = buffer_front(in);
        struct step s = { .in = (const uint8_t *)front.p,
                          .in_left = front.n,
                          .out = (uint8_t *)buffer_room(out, ENCODER_ROOM),
                          .out_left = ENCODER_ROOM };
        enum wish wish = front.n < in->size ? WISH_GO_ON : last ? WISH_FINISH : WISH_FLUSH;
        bool fulfilled = e->ops->step(e, &s, wish);
        buffer_commit(out, ENCODER_ROOM - s.out_left);
        buffer_drop(in, front.n - s.in_left);
        if (fulfilled && wish != WISH_GO_ON && !in->size) return CODING_HUNGRY;
    }
    return CODING_FULL;
}
