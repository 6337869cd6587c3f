/* Notes of what policy did with an exchange: for who watches (struct hook_observer), a rehearsal or a trace. All text
 * lies in the arena that is given, so a note outlives its exchange. */
#pragma once

#include "proxy/exchange.h"

struct change_note {
    struct change_note *next;
    const char *field;          /* `req.headers["X-User"]` */
    struct slice before, after; /* p NULL: there was (is) none */
};

/* A gate.fetch that was waited for. */
struct fetch_note {
    struct fetch_note *next;
    struct slice method, target;
    const char *backend, *server; /* NULL: none was found */
    int status;                   /* 0: it failed */
    const char *word;             /* then: of the failure */
    double seconds;
};

struct hook_note {
    struct hook_note *next;
    enum hook hook;
    const char *path;  /* "use[1].on_request" */
    const char *place; /* "site.lua:12"; NULL: it is a constant */
    /* "continue", "reply", "pick", "no", "key", "failed"; "cancelled": it was not waited for any more */
    const char *verdict;
    int status;            /* reply */
    struct slice picked;   /* pick: backends, ", " between them */
    struct slice key;      /* key: as in struct decision */
    const char *error;     /* it failed: with file:line and traceback; else NULL */
    double began, seconds; /* by the clock that was given; how long it took, waits included */
    struct change_note *changes;
    struct fetch_note *fetches;
    const struct subject *subject; /* while it is asked; then NULL */
    struct snapshot *before;       /* internal */
};

/* In the observer's callbacks of the same names. */
void hook_note_begin(struct hook_note *, struct arena *, const struct subject *, const struct hook_asked *, double now);
void hook_note_end(struct hook_note *, struct arena *, const struct subject *, enum verdict, const struct decision *,
                   double now);
void hook_note_fail(struct hook_note *, struct arena *, const char *text);
void hook_note_fetch(struct hook_note *, struct arena *, const struct fetch *, enum failure, double seconds);

struct tried_note {
    struct tried_note *next;
    const char *backend, *server;
};

struct exchange_note {
    struct exchange_note *next;
    const char *id, *site, *source, *word, *failed_hook; /* NULL: none */
    struct slice cache_key;
    const char *cache; /* caching_word; NULL: none */
    bool cache_bypass;
    struct tried_note *tried;
    unsigned tries;
    double seconds;
};
void exchange_note_fill(struct exchange_note *, struct arena *, const struct exchange *);
