/* Content codings as stages of a pipe. */
#include "proxy/stages.h"

#include "base/must.h"

#include <stdlib.h>

struct coding_stage {
    struct pipe_stage stage;
    struct decoder *decoder; /* one of them */
    struct encoder *encoder;
    enum failure broken, bomb;
};

static struct coding_stage *of_stage(struct pipe_stage *s) { return container_of(s, struct coding_stage, stage); }

static void close_stage(struct pipe_stage *s) {
    struct coding_stage *c = of_stage(s);
    decoder_destroy(c->decoder);
    encoder_destroy(c->encoder);
    free(c);
}

static enum stage_result fail(struct pipe_stage *s, enum failure why) {
    s->why = why;
    return STAGE_FAILED;
}

static enum stage_result run_decoder(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    struct coding_stage *c = of_stage(s);
    switch (decoder_run(c->decoder, in, out, STAGE_BYTES, last)) {
    case CODING_HUNGRY: return STAGE_HUNGRY;
    case CODING_FULL: return STAGE_FULL;
    case CODING_BROKEN: return fail(s, c->broken);
    default: return fail(s, c->bomb);
    }
}

static enum stage_result run_encoder(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    enum coding_result result = encoder_run(of_stage(s)->encoder, in, out, STAGE_BYTES, last);
    return result == CODING_FULL ? STAGE_FULL : STAGE_HUNGRY;
}

static const struct pipe_stage_ops decode_ops = { run_decoder, close_stage };
static const struct pipe_stage_ops encode_ops = { run_encoder, close_stage };

struct pipe_stage *stage_decode(enum coding coding, uint64_t most, enum failure broken, enum failure bomb) {
    struct coding_stage *c = must_calloc(1, sizeof *c);
    c->stage.ops = &decode_ops;
    c->decoder = decoder_create(coding, most);
    c->broken = broken;
    c->bomb = bomb;
    return &c->stage;
}

struct pipe_stage *stage_encode(enum coding coding, int level) {
    struct coding_stage *c = must_calloc(1, sizeof *c);
    c->stage.ops = &encode_ops;
    c->encoder = encoder_create(coding, level);
    return &c->stage;
}
