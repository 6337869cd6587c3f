/* Pipes: one body on its way. What stages make of a write is kept in `pending`; readers get it at once as far as they
 * have room. With one reader and no stages, `pending` stays empty and bytes go from the source's buffer to the
 * reader's.
 *
 * With several readers all get the same references; the pipe goes at the pace of the slowest. Readers that must not
 * hold each other back read from what stores the body, not from here. */
#include "proxy/pipe.h"

#include <stdint.h>

static struct pipe_reader *reader_of(struct list *node) { return container_of(node, struct pipe_reader, node); }

void pipe_init(struct pipe *p, void (*on_room)(struct pipe *), void (*on_abandoned)(struct pipe *)) {
    *p = (struct pipe){ .on_room = on_room, .on_abandoned = on_abandoned };
    list_init(&p->stages);
    list_init(&p->readers);
}

void pipe_fini(struct pipe *p) {
    list_each_safe(node, &p->readers) {
        list_remove(node);
        reader_of(node)->pipe = NULL;
    }
    list_each_safe(node, &p->stages) {
        struct pipe_stage *stage = container_of(node, struct pipe_stage, node);
        list_remove(node);
        if (stage->close) stage->close(stage);
    }
    buffer_fini(&p->pending);
    p->watch = NULL;
}

static void tell_watch(struct pipe *p) {
    if (p->watch) p->watch->on_news(p->watch);
}

/* What the slowest reader would take now. */
static size_t readers_room(const struct pipe *p) {
    size_t room = SIZE_MAX;
    list_each(node, &p->readers) {
        size_t r = reader_of(node)->ops->room(reader_of(node));
        if (r < room) room = r;
    }
    return room;
}

static void give_to_readers(struct pipe *p, struct buffer *bytes) {
    list_each_safe(node, &p->readers) {
        struct pipe_reader *r = reader_of(node);
        if (node_next == &p->readers) {
            r->ops->take(r, bytes);
            return;
        }
        struct buffer share = { 0 };
        buffer_share(&share, bytes);
        r->ops->take(r, &share);
    }
}

static void tell_end(struct pipe *p) {
    list_each_safe(node, &p->readers) {
        struct pipe_reader *r = reader_of(node);
        if (r->finished) continue;
        r->finished = true;
        if (p->state == PIPE_FAILED) r->ops->fail(r, p->why);
        else r->ops->end(r, p->trailers);
    }
}

/* Passes on what is pending, as far as the readers take it, and the end behind it. */
static void drain(struct pipe *p) {
    if (list_empty(&p->readers)) return;
    while (p->pending.size) {
        size_t room = readers_room(p);
        if (room == 0) return;
        struct buffer part = { 0 };
        buffer_move(&part, &p->pending, room < p->pending.size ? room : p->pending.size);
        give_to_readers(p, &part);
        if (list_empty(&p->readers)) return;
    }
    if (p->state != PIPE_OPEN) tell_end(p);
}

/* ---- the source's side */

size_t pipe_room(const struct pipe *p) {
    if (p->state != PIPE_OPEN) return 0;
    if (list_empty(&p->readers)) return p->pending.size < p->hold ? p->hold - p->pending.size : 0;
    if (p->pending.size) return 0;
    size_t room = readers_room(p);
    return room < PIPE_WINDOW ? room : PIPE_WINDOW;
}

static bool run_stages(struct pipe *p, struct buffer *bytes, bool last) {
    list_each(node, &p->stages) {
        struct pipe_stage *stage = container_of(node, struct pipe_stage, node);
        struct buffer out = { 0 };
        bool ok = stage->run(stage, bytes, &out, last);
        buffer_fini(bytes);
        *bytes = out;
        if (!ok) {
            buffer_fini(bytes);
            pipe_fail(p, FAIL_BAD_RESPONSE);
            return false;
        }
    }
    return true;
}

static void pass_on(struct pipe *p, struct buffer *bytes) {
    buffer_move(&p->pending, bytes, bytes->size);
    tell_watch(p);
    drain(p);
}

void pipe_write(struct pipe *p, struct buffer *from, size_t n) {
    if (p->state != PIPE_OPEN) {
        buffer_drop(from, n);
        return;
    }
    p->total += n;
    struct buffer bytes = { 0 };
    buffer_move(&bytes, from, n);
    if (!list_empty(&p->stages)) {
        if (run_stages(p, &bytes, false)) pass_on(p, &bytes);
    } else if (p->pending.size || list_empty(&p->readers)) {
        pass_on(p, &bytes);
    } else {
        give_to_readers(p, &bytes);
        tell_watch(p);
    }
}

void pipe_end(struct pipe *p, const struct headers *trailers) {
    if (p->state != PIPE_OPEN) return;
    struct buffer rest = { 0 };
    if (!list_empty(&p->stages) && !run_stages(p, &rest, true)) return;
    p->state = PIPE_ENDED;
    p->trailers = trailers;
    pass_on(p, &rest);
}

void pipe_fail(struct pipe *p, enum failure why) {
    if (p->state != PIPE_OPEN) return;
    p->state = PIPE_FAILED;
    p->why = why;
    tell_watch(p);
    drain(p);
}

/* ---- the readers' side */

void pipe_add_stage(struct pipe *p, struct pipe_stage *stage) { list_push(&p->stages, &stage->node); }

static void ask_source(struct pipe *p) {
    if (p->state == PIPE_OPEN && pipe_room(p) > 0) p->on_room(p);
}

void pipe_add_reader(struct pipe *p, struct pipe_reader *r) {
    r->pipe = p;
    r->finished = false;
    list_push(&p->readers, &r->node);
    drain(p);
    if (r->pipe) ask_source(p);
}

void pipe_remove_reader(struct pipe_reader *r) {
    struct pipe *p = r->pipe;
    if (!p) return;
    r->pipe = NULL;
    list_remove(&r->node);
    if (!list_empty(&p->readers)) {
        drain(p);
        ask_source(p);
    } else if (p->state == PIPE_OPEN && p->on_abandoned) {
        p->on_abandoned(p);
    }
}

void pipe_reader_has_room(struct pipe_reader *r) {
    struct pipe *p = r->pipe;
    if (!p) return;
    drain(p);
    if (r->pipe) ask_source(p);
}

void pipe_hold(struct pipe *p, size_t max) {
    if (max > p->hold) p->hold = max;
    ask_source(p);
}

/* ---- dropping a body */

static size_t drop_room(struct pipe_reader *r) {
    (void)r;
    return PIPE_WINDOW;
}

static void drop_take(struct pipe_reader *r, struct buffer *bytes) {
    (void)r;
    buffer_drop(bytes, bytes->size);
}

static void drop_end(struct pipe_reader *r, const struct headers *trailers) {
    (void)r;
    (void)trailers;
}

static void drop_fail(struct pipe_reader *r, enum failure why) {
    (void)r;
    (void)why;
}

const struct pipe_reader_ops pipe_drop = { drop_room, drop_take, drop_end, drop_fail };
