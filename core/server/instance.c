/* The main thread of the serving process: its setup, its orders, its end.
 *
 * The end is the delicate part, because nothing may be freed while a worker can still reach it. So it goes by rounds,
 * like a change of generation: clients are closed and the current generation is retired; tenures end one by one as
 * their last references go; then the workers' loops stop, the threads are joined, and what is left belongs to nobody
 * else. A clean end frees everything: leaks show. */
#include "server/instance.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "server/ask.h"
#include "server/cache_orders.h"
#include "server/config.h"
#include "server/detach.h"
#include "server/listeners.h"
#include "server/logs.h"
#include "server/privilege.h"
#include "server/profile.h"
#include "server/reload.h"
#include "server/status.h"
#include "server/stores.h"
#include "server/tenure.h"
#include "server/trace.h"
#include "server/visit.h"
#include "server/worker_thread.h"
#include "store/metrics.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double END_MOST = 4;    /* seconds that an end may take once everything is closed */
static const double LAST_CALL = 0.1; /* seconds between the last accept and the closing of idle clients */

/* ---- the end */

static void stop_worker(struct round *round, struct worker_thread *t) {
    access_log_destroy(t->worker.access);
    t->worker.access = NULL;
    worker_close_pools(&t->worker);
    loop_stop(&t->worker.loop);
    round_report(round, t);
}

static void instance_on_workers_stopped(struct round *round) { loop_stop(&round->instance->loop); }

static void end_if_all_is_gone(struct instance *instance) {
    if (!instance->closed || instance->reload || !list_empty(&instance->tenures) || instance->end_round.visit) return;
    if (instance->worker_count == 0) {
        loop_stop(&instance->loop);
        return;
    }
    instance->end_round = (struct round){ .visit = stop_worker, .done = instance_on_workers_stopped };
    round_begin(&instance->end_round, instance);
}

void instance_tenures_changed(struct instance *instance) {
    unsigned live = tenures_limit(instance, UINT32_MAX);
    pthread_mutex_lock(&instance->figures.lock);
    instance->figures.generations = live;
    pthread_mutex_unlock(&instance->figures.lock);
    end_if_all_is_gone(instance);
}

static void close_in_worker(struct round *round, struct worker_thread *t) {
    struct worker *w = &t->worker;
    reload_cancel(t);
    ears_leave(t);
    if (w->index == 0) {
        admin_stop(round->instance->admin);
        round->instance->admin = NULL;
        visits_end(round->instance);
        cache_orders_end(round->instance);
    }
    w->on_drained = NULL;
    w->draining = true;
    worker_close_all(w);
    worker_adopt(w, NULL);
    round_report(round, t);
}

static void instance_on_closed(struct round *round) {
    struct instance *instance = round->instance;
    list_each_safe(node, &instance->tenures) {
        struct tenure *t = container_of(node, struct tenure, node);
        if (t == instance->current) tenure_retire(t, 0);
        else if (t->stage == TENURE_RETIRED) tenure_hurry(t);
    }
    instance->current = NULL;
    instance->closed = true;
    end_if_all_is_gone(instance);
}

/* A bug of ours must not keep a supervisor, or an operator, waiting. */
static void instance_on_end_overdue(struct ev_loop *ev, ev_timer *timer, int events) {
    const struct instance *instance = timer->data;
    list_each(node, &instance->tenures) {
        const struct tenure *t = container_of(node, struct tenure, node);
        unsigned refs = t->generation ? atomic_load(&t->generation->refs) : 0;
        log_error("generation %u is still held (stage %d, %u references)", t->number, (int)t->stage, refs);
    }
    log_error("the end takes too long: given up");
    _exit(1);
}

static void arm(struct instance *instance, void (*on_time)(struct ev_loop *, ev_timer *, int), double seconds) {
    ev_timer *timer = &instance->drain_timer;
    ev_timer_stop(instance->loop.ev, timer);
    ev_timer_init(timer, on_time, seconds, 0.);
    timer->data = instance;
    ev_timer_start(instance->loop.ev, timer);
}

void instance_close(struct instance *instance) {
    if (instance->state == INSTANCE_CLOSES) return;
    instance->state = INSTANCE_CLOSES;
    trace_end(instance->trace, "closed");
    profile_end(instance->profile);
    arm(instance, instance_on_end_overdue, END_MOST);
    instance->closed = instance->worker_count == 0;
    if (instance->closed) {
        end_if_all_is_gone(instance);
        return;
    }
    instance->close_round = (struct round){ .visit = close_in_worker, .done = instance_on_closed };
    round_begin(&instance->close_round, instance);
}

/* ---- draining: no new connections; then a last call, in which requests that are on their way on idle connections
 * are still answered, with Connection: close; then idle connections are closed, and what is under way has the drain
 * time. */

struct drained_letter {
    struct letter letter;
    struct instance *instance;
};

static void drained_on_arrival(struct letter *letter, struct loop *loop) {
    struct drained_letter *l = container_of(letter, struct drained_letter, letter);
    struct instance *instance = l->instance;
    free(l);
    if (++instance->drained == instance->worker_count) instance_close(instance);
}

static void worker_on_drained(struct worker *w) {
    struct worker_thread *t = container_of(w, struct worker_thread, worker);
    w->on_drained = NULL;
    struct drained_letter *l = must_calloc(1, sizeof *l);
    *l = (struct drained_letter){ .letter.deliver = drained_on_arrival, .instance = t->instance };
    must(mailbox_post(&t->instance->mailbox, &l->letter));
}

static void drain_in_worker(struct round *round, struct worker_thread *t) {
    t->worker.on_drained = worker_on_drained;
    worker_drain(&t->worker);
    round_report(round, t);
}

static void instance_on_drain_over(struct ev_loop *ev, ev_timer *timer, int events) {
    log_warn("the drain time is over: what is left is closed");
    instance_close(timer->data);
}

static void instance_on_drain_asked(struct round *round) {}

static void close_idle_clients(struct instance *instance) {
    arm(instance, instance_on_drain_over, instance->current->generation->drain);
    instance->drain_round = (struct round){ .visit = drain_in_worker, .done = instance_on_drain_asked };
    round_begin(&instance->drain_round, instance);
}

static void instance_on_last_call(struct ev_loop *ev, ev_timer *timer, int events) { close_idle_clients(timer->data); }

static void mark_leaving(struct instance *instance) {
    list_each(node, &instance->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        l->leaving = l != instance->admin_listener;
    }
}

/* Whoever knocks now is refused, not left waiting for our end. The supervisor keeps the sockets only if another
 * process serves. */
static void release_listeners(struct instance *instance) {
    list_each(node, &instance->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        if (l->leaving && l != instance->admin_listener) listener_release(l);
    }
}

static void instance_on_ears_closed(struct round *round) {
    struct instance *instance = round->instance;
    instance->ears_closed = true;
    if (instance->state != INSTANCE_DRAINS) return;
    if (!instance->reload) release_listeners(instance); /* else at its end: it may be binding */
    if (atomic_load(&instance->clients_left) > 0) arm(instance, instance_on_last_call, LAST_CALL);
    else close_idle_clients(instance);
}

static void stop_accepting(struct round *round, struct worker_thread *t) {
    ears_leave(t);
    t->worker.draining = true;
    atomic_fetch_add(&round->instance->clients_left, t->worker.client_count);
    round_report(round, t);
}

void instance_drain(struct instance *instance) {
    if (instance->state == INSTANCE_STARTS) instance_close(instance);
    if (instance->state != INSTANCE_SERVES) return;
    instance->state = INSTANCE_DRAINS;
    trace_end(instance->trace, "closed");
    profile_end(instance->profile);
    mark_leaving(instance);
    instance->drain_round = (struct round){ .visit = stop_accepting, .done = instance_on_ears_closed };
    round_begin(&instance->drain_round, instance);
}

void instance_reload_ended(struct instance *instance) {
    if (instance->state == INSTANCE_CLOSES) end_if_all_is_gone(instance);
    else if (instance->ears_closed) release_listeners(instance);
    else if (instance->state == INSTANCE_SERVES && (instance->next_askers.count || instance->reload_again))
        reload_ask(instance, 0);
}

/* ---- the start */

/* "127.0.0.1:8080, [::]:80" */
static char *list_addresses(const struct instance *instance) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    must(out != NULL);
    list_each(node, &instance->listeners) {
        const struct listener *l = container_of(node, struct listener, node);
        if (l == instance->admin_listener || l->fd_count == 0) continue;
        char *address = listener_address(l);
        fprintf(out, "%s%s", ftell(out) > 0 ? ", " : "", address);
        free(address);
    }
    must(fclose(out) == 0);
    return text;
}

void instance_ready(struct instance *instance) {
    char *addresses = list_addresses(instance);
    instance->state = INSTANCE_SERVES;
    channel_say(instance->orders, MESSAGE_READY, 0, (int32_t)(instance->current->generation->drain * 1000), addresses);
    log_info("generation %u serves on %s with %u worker%s", instance->figures.generation,
             *addresses ? addresses : "nothing", instance->worker_count, instance->worker_count == 1 ? "" : "s");
    if (instance->setup.detached) detach_stdio();
    free(addresses);
}

void instance_failed(struct instance *instance, const char *text) {
    if (instance->state == INSTANCE_CLOSES) return; /* it was told to stop while it started */
    if (*text) channel_say(instance->orders, MESSAGE_FAILED, 0, 0, text);
    instance->status = 1;
    instance_close(instance);
}

/* ---- status */

struct status_letter {
    struct letter letter;
    struct instance *instance;
    uint32_t id;
    char *text;
};

static void status_on_return(struct letter *letter, struct loop *loop) {
    struct status_letter *l = container_of(letter, struct status_letter, letter);
    channel_say(l->instance->orders, MESSAGE_DONE, l->id, 0, l->text);
    free(l->text);
    free(l);
}

static void status_on_arrival(struct letter *letter, struct loop *loop) {
    struct status_letter *l = container_of(letter, struct status_letter, letter);
    struct buffer out = { 0 };
    status_json(l->instance, &out);
    size_t size = out.size;
    l->text = must_malloc(size + 1);
    buffer_peek(&out, l->text, size);
    l->text[size] = 0;
    buffer_fini(&out);
    letter->deliver = status_on_return;
    must(mailbox_post(&l->instance->mailbox, letter));
}

static void ask_status(struct instance *instance, uint32_t id) {
    if (instance->state != INSTANCE_SERVES && instance->state != INSTANCE_DRAINS) {
        channel_say(instance->orders, MESSAGE_DONE, id, 1, "it is not serving\n");
        return;
    }
    struct status_letter *l = must_calloc(1, sizeof *l);
    *l = (struct status_letter){ .letter.deliver = status_on_arrival, .instance = instance, .id = id };
    must(mailbox_post(&instance->threads[0].worker.mailbox, &l->letter));
}

/* ---- orders */

static void ask_reload(struct instance *instance, uint32_t id) {
    if (instance->state == INSTANCE_SERVES) reload_ask(instance, id);
    else if (id) channel_say(instance->orders, MESSAGE_DONE, id, 1, "it is not serving\n");
}

static void take_order(struct instance *instance, struct message *m) {
    switch (m->kind) {
    case MESSAGE_RELOAD: ask_reload(instance, m->id); break;
    case MESSAGE_STATUS: ask_status(instance, m->id); break;
    case MESSAGE_DRAIN: instance_drain(instance); break;
    case MESSAGE_STOP: instance_close(instance); break;
    case MESSAGE_REOPEN: logs_reopen(instance); break;
    case MESSAGE_TRACE: trace_begin(instance, m); break;
    case MESSAGE_PROFILE: profile_begin(instance, m); break;
    case MESSAGE_CACHE: cache_order_take(instance, m); break;
    default: log_error("the supervisor said something unknown (%d)", (int)m->kind);
    }
}

static void instance_on_orders(struct ev_loop *ev, ev_io *io, int events) {
    struct instance *instance = io->data;
    struct message m;
    enum channel_result result;
    while ((result = channel_receive(instance->orders, false, &m)) == CHANNEL_MESSAGE) {
        take_order(instance, &m);
        message_fini(&m);
    }
    if (result != CHANNEL_ENDED) return;
    ev_io_stop(ev, io);
    if (instance->state == INSTANCE_SERVES) log_warn("the supervisor is gone: draining");
    instance_drain(instance);
}

/* ---- the whole */

/* The supervisor acts on them; a terminal's ^C reaches both. */
static void ignore_signals(void) {
    static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE };
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
}

static bool take_setup(struct instance *instance) {
    struct message m;
    if (channel_receive(instance->orders, true, &m) != CHANNEL_MESSAGE) return false;
    bool ok = setup_read(&instance->setup, &m);
    message_fini(&m);
    return ok;
}

static bool become_user(const struct instance *instance) {
    const char *user = instance->setup.user, *why;
    if (!user || privilege_drop(user, &why)) return true;
    char text[256];
    snprintf(text, sizeof text, "moongate: cannot become user %s: %s\n", user, why);
    channel_say(instance->orders, MESSAGE_FAILED, 0, 0, text);
    return false;
}

static void instance_init(struct instance *instance) {
    loop_init(&instance->loop, -1);
    mailbox_open(&instance->mailbox, &instance->loop);
    list_init(&instance->listeners);
    list_init(&instance->visits);
    list_init(&instance->purges);
    tenures_open(instance);
    pthread_mutex_init(&instance->figures.lock, NULL);
    instance->figures.began = clock_wall();
    instance->log_level = LOG_LEVEL_INFO;
    instance->helpers = helpers_create();
    ev_io *io = &instance->orders_io;
    ev_io_init(io, instance_on_orders, instance->orders, EV_READ);
    io->data = instance;
    ev_io_start(instance->loop.ev, io);
}

static void instance_fini(struct instance *instance) {
    worker_threads_join(instance);
    worker_threads_free(instance);
    logs_close(instance);
    helpers_destroy(instance->helpers);
    sources_destroy(instance->sources);
    ev_io_stop(instance->loop.ev, &instance->orders_io);
    ev_timer_stop(instance->loop.ev, &instance->drain_timer);
    mailbox_close(&instance->mailbox);
    trace_close(instance->trace);
    profile_close(instance->profile);
    loop_fini(&instance->loop);
    listeners_free(instance);
    free(instance->next_askers.ids);
    pthread_mutex_destroy(&instance->figures.lock);
    setup_fini(&instance->setup);
    stores_close();
    metrics_close();
    ask_close();
    close(instance->orders);
}

static const struct instance *dumped;

/* For the report that a `must` leaves (must.h): plain figures, read without locks, since whoever holds one may be
 * what failed. */
static void dump_state(int fd) {
    char text[256];
    const struct instance_figures *f = &dumped->figures;
    int n = snprintf(text, sizeof text, "  generation %u, %u live, %u reloads, %u failed, %u workers, state %d\n",
                     f->generation, f->generations, f->reloads, f->reloads_failed, dumped->worker_count,
                     (int)dumped->state);
    for (unsigned i = 0; write(fd, text, (size_t)n) > 0 && i < dumped->worker_count; i++) {
        const struct worker_thread *t = &dumped->threads[i];
        n = snprintf(text, sizeof text, "  worker %u: turn %llu, %u clients, lua %zu bytes, %zu runs, %zu waiting\n", i,
                     (unsigned long long)t->worker.loop.turns, t->worker.client_count, t->lua_bytes, t->lua_runs,
                     t->lua_waiting);
    }
}

int instance_main(int orders, int asks) {
    struct instance instance = { .orders = orders };
    ignore_signals();
    fcntl(orders, F_SETFD, FD_CLOEXEC);
    fcntl(asks, F_SETFD, FD_CLOEXEC);
    ask_open(asks);
    if (!take_setup(&instance) || !become_user(&instance)) return 1;
    instance_init(&instance);
    dumped = &instance;
    must_dump_with(dump_state);
    reload_ask(&instance, 0);
    loop_run(&instance.loop);
    instance_fini(&instance);
    return instance.status;
}
