/* The disk's journal has a thread of its own; it tells by a letter. */
#include "proxy/purge_wait.h"

#include "net/news.h"

static void wait_on_safe(struct disk_waiter *waiter) {
    struct purge_wait *w = container_of(waiter, struct purge_wait, waiter);
    atomic_store(&w->safe, true);
    news_tell(w->news);
}

bool purge_wait_begin(struct purge_wait *w, struct cache *cache, struct loop *loop, struct mailbox *mailbox,
                      struct task *task) {
    *w = (struct purge_wait){ .waiter.tell = wait_on_safe, .news = news_open(loop, mailbox, task) };
    if (disk_await_purges(cache, &w->waiter)) return true;
    purge_wait_end(w);
    return false;
}

bool purge_wait_over(const struct purge_wait *w) { return !w->news || atomic_load(&w->safe); }

void purge_wait_end(struct purge_wait *w) {
    if (!w->news) return;
    disk_forget_waiter(&w->waiter);
    news_close(w->news);
    w->news = NULL;
}
