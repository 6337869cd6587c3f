/* Where C asks policy. proxy/ calls; core/lua implements; neither knows more of the other than this.
 *
 * A hook call has a subject: the thing it is about, which owns its coroutine, its deadline and its budget. A subject
 * has at most one call under way. A call answers at once, or says VERDICT_WAIT: then the subject's task is woken when
 * it can go on, and hook_go_on is called from there, again and again until it answers otherwise (a wake may have
 * other reasons: then it says VERDICT_WAIT again). All in the worker's thread, in the advance phase. */
#pragma once

#include "base/arena.h"
#include "backend/backend.h"
#include "http/message.h"
#include "proxy/content.h"

enum hook {
    HOOK_ON_CONNECT,
    HOOK_ON_REQUEST,
    HOOK_CACHE_KEY,
    HOOK_PICK_BACKEND,
    HOOK_ON_STORE,
    HOOK_ON_RESPONSE,
    HOOK_ON_LOG,
    HOOK_ON_ERROR,
    HOOK_ON_CERTIFICATE,
    HOOK_COUNT
};
const char *hook_name(enum hook); /* "on_request", … */

enum verdict {
    VERDICT_CARRY_ON, /* nothing returned (or no such hook): as configured */
    VERDICT_WAIT,     /* see above */
    VERDICT_REPLY,    /* decision->reply */
    VERDICT_PICK,     /* pick_backend: decision->pick */
    VERDICT_NO,  /* false: on_connect: not let in; cache_key: bypass; pick_backend re-asked: deliver what there is */
    VERDICT_KEY, /* cache_key: decision->key */
    VERDICT_CERTIFICATE, /* on_certificate: decision->certificate */
    VERDICT_FAILED /* it raised, ran out of budget or memory, or returned nonsense: logged with file:line and traceback;
                          the caller fails closed. (With the site's fail = "continue" the implementer says CARRY_ON.) */
};

/* What C holds for a script, and gives back when something of the script's ends: its run, its subject, or its exchange
 * with body and tunnel. Untied by list_remove, at any time. */
struct tie {
    struct list node;
    void (*ended)(struct tie *); /* outside of scripts; it is untied already */
};
void ties_end(struct list *ties);

/* A script's own answer; everything lies in the subject's arena. */
struct reply {
    int status;
    struct slice body; /* p NULL: none given */
    /* Instead: one that flows. It is held by the subject's exchange. NULL: none. */
    struct pipe *flow;
    struct framing framing; /* of `flow` */
    struct content content; /* likewise */
    struct headers headers;
};

enum { PICK_MAX = 16 };

/* Only the first `count` places of the arrays hold anything: they stand last, so that a pick is begun and copied
 * without them. */
struct pick {
    unsigned count;
    bool listed;    /* a list: pick_backend is not asked again */
    unsigned tries; /* 0: the backend's own */
    bool has_retry_on;
    uint32_t retry_on; /* as backend_settings */
    struct status_set retry_statuses;
    double timeout;                     /* seconds for the first byte; 0: the backend's own */
    struct backend *backends[PICK_MAX]; /* tried in order */
    struct slice servers[PICK_MAX];     /* "backend/server": the server's name; p NULL: any */
};

static inline void pick_init(struct pick *p) { memset(p, 0, offsetof(struct pick, backends)); }
static inline void pick_one(struct pick *p, struct backend *backend, struct slice server) {
    pick_init(p);
    p->backends[0] = backend;
    p->servers[0] = server;
    p->count = 1;
}
static inline void pick_copy(struct pick *to, const struct pick *from) {
    memcpy(to, from, offsetof(struct pick, backends));
    for (unsigned i = 0; i < from->count; i++) {
        to->backends[i] = from->backends[i];
        to->servers[i] = from->servers[i];
    }
}
/* What on_certificate returned, in the subject's arena: a name that one of the config's certificates bears, or PEM. */
struct certificate_text {
    struct slice name;      /* p NULL: it is PEM */
    struct slice cert, key; /* key p NULL: beside the certificate */
};

struct decision {
    struct certificate_text certificate;
    struct reply reply;
    struct slice key; /* cache_key: its parts, encoded so that different lists differ */
    struct pick pick;
};

static inline void decision_init(struct decision *d) { memset(d, 0, offsetof(struct decision, pick.backends)); }

enum subject_kind {
    SUBJECT_EXCHANGE,
    SUBJECT_FETCH,
    SUBJECT_FILL, /* a struct storing (proxy/storing.h), whose response `res` stands for */
    SUBJECT_KEEPER,
    SUBJECT_HANDSHAKE,
    SUBJECT_ADMISSION
};

struct exchange;
struct fetch;
struct site;
struct worker;

struct subject {
    enum subject_kind kind;
    struct worker *worker;
    struct site *site;         /* whose policy is asked; NULL: no policy (any more) */
    struct exchange *exchange; /* what `req` and, but for a fill's, `res` stand for; NULL for the keeper's */
    struct arena *arena;       /* what decisions are made of */
    struct task *task;         /* woken when a waiting call can go on */
    struct hook_run *run;      /* the call under way; NULL: none. Implementer's */
    struct handles *handles;   /* Lua handles of this subject; NULL: none. Implementer's */
};

/* The last try, as pick_backend(req, last) sees it. */
struct last_try {
    const struct backend *backend;
    const struct server *server; /* may be NULL: none was found */
    int status;                  /* 0: there was no response */
    enum failure failure;
    unsigned tries;
};

/* What on_error is told; `word` of failure_table. */
struct error_info {
    int status;
    enum failure failure;
    const char *hook; /* the hook that failed, or NULL */
};

/* Starts a call. `detail` is for HOOK_PICK_BACKEND a struct last_try (NULL the first time), for HOOK_ON_ERROR a
 * struct error_info, for HOOK_ON_CERTIFICATE the struct slice asked for, otherwise NULL; it must live until the call
 * has answered. `decision` need not be initialised; what it says holds only until the caller has taken it, so a call
 * that waited may go on with another one. */
enum verdict hook_call(struct subject *, enum hook, const void *detail, struct decision *decision);
enum verdict hook_go_on(struct subject *, struct decision *decision);
/* Nobody needs the answer any more: cancels what it waits for, closes its coroutines, innermost first. Safe without a
 * call. */
void hook_cancel(struct subject *);
/* The subject ends: cancels, and makes its handles unusable. Must be called before its memory goes. Idempotent. */
void subject_end(struct subject *);

/* ---- Somebody who watches how policy decides: a rehearsal, or a trace. worker->observer; NULL: nobody. Called in the
 * worker's thread; it may look at the exchange, and change nothing but what is there for it (exchange->watched). */

struct hook_asked {
    enum hook hook;
    const char *path; /* the hook as the config has it: "on_request", "sites[1].use[2].pick_backend" */
    const char *file; /* where its function stands; NULL: it is a constant */
    int line;
};

struct hook_observer {
    /* One policy is asked. */
    void (*asked)(struct hook_observer *, const struct subject *, const struct hook_asked *);
    /* It answered; between the two it may have waited. `decision` as in hook_call. */
    void (*answered)(struct hook_observer *, const struct subject *, enum hook, enum verdict, const struct decision *);
    /* It failed, with what the log says; `answered` follows. */
    void (*failed)(struct hook_observer *, const struct subject *, const char *text);
    /* It has waited for a gate.fetch, which has come to this. */
    void (*fetched)(struct hook_observer *, const struct subject *, const struct fetch *, enum failure, double seconds);
    /* The exchange is over: all that is known of it is in it. */
    void (*finished)(struct hook_observer *, const struct exchange *);
};
