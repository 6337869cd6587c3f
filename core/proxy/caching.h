/* What an exchange has to do with the cache of its site (RFC 9111): whether it is asked, what is looked up, what is
 * done with what is found, and what the answer says of it (Age, Cache-Status). exchange.c calls these from its
 * steps. */
#pragma once

#include "http/cache_status.h"
#include "proxy/fill.h"
#include "proxy/form.h"
#include "proxy/hit.h"
#include "proxy/purge_wait.h"

struct exchange;
struct settling;

/* In the exchange's arena; NULL where the site does not cache. */
struct caching {
    struct cache *cache;
    struct cache_key key;
    struct cache_control asked;   /* of the request */
    struct headers asked_headers; /* the request's fields as on_request left them: what Vary is matched on */
    struct cached *found;         /* a reference: what answers, or is validated; NULL: nothing */
    struct reuse reuse;           /* of it */
    bool stale_found;             /* a soft purge made it so */
    struct cache_follower follower;
    struct news *news; /* for `follower`; NULL: it never followed */
    struct fill fill;
    struct form form;
    struct hit hit;
    struct settling *settling; /* NULL: it has made nothing invalid that the disk has */
    struct cache_status status;
    enum cache_fwd waited_for; /* why what it followed was asked for */
    bool asks;                 /* the cache may answer it */
    bool loads;                /* it has asked the disk, or knows that nothing is there: it does not again */
    bool released; /* what it waited for takes long: it asks for itself alone, and what comes is not stored */
    bool followed; /* it has waited for somebody's fill once: it does not again */
    bool served;   /* `hit` is the answer's body */
    bool applied;  /* conditions and ranges have been */
};

enum { CACHE_TAGS_MAX = 64 }; /* of one response */

enum caching_answer {
    CACHING_NONE,   /* not for the cache: the exchange makes its own fetch */
    CACHING_WAIT,   /* for somebody's fill: the exchange is woken */
    CACHING_SERVED, /* `response` and `body` are there */
    CACHING_FILLS,  /* a fill was begun: caching_await goes on */
    CACHING_REFUSED /* only-if-cached, and there is nothing: 504 */
};

/* After cache_key. Asked again after a wake. */
enum caching_answer caching_look_up(struct exchange *);
/* What a look-up would come to, for who asks about it: nothing is waited for or begun. Where the cache would not be
 * asked the verdict means nothing; `caching` stays NULL where there is none. */
enum reuse_verdict caching_try(struct exchange *);
/* Begins the fill that CACHING_FILLS spoke of: the request is final now. */
void caching_fill(struct exchange *);
/* WAIT, SERVED, REFUSED: what was to answer is gone, or NONE: x->fetch is the exchange's own, and has its answer. */
enum caching_answer caching_await(struct exchange *);
/* A fetch that was a fill's has become the exchange's own: what on_store made of its response holds for it, too. */
void caching_take_changes(struct exchange *);
/* A fetch of the exchange's own has its final head: what does that make invalid (RFC 9111 4.4, 4.3.5)? */
void caching_heard(struct exchange *);
/* Is it one that answers later GETs (RFC 9110 9.3.3)? Then a fill has taken it over, as after CACHING_FILLS. */
bool caching_adopt(struct exchange *);
/* Is what that made invalid gone from the disk, too, so that no crash brings it back? If not, the exchange is woken. */
bool caching_is_settled(const struct caching *);
/* Before the head leaves, after on_response: conditions, ranges, Cache-Status. */
void caching_apply(struct exchange *);
/* The answer is to have that coding, and it is stored: its body becomes the coded form that is kept, and its framing
 * what that has. False: it is coded on its way. */
bool caching_take_form(struct exchange *, enum coding, int level);
/* How long it is, if it is kept, whole. */
bool caching_form_length(struct exchange *, enum coding, uint64_t *length);
/* Nothing more is looked up, waited for or read; its fill goes on. */
void caching_leave(struct exchange *);
/* The fill, too, at once. */
void caching_end(struct exchange *);
/* Does the exchange wait for a fill of its own? */
static inline bool caching_leads(const struct caching *c) { return c && c->fill.exchange && !c->fill.behind; }
/* What others want of it has still to come: the exchange must stay. */
static inline bool caching_runs(const struct caching *c) { return c && (fill_runs(&c->fill) || form_runs(&c->form)); }
/* What became of it. False: the site does not cache, or it did not come so far. */
bool caching_result(const struct caching *, enum cache_result *);
/* Its word; NULL: none. */
const char *caching_word(const struct caching *);
/* The rule that decided whether what the backend sent is stored, or why the cache was not asked: a word of
 * http/freshness.h, or "no-room". p NULL: none did. */
struct slice caching_rule(const struct caching *);

/* ---- how a request is named */
struct target caching_target(const struct exchange *); /* of its request, as stored responses are named */
struct cache_key caching_key(struct exchange *);
struct slice caching_url(struct exchange *);    /* scheme://host/path?query */
struct slice caching_origin(struct exchange *); /* "scheme://host" */

/* ---- for its other files */
void caching_stop_settling(struct caching *);

/* ---- for fill.c and storing.c */
/* What was stored answers the exchange, if it still waits: before the first byte is stored, lest it miss any. */
void caching_take_filled(struct exchange *);
int64_t caching_now(void);                            /* Unix ms */
struct headers cached_headers(const struct cached *); /* to read only */
double caching_pass_seconds(const struct exchange *, enum cache_rule, int status);
void caching_tags(struct exchange *, const struct headers *, struct cache_draft *);
