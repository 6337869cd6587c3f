/* The mailbox: a Treiber stack that is taken whole and turned round.
 *
 * Posting is one compare-and-swap; taking all at once means there is no ABA and no reclamation to think about. The bell
 * is rung only by the letter that found the box empty: the receiver empties it whenever it is rung, so a letter that
 * finds another one before it knows that a ring is under way.
 *
 * Closing is the delicate part. The box is closed by swapping in a mark that no letter is, so that later posts are
 * refused. But a poster that got its letter in may still be about to ring, and libev must not be gone by then.
 * `posting` counts those inside, and mailbox_close waits for them: a few instructions each, so it spins. */
#include "net/mailbox.h"

#include <sched.h>

static struct letter closed_mark;

static struct letter *turn_round(struct letter *newest) {
    struct letter *oldest = NULL;
    while (newest) {
        struct letter *next = atomic_load_explicit(&newest->next, memory_order_relaxed);
        atomic_store_explicit(&newest->next, oldest, memory_order_relaxed);
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void deliver_all(struct letter *newest, struct loop *loop) {
    struct letter *letter = turn_round(newest);
    while (letter) {
        struct letter *next = atomic_load_explicit(&letter->next, memory_order_relaxed);
        letter->deliver(letter, loop);
        letter = next;
    }
}

static void mailbox_on_bell(struct ev_loop *ev, ev_async *bell, int events) {
    struct mailbox *m = container_of(bell, struct mailbox, bell);
    deliver_all(atomic_exchange_explicit(&m->head, NULL, memory_order_acquire), m->loop);
}

void mailbox_open(struct mailbox *m, struct loop *loop) {
    atomic_init(&m->head, NULL);
    atomic_init(&m->posting, 0);
    m->loop = loop;
    ev_async *bell = &m->bell;
    ev_async_init(bell, mailbox_on_bell);
    ev_async_start(loop->ev, bell);
}

void mailbox_close(struct mailbox *m) {
    struct letter *left = atomic_exchange_explicit(&m->head, &closed_mark, memory_order_acquire);
    while (atomic_load_explicit(&m->posting, memory_order_acquire) > 0) sched_yield();
    if (left == &closed_mark) return;
    ev_async_stop(m->loop->ev, &m->bell);
    deliver_all(left, m->loop);
}

/* Puts the letter in; `*first` tells that the box was empty. */
static bool push_letter(struct mailbox *m, struct letter *letter, bool *first) {
    struct letter *head = atomic_load_explicit(&m->head, memory_order_relaxed);
    do {
        if (head == &closed_mark) return false;
        atomic_store_explicit(&letter->next, head, memory_order_relaxed);
    } while (
        !atomic_compare_exchange_weak_explicit(&m->head, &head, letter, memory_order_release, memory_order_relaxed));
    *first = head == NULL;
    return true;
}

bool mailbox_post(struct mailbox *m, struct letter *letter) {
    bool first = false;
    atomic_fetch_add_explicit(&m->posting, 1, memory_order_seq_cst);
    bool posted = push_letter(m, letter, &first);
    if (first) ev_async_send(m->loop->ev, &m->bell);
    atomic_fetch_sub_explicit(&m->posting, 1, memory_order_release);
    return posted;
}
