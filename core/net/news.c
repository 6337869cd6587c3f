/* The owner holds one reference, a letter on its way another. `told` keeps it to one letter: it is taken back before
 * the task is woken, so what happens behind that is told anew. */
#include "net/news.h"

#include "base/refs.h"
#include "base/slab.h"

#include <pthread.h>

struct news {
    struct letter letter;
    struct loop *loop;
    struct mailbox *mailbox;
    struct task *task; /* the owner's thread's; NULL: closed */
    pthread_t thread;
    atomic_uint refs;
    atomic_bool told;
};

static _Thread_local struct slab all = SLAB(struct news, 256);

static void unref(struct news *n) {
    if (refs_give(&n->refs)) slab_give(&all, n);
}

static void deliver(struct letter *letter, struct loop *loop) {
    struct news *n = container_of(letter, struct news, letter);
    atomic_store_explicit(&n->told, false, memory_order_release);
    if (n->task) task_wake(loop, n->task);
    unref(n);
}

struct news *news_open(struct loop *loop, struct mailbox *mailbox, struct task *task) {
    struct news *n = slab_take_zeroed(&all);
    n->letter.deliver = deliver;
    n->loop = loop;
    n->mailbox = mailbox;
    n->task = task;
    n->thread = pthread_self();
    atomic_init(&n->refs, 1);
    return n;
}

void news_tell(struct news *n) {
    if (pthread_equal(n->thread, pthread_self())) {
        if (n->task) task_wake(n->loop, n->task);
        return;
    }
    if (atomic_exchange_explicit(&n->told, true, memory_order_acq_rel)) return;
    refs_take(&n->refs);
    if (!mailbox_post(n->mailbox, &n->letter)) unref(n); /* its worker has ended */
}

void news_close(struct news *n) {
    if (!n) return;
    n->task = NULL;
    unref(n);
}
