/* What follows the death of a serving process.
 *
 * Its sockets stay here, so clients wait in their queues until the next one accepts. The first death is followed by a
 * restart at once, a series of them by longer and longer pauses. A process that ends before any was ever ready is a
 * config error, and the end of us: it has said why. */
#include "server/supervisor_inside.h"

#include "base/clock.h"
#include "base/log.h"
#include "server/privilege.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static const double RESTART_MOST = 5, RESTART_LEAST = 0.1; /* seconds between deaths in a row */
static const double SETTLED = 30;                          /* who served so long did not die in a row */

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

void supervisor_on_restart(struct ev_loop *ev, ev_timer *timer, int events) { restart_serving(timer->data); }

static void restart_serving(struct supervisor *s) {
    if (serving_start(s, &s->current)) return;
    log_error("cannot start a serving process: %s", strerror(errno));
    schedule_restart(s);
}

static void give_up(struct supervisor *s, int status) {
    s->status = status;
    s->state = SUPERVISOR_STOPS;
    supervisor_end_if_alone(s);
}

static void mourn_current(struct supervisor *s, const struct serving *p, int status) {
    char how[96];
    if (p->changes_user) {
        const char *wrong = privilege_user_wrong(s->user); /* the serving process says so, too; it is not believed */
        if (!wrong) {
            restart_serving(s);
            return;
        }
        fprintf(stderr, "%s: user: \"%s\": %s\n", s->options->file, s->user, wrong);
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

void supervisor_mourn(struct supervisor *s, const struct serving *p, int status) {
    char how[96];
    bool current = p == s->current, next = p == s->next;
    if (current) s->current = NULL;
    if (next) s->next = NULL;
    if (s->state != SUPERVISOR_RUNS) {
        if (status != 0 && s->status == 0)
            s->status = p->killed ? 1 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        supervisor_end_if_alone(s);
    } else if (current) {
        mourn_current(s, p, status);
    } else if (next) {
        log_error("the upgrade failed: the new serving process %s; the old one goes on",
                  describe_end(status, how, sizeof how));
    } else {
        log_info("drained: process %d %s", (int)p->pid, describe_end(status, how, sizeof how));
    }
}
