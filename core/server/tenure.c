/* How a generation ends. Two things must come to pass, in any order at first:
 *
 *   - its policy stops: after the drain time, or earlier when nothing of it is under way, or when too many
 *     generations live. A round: exchanges are let go, states are stopped, each in its worker; then a helper closes
 *     the states (that takes milliseconds);
 *   - its last reference goes: when the last exchange (a slow body, perhaps hours later) has written its log line.
 *
 * Then a second round closes the backends' views, and a helper frees the rest. A load that failed after its states had
 * begun goes the same way, so there is one way only. */
#include "server/tenure.h"

#include "base/log.h"
#include "base/must.h"
#include "lua/state.h"
#include "server/config.h"
#include "server/instance.h"
#include "server/worker_thread.h"

#include <stdlib.h>

static const double LOOK_AGAIN = 1; /* seconds */

static void tenure_advance(struct tenure *);

/* ---- references: the last one may go in any thread */

/* There is one instance in a process; generations do not know it. */
static struct instance *the_instance;

struct release_letter {
    struct letter letter;
    struct generation *generation;
};

static struct tenure *find_tenure(const struct generation *g) {
    list_each(node, &the_instance->tenures) {
        struct tenure *t = container_of(node, struct tenure, node);
        if (t->generation == g) return t;
    }
    return NULL;
}

static void release_on_arrival(struct letter *letter, struct loop *loop) {
    struct release_letter *l = container_of(letter, struct release_letter, letter);
    struct tenure *t = find_tenure(l->generation);
    free(l);
    must(t != NULL);
    t->released = true;
    tenure_advance(t);
}

void tenure_on_release(struct generation *g) {
    struct release_letter *l = must_calloc(1, sizeof *l);
    l->letter.deliver = release_on_arrival;
    l->generation = g;
    must(mailbox_post(&the_instance->mailbox, &l->letter));
}

/* ---- the end of the memory */

static void free_in_helper(struct job *job) { generation_destroy(container_of(job, struct tenure, job)->dying); }

static void tenure_on_freed(struct job *job, struct loop *loop) {
    struct tenure *t = container_of(job, struct tenure, job);
    struct instance *instance = t->instance;
    ev_timer_stop(instance->loop.ev, &t->drain);
    ev_timer_stop(instance->loop.ev, &t->look);
    list_remove(&t->node);
    free(t);
    instance_tenures_changed(instance);
}

static void ask_helper(struct tenure *t, void (*work)(struct job *), void (*done)(struct job *, struct loop *)) {
    t->job = (struct job){ .asker = &t->instance->mailbox, .work = work, .done = done };
    must(helpers_ask(t->instance->helpers, HELP_LOAD,
                     &t->job)); /* at most one job per generation and load: never full */
}

static void close_views(struct round *r, struct worker_thread *thread) {
    worker_views_close(&thread->worker, container_of(r, struct tenure, round)->generation);
    round_report(r, thread);
}

static void tenure_on_views_closed(struct round *r) {
    struct tenure *t = container_of(r, struct tenure, round);
    t->dying = t->generation;
    t->generation = NULL; /* the next one may get the same address */
    ask_helper(t, free_in_helper, tenure_on_freed);
}

static void begin_round(struct tenure *t, void (*visit)(struct round *, struct worker_thread *),
                        void (*done)(struct round *)) {
    t->round = (struct round){ .visit = visit, .done = done };
    round_begin(&t->round, t->instance);
}

/* ---- the end of its Lua */

static void destroy_states(struct job *job) {
    struct tenure *t = container_of(job, struct tenure, job);
    for (unsigned i = 0; i < t->instance->worker_count; i++) {
        state_destroy(t->generation->states[i]);
        t->generation->states[i] = NULL;
    }
}

static void tenure_on_states_gone(struct job *job, struct loop *loop) {
    struct tenure *t = container_of(job, struct tenure, job);
    t->stage = TENURE_STOPPED;
    instance_tenures_changed(t->instance);
    tenure_advance(t);
}

static void stop_state(struct round *r, struct worker_thread *thread) {
    struct generation *g = container_of(r, struct tenure, round)->generation;
    worker_let_go(&thread->worker, g);
    state_stop(g->states[thread->worker.index]);
    round_report(r, thread);
}

static void tenure_on_stopped(struct round *r) {
    ask_helper(container_of(r, struct tenure, round), destroy_states, tenure_on_states_gone);
}

/* ---- is anything of it under way? Spawned tasks hold no reference */

static void look_at_state(struct round *r, struct worker_thread *thread) {
    struct tenure *t = container_of(r, struct tenure, round);
    atomic_fetch_add(&t->busy, (unsigned)state_figures(t->generation->states[thread->worker.index]).runs);
    round_report(r, thread);
}

static void tenure_on_looked(struct round *r) {
    struct tenure *t = container_of(r, struct tenure, round);
    t->looking = false;
    if (atomic_load(&t->busy) == 0) t->hurried = true;
    else if (!t->hurried) ev_timer_again(t->instance->loop.ev, &t->look);
    tenure_advance(t);
}

static void begin_look(struct tenure *t) {
    if (t->looking || ev_is_active(&t->look)) return;
    t->looking = true;
    atomic_store(&t->busy, 0);
    begin_round(t, look_at_state, tenure_on_looked);
}

static void tenure_on_look(struct ev_loop *ev, ev_timer *timer, int events) {
    struct tenure *t = timer->data;
    ev_timer_stop(ev, timer);
    tenure_advance(t);
}

/* ---- the order of it all */

static void tenure_advance(struct tenure *t) {
    if (t->looking) return;
    if (t->stage == TENURE_RETIRED && t->hurried) {
        t->stage = TENURE_STOPPING;
        ev_timer_stop(t->instance->loop.ev, &t->drain);
        ev_timer_stop(t->instance->loop.ev, &t->look);
        begin_round(t, stop_state, tenure_on_stopped);
    } else if (t->stage == TENURE_RETIRED && t->released) {
        begin_look(t);
    } else if (t->stage == TENURE_STOPPED && t->released) {
        t->stage = TENURE_FREEING;
        begin_round(t, close_views, tenure_on_views_closed);
    }
}

static void tenure_on_drained(struct ev_loop *ev, ev_timer *timer, int events) { tenure_hurry(timer->data); }

void tenures_open(struct instance *instance) {
    list_init(&instance->tenures);
    the_instance = instance;
}

struct tenure *tenure_create(struct instance *instance, struct generation *g) {
    struct tenure *t = must_calloc(1, sizeof *t);
    t->instance = instance;
    t->generation = g;
    t->number = g->number;
    ev_timer *drain = &t->drain, *look = &t->look;
    ev_timer_init(drain, tenure_on_drained, 0., 0.);
    ev_timer_init(look, tenure_on_look, 0., LOOK_AGAIN);
    drain->data = look->data = t;
    list_push(&instance->tenures, &t->node);
    return t;
}

void tenure_retire(struct tenure *t, double drain) {
    if (t->stage != TENURE_SERVES) return;
    t->stage = TENURE_RETIRED;
    if (drain > 0) {
        ev_timer *timer = &t->drain;
        ev_timer_set(timer, drain, 0.);
        ev_timer_start(t->instance->loop.ev, timer);
    } else {
        t->hurried = true;
    }
    tenure_advance(t);
}

void tenure_hurry(struct tenure *t) {
    t->hurried = true;
    tenure_advance(t);
}

unsigned tenures_limit(struct instance *instance, unsigned most) {
    unsigned live = 0;
    list_each(node, &instance->tenures) if (container_of(node, struct tenure, node)->stage <= TENURE_RETIRED) live++;
    list_each_safe(node, &instance->tenures) {
        struct tenure *t = container_of(node, struct tenure, node);
        if (live <= most) break;
        if (t->stage != TENURE_RETIRED) continue;
        log_info("generation %u is closed before its drain time: at most %u live", t->number, most);
        tenure_hurry(t);
        live--;
    }
    return live;
}
