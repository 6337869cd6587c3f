/* Pipes: one body on its way. What stages make of a write is kept in `pending`; readers get it at once as far as they
 * have room. With one reader and no stages, `pending` stays empty and bytes go from the source's buffer to the
 * reader's.
 *
 * With stages, each has the bytes it has not taken yet before it. `flow` is the whole engine: readers take what is
 * pending, then every stage is run that has something to do and room behind it, again and again until nothing moves.
 * Stages are only run when somebody wants their bytes, so a slow reader stops them one after the other, the last one
 * first, and then the source.
 *
 * With several readers all get the same references; the pipe goes at the pace of the slowest. Readers that must not
 * hold each other back read from what stores the body, not from here. */
#include "proxy/pipe.h"

#include "base/must.h"

#include <stdint.h>

static struct pipe_reader *reader_of(struct list *node) { return container_of(node, struct pipe_reader, node); }
static struct pipe_stage *stage_of(struct list *node) { return container_of(node, struct pipe_stage, node); }

void pipe_init(struct pipe *p, void (*on_room)(struct pipe *), void (*on_abandoned)(struct pipe *)) {
    *p = (struct pipe){ .on_room = on_room, .on_abandoned = on_abandoned };
    list_init(&p->stages);
    list_init(&p->readers);
    list_init(&p->watches);
}

void pipe_fini(struct pipe *p) {
    list_each_safe(node, &p->readers) {
        list_remove(node);
        reader_of(node)->pipe = NULL;
    }
    for (struct list *node; (node = list_pop(&p->stages));) {
        struct pipe_stage *stage = stage_of(node);
        stage->pipe = NULL;
        buffer_fini(&stage->in);
        stage->ops->close(stage);
    }
    while (list_pop(&p->watches)) {}
    buffer_fini(&p->pending);
}

static void tell_watches(struct pipe *p) {
    list_each_safe(node, &p->watches) {
        struct pipe_watch *w = container_of(node, struct pipe_watch, node);
        w->on_news(w);
    }
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

/* ---- stages */

static void set_failed(struct pipe *p, enum failure why) {
    p->state = PIPE_FAILED;
    p->why = why;
    tell_watches(p);
}

static struct pipe_stage *stage_behind(const struct pipe *p, const struct pipe_stage *s) {
    return s->node.next == &p->stages ? NULL : stage_of(s->node.next);
}

/* Does anybody want what the last stage makes? A stage that has nothing left to take is let end. */
static bool output_wanted(const struct pipe *p, const struct pipe_stage *last) {
    if (list_empty(&p->readers)) return p->pending.size < p->hold;
    return p->pending.size == 0 && (readers_room(p) > 0 || (!last->in.size && !last->full));
}

static bool can_run(const struct pipe *p, const struct pipe_stage *s, bool last) {
    if (s->busy || s->done || !(s->in.size || s->full || last)) return false;
    struct pipe_stage *next = stage_behind(p, s);
    return next ? next->in.size < PIPE_WINDOW : output_wanted(p, s);
}

static bool run_stage(struct pipe *p, struct pipe_stage *s, bool last) {
    struct pipe_stage *next = stage_behind(p, s);
    struct buffer made = { 0 };
    enum stage_result result = s->ops->run(s, &s->in, &made, last);
    if (result == STAGE_FAILED) {
        buffer_fini(&made);
        set_failed(p, s->why);
        return true;
    }
    s->busy = result == STAGE_BUSY;
    s->full = result == STAGE_FULL;
    s->done = result == STAGE_HUNGRY && last;
    bool moved = made.size || s->done || s->full;
    buffer_move(next ? &next->in : &p->pending, &made, made.size);
    if (next) return moved;
    if (s->done) p->state = PIPE_ENDED;
    if (moved) tell_watches(p);
    return moved;
}

/* Each once, as far as there is something to do. True: something has moved. */
static bool run_stages(struct pipe *p) {
    bool moved = false, over = p->input_over;
    list_each(node, &p->stages) {
        struct pipe_stage *s = stage_of(node);
        if (p->state != PIPE_OPEN) break;
        if (can_run(p, s, over)) moved |= run_stage(p, s, over);
        over = s->done;
    }
    return moved;
}

static void flow(struct pipe *p) {
    if (p->flowing) return;
    p->flowing = true;
    do drain(p);
    while (run_stages(p));
    p->flowing = false;
}

static void ask_source(struct pipe *p) {
    if (p->state == PIPE_OPEN && pipe_room(p) > 0) p->on_room(p);
}

static void go_on(struct pipe *p) {
    flow(p);
    ask_source(p);
}

/* What is pending has not been through it yet: it is the last one. */
void pipe_add_stage(struct pipe *p, struct pipe_stage *stage) {
    must(list_empty(&p->readers) && !p->flowing);
    stage->pipe = p;
    list_push(&p->stages, &stage->node);
    if (p->state == PIPE_FAILED) return;
    buffer_move(&stage->in, &p->pending, p->pending.size);
    p->state = PIPE_OPEN;
    go_on(p);
}

void pipe_stage_ready(struct pipe_stage *stage) {
    stage->busy = false;
    if (stage->pipe) go_on(stage->pipe);
}

void pipe_stage_fail(struct pipe_stage *stage, enum failure why) {
    struct pipe *p = stage->pipe;
    if (!p || p->state != PIPE_OPEN) return;
    set_failed(p, why);
    flow(p);
}

/* ---- the source's side */

/* Before the first stage as much may wait as a window, whatever the readers say. */
static size_t room_before_stages(const struct pipe *p) {
    size_t waiting = stage_of(p->stages.next)->in.size;
    bool wanted = !list_empty(&p->readers) || p->pending.size < p->hold;
    return wanted && waiting < PIPE_WINDOW ? PIPE_WINDOW - waiting : 0;
}

size_t pipe_room(const struct pipe *p) {
    if (p->state != PIPE_OPEN || p->input_over) return 0;
    if (!list_empty(&p->stages)) return room_before_stages(p);
    if (list_empty(&p->readers)) return p->pending.size < p->hold ? p->hold - p->pending.size : 0;
    if (p->pending.size) return 0;
    size_t room = readers_room(p);
    return room < PIPE_WINDOW ? room : PIPE_WINDOW;
}

void pipe_write(struct pipe *p, struct buffer *from, size_t n) {
    if (p->state != PIPE_OPEN || p->input_over) {
        buffer_drop(from, n);
        return;
    }
    p->total += n;
    struct buffer bytes = { 0 };
    buffer_move(&bytes, from, n);
    if (!list_empty(&p->stages)) {
        buffer_move(&stage_of(p->stages.next)->in, &bytes, n);
        flow(p);
        return;
    }
    if (p->pending.size || list_empty(&p->readers)) {
        buffer_move(&p->pending, &bytes, n);
        tell_watches(p);
        drain(p);
        return;
    }
    give_to_readers(p, &bytes);
    tell_watches(p);
}

void pipe_end(struct pipe *p, const struct headers *trailers) {
    if (p->state != PIPE_OPEN || p->input_over) return;
    p->input_over = true;
    p->trailers = trailers;
    if (list_empty(&p->stages)) {
        p->state = PIPE_ENDED;
        tell_watches(p);
    }
    flow(p);
}

void pipe_fail(struct pipe *p, enum failure why) {
    if (p->state != PIPE_OPEN) return;
    set_failed(p, why);
    flow(p);
}

/* ---- the readers' side */

void pipe_add_reader(struct pipe *p, struct pipe_reader *r) {
    r->pipe = p;
    r->finished = false;
    list_push(&p->readers, &r->node);
    flow(p);
    if (r->pipe) ask_source(p);
}

void pipe_remove_reader(struct pipe_reader *r) {
    struct pipe *p = r->pipe;
    if (!p) return;
    r->pipe = NULL;
    list_remove(&r->node);
    if (!list_empty(&p->readers)) go_on(p);
    else if (p->state == PIPE_OPEN && p->on_abandoned) p->on_abandoned(p);
}

void pipe_reader_has_room(struct pipe_reader *r) {
    struct pipe *p = r->pipe;
    if (!p) return;
    flow(p);
    if (r->pipe) ask_source(p);
}

void pipe_hold(struct pipe *p, size_t max) {
    if (max > p->hold) p->hold = max;
    go_on(p);
}

void pipe_take(struct pipe *p, struct buffer *to, size_t n) {
    must(list_empty(&p->readers));
    buffer_move(to, &p->pending, n);
    go_on(p);
}

void pipe_add_watch(struct pipe *p, struct pipe_watch *w) { list_push(&p->watches, &w->node); }

void pipe_remove_watch(struct pipe_watch *w) { list_remove(&w->node); }

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
