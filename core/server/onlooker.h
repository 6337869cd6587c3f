/* Somebody at the control socket who looks on while the proxy serves: `moongate trace` and `profile`. The supervisor
 * has handed his connection over (MESSAGE_TRACE, MESSAGE_PROFILE), so that nothing of it passes by there.
 *
 * What he is told waits in memory, up to a bound: one who does not read loses lines, and holds up nobody. The first
 * line is the exit status of his command, as everywhere on that socket: "0\n", when it has begun. */
#pragma once

#include "net/loop.h"
#include "net/mailbox.h"

#include <pthread.h>

struct onlooker {
    struct loop *loop;
    struct mailbox *mailbox;
    int fd;
    ev_io io;
    bool told_left, ending, dead;
    /* In the main thread, once: he has left, before onlooker_end. */
    void (*on_left)(struct onlooker *);
    /* In the main thread, once, after onlooker_end: all was sent, or he has left. The memory is its owner's again. */
    void (*on_gone)(struct onlooker *);
    pthread_mutex_t lock; /* for what follows */
    char *text;
    size_t size, room;
    bool rung;
};

/* `fd` goes over to it. In the main thread. */
void onlooker_open(struct onlooker *, struct loop *, struct mailbox *, int fd);
/* Whole, or, when too much waits already, not at all: false. From any thread, before onlooker_end. */
bool onlooker_say(struct onlooker *, const char *text, size_t n);
/* First or last words, whatever waits already; sent with the next onlooker_say or with onlooker_end. In the main
 * thread. */
void onlooker_add(struct onlooker *, const char *text, size_t n);
/* There is no more to say. In the main thread, after the last letter of a worker has been delivered. */
void onlooker_end(struct onlooker *);
/* The process ends: sends what is left for at most a second; no callback follows. */
void onlooker_close(struct onlooker *);
/* Only says something, and closes. */
void onlooker_refuse(int fd, int status, const char *text);
