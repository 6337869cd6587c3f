/* A pipe carries one body: source -> stages -> readers (DESIGN 2).
 *
 * The source writes when there is room and is told when there is again. Stages change bytes and lengths; they are
 * declared before the first reader comes, and may be declared behind bytes that have gathered already, which then go
 * through them. Readers each take at their own pace: a reader offers room, and takes what comes. Until the first
 * reader is added, bytes gather here up to `hold` (that is how a script reads a body that is still forwarded). Bytes
 * are passed by reference, never copied for their own sake.
 *
 * A stage may be slow: it says that it is busy, and later that it can go on. Meanwhile what comes waits before it, up
 * to a window, and then the source waits. So back-pressure runs from the readers through the stages to the source,
 * and a pipe holds no more than a window before each stage and what one call of a stage made.
 *
 * All in one thread. Handlers may run in the gather or the advance phase; they must not free the pipe. */
#pragma once

#include "base/buffer.h"
#include "base/failure.h"
#include "base/list.h"
#include "http/headers.h"

struct pipe;
struct pipe_reader;
struct pipe_stage;

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

enum stage_result {
    STAGE_HUNGRY, /* it gave what it can make of `in`; what it left there (below PIPE_WINDOW) needs more behind it.
                     With `last` it took and gave everything */
    STAGE_FULL,   /* it gave about STAGE_BYTES and has more to give: called again when these are gone */
    STAGE_BUSY,   /* it cannot go on now: pipe_stage_ready will say when */
    STAGE_FAILED  /* stage->why; what this call gave is dropped */
};

struct pipe_stage_ops {
    /* Takes from `in`, appends to `out`. `last`: nothing follows what is in `in`, and what it holds back must come.
     * Called in any phase; must not call into the pipe. */
    enum stage_result (*run)(struct pipe_stage *, struct buffer *in, struct buffer *out, bool last);
    /* The pipe ends: nothing is called any more; frees the stage. */
    void (*close)(struct pipe_stage *);
};

struct pipe_stage {
    struct list node;
    struct pipe *pipe; /* NULL: not (any more) in one */
    const struct pipe_stage_ops *ops;
    struct buffer in; /* what it has not taken yet */
    enum failure why; /* STAGE_FAILED */
    bool busy, full, done;
};

/* Somebody who wants to know that something happened (a script that waits for the body). */
struct pipe_watch {
    struct list node;
    void (*on_news)(struct pipe_watch *);
};

enum pipe_state { PIPE_OPEN, PIPE_ENDED, PIPE_FAILED };

struct pipe {
    enum pipe_state state; /* as it leaves the stages; bytes may still be pending */
    enum failure why;      /* PIPE_FAILED */
    struct list stages, readers, watches;
    struct buffer pending; /* behind the stages, before the readers */
    size_t hold;           /* how much may gather with no reader; default 0 */
    uint64_t total;        /* bytes the source has written */
    const struct headers *trailers;
    bool input_over;                /* the source has said the end */
    bool flowing;                   /* bytes are being passed on: a call from within finds that it need do nothing */
    void (*on_room)(struct pipe *); /* to the source: there is room (again). May write at once. */
    void (*on_abandoned)(struct pipe *); /* to the source: the last reader left before the end. May be NULL */
};

enum { PIPE_WINDOW = 65536, STAGE_BYTES = 32768 };

void pipe_init(struct pipe *, void (*on_room)(struct pipe *), void (*on_abandoned)(struct pipe *));
void pipe_fini(struct pipe *); /* readers are detached without a word */

/* -- the source's side */
size_t pipe_room(const struct pipe *);                         /* 0: wait for on_room */
void pipe_write(struct pipe *, struct buffer *from, size_t n); /* moves n bytes out of `from` */
void pipe_end(struct pipe *, const struct headers *trailers);  /* trailers must live as long as the pipe, or NULL */
void pipe_fail(struct pipe *, enum failure why);

/* -- the stages' side */
/* Behind those that are there; not once a reader was added. What has gathered goes through it. */
void pipe_add_stage(struct pipe *, struct pipe_stage *);
/* A busy stage can go on: it is run again, from within this call. Not in the gather phase. */
void pipe_stage_ready(struct pipe_stage *);
/* It failed while it was busy. */
void pipe_stage_fail(struct pipe_stage *, enum failure why);

/* -- the readers' side */
/* Gets what is pending; a second one starts where the pipe is. */
void pipe_add_reader(struct pipe *, struct pipe_reader *);
void pipe_remove_reader(struct pipe_reader *);   /* safe when not attached */
void pipe_reader_has_room(struct pipe_reader *); /* it would take bytes again */
/* Lets up to `max` bytes gather before readers come, and asks the source to go on. */
void pipe_hold(struct pipe *, size_t max);
/* Takes `n` of the pending bytes away, as long as there is no reader. */
void pipe_take(struct pipe *, struct buffer *to, size_t n);
void pipe_add_watch(struct pipe *, struct pipe_watch *);
void pipe_remove_watch(struct pipe_watch *); /* safe when it watches nothing, if its node was initialised */
/* The ops of a reader that drops whatever comes. */
extern const struct pipe_reader_ops pipe_drop;
