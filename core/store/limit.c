/* Limits by GCRA, the leaky bucket as a meter: all that is kept of a key is the time at which everything it took will
 * have been paid for. A take is allowed when that time, with its own cost added, is no further away than the tolerance;
 * only then it is added. That is exact, needs no timer, and a key that has paid is the same as one never seen.
 *
 * Exact over all workers, because a key lies in one shard, and a shard is judged under its mutex. A lock-free table was
 * considered: one compare-and-swap instead of a lock and an unlock saves some 15 ns, and then growing and forgetting
 * need a scheme of their own. The mutex is held for a probe and some arithmetic, and spins before it sleeps.
 *
 * The time is that of the caller's turn, so workers may differ by a few milliseconds, and what passes in t seconds is
 * at most burst + rate * (t + those). Reading the clock for each take would cost as much as the rest of it.
 *
 * A key is 128 bits of a secret hash, not its text: entries of one size lie in a plain table, 32 bytes each, however
 * long the text that a stranger chose. That two keys share them is less likely than any other way to be wrong, and
 * strangers, not knowing the secret, cannot make them (base/map.h). For the same reason they cannot make long probes.
 *
 * Memory. A table doubles up to its share of the limit's bytes. Entries that have paid and hold no place say nothing:
 * growing leaves them behind, and in a table that is half full each new key looks at a few places for such entries and
 * drops them. When a shard is full of keys that owe, a new key is LIMIT_FULL: it is not known, so it could not be held
 * to anything, and no key that owes is forgotten in its favour, or an attacker with many keys would clear his debts. */
#include "store/limit.h"

#include "base/must.h"
#include "store/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SHARDS_LEAST = 16, SHARDS_MOST = 4096, SHARD_BYTES = 256 << 10, FIRST_ROOM = 16, SWEEP = 16 };
static const double TICKS_PER_SECOND = LIMIT_TICKS_PER_NS * 1e9;
static const int64_t TICKS_MOST = INT64_MAX / 4;
static const int64_t LATE_MOST = (int64_t)LIMIT_TICKS_PER_NS * 1000000000; /* no turn is so much older than another */

enum outcome { OUTCOME_ALLOWED, OUTCOME_LIMITED, OUTCOME_DRY_RUN, OUTCOME_FULL, OUTCOMES };

/* A key with both halves 0 marks a free place; one that hashes so is called 1. */
struct entry {
    struct digest key;
    int64_t paid;    /* ticks: when all that it took will have been paid for */
    uint32_t places; /* held now */
};

struct shard {
    pthread_mutex_t lock;
    struct entry *table; /* linear probing */
    size_t room, count;
    size_t hand;                     /* where the next sweep begins */
    atomic_llong outcomes[OUTCOMES]; /* written under the lock, read without */
} __attribute__((aligned(64)));

struct limit;

struct tally {
    struct limit *limit;
    enum outcome outcome;
};

struct limit {
    struct shard *shards;
    size_t shard_count; /* a power of two */
    struct slice name;
    bool metered;
    struct tally tallies[OUTCOMES]; /* what metrics read with */
    struct limit *next;
};

static struct {
    pthread_mutex_t lock;
    struct limit *first;
    unsigned count;
} limits = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- rules */

/* Rounded up: never more than the rate. */
bool limit_rule_set(struct limit_rule *rule, double rate, double per, int64_t burst) {
    double interval = ceil(per / rate * TICKS_PER_SECOND);
    if (!(interval >= 1 && interval * (double)burst < (double)TICKS_MOST)) return false;
    rule->interval = (int64_t)interval;
    rule->tolerance = rule->interval * burst;
    return true;
}

static int64_t ticks_of(double seconds) { return (int64_t)(seconds * TICKS_PER_SECOND); }
static double seconds_of(int64_t ticks) { return (double)ticks / TICKS_PER_SECOND; }

/* ---- the table of a shard */

static bool is_free(const struct entry *e) { return !e->key.low && !e->key.high; }
static bool owes(const struct entry *e, int64_t now) { return e->places > 0 || e->paid > now; }

static size_t home_of(const struct shard *s, struct digest key) { return key.low & (s->room - 1); }

/* The key's entry, or the free place where it belongs. There is always a free one. */
static struct entry *find_place(const struct shard *s, struct digest key) {
    for (size_t i = home_of(s, key);; i = (i + 1) & (s->room - 1)) {
        struct entry *e = &s->table[i];
        if (is_free(e) || digest_equal(e->key, key)) return e;
    }
}

static struct entry *find(const struct shard *s, struct digest key) {
    struct entry *e = s->room ? find_place(s, key) : NULL;
    return e && !is_free(e) ? e : NULL;
}

/* Moves every later entry of the run that may stand in the hole into it, until the run ends. */
static void close_hole(struct shard *s, size_t hole) {
    size_t mask = s->room - 1;
    for (size_t i = (hole + 1) & mask; !is_free(&s->table[i]); i = (i + 1) & mask) {
        size_t home = home_of(s, s->table[i].key);
        if (((i - home) & mask) < ((i - hole) & mask)) continue; /* it would stand before its home */
        s->table[hole] = s->table[i];
        hole = i;
    }
    s->table[hole] = (struct entry){ 0 };
}

/* Looks at a few places, in turn, and drops what has paid. */
static void sweep(struct shard *s, int64_t now) {
    for (int looked = 0; looked < SWEEP; looked++) {
        struct entry *e = &s->table[s->hand];
        if (is_free(e) || owes(e, now)) {
            s->hand = (s->hand + 1) & (s->room - 1);
            continue;
        }
        close_hole(s, s->hand); /* another may stand there now: it is looked at next */
        s->count--;
    }
}

/* A table of that room with all entries that owe. Without memory the old one stays. */
static void rebuild(struct shard *s, size_t room, int64_t now) {
    struct entry *old = s->table;
    size_t old_room = s->room;
    struct entry *table = calloc(room, sizeof *table);
    if (!table) return;
    s->table = table;
    s->room = room;
    s->count = s->hand = 0;
    for (size_t i = 0; i < old_room; i++) {
        if (is_free(&old[i]) || !owes(&old[i], now)) continue;
        *find_place(s, old[i].key) = old[i];
        s->count++;
    }
    free(old);
}

static size_t count_owing(const struct shard *s, int64_t now) {
    size_t count = 0;
    for (size_t i = 0; i < s->room; i++)
        if (!is_free(&s->table[i]) && owes(&s->table[i], now)) count++;
    return count;
}

/* The most entries that a shard's share of the bytes has room for, a power of two. */
static size_t room_most(const struct limit *l, size_t bytes) {
    size_t room = FIRST_ROOM;
    while (room * 2 * sizeof(struct entry) * l->shard_count <= bytes) room *= 2;
    return room;
}

/* Three quarters full: it doubles, unless half of them would do, then those that have paid just go. */
static void make_room(const struct limit *l, struct shard *s, size_t bytes, int64_t now) {
    if (s->room == 0) rebuild(s, FIRST_ROOM, now);
    else if (s->count >= s->room / 4 * 3 && s->room < room_most(l, bytes))
        rebuild(s, count_owing(s, now) >= s->room / 2 ? s->room * 2 : s->room, now);
    if (s->room && s->count >= s->room / 2) sweep(s, now);
}

/* NULL: there is no room for it. */
static struct entry *find_or_add(const struct limit *l, struct shard *s, struct digest key, size_t bytes, int64_t now) {
    struct entry *e = find(s, key);
    if (e) return e;
    make_room(l, s, bytes, now);
    if (s->count >= s->room / 8 * 7) return NULL;
    e = find_place(s, key);
    e->key = key;
    s->count++;
    return e;
}

/* ---- operations on one locked shard */

static struct digest named(struct digest key) {
    if (!key.low && !key.high) key.low = 1;
    return key;
}

static struct shard *lock_shard(struct limit *l, struct digest key) {
    struct shard *s = &l->shards[key.high & (l->shard_count - 1)];
    pthread_mutex_lock(&s->lock);
    return s;
}

static void count_outcome(struct shard *s, enum outcome outcome) {
    long long n = atomic_load_explicit(&s->outcomes[outcome], memory_order_relaxed);
    atomic_store_explicit(&s->outcomes[outcome], n + 1, memory_order_relaxed);
}

static void count_answer(struct shard *s, const struct limit_rule *rule, const struct limit_answer *a) {
    if (a->verdict == LIMIT_ALLOWED) count_outcome(s, OUTCOME_ALLOWED);
    else if (a->verdict == LIMIT_FULL) count_outcome(s, OUTCOME_FULL);
    else count_outcome(s, rule->dry_run ? OUTCOME_DRY_RUN : OUTCOME_LIMITED);
}

static struct limit_answer answer_full(const struct limit_rule *rule) {
    return (struct limit_answer){ .verdict = LIMIT_FULL,
                                  .passes = rule->full_allows || rule->dry_run,
                                  .wait = seconds_of(rule->interval) };
}

/* What a take comes to for a key that has paid at `*paid`, which moves on if it is allowed. A rule that became stricter
 * at a reload does not let anybody wait longer than its own whole burst takes. (A key is a little further ahead than
 * that for a worker whose turn began a little earlier, which is no reason to let it off.) */
static struct limit_answer judge(const struct limit_rule *rule, int64_t *paid, double cost, int64_t now) {
    int64_t from = *paid > now ? *paid : now;
    if (from - now > rule->tolerance + LATE_MOST) *paid = from = now + rule->tolerance;
    double added = cost * (double)rule->interval;
    bool never = added > (double)rule->tolerance;
    int64_t next = never ? from : from + (int64_t)ceil(added);
    bool ok = !never && next - now <= rule->tolerance;
    if (ok) *paid = from = next;
    struct limit_answer a = { .verdict = ok ? LIMIT_ALLOWED : LIMIT_REFUSED, .passes = ok || rule->dry_run };
    if (from - now < rule->tolerance) a.left = (rule->tolerance - (from - now)) / rule->interval;
    a.resets = seconds_of(from - now);
    if (!ok) a.wait = never ? HUGE_VAL : seconds_of(next - now - rule->tolerance);
    return a;
}

struct limit_answer limit_take(struct limit *l, const struct limit_rule *rule, struct digest key, double cost,
                               double now) {
    int64_t time = ticks_of(now);
    key = named(key);
    struct shard *s = lock_shard(l, key);
    struct entry *e = find_or_add(l, s, key, rule->bytes, time);
    struct limit_answer a = e ? judge(rule, &e->paid, cost, time) : answer_full(rule);
    count_answer(s, rule, &a);
    pthread_mutex_unlock(&s->lock);
    return a;
}

struct limit_answer limit_peek(struct limit *l, const struct limit_rule *rule, struct digest key, double cost,
                               double now) {
    key = named(key);
    struct shard *s = lock_shard(l, key);
    const struct entry *e = find(s, key);
    int64_t paid = e ? e->paid : 0;
    pthread_mutex_unlock(&s->lock);
    return judge(rule, &paid, cost, ticks_of(now));
}

bool limit_reset(struct limit *l, struct digest key) {
    key = named(key);
    struct shard *s = lock_shard(l, key);
    struct entry *e = find(s, key);
    bool known = e && e->paid != 0;
    if (e) e->paid = 0;
    pthread_mutex_unlock(&s->lock);
    return known;
}

struct limit_answer limit_enter(struct limit *l, const struct limit_rule *rule, struct digest key, double now) {
    key = named(key);
    struct shard *s = lock_shard(l, key);
    struct entry *e = find_or_add(l, s, key, rule->bytes, ticks_of(now));
    struct limit_answer a = answer_full(rule);
    if (e) {
        bool ok = e->places < rule->concurrent;
        a = (struct limit_answer){ .verdict = ok ? LIMIT_ALLOWED : LIMIT_REFUSED, .passes = ok || rule->dry_run };
        if (a.passes) e->places++;
        if (ok) a.left = rule->concurrent - e->places;
    }
    count_answer(s, rule, &a);
    pthread_mutex_unlock(&s->lock);
    return a;
}

void limit_leave(struct limit *l, struct digest key) {
    key = named(key);
    struct shard *s = lock_shard(l, key);
    struct entry *e = find(s, key);
    must(e && e->places > 0);
    e->places--;
    pthread_mutex_unlock(&s->lock);
}

uint32_t limit_places(struct limit *l, struct digest key) {
    key = named(key);
    struct shard *s = lock_shard(l, key);
    const struct entry *e = find(s, key);
    uint32_t places = e ? e->places : 0;
    pthread_mutex_unlock(&s->lock);
    return places;
}

/* ---- figures */

static size_t sum_shards(struct limit *l, size_t (*read)(const struct shard *)) {
    size_t sum = 0;
    for (size_t i = 0; i < l->shard_count; i++) {
        pthread_mutex_lock(&l->shards[i].lock);
        sum += read(&l->shards[i]);
        pthread_mutex_unlock(&l->shards[i].lock);
    }
    return sum;
}

static size_t count_of_shard(const struct shard *s) { return s->count; }
static size_t bytes_of_shard(const struct shard *s) { return s->room * sizeof(struct entry); }

size_t limit_keys(struct limit *l) { return sum_shards(l, count_of_shard); }
size_t limit_bytes(struct limit *l) { return sum_shards(l, bytes_of_shard); }

static int64_t read_keys(const void *with) { return (int64_t)limit_keys((struct limit *)(uintptr_t)with); }
static int64_t read_bytes(const void *with) { return (int64_t)limit_bytes((struct limit *)(uintptr_t)with); }

static int64_t read_outcome(const void *with) {
    const struct tally *t = with;
    int64_t sum = 0;
    for (size_t i = 0; i < t->limit->shard_count; i++)
        sum += atomic_load_explicit(&t->limit->shards[i].outcomes[t->outcome], memory_order_relaxed);
    return sum;
}

/* The run for the config comes before there are metrics: then the next opening does it. */
static void open_metrics(struct limit *l) {
    static const char *const words[OUTCOMES] = { "allowed", "limited", "dry_run", "full" };
    char text[512];
    struct label labels[] = { { "limit", l->name }, { "result", { 0 } } };
    if (l->metered) return;
    struct slice written = metric_labels(text, sizeof text, labels, 1);
    l->metered =
        metric_get_with(METRIC_GAUGE, "moongate_limit_keys", "Keys that a limit remembers", written, read_keys, l);
    metric_get_with(METRIC_GAUGE, "moongate_limit_bytes", "Bytes that a limit takes", written, read_bytes, l);
    for (int i = 0; i < OUTCOMES; i++) {
        l->tallies[i] = (struct tally){ l, (enum outcome)i };
        labels[1].value = slice_of(words[i]);
        metric_get_with(METRIC_COUNTER, "moongate_limit_asked_total", "What a limit was asked for, by its answer",
                        metric_labels(text, sizeof text, labels, 2), read_outcome, &l->tallies[i]);
    }
}

/* ---- the limits */

static void init_shard(struct shard *s) {
    pthread_mutexattr_t adaptive;
    must(pthread_mutexattr_init(&adaptive) == 0);
    must(pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP) == 0);
    must(pthread_mutex_init(&s->lock, &adaptive) == 0);
    pthread_mutexattr_destroy(&adaptive);
}

/* So many shards that none is larger than what a doubling can move within a turn. */
static size_t choose_shards(size_t bytes) {
    size_t count = SHARDS_LEAST;
    while (count < SHARDS_MOST && bytes / count > SHARD_BYTES) count *= 2;
    return count;
}

static struct limit *make_limit(struct slice name, size_t bytes) {
    struct limit *l = must_calloc(1, sizeof *l);
    l->name = slice_make(must_strndup(name.n ? name.p : "", name.n), name.n);
    l->shard_count = choose_shards(bytes);
    l->shards = aligned_alloc(_Alignof(struct shard), l->shard_count * sizeof(struct shard));
    must(l->shards != NULL);
    memset(l->shards, 0, l->shard_count * sizeof(struct shard));
    for (size_t i = 0; i < l->shard_count; i++) init_shard(&l->shards[i]);
    l->next = limits.first;
    limits.first = l;
    limits.count++;
    return l;
}

struct limit *limit_open(struct slice name, size_t bytes) {
    pthread_mutex_lock(&limits.lock);
    struct limit *l = limits.first;
    while (l && !slice_equal(l->name, name)) l = l->next;
    if (!l && limits.count < LIMIT_MOST) l = make_limit(name, bytes);
    if (l) open_metrics(l);
    pthread_mutex_unlock(&limits.lock);
    return l;
}

void limit_close_all(void) {
    while (limits.first) {
        struct limit *l = limits.first;
        limits.first = l->next;
        for (size_t i = 0; i < l->shard_count; i++) {
            free(l->shards[i].table);
            pthread_mutex_destroy(&l->shards[i].lock);
        }
        free(l->shards);
        free((void *)(uintptr_t)l->name.p);
        free(l);
    }
    limits.count = 0;
}
