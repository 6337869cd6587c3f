/* A request of the keeper's own to one of our listeners, as a client would send it: for `moongate cache warm` and
 * `moongate cache why`, which want a site's policy to be run as ever. The site, and whether its listener speaks TLS,
 * are found by the URL. All in the keeper's thread. */
#pragma once

#include "base/slice.h"

struct instance;
struct visit;

struct visit_answer {
    const char *error;         /* NULL: it was answered, whole; else a sentence */
    int status;                /* 0: no head came */
    struct slice cache_status; /* of the answer; p NULL: none */
    uint64_t bytes;
};

struct visit_request {
    struct slice url;
    struct slice site; /* n 0: whichever serves the URL */
    const struct slice *lines;
    unsigned line_count;                                       /* "Name: value" */
    void (*answered)(void *with, const struct visit_answer *); /* once, not from within visit_begin */
    void *with;
};

/* NULL: it cannot be asked; the sentence is in `*why` (static). Nothing of the request is kept. */
struct visit *visit_begin(struct instance *, const struct visit_request *, const char **why);
/* The answer is not wanted any more: `answered` is not called. */
void visit_cancel(struct visit *);
/* The keeper stops serving: all are answered with an error. */
void visits_end(struct instance *);
