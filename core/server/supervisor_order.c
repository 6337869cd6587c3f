/* Commands and signals. What concerns the serving process is passed on to it; what it says to a command, serving.c
 * gives back. */
#include "server/supervisor_inside.h"

#include "base/log.h"
#include "base/must.h"
#include "server/upgrade.h"

#include <signal.h>
#include <string.h>

static const int signal_numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };

static bool order_current(struct supervisor *s, enum message_kind kind, uint32_t id, const char *text) {
    struct serving *p = s->current;
    return p && p->state == SERVING_READY && channel_say(p->orders, kind, id, 0, text);
}

/* The connection goes to the serving process, which answers on it as long as somebody listens. One that cannot be
 * handed over ends without an answer. */
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

void supervisor_on_command(struct control *control, uint32_t id, const char *command) {
    struct supervisor *s = container_of(control, struct supervisor, control);
    bool stop_now = strcmp(command, "stop now") == 0, running = s->state == SUPERVISOR_RUNS;
    if (stop_now || strcmp(command, "stop") == 0) {
        if (running || (stop_now && s->state != SUPERVISOR_STOPS)) supervisor_stop(s, stop_now);
        return; /* answered when all has ended */
    }
    if (strcmp(command, "config") == 0) {
        control_answer(control, id, 0, s->options->file);
        return;
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
        if (s->state != SUPERVISOR_STOPS) supervisor_stop(s, s->state == SUPERVISOR_DRAINS);
        return;
    }
    if (s->state != SUPERVISOR_RUNS) return;
    if (w->signum == SIGUSR2) upgrade_begin(s);
    else if (!order_current(s, w->signum == SIGHUP ? MESSAGE_RELOAD : MESSAGE_REOPEN, 0, NULL))
        log_warn("signal %d is ignored: no serving process is ready", w->signum);
}

void supervisor_on_change(struct watch *w) {
    struct supervisor *s = container_of(w, struct supervisor, watch);
    if (s->state != SUPERVISOR_RUNS || !order_current(s, MESSAGE_RELOAD, 0, NULL)) return;
    log_info("a watched file was saved: reloading");
}

void supervisor_watch_signals(struct supervisor *s) {
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
