/* `moongate run`: from the command line to a supervisor. */
#include "base/must.h"
#include "server/cli.h"
#include "server/control.h"
#include "server/detach.h"
#include "server/supervisor.h"
#include "server/upgrade.h"
#include "store/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* A proxy needs two descriptors a connection: all that the system lets us have. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int take_resume_fd(void) {
    const char *number = getenv(UPGRADE_VARIABLE);
    int fd = number ? (int)strtol(number, NULL, 10) : -1;
    unsetenv(UPGRADE_VARIABLE);
    return fd;
}

static bool read_workers(const char *text, unsigned *workers) {
    uint64_t n;
    if (!text) return true;
    if (!slice_to_u64(slice_of(text), &n) || n < 1 || n > METRIC_WORKERS) {
        cli_fail(EXIT_USAGE, "--workers %s: expected a number from 1 to %d", text, (int)METRIC_WORKERS);
        return false;
    }
    *workers = (unsigned)n;
    return true;
}

/* EXIT_OK, or what was said already. */
static int read_options(const struct cli_args *args, struct run_options *o) {
    const char *const *values = args->values;
    if (!read_workers(values[OPTION_WORKERS], &o->workers)) return EXIT_USAGE;
    o->file = cli_find_path(args->file);
    if (!o->file) return EXIT_FAILED;
    if (values[OPTION_KEYS] && !(o->keys = cli_find_path(values[OPTION_KEYS]))) return EXIT_FAILED;
    char *control = values[OPTION_CONTROL] ? cli_absolute(values[OPTION_CONTROL]) : NULL;
    o->control = control_path(control, o->file);
    free(control);
    if (values[OPTION_PIDFILE]) o->pidfile = cli_absolute(values[OPTION_PIDFILE]);
    if (values[OPTION_USER]) o->user = must_strdup(values[OPTION_USER]);
    o->watch = values[OPTION_WATCH] != NULL;
    o->detached = values[OPTION_DAEMON] != NULL;
    return EXIT_OK;
}

static void free_options(struct run_options *o) {
    free(o->file);
    free(o->keys);
    free(o->control);
    free(o->pidfile);
    free(o->user);
}

int command_run(const struct cli_args *args) {
    struct run_options o = { .argv = args->argv, .ready_fd = -1 };
    o.resume_fd = take_resume_fd();
    int status = read_options(args, &o);
    if (status == EXIT_OK) {
        raise_file_limit();
        if (o.detached && o.resume_fd < 0) o.ready_fd = detach_begin();
        status = supervisor_run(&o);
    }
    free_options(&o);
    return status;
}
