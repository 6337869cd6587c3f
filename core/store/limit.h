/* Limits: `gate.limit { name =, rate =, per =, burst =, concurrent = }`. How much each key has taken lately, and how
 * many places it holds now. Named, one per process, seen by all workers and generations, exact over all of them.
 *
 * A key is its digest. What is allowed (the rule) comes with each call: it is a config's, and while a reload drains,
 * two configs use one limit. So a reload changes the rule and forgets nothing, and a load that fails changes
 * nothing. */
#pragma once

#include "base/map.h"

struct limit;

enum { LIMIT_MOST = 1024 };

/* Times are whole ticks of 1/16 ns: cost times interval is exact, and 2^63 of them are 18 years. */
enum { LIMIT_TICKS_PER_NS = 16 };

struct limit_rule {
    int64_t interval;    /* ticks until one more is allowed; 0: takes are not limited */
    int64_t tolerance;   /* ticks: interval times burst */
    uint32_t concurrent; /* places; 0: they are not limited */
    size_t bytes;        /* memory for keys */
    bool dry_run;        /* all is let through, but counted */
    bool full_allows;    /* a key there is no room for is let through */
};

/* `rate` in `per` seconds, `burst` at once. False: the times would not fit (a burst that takes years). */
bool limit_rule_set(struct limit_rule *, double rate, double per, int64_t burst);

enum limit_verdict {
    LIMIT_ALLOWED,
    LIMIT_REFUSED,
    LIMIT_FULL /* there is no room for another key */
};

struct limit_answer {
    enum limit_verdict verdict;
    bool passes;   /* the verdict, dry_run and full_allows taken into account */
    int64_t left;  /* how many would still be allowed now; places that are free */
    double wait;   /* refused: seconds until it would be allowed; infinite: never */
    double resets; /* seconds until all of the burst is allowed again */
};

/* Finds or makes, with so many bytes in mind; NULL when there are LIMIT_MOST. */
struct limit *limit_open(struct slice name, size_t bytes);
void limit_close_all(void); /* at the end of the process, before the metrics */

/* `now` in monotonic seconds, that of the turn. `cost` 0 or more. */
struct limit_answer limit_take(struct limit *, const struct limit_rule *, struct digest key, double cost, double now);
/* What take would say; takes nothing and is not counted. */
struct limit_answer limit_peek(struct limit *, const struct limit_rule *, struct digest key, double cost, double now);
/* Forgets what the key has taken, not the places it holds. False: nothing was known. */
bool limit_reset(struct limit *, struct digest key);

/* A place; when it passes and is not LIMIT_FULL, limit_leave gives it back. */
struct limit_answer limit_enter(struct limit *, const struct limit_rule *, struct digest key, double now);
void limit_leave(struct limit *, struct digest key);
uint32_t limit_places(struct limit *, struct digest key); /* held now */

size_t limit_keys(struct limit *);
size_t limit_bytes(struct limit *);
