/* A task that waits until what was purged so far is safe on disk: after a crash it does not come back. */
#pragma once

#include "net/mailbox.h"
#include "store/disk.h"

#include <stdatomic.h>

struct news;

/* Embedded; zeroed it waits for nothing. In the loop's thread. */
struct purge_wait {
    struct disk_waiter waiter;
    struct news *news; /* NULL: it does not wait */
    atomic_bool safe;
};

/* False: it is safe already. Else the task is woken when it is. */
bool purge_wait_begin(struct purge_wait *, struct cache *, struct loop *, struct mailbox *, struct task *);
/* Is there nothing to wait for any more? */
bool purge_wait_over(const struct purge_wait *);
void purge_wait_end(struct purge_wait *); /* the task is not woken any more; safe always */
