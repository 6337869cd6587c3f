/* Queues.
 *
 * What keeps a place from being lost between two threads: who joins counts himself first and then looks whether a server
 * has room; who gives a place back makes room first and then looks whether somebody is counted. One of them sees the
 * other. Usually nothing has to be seen: with somebody counted the place is handed over without having been free.
 *
 * The lock guards the line and what a wait has got. The place goes to its owner by letter, so a wait may end while the
 * letter is on the way; then the letter passes the place on, and frees the wait.
 *
 * What nobody announces by giving something back (a limit raised by a reload, a server that is well again) each wait
 * looks for by itself, once a second. */
#include "backend/queue.h"

#include "backend/server.h"

#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"

#include <pthread.h>
#include <stdlib.h>

/* Seconds from one look of a wait to the next. */
static const double LOOK_EVERY = 1;

struct queue {
    atomic_uint refs;
    char *name;
    pthread_mutex_t lock;
    struct list users; /* under the registry's lock */
    atomic_uint most;  /* of the users */
    struct list waits; /* in the order of coming */
    atomic_uint length;
};

struct queue_wait {
    /* Under the queue's lock. */
    struct list node;     /* in the line; empty: it has stepped out of it */
    struct server *place; /* a reference, with a place at it; NULL: none, or its worker cannot be told any more */
    bool by_letter;       /* the letter that says so is on the way */
    bool left;            /* its owner has left meanwhile */

    bool has_place, over; /* as its owner knows it */
    struct letter letter;
    struct queue *queue;
    struct loop *loop;
    struct mailbox *mailbox;
    double since, until; /* by the loop's time */
    struct deadline look;
    void (*on_news)(void *with);
    void *with;
    unsigned count;
    struct server *servers[]; /* references */
};

/* ---- the registry */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry;

static struct queue *create_queue(struct slice backend) {
    struct queue *q = must_calloc(1, sizeof *q);
    q->refs = 1;
    q->name = must_strndup(backend.p, backend.n);
    pthread_mutex_init(&q->lock, NULL);
    list_init(&q->users);
    list_init(&q->waits);
    return q;
}

static void count_users(struct queue *q) {
    unsigned most = 0;
    list_each(node, &q->users) {
        const struct queue_user *user = container_of(node, struct queue_user, node);
        if (user->most > most) most = user->most;
    }
    atomic_store(&q->most, most);
}

struct queue *queue_open(struct slice backend, struct queue_user *user) {
    pthread_mutex_lock(&lock);
    struct queue *q = map_get(&registry, backend);
    if (q) {
        refs_take(&q->refs);
    } else {
        q = create_queue(backend);
        map_set(&registry, slice_of(q->name), q);
    }
    list_push(&q->users, &user->node);
    count_users(q);
    pthread_mutex_unlock(&lock);
    return q;
}

void queue_close(struct queue *q, struct queue_user *user) {
    if (!q) return;
    pthread_mutex_lock(&lock);
    list_remove(&user->node);
    count_users(q);
    pthread_mutex_unlock(&lock);
    queue_unref(q);
}

struct queue *queue_ref(struct queue *q) {
    refs_take(&q->refs);
    return q;
}

void queue_unref(struct queue *q) {
    if (!q || refs_give_early(&q->refs)) return;
    pthread_mutex_lock(&lock);
    bool last = refs_give(&q->refs);
    if (last) map_remove(&registry, slice_of(q->name));
    if (last && registry.count == 0) map_fini(&registry);
    pthread_mutex_unlock(&lock);
    if (!last) return;
    must(list_empty(&q->waits));
    pthread_mutex_destroy(&q->lock);
    free(q->name);
    free(q);
}

unsigned queue_length(const struct queue *q) { return atomic_load(&q->length); }

/* ---- waits */

static void free_wait(struct queue_wait *w) {
    for (unsigned i = 0; i < w->count; i++) server_unref(w->servers[i]);
    queue_unref(w->queue);
    free(w);
}

/* Under the lock: takes it out of the line. */
static void step_out(struct queue_wait *w) {
    list_remove(&w->node);
    atomic_fetch_sub(&w->queue->length, 1);
}

/* Under the lock. */
static void give_place(struct queue_wait *w, struct server *s) {
    step_out(w);
    w->place = server_ref(s);
}

/* Takes a place at one of its servers, if there is one that is well, or that none of them is. */
static struct server *find_room(const struct queue_wait *w) {
    unsigned most = atomic_load(&w->queue->most);
    bool any_well = false;
    for (unsigned i = 0; i < w->count; i++) {
        if (!server_well(w->servers[i])) continue;
        any_well = true;
        if (server_enter(w->servers[i], most)) return w->servers[i];
    }
    for (unsigned i = 0; !any_well && i < w->count; i++)
        if (server_enter(w->servers[i], most)) return w->servers[i];
    return NULL;
}

/* True: it has a place now. */
static bool look_for_room(struct queue_wait *w) {
    struct server *s = find_room(w);
    if (!s) return false;
    pthread_mutex_lock(&w->queue->lock);
    w->has_place = !list_empty(&w->node);
    if (w->has_place) give_place(w, s);
    pthread_mutex_unlock(&w->queue->lock);
    if (!w->has_place) server_leave(s); /* it was called meanwhile: its letter comes */
    return w->has_place;
}

static void arm_look(struct queue_wait *w) {
    double left = w->until - loop_now(w->loop);
    if (left > LOOK_EVERY) left = LOOK_EVERY;
    deadline_set(&w->look, left > 0 ? left : 0.001);
}

static void on_look(struct deadline *d) {
    struct queue_wait *w = container_of(d, struct queue_wait, look);
    if (w->has_place) return;
    w->over = loop_now(w->loop) >= w->until;
    if (w->over || look_for_room(w)) w->on_news(w->with);
    else arm_look(w);
}

static struct queue_wait *create_wait(struct queue *q, const struct queue_wish *wish) {
    struct queue_wait *w = must_calloc(1, sizeof *w + wish->count * sizeof *w->servers);
    list_init(&w->node);
    w->queue = queue_ref(q);
    w->loop = wish->loop;
    w->mailbox = wish->mailbox;
    w->since = loop_now(wish->loop);
    w->until = w->since + wish->timeout;
    w->on_news = wish->on_news;
    w->with = wish->with;
    w->count = wish->count;
    for (unsigned i = 0; i < wish->count; i++) w->servers[i] = server_ref(wish->servers[i]);
    deadline_init(&w->look, wish->loop, on_look);
    return w;
}

static bool stand_in_line(struct queue *q, struct queue_wait *w, unsigned longest) {
    pthread_mutex_lock(&q->lock);
    bool room = atomic_load(&q->length) < longest;
    if (room) list_push(&q->waits, &w->node);
    if (room) atomic_fetch_add(&q->length, 1);
    pthread_mutex_unlock(&q->lock);
    return room;
}

struct queue_wait *queue_join(struct queue *q, const struct queue_wish *wish) {
    struct queue_wait *w = create_wait(q, wish);
    if (!stand_in_line(q, w, wish->longest)) {
        free_wait(w);
        return NULL;
    }
    if (!look_for_room(w)) arm_look(w);
    return w;
}

/* ---- places that are given back */

static bool would_take(const struct queue_wait *w, const struct server *s) {
    for (unsigned i = 0; i < w->count; i++)
        if (w->servers[i] == s) return true;
    return false;
}

/* Under the lock. */
static struct queue_wait *first_for(const struct queue *q, const struct server *s) {
    list_each(node, &q->waits) {
        struct queue_wait *w = container_of(node, struct queue_wait, node);
        if (would_take(w, s)) return w;
    }
    return NULL;
}

static void pass_on(struct queue_wait *w) {
    server_leave(w->place);
    server_unref(w->place);
    free_wait(w);
}

static void deliver(struct letter *letter, struct loop *loop) {
    struct queue_wait *w = container_of(letter, struct queue_wait, letter);
    (void)loop;
    if (w->left) {
        pass_on(w);
        return;
    }
    w->by_letter = false;
    w->has_place = true;
    w->on_news(w->with);
}

/* Its mailbox is closed, so its worker is ending: the place is taken from it again, and whoever is last frees it. */
static void take_back(struct queue_wait *w) {
    struct server *s = w->place;
    pthread_mutex_lock(&w->queue->lock);
    w->place = NULL;
    w->by_letter = false;
    bool left = w->left;
    pthread_mutex_unlock(&w->queue->lock);
    server_unref(s);
    if (left) free_wait(w);
}

/* A place that is held may be one too many: a health check's, or one of before a reload that lowered the limit. */
static bool may_pass_on(const struct queue *q, const struct server *s) {
    return atomic_load(&s->active) <= (int)atomic_load(&q->most);
}

/* Gives the first in line who can use it a place at the server: the one that is `held`, or one that is free. */
static bool call_first(struct queue *q, struct server *s, bool held) {
    while (atomic_load(&q->length) > 0 && server_well(s)) {
        pthread_mutex_lock(&q->lock);
        struct queue_wait *w = first_for(q, s);
        bool given = w && (held ? may_pass_on(q, s) : server_enter(s, atomic_load(&q->most)));
        if (given) give_place(w, s);
        if (given) w->by_letter = true;
        pthread_mutex_unlock(&q->lock);
        if (!given) return false;
        w->letter.deliver = deliver;
        if (mailbox_post(w->mailbox, &w->letter)) return true;
        take_back(w);
        if (!held) atomic_fetch_sub(&s->active, 1);
    }
    return false;
}

void queue_give_back(struct queue *q, struct server *s) {
    if (call_first(q, s, true)) return;
    atomic_fetch_sub(&s->active, 1);
    call_first(q, s, false);
}

/* ---- for the owner */

const struct server *queue_place(const struct queue_wait *w) { return w->has_place ? w->place : NULL; }

bool queue_is_over(const struct queue_wait *w) { return w->over && !w->has_place; }

double queue_since(const struct queue_wait *w) { return w->since; }

struct server *queue_leave(struct queue_wait *w) {
    pthread_mutex_lock(&w->queue->lock);
    if (!list_empty(&w->node)) step_out(w);
    w->left = w->by_letter;
    bool on_the_way = w->left;
    struct server *place = on_the_way ? NULL : w->place;
    pthread_mutex_unlock(&w->queue->lock);
    deadline_fini(&w->look);
    if (!on_the_way) free_wait(w);
    return place;
}
