/* A coded form of a stored body (gzip, br, zstd), made once and kept beside it in the cache: whoever asks for that
 * coding from then on gets its bytes as they are. The exchange that first needs it makes it, and reads it as it
 * comes. */
#pragma once

#include "http/coding.h"
#include "proxy/hit.h"
#include "proxy/sink.h"

struct exchange;

/* One that is being made. In the arena of the exchange, which stays until it is over. */
struct form {
    struct exchange *exchange; /* NULL: none is being made */
    struct hit from;           /* the stored body, through the stage that codes it */
    struct sink sink;
    struct cached *stored; /* a reference */
    bool over;
};

/* The coded form of what is stored, kept or begun just now: a reference. NULL: it is not kept (somebody else is making
 * it, or there is no room), and is to be coded for this one answer. */
struct cached *form_of(struct form *, struct exchange *, struct cached *, enum coding, int level);
/* How long the form is that is kept. False: none is, or it is still being made. */
bool form_length(struct exchange *, const struct cached *, enum coding, uint64_t *length);
/* One that was begun: its bytes flow from now on, when the exchange has its place among its readers. */
void form_start(struct form *);
static inline bool form_runs(const struct form *f) { return f->exchange && !f->over; }
void form_end(struct form *); /* whatever it is at; safe when none is being made */
