/* A sink: the reader of a pipe that writes its body into the store. When the store takes nothing for the moment it
 * waits; when nobody wants the body any more its owner is told, and may end the pipe. */
#pragma once

#include "net/news.h"
#include "proxy/pipe.h"
#include "store/cache.h"

struct sink {
    struct pipe_reader reader;
    struct task task;        /* the store has room again, or nobody wants the body */
    struct cache_body *body; /* a reference; NULL: closed */
    struct news *news;
    void (*over)(struct sink *); /* it has its body whole, or broken; or nobody wants it. Once; may close it */
    bool ended;
};

/* Not yet attached: pipe_add_reader(pipe, &sink->reader). */
void sink_open(struct sink *, struct cache_body *, struct loop *, struct mailbox *, void (*over)(struct sink *));
/* A body that is still arriving breaks. Safe when it is closed, or zeroed. */
void sink_close(struct sink *);
