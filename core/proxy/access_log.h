/* The access log: one line per exchange, combined or JSON, to a file, stderr or syslog. A worker formats into its own
 * buffer at the end of an exchange and hands full buffers (or those older than a second) to a helper thread: nothing
 * is written on the hot path, nothing is lost at a stop. A buffer that cannot be handed over (disk stuck) is dropped
 * and counted. */
#pragma once

#include "base/slice.h"
#include "net/addr.h"
#include "net/helpers.h"

enum access_format { ACCESS_COMBINED, ACCESS_JSON };

/* Where lines go: shared by workers, reopened on SIGUSR1. */
struct access_sink;
/* `fd` is taken over. For syslog `fd` is -1 (lines go to the local socket, facility daemon). */
struct access_sink *access_sink_create(int fd, bool syslog, enum access_format);
void access_sink_reopen(struct access_sink *, int fd);
void access_sink_destroy(struct access_sink *);

struct access_log; /* a worker's */
struct access_log *access_log_create(struct access_sink *, struct helpers *, struct loop *);
void access_log_destroy(struct access_log *); /* hands over what is left */
/* Hands over what there is, without waiting for more. NULL is ignored. */
void access_log_hand_over(struct access_log *);

/* What a line tells; slices need to live for the call only. */
struct access_record {
    struct slice client_ip, id, method, target, version, host, referer, user_agent, site, backend, server, source, word;
    struct slice cache, cache_rule; /* p NULL: the cache was not asked, no rule decided */
    int status;
    uint64_t bytes_in, bytes_out;
    double wall, seconds, first_byte; /* Unix time of the head; duration; -1: none */
    unsigned tries;
};
void access_log_write(struct access_log *, const struct access_record *);
