/* A fill: the fetch that an exchange makes for the cache instead of for itself: of something absent, or to validate
 * what is stale (RFC 9111 4.3). It decides what of the answer is stored, and then reads the body into the store, from
 * where all who want it read, the exchange itself among them.
 *
 * It lies in the exchange that began it, whose request it sends and whose policy it asks; that exchange stays, when all
 * else of it is over, until the fill is. */
#pragma once

#include "proxy/fetch.h"
#include "proxy/sink.h"
#include "proxy/storing.h"

struct exchange;

enum fill_state {
    FILL_ASKING,   /* no head yet */
    FILL_ON_STORE, /* policy is asked what of it is stored */
    FILL_MAKING,   /* policy changes the body: its first bytes are awaited */
    FILL_STORED,   /* `stored` is the answer; its body comes, or is there: it was validated */
    FILL_PASSED,   /* the answer is not for others, or none came: the fetch is the exchange's own from now on */
    FILL_STALE     /* an error, and what is stale may be used in its place */
};

struct fill {
    struct task task;
    struct exchange *exchange; /* NULL: not begun */
    struct fetch *fetch;       /* NULL once it was handed over */
    struct fetch_waiter waiter;
    struct cache_fill *place; /* NULL: settled */
    struct cached *old;       /* a reference: what is validated; NULL: nothing */
    struct cached *part;      /* a reference: a stored part that what comes may be joined to; NULL: none */
    struct cached *stored;    /* a reference; NULL: nothing */
    struct cache_control told;
    struct storing *storing; /* NULL: no head yet, or none to store */
    struct request request;  /* as it is sent */
    struct sink sink;
    int64_t asked_at, heard_at; /* Unix ms */
    enum fill_state state;
    enum cache_rule rule; /* that decided; FILL_ASKING: none yet */
    int status;           /* of the backend's answer; 0: none */
    bool validated;       /* a 304 */
    bool completes;       /* only what `part` lacks at its end was asked for */
    bool joined;          /* `stored` begins with bytes of `part` */
    bool behind;          /* the exchange is answered with what is stale, whatever comes of it */
    bool over;
};

struct fill_options {
    struct cache_fill *place;
    struct cached *old;  /* to validate; NULL: nothing */
    struct cached *part; /* to join to (RFC 9111 3.4); NULL: nothing */
    bool behind;         /* the exchange is answered with what is stale */
    bool as_it_is;       /* its range and conditions are sent on */
};
/* The place and the references go over. The exchange's request is final. The exchange is woken when the state changes,
 * and when it is over. */
void fill_begin(struct fill *, struct exchange *, const struct fill_options *);
/* The same with a fetch that the exchange made for itself, and whose head is there: its response is what a GET would
 * get (RFC 9110 9.3.3). Fetch and place go over. */
void fill_adopt(struct fill *, struct exchange *, struct fetch *, struct cache_fill *place);
static inline bool fill_runs(const struct fill *f) { return f->exchange && !f->over; }
/* The policy of its exchange ends. */
void fill_let_go(struct fill *);
/* The fetch behind the answer; NULL: it went over to the exchange, or ended. */
static inline const struct fetch *fill_fetch(const struct fill *f) { return f->exchange ? f->fetch : NULL; }
/* Ends it, whatever it is at: who reads its body sees it broken. Idempotent; safe when not begun. */
void fill_end(struct fill *);

/* ---- for its other files */
/* Date, where it has none: when it came (RFC 9110 6.6.1). */
void fill_date(const struct fill *, struct headers *);
/* All is wanted, and `part` has the beginning: asks for the rest, if that is safe to join. */
void fill_ask_for_rest(struct fill *);
/* Is it the rest that was asked for, and all of it? */
bool fill_is_rest(const struct fill *, const struct response *);
/* Does it begin within the part or right behind it, go on where that ends, say how long it is, and is it of the same
 * representation? */
bool fill_may_join(const struct fill *, const struct response *);
/* `draft` and `kept`, its fields, tell of both from now on. */
void fill_join(struct fill *, struct cache_draft *draft, struct headers *kept, const struct response *);
/* The part's first bytes become those of what is stored. */
void fill_write_part(struct fill *, uint64_t n);
