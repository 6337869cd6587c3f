/* A rehearsal: a config that serves nobody. The same loading, exchange, fetch, engine and bindings as in a serving
 * process, in one worker whose loop the caller's thread turns; only clock, network and randomness are replaced
 * (net/stage.h, base/clock.h). The test kit (core/kit) and `moongate explain` stand on it.
 *
 * Requests come through a client connection and are read by the client's own code; what the config connects to is
 * answered by the caller's stubs, behind the other end of a socketpair. Time stands still while anything can still
 * happen, then moves to the next deadline: a hook that sleeps two seconds takes none. CPU budgets stay real. Nothing
 * is bound, no file is written, and active health checks are not made (servers are well until a connect fails).
 *
 * What is one per process is the rehearsal's while it is open: dictionaries, limits and locks begin empty. So there is
 * one at a time, of one thread; calls other than rehearsal_play_* must not be made from within a stub. */
#pragma once

#include "base/errors.h"
#include "http/h1.h"
#include "lua/state.h"
#include "net/addr.h"
#include "proxy/note.h"

struct rehearsal;
struct play;

/* What stands in for everything outside. Called while the loop turns. */
struct rehearsal_stubs {
    /* A connection to a server is asked for. `place`: the backend's name, or "http://host:80" for a URL that a script
     * fetches; NULL: a socket of a script. `server`: "127.0.0.1:9001". 0: it stands; ECONNREFUSED, EHOSTUNREACH: it
     * fails so; ETIMEDOUT: nothing ever comes of it. */
    int (*connect)(void *with, const char *place, const char *server);
    /* A whole request has come in; to be answered, now or (after rehearsal_play_pause) later, by rehearsal_play_*. */
    void (*answer)(void *with, struct play *);
    /* Bytes have come on a socket of a script (`place` NULL); the first time, when it was opened, there are none. May
     * be answered like a request. */
    void (*bytes)(void *with, struct play *, struct slice bytes, bool opening);
    /* Up to `most` addresses of a name, IPs in `to`; 0: there is no such name. */
    unsigned (*resolve)(void *with, const char *name, struct addr *to, unsigned most);
};

struct rehearsal_options {
    const char *file;  /* the config; its folder is where modules are looked for */
    struct slice text; /* in the place of the file's bytes; p NULL: the file is read */
    double now;        /* Unix seconds at the beginning */
    uint64_t seed;
    struct coverage *coverage; /* NULL: none */
    const struct rehearsal_stubs *stubs;
    void *with;
};

/* Loads, and runs on_load. NULL: `errors`, all that were found. Warnings are added too. */
struct rehearsal *rehearsal_open(const struct rehearsal_options *, struct errors *);
/* Loads a config in the place of the present one, as a reload does. False: `errors`, and the present one stays. */
bool rehearsal_reload(struct rehearsal *, const char *file, struct slice text, struct errors *);
void rehearsal_close(struct rehearsal *); /* NULL is ignored */

/* The current config's: who asks by name. */
const struct generation *rehearsal_generation(const struct rehearsal *);
/* The paths of the files that were loaded, in order; NULL: no more. */
const char *rehearsal_source(const struct rehearsal *, size_t i);
/* The number of the listener that a config names so, or of a site's first (site NULL: of the first site); -1: none. */
int rehearsal_listener(const struct rehearsal *, const char *name, const struct site *);
double rehearsal_clock(const struct rehearsal *); /* loop time */
double rehearsal_now(const struct rehearsal *);   /* Unix seconds */
/* Something goes on for ever while no time passes, as in stage_settle: nothing more will come of this one. */
bool rehearsal_is_restless(const struct rehearsal *);
/* Lets time pass: all that becomes due happens, in order. */
void rehearsal_advance(struct rehearsal *, double seconds);
/* Marks the servers of that name ("127.0.0.1:9001") of a backend (NULL: of any), as a health check would. False:
 * there is none. */
bool rehearsal_set_health(struct rehearsal *, const char *backend, const char *server, bool well);

/* Closes the connections to stubs on which nothing is under way, as servers do now and then. */
void rehearsal_drop_idle(struct rehearsal *);

/* ---- A client's request */

struct rehearsal_request {
    struct slice bytes; /* all that the client sends, HTTP/1 */
    enum method method; /* of that: whether the answer has a body */
    struct slice host;  /* which it tells in the handshake, where the listener speaks TLS; may be empty */
    struct addr from;   /* the client's address */
    int listener;
    double leave; /* seconds after which the client resets the connection; 0: it stays */
};

/* What the client saw. In memory of the rehearsal, until the next request. */
struct rehearsal_answer {
    int status; /* 0: no head came */
    const struct headers *headers, *trailers;
    struct slice body;
    bool whole;          /* to its end */
    unsigned interim[8]; /* statuses of interim answers, 0 behind the last one */
};

/* Until the exchange is over, its log line included, or the client turned away (then no exchange is noted). False: it never came to an end (`answer` says how far it came):
 * nothing was left that could happen, an hour had passed, or it is restless. */
bool rehearsal_request(struct rehearsal *, const struct rehearsal_request *, struct rehearsal_answer *);

/* ---- What a stub may do. Bytes and pauses are taken in order; nothing of it happens within the call. */

const char *rehearsal_play_place(const struct play *);  /* as in `connect`; "" for a socket */
const char *rehearsal_play_server(const struct play *); /* likewise */
const struct request *rehearsal_play_request(const struct play *);
struct slice rehearsal_play_body(const struct play *);
void rehearsal_play_bytes(struct play *, struct slice);
void rehearsal_play_pause(struct play *, double seconds);
void rehearsal_play_close(struct play *); /* FIN behind all of it */
void rehearsal_play_reset(struct play *); /* the connection breaks; what was not taken yet may be lost */

/* ---- What was observed, since it was last forgotten. In memory of the rehearsal. */

struct rehearsal_line {
    struct rehearsal_line *next;
    const char *level, *text;
};

struct rehearsal_notes {
    struct hook_note *hooks; /* in the order in which they were asked */
    struct rehearsal_line *lines;
    struct exchange_note *exchanges;
};
const struct rehearsal_notes *rehearsal_notes(const struct rehearsal *);
/* Also forgets the last answer. Not while a request is under way. */
void rehearsal_forget(struct rehearsal *);
