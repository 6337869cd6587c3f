/* The supervisor's loop: a libev loop of its own, no threads.
 *
 * Here it begins, opens what it holds, and ends. The life of serving processes is told in serving.c and
 * serving_death.c, what they are granted in serving_grant.c, commands and signals in supervisor_order.c.
 *
 * If we are killed, the serving process sees the end of its channel, and drains. */
#include "server/supervisor_inside.h"

#include "base/log.h"
#include "base/must.h"
#include "server/privilege.h"
#include "server/upgrade.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- stopping */

void supervisor_end_if_alone(struct supervisor *s) {
    if (list_empty(&s->processes)) ev_break(s->ev, EVBREAK_ALL);
}

void supervisor_stop(struct supervisor *s, bool now) {
    if (now) log_info("stopping");
    else log_info("draining: what is under way is finished, within %.0f s", s->drain);
    s->state = now ? SUPERVISOR_STOPS : SUPERVISOR_DRAINS;
    ev_timer_stop(s->ev, &s->restart);
    list_each(node, &s->processes) serving_dismiss(container_of(node, struct serving, node), now);
    supervisor_end_if_alone(s);
}

/* ---- the whole */

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
    supervisor_watch_signals(s);
    if (serving_start(s, resumed ? &s->next : &s->current)) return true;
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
    held_init(&s.held);
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
