/* The turn: gather -> advance -> flush -> bury, then the turn hooks.
 *
 * libev polls and calls the watchers (gather); everything else stands here. A turn blocks in its poll only when the
 * last one left nothing: no task with news, no conn to write, no grave, no event fed by hand. So what the flush and the
 * burials wake is advanced in the next turn, after a poll that does not wait: going round again within the same turn
 * would save that poll, and let two busy tasks starve the sockets.
 *
 * Two clocks meet here. libev's timers run on its own reading of CLOCK_MONOTONIC, taken after each poll and by
 * ev_now_update; ours (`now`) is taken beside it, so both differ by next to nothing and a relative time means the same
 * for both. Without the refresh before advancing, a timer armed after a long gather phase would fire at once.
 *
 * Deadlines are lazy. Most are set, moved later with every byte, and cleared; the timer underneath is left alone and
 * looks, when it fires, whether there is still something to wait for. Only a deadline that moves to before its timer
 * touches libev's heap. A wheel was considered: it saves the heap for what is rarely in it. */
#include "net/loop.h"

#include "base/clock.h"
#include "base/must.h"
#include "net/conn.h"
#include "net/stage.h"

/* What is advanced in one turn before sockets are looked at again, seconds. */
static const double ADVANCE_FOR = 0.005;
enum { TASKS_PER_LOOK = 8, TASKS_ON_STAGE = 1000 };
/* After so many what they have to send is sent, before others add to it: a herd of a thousand that goes on at once
 * would take 16 KiB each for its heads, and nobody would see a byte until the last had written his. */
enum { TASKS_AT_ONCE = 64 };
/* libev's and our reading of the clock differ by less; a timer that is early by so little counts as fired. */
static const double CLOCK_SLACK = 0.0001;

static void loop_on_gathered(struct ev_loop *ev, ev_check *check, int events) {
    struct loop *l = container_of(check, struct loop, gathered);
    l->now = clock_monotonic();
    if (l->stage) l->stage->busy = ev_pending_count(ev) > 0;
}

void loop_init(struct loop *l, int index) {
    *l = (struct loop){ .index = index };
    list_init(&l->ready);
    list_init(&l->dirty);
    list_init(&l->dead);
    list_init(&l->after);
    l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    must(l->ev != NULL);
    ev_check *check = &l->gathered;
    ev_check_init(check, loop_on_gathered);
    ev_set_priority(check, EV_MAXPRI);
    ev_check_start(l->ev, check);
    l->now = l->turn_began = clock_monotonic();
}

static void bury_dead(struct loop *l) {
    for (struct list *node; (node = list_pop(&l->dead));) {
        struct grave *g = container_of(node, struct grave, node);
        g->bury(g);
    }
}

void loop_fini(struct loop *l) {
    if (!l->ev) return;
    bury_dead(l);
    ev_check_stop(l->ev, &l->gathered);
    ev_loop_destroy(l->ev);
    l->ev = NULL;
}

bool loop_has_leftovers(const struct loop *l) {
    return !list_empty(&l->ready) || !list_empty(&l->dirty) || !list_empty(&l->dead) || ev_pending_count(l->ev) > 0;
}

/* A task of ours takes a few microseconds, so the clock is read after some of them only, and after each that says it
 * has been long. */
static bool is_time_up(struct loop *l, unsigned advanced) {
    if (l->stage) return advanced == TASKS_ON_STAGE; /* where time stands still */
    if (advanced >= TASKS_AT_ONCE && !list_empty(&l->dirty)) return true;
    if (!l->long_task && advanced % TASKS_PER_LOOK) return false;
    l->long_task = false;
    return clock_monotonic() - l->turn_began > ADVANCE_FOR;
}

/* Whoever is woken meanwhile comes to the end of the list and has his turn too, also one who was advanced before: a
 * fetch that wakes its exchange must not cost it a poll. The time bounds it. */
static void advance_ready(struct loop *l) {
    unsigned advanced = 0;
    for (struct list *node; (node = list_pop(&l->ready));) {
        struct task *t = container_of(node, struct task, node);
        t->advance(t);
        if (!list_empty(&l->ready) && is_time_up(l, ++advanced)) return;
    }
}

/* A hook may remove itself or others, or add some, which run from the next turn on. */
static void run_hooks(struct loop *l) {
    struct list due;
    list_init(&due);
    list_splice(&due, &l->after);
    for (struct list *node; (node = list_pop(&due));) {
        list_push(&l->after, node);
        struct turn_hook *hook = container_of(node, struct turn_hook, node);
        hook->run(hook);
    }
}

void loop_turn(struct loop *l) {
    ev_run(l->ev, l->stopping || l->stage || loop_has_leftovers(l) ? EVRUN_NOWAIT : EVRUN_ONCE);
    ev_now_update(l->ev);
    l->now = l->turn_began = clock_monotonic();
    if (l->stage) stage_fire_due(l->stage, l);
    advance_ready(l);
    conn_flush_all(l);
    bury_dead(l);
    run_hooks(l);
    l->turns++;
}

void loop_run(struct loop *l) {
    while (!l->stopping || loop_has_leftovers(l)) loop_turn(l);
}

void loop_stop(struct loop *l) { l->stopping = true; }

double loop_now(const struct loop *l) { return l->now; }

void task_init(struct task *t, void (*advance)(struct task *)) {
    list_init(&t->node);
    t->advance = advance;
}

void task_wake(struct loop *l, struct task *t) {
    if (list_empty(&t->node)) list_push(&l->ready, &t->node);
}

void task_forget(struct task *t) { list_remove(&t->node); }

void grave_init(struct grave *g, void (*bury)(struct grave *)) {
    list_init(&g->node);
    g->bury = bury;
}

void loop_bury(struct loop *l, struct grave *g) {
    if (list_empty(&g->node)) list_push(&l->dead, &g->node);
}

void turn_hook_add(struct loop *l, struct turn_hook *hook) { list_push(&l->after, &hook->node); }

void turn_hook_remove(struct turn_hook *hook) { list_remove(&hook->node); }

static bool is_armed(const struct deadline *d) { return d->loop->stage ? d->fires != 0 : ev_is_active(&d->timer); }

static void arm_timer(struct deadline *d) {
    if (d->loop->stage) {
        stage_arm(d->loop->stage, d);
        return;
    }
    ev_timer *timer = &d->timer;
    ev_timer_stop(d->loop->ev, timer);
    ev_timer_set(timer, d->at - d->loop->now, 0.);
    ev_timer_start(d->loop->ev, timer);
    d->fires = d->at;
}

static void deadline_on_timer(struct ev_loop *ev, ev_timer *timer, int events) {
    struct deadline *d = container_of(timer, struct deadline, timer);
    if (d->at == 0) return;
    if (d->at > d->loop->now + CLOCK_SLACK) {
        arm_timer(d);
        return;
    }
    d->at = 0;
    d->on_time(d);
}

void deadline_init(struct deadline *d, struct loop *l, void (*on_time)(struct deadline *)) {
    *d = (struct deadline){ .loop = l, .on_time = on_time };
    ev_timer *timer = &d->timer;
    ev_timer_init(timer, deadline_on_timer, 0., 0.);
}

void deadline_set(struct deadline *d, double seconds) {
    if (!(seconds > 0)) {
        d->at = 0;
        return;
    }
    d->at = d->loop->now + seconds;
    if (!is_armed(d) || d->at < d->fires) arm_timer(d);
}

void deadline_clear(struct deadline *d) { d->at = 0; }

void deadline_fini(struct deadline *d) {
    if (!d->loop || !d->loop->ev) return;
    d->at = 0;
    if (d->loop->stage) stage_disarm(d->loop->stage, d);
    else ev_timer_stop(d->loop->ev, &d->timer);
}
