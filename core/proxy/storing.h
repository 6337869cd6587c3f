/* A response about to be stored, as policy sees and changes it in on_store, and what is to become of it: which rule
 * lets it be stored or not, and for how long it is fresh. It is judged by its fields, then by what the site says for
 * answers that do not say it themselves, then by what on_store wishes (`res.cache`). What is done about that is the
 * fill's (fill.h). */
#pragma once

#include "proxy/content.h"
#include "proxy/hook.h"
#include "store/cache.h"

struct cache_policy;
struct fill;

/* What on_store says of a response (`res.cache`). */
struct store_wish {
    double ttl, stale, stale_if_error; /* seconds; below 0: as its fields say */
    double pass;                       /* not stored, and remembered so for these seconds; below 0: no */
    struct slice *tags;                /* beside those in its fields */
    unsigned tag_count;
};

/* In the exchange's arena, from its head on. The rule is the fill's. */
struct storing {
    struct subject subject; /* of on_store; its handles are those of this response alone */
    struct fill *fill;
    struct answer answer;   /* pointers to what follows, and to the fetch's response or, when it validated, `merged` */
    struct response merged; /* the stored head with the fields that came */
    struct content content;
    struct pipe *body, *made; /* NULL: none */
    struct pipe_watch watch;
    struct freshness fresh;
    struct store_wish wish;
    struct deadline patience; /* of those who follow: policy takes its time */
    bool hook_running, gone;
};
/* NULL: the subject is of another kind. */
static inline struct storing *storing_of(const struct subject *s) {
    return s->kind == SUBJECT_FILL ? container_of(s, struct storing, subject) : NULL;
}

/* The head is there, and it is known whether it validated: measures it by its fields and by what the site says. */
struct storing *storing_begin(struct fill *);
/* on_store, if there is one. WAIT: the fill is woken, and asks again. Else `fresh` and the fill's rule are final, with
 * what policy wished; FAILED: it may not be stored. */
enum verdict storing_ask(struct storing *);
/* Policy, or what it makes of the body, takes its time: after some seconds those who follow need not wait any more. */
void storing_await(struct storing *);
/* Its policy ends: as if on_store had failed, unless it has answered. */
void storing_let_go(struct storing *);
/* Policy is not asked any more, its handles are of no use. */
void storing_stop(struct storing *); /* NULL is ignored */
void storing_fini(struct storing *); /* behind the readers of its body; NULL is ignored */

/* What the site says for answers that do not say it themselves: freshness by status, how long they serve when stale.
 * `told` is of the answer, `fresh` what its fields make; the rule may become another. */
enum cache_rule storing_adjust(const struct cache_policy *, enum cache_rule, int status, const struct headers *,
                               const struct cache_control *told, struct freshness *fresh);
