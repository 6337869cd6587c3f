/* A pipe carries one body: source -> stages -> readers (DESIGN 2).
 *
 * The source writes when there is room and is told when there is again. Stages change bytes and lengths; they are
 * declared before the first byte. Readers each take at their own pace: a reader offers room, and takes what comes.
 * Until the first reader is added, bytes gather here up to `hold` (that is how a script reads a body that is still
 * forwarded). Bytes are passed by reference, never copied for their own sake.
 *
 * All in one thread. Handlers may run in the gather or the advance phase; they must not free the pipe. */
#pragma once

#include "base/buffer.h"
#include "base/failure.h"
#include "base/list.h"
#include "http/headers.h"

struct pipe;
struct pipe_reader;

struct pipe_reader_ops {
    size_t (*room)(struct pipe_reader *);                              /* bytes it would take now */
    void (*take)(struct pipe_reader *, struct buffer *bytes);          /* takes all of `bytes` */
    void (*end)(struct pipe_reader *, const struct headers *trailers); /* the body is complete; trailers may be NULL */
    void (*fail)(struct pipe_reader *, enum failure why);
};

struct pipe_reader {
    struct list node;
    struct pipe *pipe; /* NULL: not attached */
    const struct pipe_reader_ops *ops;
    bool finished; /* was told of the end or the failure */
};

/* Changes bytes: takes all of `in`, appends to `out` (as much as it likes); with `last` it must give what it still
 * holds. False: it failed. */
struct pipe_stage {
    struct list node;
    bool (*run)(struct pipe_stage *, struct buffer *in, struct buffer *out, bool last);
    void (*close)(struct pipe_stage *); /* the pipe ends; may be NULL */
};

/* Somebody who wants to know that something happened (a script that waits for the body). */
struct pipe_watch {
    void (*on_news)(struct pipe_watch *);
};

enum pipe_state { PIPE_OPEN, PIPE_ENDED, PIPE_FAILED };

struct pipe {
    enum pipe_state state; /* as the source said; bytes may still be pending */
    enum failure why;      /* PIPE_FAILED */
    struct list stages, readers;
    struct buffer pending; /* behind the stages, before the readers */
    size_t hold;           /* how much may gather with no reader; default 0 */
    uint64_t total;        /* bytes the source has written */
    const struct headers *trailers;
    struct pipe_watch *watch;
    void (*on_room)(struct pipe *);      /* to the source: there is room (again). May write at once. */
    void (*on_abandoned)(struct pipe *); /* to the source: the last reader left before the end. May be NULL */
};

enum { PIPE_WINDOW = 65536 };

void pipe_init(struct pipe *, void (*on_room)(struct pipe *), void (*on_abandoned)(struct pipe *));
void pipe_fini(struct pipe *); /* readers are detached without a word */

/* -- the source's side */
size_t pipe_room(const struct pipe *);                         /* 0: wait for on_room */
void pipe_write(struct pipe *, struct buffer *from, size_t n); /* moves n bytes out of `from` */
void pipe_end(struct pipe *, const struct headers *trailers);  /* trailers must live as long as the pipe, or NULL */
void pipe_fail(struct pipe *, enum failure why);

/* -- the readers' side */
void pipe_add_stage(struct pipe *, struct pipe_stage *); /* before anything was written */
void pipe_add_reader(struct pipe *,
                     struct pipe_reader *);      /* gets what is pending; a second one starts where the pipe is */
void pipe_remove_reader(struct pipe_reader *);   /* safe when not attached */
void pipe_reader_has_room(struct pipe_reader *); /* it would take bytes again */
/* Lets up to `max` bytes gather before readers come, and asks the source to go on. */
void pipe_hold(struct pipe *, size_t max);
/* The ops of a reader that drops whatever comes. */
extern const struct pipe_reader_ops pipe_drop;
