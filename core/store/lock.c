/* Locks: sixteen tables of names, each under a mutex that is held for a few instructions.
 *
 * A lock that is given back goes to the first in line at once, before anybody else can ask for it: so the line is
 * fair, nobody polls, and no wake-up can be lost, for there is no moment in which the lock is free while someone
 * waits. The price is that it belongs for the time of a letter to a worker that does not know it yet.
 *
 * What is not here: how long one waits and how long one may hold. Both are deadlines of whoever made the claim. */
#include "store/lock.h"

#include "base/map.h"
#include "base/must.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { TABLES = 16 };

struct table {
    pthread_mutex_t mutex;
    struct map locks; /* by name */
};

struct lock {
    struct table *table;
    struct claim *holder;
    struct list line;
    size_t size;
    char name[];
};

static struct table tables[TABLES] = { [0 ... TABLES - 1] = { .mutex = PTHREAD_MUTEX_INITIALIZER } };
static atomic_size_t held, waiting;

static struct slice name_of(const struct lock *lock) { return slice_make(lock->name, lock->size); }

static struct lock *make_lock(struct table *table, struct slice name) {
    struct lock *lock = must_malloc(sizeof *lock + name.n);
    *lock = (struct lock){ .table = table, .size = name.n };
    memcpy(lock->name, name.p, name.n);
    list_init(&lock->line);
    map_set(&table->locks, name, lock);
    return lock;
}

static void hold(struct lock *lock, struct claim *c) {
    lock->holder = c;
    atomic_fetch_add_explicit(&held, 1, memory_order_relaxed);
}

/* With the table locked. */
static enum claim_result take(struct table *table, struct claim *c, struct slice name, bool wait) {
    struct lock *lock = map_get(&table->locks, name);
    if (!lock) {
        hold(c->lock = make_lock(table, name), c);
        return CLAIM_HOLDS;
    }
    if (memcmp(lock->holder->owner, c->owner, sizeof c->owner) == 0) return CLAIM_IS_OWN;
    if (!wait) return CLAIM_BUSY;
    c->lock = lock;
    list_push(&lock->line, &c->node);
    atomic_fetch_add_explicit(&waiting, 1, memory_order_relaxed);
    return CLAIM_WAITS;
}

enum claim_result lock_claim(struct claim *c, struct slice name, bool wait) {
    struct lock_figures now = lock_figures();
    list_init(&c->node);
    c->lock = NULL;
    if (now.held + now.waiting >= CLAIMS_MOST) return CLAIM_FULL;
    struct table *table = &tables[hash_bytes(name) % TABLES];
    pthread_mutex_lock(&table->mutex);
    enum claim_result result = take(table, c, name, wait);
    pthread_mutex_unlock(&table->mutex);
    return result;
}

/* To the next in line; without one the lock goes. */
static void hand_over(struct lock *lock) {
    atomic_fetch_sub_explicit(&held, 1, memory_order_relaxed);
    struct list *first = list_pop(&lock->line);
    if (!first) {
        map_remove(&lock->table->locks, name_of(lock));
        free(lock);
        return;
    }
    struct claim *next = container_of(first, struct claim, node);
    atomic_fetch_sub_explicit(&waiting, 1, memory_order_relaxed);
    hold(lock, next);
    next->granted(next);
}

static void leave_line(struct claim *c) {
    list_remove(&c->node);
    atomic_fetch_sub_explicit(&waiting, 1, memory_order_relaxed);
}

/* A claim's lock stays as long as the claim is not left, so its table can be found without the mutex. */
void lock_leave(struct claim *c) {
    if (!c->lock) return;
    struct table *table = c->lock->table;
    pthread_mutex_lock(&table->mutex);
    if (c->lock->holder == c) hand_over(c->lock);
    else leave_line(c);
    pthread_mutex_unlock(&table->mutex);
    c->lock = NULL;
}

struct lock_figures lock_figures(void) {
    return (struct lock_figures){ .held = atomic_load_explicit(&held, memory_order_relaxed),
                                  .waiting = atomic_load_explicit(&waiting, memory_order_relaxed) };
}

void locks_close_all(void) {
    for (unsigned i = 0; i < TABLES; i++) {
        must(tables[i].locks.count == 0);
        map_fini(&tables[i].locks);
    }
}
