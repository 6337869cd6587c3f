/* The supervisor's loop: signals, commands, and the life of serving processes. A libev loop of its own, no threads.
 *
 * A serving process is executed anew (`moongate --serve`), not just forked: it inherits no state of ours but two
 * descriptors, and a restart is the same as a start. It is executed from /proc/self/exe, so it is always this very
 * binary, even when the file was replaced meanwhile; only an upgrade (upgrade.c) changes that, for both.
 *
 * When it dies, its sockets stay here, so clients wait in their queues until the next one accepts. The first death is
 * followed by a restart at once, a series of them by longer and longer pauses. A process that ends before any was ever
 * ready is a config error, and the end of us: it has said why.
 *
 * If we are killed, the serving process sees the end of its channel, and drains. */
#include "server/supervisor.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "server/detach.h"
#include "server/privilege.h"
#include "server/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const double RESTART_MOST = 5, RESTART_LEAST = 0.1; /* seconds between deaths in a row */
static const double SETTLED = 30;                          /* who served so long did not die in a row */
static const double OVERDUE = 5;                           /* more than it was given to end */

static const int signal_numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };

/* ---- starting a serving process */

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

bool supervisor_start_serving(struct supervisor *s, struct serving **as) {
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
    *as = supervisor_adopt(s, pid, orders[0], asks[0], SERVING_STARTING);
    send_setup(s, orders[0]); /* if that fails it is dying, which we shall hear of */
    return true;
}

/* ---- stopping */

static void serving_on_overdue(struct ev_loop *ev, ev_timer *timer, int events) {
    struct serving *p = timer->data;
    log_error("serving process %d does not end: it is killed", (int)p->pid);
    p->killed = true;
    kill(p->pid, SIGKILL);
}

static void dismiss(struct serving *p, bool now) {
    struct supervisor *s = p->supervisor;
    if (p->state == SERVING_STARTING) now = true;
    p->state = SERVING_LEAVING;
    channel_say(p->orders, now ? MESSAGE_STOP : MESSAGE_DRAIN, 0, 0, NULL);
    ev_timer *overdue = &p->overdue;
    ev_timer_stop(s->ev, overdue);
    ev_timer_set(overdue, now ? OVERDUE : s->drain + OVERDUE, 0.);
    ev_timer_start(s->ev, overdue);
}

static void end_if_nobody_is_left(struct supervisor *s) {
    if (list_empty(&s->processes)) ev_break(s->ev, EVBREAK_ALL);
}

static void stop_all(struct supervisor *s, bool now) {
    if (now) log_info("stopping");
    else log_info("draining: what is under way is finished, within %.0f s", s->drain);
    s->state = now ? SUPERVISOR_STOPS : SUPERVISOR_DRAINS;
    ev_timer_stop(s->ev, &s->restart);
    list_each(node, &s->processes) dismiss(container_of(node, struct serving, node), now);
    end_if_nobody_is_left(s);
}

/* ---- ready */

static void write_pidfile(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) log_error("%s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
}

static void announce(struct supervisor *s, const char *addresses) {
    const struct run_options *o = s->options;
    s->was_ready = true;
    if (o->pidfile) write_pidfile(o->pidfile);
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
    if (before) dismiss(before, false);
}

/* ---- what a serving process says */

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

/* ---- what it asks for */

static int open_to_append(const char *path, bool error_log) {
    int fd = privilege_present() ? grant_append(path)
                                 : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    int ours = fd >= 0 && error_log ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (ours >= 0) log_open(ours, LOG_LEVEL_INFO);
    return fd;
}

/* Each path of the question gets its errno in the answer's text, and its descriptor if that is 0. */
static void grant_many(const struct supervisor *s, const struct message *ask, struct message *answer) {
    struct grant_places places;
    if (privilege_present()) grant_places_find(&places, s->options->file, s->options->keys);
    answer->text = must_calloc(MESSAGE_FDS, sizeof(int32_t));
    for (size_t at = 0, i = 0; at < ask->size && i < MESSAGE_FDS; at += strlen(ask->text + at) + 1, i++) {
        errno = EACCES;
        int fd = privilege_present() ? grant_read(ask->text + at, &places) : -1;
        int32_t error = fd < 0 ? (errno ? errno : EIO) : 0;
        memcpy(answer->text + answer->size, &error, sizeof error);
        answer->size += sizeof error;
        if (fd >= 0) answer->fds[answer->fd_count++] = fd;
    }
}

static int grant_one(const struct supervisor *s, const char *path) {
    struct grant_places places;
    if (!privilege_present()) return -1;
    grant_places_find(&places, s->options->file, s->options->keys);
    return grant_read(path, &places);
}

/* Fills the answer's descriptors; returns 0 or an errno. `*lent`: they stay ours. */
static int grant(struct supervisor *s, const struct message *ask, struct message *answer, bool *lent) {
    const struct held_listener *l;
    int fd = -1;
    errno = EACCES;
    switch (ask->kind) {
    case MESSAGE_BIND:
        l = held_get(&s->held, ask->text, ask->status > 0 ? (unsigned)ask->status : 1);
        if (!l) return errno ? errno : EIO;
        memcpy(answer->fds, l->fds, l->count * sizeof(int));
        answer->fd_count = l->count;
        *lent = true;
        return 0;
    case MESSAGE_RELEASE:
        /* While two processes serve, the other one may still listen there. */
        if (s->processes.next->next == &s->processes) held_release(&s->held, ask->text);
        return 0;
    case MESSAGE_READ: fd = grant_one(s, ask->text); break;
    case MESSAGE_READ_MANY: grant_many(s, ask, answer); return 0;
    case MESSAGE_APPEND: fd = open_to_append(ask->text, ask->status == 1); break;
    default: return ENOSYS;
    }
    if (fd < 0) return errno ? errno : EIO;
    answer->fds[0] = fd;
    answer->fd_count = 1;
    return 0;
}

static void serving_on_asks(struct ev_loop *ev, ev_io *io, int events) {
    struct serving *p = io->data;
    struct message ask;
    enum channel_result result = channel_receive(p->asks, false, &ask);
    if (result == CHANNEL_ENDED) ev_io_stop(ev, io);
    if (result != CHANNEL_MESSAGE) return;
    bool lent = false;
    struct message answer = { .kind = MESSAGE_GRANT };
    answer.status = grant(p->supervisor, &ask, &answer, &lent);
    channel_send(p->asks, &answer);
    if (lent) answer.fd_count = 0;
    message_fini(&answer);
    message_fini(&ask);
}

/* ---- its death */

static const char *describe_end(int status, char *to, size_t size) {
    if (WIFSIGNALED(status))
        snprintf(to, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else snprintf(to, size, "ended with status %d", WEXITSTATUS(status));
    return to;
}

static void restart_serving(struct supervisor *s);

static void schedule_restart(struct supervisor *s) {
    unsigned n = s->deaths_in_a_row++;
    double pause = n == 0 ? 0 : RESTART_LEAST * (1u << (n - 1 < 10 ? n - 1 : 10));
    if (pause > RESTART_MOST) pause = RESTART_MOST;
    if (pause > 0) log_warn("the next serving process starts in %.1f s", pause);
    ev_timer *restart = &s->restart;
    ev_timer_stop(s->ev, restart);
    ev_timer_set(restart, pause, 0.);
    ev_timer_start(s->ev, restart);
}

static void supervisor_on_restart(struct ev_loop *ev, ev_timer *timer, int events) { restart_serving(timer->data); }

static void restart_serving(struct supervisor *s) {
    if (supervisor_start_serving(s, &s->current)) return;
    log_error("cannot start a serving process: %s", strerror(errno));
    schedule_restart(s);
}

static void give_up(struct supervisor *s, int status) {
    s->status = status;
    s->state = SUPERVISOR_STOPS;
    end_if_nobody_is_left(s);
}

static void mourn_current(struct supervisor *s, const struct serving *p, int status) {
    char how[96];
    if (p->changes_user) {
        if (privilege_user_exists(s->user) && !privilege_is_root(s->user)) {
            restart_serving(s);
            return;
        }
        fprintf(stderr, "%s: user: %s\n", s->options->file,
                privilege_user_exists(s->user) ? "root must be named by --user root" : "there is no such user");
        give_up(s, 1);
        return;
    }
    if (!s->was_ready) {
        if (!p->failed) log_error("the serving process %s before it was ready", describe_end(status, how, sizeof how));
        give_up(s, WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
        return;
    }
    log_error("serving process %d %s", (int)p->pid, describe_end(status, how, sizeof how));
    control_answer_all(&s->control, "reload", 1, "the serving process died meanwhile\n");
    control_answer_all(&s->control, "status", 1, "the serving process died meanwhile\n");
    control_answer_all(&s->control, "cache", 1, "the serving process died meanwhile\n");
    if (s->next) { /* an upgrade was under way: it is that one's turn */
        s->current = s->next;
        s->next = NULL;
        return;
    }
    s->restarts++;
    if (clock_monotonic() - p->began > SETTLED) s->deaths_in_a_row = 0;
    schedule_restart(s);
}

static void mourn(struct supervisor *s, const struct serving *p, int status) {
    char how[96];
    bool current = p == s->current, next = p == s->next;
    if (current) s->current = NULL;
    if (next) s->next = NULL;
    if (s->state != SUPERVISOR_RUNS) {
        if (status != 0 && s->status == 0)
            s->status = p->killed ? 1 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        end_if_nobody_is_left(s);
    } else if (current) {
        mourn_current(s, p, status);
    } else if (next) {
        log_error("the upgrade failed: the new serving process %s; the old one goes on",
                  describe_end(status, how, sizeof how));
    } else {
        log_info("drained: process %d %s", (int)p->pid, describe_end(status, how, sizeof how));
    }
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
    mourn(p->supervisor, p, child->rstatus);
    free_serving(p);
}

struct serving *supervisor_adopt(struct supervisor *s, pid_t pid, int orders, int asks, enum serving_state state) {
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

/* ---- commands and signals */

static bool order_current(struct supervisor *s, enum message_kind kind, uint32_t id, const char *text) {
    struct serving *p = s->current;
    return p && p->state == SERVING_READY && channel_say(p->orders, kind, id, 0, text);
}

/* The connection goes to the serving process, which answers on it as long as somebody listens. One that cannot be handed
 * over ends without an answer. */
static void hand_over(struct supervisor *s, enum message_kind kind, uint32_t id, const char *arguments) {
    struct serving *p = s->current;
    if (!p || p->state != SERVING_READY) {
        control_answer(&s->control, id, 1, "the serving process is just being started\n");
        return;
    }
    struct message m = { .kind = kind, .text = must_strdup(arguments), .size = strlen(arguments) };
    m.fds[0] = control_take(&s->control, id); /* with it goes what `arguments` points into */
    m.fd_count = m.fds[0] >= 0;
    if (m.fd_count) channel_send(p->orders, &m);
    message_fini(&m);
}

static void supervisor_on_command(struct control *control, uint32_t id, const char *command) {
    struct supervisor *s = container_of(control, struct supervisor, control);
    bool stop_now = strcmp(command, "stop now") == 0, running = s->state == SUPERVISOR_RUNS;
    if (stop_now || strcmp(command, "stop") == 0) {
        if (running || (stop_now && s->state != SUPERVISOR_STOPS)) stop_all(s, stop_now);
        return; /* answered when all has ended */
    }
    struct slice rest = slice_of(command), word = slice_cut(&rest, ' ');
    bool trace = rest.p && slice_equal(word, SLICE("trace")), profile = rest.p && slice_equal(word, SLICE("profile"));
    if (running && (trace || profile)) {
        hand_over(s, trace ? MESSAGE_TRACE : MESSAGE_PROFILE, id, rest.p);
        return;
    }
    bool reload = strcmp(command, "reload") == 0, status = strcmp(command, "status") == 0;
    bool cache = rest.p && slice_equal(word, SLICE("cache"));
    if (!reload && !status && !trace && !profile && !cache) control_answer(control, id, 2, "unknown command\n");
    else if (!running) control_answer(control, id, 1, "it is stopping\n");
    else if (!order_current(s,
                            cache    ? MESSAGE_CACHE
                            : reload ? MESSAGE_RELOAD
                                     : MESSAGE_STATUS,
                            id, cache ? rest.p : NULL))
        control_answer(control, id, 1, "the serving process is just being started\n");
}

static void supervisor_on_signal(struct ev_loop *ev, ev_signal *w, int events) {
    struct supervisor *s = w->data;
    if (w->signum == SIGTERM || w->signum == SIGINT) {
        if (s->state != SUPERVISOR_STOPS) stop_all(s, s->state == SUPERVISOR_DRAINS);
        return;
    }
    if (s->state != SUPERVISOR_RUNS) return;
    if (w->signum == SIGUSR2) upgrade_begin(s);
    else if (!order_current(s, w->signum == SIGHUP ? MESSAGE_RELOAD : MESSAGE_REOPEN, 0, NULL))
        log_warn("signal %d is ignored: no serving process is ready", w->signum);
}

static void supervisor_on_change(struct watch *w) {
    struct supervisor *s = container_of(w, struct supervisor, watch);
    if (s->state != SUPERVISOR_RUNS || !order_current(s, MESSAGE_RELOAD, 0, NULL)) return;
    log_info("a watched file was saved: reloading");
}

static void watch_signals(struct supervisor *s) {
    for (size_t i = 0; i < sizeof signal_numbers / sizeof *signal_numbers; i++) {
        ev_signal *w = &s->signals[i];
        ev_signal_init(w, supervisor_on_signal, signal_numbers[i]);
        w->data = s;
        ev_signal_start(s->ev, w);
    }
    signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* an upgrade comes here with all blocked */
}

/* ---- the whole */

static unsigned count_cpus(void) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return 1;
    int count = CPU_COUNT(&cpus);
    return count > 0 ? (unsigned)count : 1;
}

static char *find_exe(void) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    return must_strdup(path);
}

static bool choose_user(struct supervisor *s) {
    const char *wanted = s->options->user;
    if (!privilege_present()) {
        if (!wanted || strcmp(wanted, privilege_own_name()) == 0) return true;
        fprintf(stderr, "moongate: --user %s: only root can become another user\n", wanted);
        return false;
    }
    if (!s->user) s->user = must_strdup(wanted ? wanted : PRIVILEGE_DEFAULT_USER);
    if (privilege_user_exists(s->user)) return true;
    fprintf(stderr, "moongate: there is no user %s\n", s->user);
    return false;
}

static bool open_all(struct supervisor *s) {
    const struct run_options *o = s->options;
    char *why;
    if (!control_open(&s->control, s->ev, o->control, supervisor_on_command, &why)) {
        fprintf(stderr, "moongate: %s\n", why);
        free(why);
        return false;
    }
    if (o->watch && !watch_open(&s->watch, s->ev, supervisor_on_change)) {
        fprintf(stderr, "moongate: --watch: %s\n", strerror(errno));
        return false;
    }
    return true;
}

static bool begin(struct supervisor *s) {
    bool resumed = s->options->resume_fd >= 0;
    if (resumed && !upgrade_resume(s)) return false;
    if (!choose_user(s) || (!open_all(s) && !resumed)) return false; /* who serves already goes on, in any case */
    watch_signals(s);
    if (supervisor_start_serving(s, resumed ? &s->next : &s->current)) return true;
    fprintf(stderr, "moongate: cannot start a serving process: %s\n", strerror(errno));
    return resumed;
}

static void supervisor_fini(struct supervisor *s) {
    control_shut(&s->control);
    held_fini(&s->held);
    if (s->was_ready && s->options->pidfile) unlink(s->options->pidfile);
    /* Nothing of us is left to be found by who hears this. */
    control_answer_all(&s->control, "stop", s->status, s->status ? "it ended with an error\n" : "");
    control_answer_all(&s->control, NULL, 1, "it was stopped meanwhile\n");
    control_close(&s->control);
    watch_close(&s->watch);
    free(s->user);
    free(s->exe);
    ev_loop_destroy(s->ev);
}

int supervisor_run(const struct run_options *options) {
    struct supervisor s = { .options = options, .drain = 60 };
    list_init(&s.processes);
    list_init(&s.control.conns);
    held_init(&s.held, count_cpus());
    s.ev = ev_default_loop(EVFLAG_NOENV);
    s.exe = find_exe();
    must(s.ev != NULL);
    ev_timer *restart = &s.restart;
    ev_timer_init(restart, supervisor_on_restart, 0., 0.);
    restart->data = &s;
    if (begin(&s)) ev_run(s.ev, 0);
    else s.status = 1;
    supervisor_fini(&s);
    return s.status;
}
