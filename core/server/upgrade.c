/* An upgrade, in three steps, each of which can fail without harm:
 *
 * 1. the new binary checks the config (`moongate check FILE`), as a child;
 * 2. this process executes the new binary under its own pid, with the held sockets and the serving process's
 *    channels left open; what they are is written into a memfd, whose number is in the environment;
 * 3. the new image starts a new serving process on the same sockets. When it is ready, the old one is told to drain.
 *
 * So two serving processes accept from the same sockets for a moment, and none is ever closed. The control socket is
 * bound anew: commands that are waiting for an answer then are told that we went away.
 *
 * Signals are blocked over the exec: one that comes in between would find no handler and end us. */
#include "server/upgrade.h"

#include "base/log.h"
#include "base/must.h"
#include "server/supervisor_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char FIRST_LINE[] = "moongate upgrade 1";

/* ---- what is left behind, and read again */

static int write_state(const struct supervisor *s) {
    int fd = memfd_create("moongate-upgrade", 0);
    if (fd < 0) return -1;
    FILE *out = fdopen(dup(fd), "w");
    must(out != NULL);
    fprintf(out, "%s\n", FIRST_LINE);
    if (s->user) fprintf(out, "user %s\n", s->user);
    fprintf(out, "drain %g\nrestarts %u\n", s->drain, s->restarts);
    fprintf(out, "serving %d %d %d\n", (int)s->current->pid, s->current->orders, s->current->asks);
    held_write(&s->held, out);
    if (fclose(out) == 0) return fd;
    close(fd);
    return -1;
}

static bool read_serving(struct supervisor *s, const char *text) {
    char *at;
    pid_t pid = (pid_t)strtol(text, &at, 10);
    int orders = (int)strtol(at, &at, 10), asks = (int)strtol(at, &at, 10);
    if (pid <= 0 || *at) return false;
    if (fcntl(orders, F_SETFD, FD_CLOEXEC) != 0 || fcntl(asks, F_SETFD, FD_CLOEXEC) != 0) return false;
    s->current = serving_adopt(s, pid, orders, asks, SERVING_READY);
    return true;
}

static bool read_line(struct supervisor *s, char *line) {
    char *rest = strchr(line, ' ');
    if (!rest) return false;
    *rest++ = 0;
    if (strcmp(line, "listener") == 0) return held_read(&s->held, rest);
    if (strcmp(line, "serving") == 0) return read_serving(s, rest);
    if (strcmp(line, "user") == 0) s->user = must_strdup(rest);
    else if (strcmp(line, "drain") == 0) s->drain = strtod(rest, NULL);
    else if (strcmp(line, "restarts") == 0) s->restarts = (unsigned)strtoul(rest, NULL, 10);
    else return false;
    return true;
}

bool upgrade_resume(struct supervisor *s) {
    FILE *in = fdopen(s->options->resume_fd, "r");
    char *line = NULL;
    size_t room = 0;
    bool ok = in != NULL, first = true;
    if (in) rewind(in);
    while (ok && getline(&line, &room, in) > 0) {
        line[strcspn(line, "\n")] = 0;
        ok = first ? strcmp(line, FIRST_LINE) == 0 : read_line(s, line);
        first = false;
    }
    free(line);
    if (in) fclose(in);
    s->was_ready = true;
    if (ok && s->current) return true;
    fprintf(stderr, "moongate: the state of an upgrade is malformed\n");
    return false;
}

/* ---- the exec */

static void keep_over_exec(struct supervisor *s, bool keep) {
    held_keep_over_exec(&s->held, keep);
    fcntl(s->current->orders, F_SETFD, keep ? 0 : FD_CLOEXEC);
    fcntl(s->current->asks, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

static void replace_ourselves(struct supervisor *s) {
    char number[16];
    int fd = write_state(s);
    if (fd < 0) {
        log_error("upgrade: %s; all goes on as it was", strerror(errno));
        return;
    }
    snprintf(number, sizeof number, "%d", fd);
    setenv(UPGRADE_VARIABLE, number, 1);
    keep_over_exec(s, true);
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    control_answer_all(&s->control, NULL, 1, "it is being upgraded\n");
    execv(s->exe, s->options->argv);
    log_error("upgrade: %s: %s; all goes on as it was", s->exe, strerror(errno));
    sigprocmask(SIG_SETMASK, &before, NULL);
    keep_over_exec(s, false);
    unsetenv(UPGRADE_VARIABLE);
    close(fd);
}

/* ---- the check */

static _Noreturn void exec_check(const struct supervisor *s) {
    char check[] = "check", keys[] = "--keys";
    char *argv[] = { s->options->argv[0], check, s->options->file, NULL, NULL, NULL };
    if (s->options->keys) argv[3] = keys, argv[4] = s->options->keys;
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execv(s->exe, argv);
    dprintf(STDERR_FILENO, "moongate: %s: %s\n", s->exe, strerror(errno));
    _exit(127);
}

static void upgrade_on_checked(struct ev_loop *ev, ev_child *child, int events) {
    struct supervisor *s = child->data;
    ev_child_stop(ev, child);
    if (s->state != SUPERVISOR_RUNS) return;
    if (child->rstatus != 0) log_error("upgrade: the new binary's check failed; all goes on as it was");
    else if (!s->current || s->current->state != SERVING_READY || s->next)
        log_error("upgrade: no serving process is ready; try again");
    else replace_ourselves(s);
}

void upgrade_begin(struct supervisor *s) {
    if (!s->exe || ev_is_active(&s->checker) || s->next) {
        log_warn("upgrade: one is under way already");
        return;
    }
    log_info("upgrade: checking the config with %s", s->exe);
    pid_t pid = fork();
    if (pid == 0) exec_check(s);
    if (pid < 0) {
        log_error("upgrade: %s", strerror(errno));
        return;
    }
    ev_child *checker = &s->checker;
    ev_child_init(checker, upgrade_on_checked, pid, 0);
    checker->data = s;
    ev_child_start(s->ev, checker);
}
