/* The log files of the serving process, as the config names them. Relative paths are below the config's directory. */
#pragma once

#include "base/errors.h"
#include "base/log.h"
#include "proxy/access_log.h"

struct config;
struct instance;
struct worker_thread;

/* What a load changes of the logs. Zeroed is: nothing. */
struct log_change {
    bool access, error;       /* they change */
    struct access_sink *sink; /* the new one, NULL: off */
    int error_fd;             /* the new one; -1: stderr */
    char *access_path, *error_path;
    enum access_format format;
    enum log_level level;
};

/* In a helper: opens what differs from the present. False: errors were added. */
bool logs_open(struct log_change *, const struct instance *, const struct config *, struct errors *);
/* In each worker's thread, at the swap. */
void logs_swap(const struct log_change *, struct worker_thread *);
/* In the main thread, when all workers have swapped: the old files are closed. */
void logs_commit(struct log_change *, struct instance *);
/* Instead: closes what was opened. Safe after logs_commit and on a zeroed one. */
void logs_fini(struct log_change *);
/* SIGUSR1: opens the same files anew, on a helper, when what workers have for the old ones is on its way there. */
void logs_reopen(struct instance *);
/* At the end, when no worker has an access log any more. */
void logs_close(struct instance *);
