/* The helper threads: a queue, a mutex and a condition each, nothing clever, since what runs here takes milliseconds.
 *
 * There are two of them, so that a reload that compiles Lua for a second does not keep a log line from its file.
 * They block every signal: signals are for the main thread. More threads, or a pool, were not wanted: what is
 * CPU-bound would only take the workers' time. */
#include "net/helpers.h"

#include "base/buffer.h"
#include "base/log.h"
#include "base/must.h"
#include "net/tls.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { QUEUE_LIMIT = 4096 };

struct helper {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    struct job *first, *last;
    unsigned queued;
    bool ending;
};

struct helpers {
    struct helper list[HELP_COUNT];
};

/* Waits; NULL when the helper is to end and nothing is left. */
static struct job *take_job(struct helper *h) {
    pthread_mutex_lock(&h->lock);
    while (!h->first && !h->ending) pthread_cond_wait(&h->news, &h->lock);
    struct job *job = h->first;
    if (job) {
        h->first = job->next;
        if (!h->first) h->last = NULL;
        h->queued--;
    }
    pthread_mutex_unlock(&h->lock);
    return job;
}

static void job_on_delivery(struct letter *letter, struct loop *loop) {
    struct job *job = container_of(letter, struct job, letter);
    job->done(job, loop);
}

static void *run_helper(void *arg) {
    struct helper *h = arg;
    for (struct job *job; (job = take_job(h));) {
        struct mailbox *asker = job->asker;
        job->work(job);
        if (!asker) continue; /* `work` has freed it */
        job->letter.deliver = job_on_delivery;
        if (!mailbox_post(asker, &job->letter)) log_debug("a helper's result came after its asker had closed");
    }
    tls_thread_fini(NULL);
    buffer_thread_fini();
    return NULL;
}

struct helpers *helpers_create(void) {
    struct helpers *all = must_calloc(1, sizeof *all);
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    for (int i = 0; i < HELP_COUNT; i++) {
        struct helper *h = &all->list[i];
        must(pthread_mutex_init(&h->lock, NULL) == 0);
        must(pthread_cond_init(&h->news, NULL) == 0);
        must(pthread_create(&h->thread, NULL, run_helper, h) == 0);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return all;
}

static void end_helper(struct helper *h) {
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    pthread_cond_signal(&h->news);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->news);
    pthread_mutex_destroy(&h->lock);
}

void helpers_destroy(struct helpers *all) {
    if (!all) return;
    for (int i = 0; i < HELP_COUNT; i++) end_helper(&all->list[i]);
    free(all);
}

bool helpers_ask(struct helpers *all, enum help which, struct job *job) {
    struct helper *h = &all->list[which];
    pthread_mutex_lock(&h->lock);
    bool taken = h->queued < QUEUE_LIMIT && !h->ending;
    if (taken) {
        job->next = NULL;
        if (h->last) h->last->next = job;
        else h->first = job;
        h->last = job;
        h->queued++;
        pthread_cond_signal(&h->news);
    }
    pthread_mutex_unlock(&h->lock);
    return taken;
}
