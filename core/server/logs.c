/* Opening log files blocks (a disk, the supervisor's answer), so a helper does it; swapping them must not lose a line.
 * The old access sink is destroyed on the helper that writes for it: its queue is in order, so what the workers handed
 * over before is written by then.
 *
 * Before files are opened anew each worker hands over what it has gathered, so that a rotated file has all that came
 * before the signal, and whoever packs or ships it misses nothing. */
#include "server/logs.h"

#include "base/must.h"
#include "server/ask.h"
#include "server/config.h"
#include "server/config_lines.h"
#include "server/instance.h"
#include "server/worker_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_stderr(const char *path) { return strcmp(path, "stderr") == 0; }
static bool is_syslog(const char *path) { return strcmp(path, "syslog") == 0; }
static bool is_same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

/* Absolute. "stderr" and "syslog" stay what they are. malloc'd. */
static char *find_path(const char *path, const char *config) {
    const char *slash = strrchr(config, '/');
    if (path[0] == '/' || is_stderr(path) || is_syslog(path) || !slash) return must_strdup(path);
    return must_printf("%.*s/%s", (int)(slash - config), config, path);
}

/* Of a log that could not be opened. What the serving user may not, the supervisor may refuse him, too (privilege.h). */
static const char *why_closed(void) {
    if (errno != EACCES || !ask_is_open()) return strerror(errno);
    return "Permission denied for the user it serves as (the supervisor opens what ends in .log or lies below "
           "/var/log)";
}

/* -1 with errno. Not for syslog. */
static int open_access(const char *path) {
    return is_stderr(path) ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : ask_append(path, false);
}

static bool open_access_change(struct log_change *c, const struct config *config, struct errors *errors) {
    if (!c->access_path) return true;
    bool to_syslog = is_syslog(c->access_path);
    int fd = to_syslog ? -1 : open_access(c->access_path);
    if (fd < 0 && !to_syslog) {
        errors_add(errors, config->file, config_lines_find(config->lines, "log.access"), "log.access", "%s: %s",
                   c->access_path, why_closed());
        return false;
    }
    c->sink = access_sink_create(fd, to_syslog, c->format);
    return true;
}

static bool open_error_change(struct log_change *c, const struct config *config, struct errors *errors) {
    c->error_fd = -1;
    if (!c->error_path) return true;
    c->error_fd = ask_append(c->error_path, true);
    if (c->error_fd >= 0) return true;
    errors_add(errors, config->file, config_lines_find(config->lines, "log.error"), "log.error", "%s: %s",
               c->error_path, why_closed());
    return false;
}

bool logs_open(struct log_change *c, const struct instance *instance, const struct config *config,
               struct errors *errors) {
    const struct config_log *log = &config->log;
    *c = (struct log_change){ .error_fd = -1, .format = log->access_format, .level = log->level };
    c->access_path = log->access ? find_path(log->access, config->file) : NULL;
    c->error_path = log->error && !is_stderr(log->error) ? find_path(log->error, config->file) : NULL;
    c->access =
        !is_same(c->access_path, instance->access_path) || (c->access_path && c->format != instance->access_format);
    c->error = !is_same(c->error_path, instance->error_path);
    bool ok = !c->access || open_access_change(c, config, errors);
    return (!c->error || open_error_change(c, config, errors)) && ok;
}

void logs_swap(const struct log_change *c, struct worker_thread *t) {
    struct worker *w = &t->worker;
    if (!c->access) return;
    access_log_destroy(w->access);
    w->access = c->sink ? access_log_create(c->sink, w->helpers, &w->loop) : NULL;
}

/* ---- the old sink */

struct sink_end {
    struct job job;
    struct access_sink *sink;
};

static void destroy_sink(struct job *job) {
    struct sink_end *end = container_of(job, struct sink_end, job);
    access_sink_destroy(end->sink);
    free(end);
}

static void end_sink(struct instance *instance, struct access_sink *sink) {
    if (!sink) return;
    struct sink_end *end = must_calloc(1, sizeof *end);
    *end = (struct sink_end){ .job.work = destroy_sink, .sink = sink };
    if (helpers_ask(instance->helpers, HELP_FILES, &end->job)) return;
    log_error("the log helper is stuck: an old access log stays open");
    free(end);
}

static void commit_access(struct log_change *c, struct instance *instance) {
    end_sink(instance, instance->sink);
    instance->sink = c->sink;
    free(instance->access_path);
    instance->access_path = c->access_path;
    instance->access_format = c->format;
    c->sink = NULL;
    c->access_path = NULL;
}

static void commit_error(struct log_change *c, struct instance *instance) {
    log_open(c->error_fd >= 0 ? c->error_fd : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), c->level);
    free(instance->error_path);
    instance->error_path = c->error_path;
    c->error_fd = -1;
    c->error_path = NULL;
}

void logs_commit(struct log_change *c, struct instance *instance) {
    if (c->access) commit_access(c, instance);
    if (c->error) commit_error(c, instance);
    log_set_level(c->level);
    instance->log_level = c->level;
    logs_fini(c);
}

void logs_fini(struct log_change *c) {
    access_sink_destroy(c->sink);
    if (c->error && c->error_fd >= 0) close(c->error_fd);
    free(c->access_path);
    free(c->error_path);
    *c = (struct log_change){ .error_fd = -1 };
}

void logs_close(struct instance *instance) {
    end_sink(instance, instance->sink);
    instance->sink = NULL;
    free(instance->access_path);
    free(instance->error_path);
    instance->access_path = instance->error_path = NULL;
}

/* ---- reopening */

struct reopening {
    struct round round; /* of handing over */
    struct job job;
    struct instance *instance;
    char *access_path, *error_path; /* copies; NULL: nothing to open */
    int access_fd, error_fd;
};

static void reopen_files(struct job *job) {
    struct reopening *r = container_of(job, struct reopening, job);
    if (r->access_path) r->access_fd = ask_append(r->access_path, false);
    if (r->access_path && r->access_fd < 0)
        log_error("log.access: %s: %s; the old file is kept", r->access_path, strerror(errno));
    if (r->error_path) r->error_fd = ask_append(r->error_path, true);
    if (r->error_path && r->error_fd < 0)
        log_error("log.error: %s: %s; the old file is kept", r->error_path, strerror(errno));
}

static void logs_on_reopened(struct job *job, struct loop *loop) {
    struct reopening *r = container_of(job, struct reopening, job);
    struct instance *instance = r->instance;
    /* A reload may have changed them meanwhile: then they are open anew already. */
    bool access = r->access_fd >= 0 && instance->sink && is_same(r->access_path, instance->access_path);
    bool error = r->error_fd >= 0 && is_same(r->error_path, instance->error_path);
    if (access) access_sink_reopen(instance->sink, r->access_fd);
    else if (r->access_fd >= 0) close(r->access_fd);
    if (error) log_open(r->error_fd, instance->log_level);
    else if (r->error_fd >= 0) close(r->error_fd);
    log_info("logs are reopened");
    free(r->access_path);
    free(r->error_path);
    free(r);
}

static void begin_reopening(struct reopening *r) {
    if (helpers_ask(r->instance->helpers, HELP_FILES, &r->job)) return;
    log_error("the log helper is stuck: the logs are not reopened");
    r->job.done(&r->job, &r->instance->loop);
}

static void hand_over(struct round *round, struct worker_thread *t) {
    access_log_hand_over(t->worker.access);
    round_report(round, t);
}

static void logs_on_handed_over(struct round *round) { begin_reopening(container_of(round, struct reopening, round)); }

void logs_reopen(struct instance *instance) {
    const char *access = instance->access_path;
    struct reopening *r = must_calloc(1, sizeof *r);
    r->instance = instance;
    r->access_fd = r->error_fd = -1;
    r->access_path = access && !is_stderr(access) && !is_syslog(access) ? must_strdup(access) : NULL;
    r->error_path = instance->error_path ? must_strdup(instance->error_path) : NULL;
    r->job = (struct job){ .asker = &instance->mailbox, .work = reopen_files, .done = logs_on_reopened };
    r->round = (struct round){ .visit = hand_over, .done = logs_on_handed_over };
    bool serves = instance->state == INSTANCE_SERVES || instance->state == INSTANCE_DRAINS;
    if (serves) round_begin(&r->round, instance);
    else begin_reopening(r);
}
