/* Workers append to the text under a lock, and ring once until it was looked at; the main thread sends. */
#include "server/onlooker.h"

#include "base/clock.h"
#include "base/must.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAITING_MOST = 1 << 20, LAST_SECONDS = 1 };

struct ring {
    struct letter letter;
    struct onlooker *onlooker;
};

enum sending { SENT_ALL, SENT_SOME, SENT_TO_NOBODY };

/* What the socket takes. */
static enum sending send_some(struct onlooker *o) {
    enum sending result = SENT_ALL;
    size_t sent = 0;
    pthread_mutex_lock(&o->lock);
    while (sent < o->size) {
        ssize_t n = send(o->fd, o->text + sent, o->size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            result = errno == EAGAIN ? SENT_SOME : SENT_TO_NOBODY;
            break;
        }
        sent += (size_t)n;
    }
    memmove(o->text, o->text + sent, o->size - sent);
    o->size -= sent;
    pthread_mutex_unlock(&o->lock);
    return result;
}

static void release(struct onlooker *o) {
    ev_io *io = &o->io;
    ev_io_stop(o->loop->ev, io);
    close(o->fd);
    pthread_mutex_destroy(&o->lock);
    free(o->text);
}

static void watch(struct onlooker *o, int events) {
    ev_io *io = &o->io;
    ev_io_stop(o->loop->ev, io);
    ev_io_set(io, o->fd, events);
    ev_io_start(o->loop->ev, io);
}

/* Sends, and sees what follows from it. May be the end of `o`. */
static void go_on(struct onlooker *o) {
    enum sending sent = o->dead ? SENT_TO_NOBODY : send_some(o);
    if (sent == SENT_TO_NOBODY) o->dead = true;
    if (o->ending && sent != SENT_SOME) {
        release(o);
        o->on_gone(o);
        return;
    }
    if (o->dead) {
        ev_io *io = &o->io;
        ev_io_stop(o->loop->ev, io);
        if (o->told_left) return;
        o->told_left = true;
        o->on_left(o);
        return;
    }
    watch(o, sent == SENT_SOME ? EV_READ | EV_WRITE : EV_READ);
}

static void ring_on_arrival(struct letter *letter, struct loop *loop) {
    struct ring *r = container_of(letter, struct ring, letter);
    struct onlooker *o = r->onlooker;
    free(r);
    pthread_mutex_lock(&o->lock);
    o->rung = false;
    pthread_mutex_unlock(&o->lock);
    go_on(o);
}

static void onlooker_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct onlooker *o = io->data;
    char said[64]; /* he has nothing to say */
    ssize_t n = events & EV_READ ? recv(o->fd, said, sizeof said, MSG_DONTWAIT) : 1;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) o->dead = true;
    go_on(o);
}

void onlooker_open(struct onlooker *o, struct loop *loop, struct mailbox *mailbox, int fd) {
    o->loop = loop;
    o->mailbox = mailbox;
    o->fd = fd;
    pthread_mutex_init(&o->lock, NULL);
    ev_io *io = &o->io;
    ev_io_init(io, onlooker_on_io, fd, EV_READ);
    io->data = o;
    ev_io_start(loop->ev, io);
}

static void append(struct onlooker *o, const char *text, size_t n) {
    if (o->size + n > o->room) {
        o->room = 2 * (o->size + n);
        o->text = must_realloc(o->text, o->room);
    }
    memcpy(o->text + o->size, text, n);
    o->size += n;
}

void onlooker_add(struct onlooker *o, const char *text, size_t n) {
    pthread_mutex_lock(&o->lock);
    append(o, text, n);
    pthread_mutex_unlock(&o->lock);
}

bool onlooker_say(struct onlooker *o, const char *text, size_t n) {
    pthread_mutex_lock(&o->lock);
    bool taken = o->size + n <= WAITING_MOST, ring = taken && !o->rung;
    if (taken) append(o, text, n);
    if (ring) o->rung = true;
    pthread_mutex_unlock(&o->lock);
    if (!ring) return taken;
    struct ring *r = must_calloc(1, sizeof *r);
    *r = (struct ring){ .letter.deliver = ring_on_arrival, .onlooker = o };
    must(mailbox_post(o->mailbox, &r->letter)); /* the main thread's closes last */
    return taken;
}

void onlooker_end(struct onlooker *o) {
    o->ending = true;
    /* A ring of this thread's own may be under way; it ends it then. */
    pthread_mutex_lock(&o->lock);
    bool rung = o->rung;
    pthread_mutex_unlock(&o->lock);
    if (!rung) go_on(o);
}

void onlooker_close(struct onlooker *o) {
    double until = clock_monotonic() + LAST_SECONDS;
    struct pollfd room = { .fd = o->fd, .events = POLLOUT };
    while (!o->dead && send_some(o) == SENT_SOME && clock_monotonic() < until) poll(&room, 1, 100);
    release(o);
}

void onlooker_refuse(int fd, int status, const char *text) {
    dprintf(fd, "%d\n%s\n", status, text);
    close(fd);
}
