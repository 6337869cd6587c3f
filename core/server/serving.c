/* A serving process, from fork to wait.
 *
 * It is executed anew (`moongate --serve`), not just forked: it inherits no state of ours but two descriptors, and a
 * restart is the same as a start. It is executed from /proc/self/exe, so it is always this very binary, even when the
 * file was replaced meanwhile; only an upgrade (upgrade.c) changes that, for both. */
#include "server/supervisor_inside.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "server/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double OVERDUE = 5; /* seconds: more than it was given to end */

/* ---- starting it */

static void keep_over_exec(int fd) { fcntl(fd, F_SETFD, 0); }

/* In the child: never returns. */
static _Noreturn void exec_serving(const struct supervisor *s, int orders, int asks) {
    char orders_text[16], asks_text[16];
    snprintf(orders_text, sizeof orders_text, "%d", orders);
    snprintf(asks_text, sizeof asks_text, "%d", asks);
    keep_over_exec(orders);
    keep_over_exec(asks);
    char serve[] = "--serve";
    char *const argv[] = { s->options->argv[0], serve, orders_text, asks_text, s->options->file, NULL };
    execv("/proc/self/exe", argv);
    dprintf(STDERR_FILENO, "moongate: cannot execute itself: %s\n", strerror(errno));
    _exit(127);
}

static bool send_setup(const struct supervisor *s, int orders) {
    const struct run_options *o = s->options;
    struct setup setup = {
        .file = o->file,
        .keys = o->keys,
        .user = s->user,
        .user_fixed = o->user != NULL,
        .detached = o->detached,
        .workers = o->workers,
        .restarts = s->restarts,
        .supervisor = getpid(),
    };
    return setup_send(orders, &setup);
}

bool serving_start(struct supervisor *s, struct serving **as) {
    int orders[2], asks[2];
    if (!channel_open(orders)) return false;
    if (!channel_open(asks)) {
        close(orders[0]), close(orders[1]);
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) exec_serving(s, orders[1], asks[1]);
    close(orders[1]), close(asks[1]);
    if (pid < 0) {
        close(orders[0]), close(asks[0]);
        return false;
    }
    *as = serving_adopt(s, pid, orders[0], asks[0], SERVING_STARTING);
    send_setup(s, orders[0]); /* if that fails it is dying, which we shall hear of */
    return true;
}

/* ---- ready */

/* False: errno says why. */
static bool write_pidfile(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return false;
    bool written = dprintf(fd, "%d\n", (int)getpid()) > 0;
    int error = errno;
    close(fd);
    errno = error;
    return written;
}

/* Who looks for the pid there would look in vain: it does not start without. One that served before an upgrade goes on. */
static bool tell_pid(struct supervisor *s) {
    const struct run_options *o = s->options;
    if (!o->pidfile || write_pidfile(o->pidfile)) return true;
    if (o->resume_fd >= 0) {
        log_error("--pidfile %s: %s", o->pidfile, strerror(errno));
        return true;
    }
    fprintf(stderr, "moongate: --pidfile %s: %s\n", o->pidfile, strerror(errno));
    s->status = 1;
    supervisor_stop(s, true);
    return false;
}

static void announce(struct supervisor *s, const char *addresses) {
    const struct run_options *o = s->options;
    if (!tell_pid(s)) return;
    s->was_ready = true;
    printf("moongate: ready, pid %d, listening on %s\n", (int)getpid(), *addresses ? addresses : "nothing");
    fflush(stdout);
    if (!o->detached || o->ready_fd < 0) return;
    detach_stdio();
    detach_ready(o->ready_fd);
}

static void take_ready(struct serving *p, const struct message *m) {
    struct supervisor *s = p->supervisor;
    if (p->state != SERVING_STARTING) return;
    p->state = SERVING_READY;
    s->drain = m->status / 1000.;
    if (!s->was_ready) announce(s, m->text);
    if (p != s->next) return;
    log_info("upgraded: process %d serves, on %s", (int)p->pid, m->text);
    struct serving *before = s->current;
    s->current = p;
    s->next = NULL;
    if (before) serving_dismiss(before, false);
}

/* ---- what it says */

static void take_user(struct serving *p, const char *name) {
    struct supervisor *s = p->supervisor;
    if (s->was_ready || !s->user || s->options->user) return; /* only a first start may change it */
    p->changes_user = true;
    free(s->user);
    s->user = must_strdup(name);
}

static void take_report(struct serving *p, struct message *m) {
    struct supervisor *s = p->supervisor;
    switch (m->kind) {
    case MESSAGE_READY: take_ready(p, m); break;
    case MESSAGE_FAILED:
        p->failed = true;
        if (s->was_ready) log_error("the serving process could not start:\n%s", m->text);
        else fputs(m->text, stderr);
        break;
    case MESSAGE_USER: take_user(p, m->text); break;
    case MESSAGE_DONE: control_answer(&s->control, m->id, m->status, m->text); break;
    case MESSAGE_WATCH:
        if (p == s->current || p == s->next) watch_set(&s->watch, m->text, m->size);
        break;
    default: log_error("serving process %d said something unknown (%d)", (int)p->pid, (int)m->kind);
    }
}

static void read_reports(struct serving *p) {
    struct message m;
    enum channel_result result;
    while ((result = channel_receive(p->orders, false, &m)) == CHANNEL_MESSAGE) {
        take_report(p, &m);
        message_fini(&m);
    }
    /* Its end: the process is dying (ev_child follows), or was told to. */
    if (result == CHANNEL_ENDED) ev_io_stop(p->supervisor->ev, &p->orders_io);
}

static void serving_on_orders(struct ev_loop *ev, ev_io *io, int events) { read_reports(io->data); }

/* ---- its end */

static void serving_on_overdue(struct ev_loop *ev, ev_timer *timer, int events) {
    struct serving *p = timer->data;
    log_error("serving process %d does not end: it is killed", (int)p->pid);
    p->killed = true;
    kill(p->pid, SIGKILL);
}

void serving_dismiss(struct serving *p, bool now) {
    struct supervisor *s = p->supervisor;
    if (p->state == SERVING_STARTING) now = true;
    p->state = SERVING_LEAVING;
    channel_say(p->orders, now ? MESSAGE_STOP : MESSAGE_DRAIN, 0, 0, NULL);
    ev_timer *overdue = &p->overdue;
    ev_timer_stop(s->ev, overdue);
    ev_timer_set(overdue, now ? OVERDUE : s->drain + OVERDUE, 0.);
    ev_timer_start(s->ev, overdue);
}

static void free_serving(struct serving *p) {
    struct ev_loop *ev = p->supervisor->ev;
    ev_io_stop(ev, &p->orders_io);
    ev_io_stop(ev, &p->asks_io);
    ev_timer_stop(ev, &p->overdue);
    ev_child_stop(ev, &p->child);
    close(p->orders);
    close(p->asks);
    list_remove(&p->node);
    free(p);
}

static void serving_on_end(struct ev_loop *ev, ev_child *child, int events) {
    struct serving *p = child->data;
    read_reports(p); /* its last words */
    list_remove(&p->node);
    supervisor_mourn(p->supervisor, p, child->rstatus);
    free_serving(p);
}

struct serving *serving_adopt(struct supervisor *s, pid_t pid, int orders, int asks, enum serving_state state) {
    struct serving *p = must_calloc(1, sizeof *p);
    *p = (struct serving){
        .supervisor = s, .pid = pid, .state = state, .began = clock_monotonic(), .orders = orders, .asks = asks
    };
    list_push(&s->processes, &p->node);
    ev_io *orders_io = &p->orders_io, *asks_io = &p->asks_io;
    ev_io_init(orders_io, serving_on_orders, orders, EV_READ);
    ev_io_init(asks_io, serving_on_asks, asks, EV_READ);
    ev_child *child = &p->child;
    ev_child_init(child, serving_on_end, pid, 0);
    ev_timer *overdue = &p->overdue;
    ev_timer_init(overdue, serving_on_overdue, 0., 0.);
    orders_io->data = asks_io->data = child->data = overdue->data = p;
    ev_io_start(s->ev, orders_io);
    ev_io_start(s->ev, asks_io);
    ev_child_start(s->ev, child);
    return p;
}
