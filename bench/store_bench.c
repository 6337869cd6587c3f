/* How long one operation on shared state takes, without a network or Lua: nanoseconds for a limit's take, a dictionary's
 * get, set and incr, and a frozen map's lookup, each on one key and over a million keys that no cache holds; and what an
 * entry takes. Best of several rounds, since whatever else the machine does can only add.
 *
 *     cc -O2 -D_GNU_SOURCE -DMOONGATE_SOURCEDIR='"."' -DMOONGATE_DATADIR='"."' -DMOONGATE_KITDIR='"."' -Icore \
 *        bench/store_bench.c core/base/[a-z]*.c core/store/[a-z]*.c -ljansson -lxxhash -lm -o store_bench */
#include "base/clock.h"
#include "base/must.h"
#include "store/frozen.h"
#include "store/limit.h"
#include "store/shared.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 7, TURNS = 1000000, KEYS = 1000000, KEY_BYTES = 16 };

static char (*keys)[KEY_BYTES];
static struct limit *limit;
static struct limit_rule rule;
static struct shared *shared;
static struct frozen *frozen;
static const struct shared_bounds bounds = { (size_t)1 << 30, false };
static volatile uint64_t sink;

/* Scattered, so that no two that follow each other are neighbours. */
static struct slice key_at(size_t i) { return slice_of(keys[i * 7919 % KEYS]); }

static void take(size_t i) { sink += (uint64_t)limit_take(limit, &rule, digest_bytes(key_at(i)), 1, 1000).left; }
static void take_one(size_t i) { take(i - i); }

static void get(size_t i) {
    char room[64];
    struct shared_value v;
    shared_get(shared, &bounds, key_at(i), room, sizeof room, &v, NULL);
    sink += v.kind;
}
static void get_one(size_t i) { get(i - i); }

static void set(size_t i) {
    struct shared_value v = { .kind = SHARED_STRING, .string = SLICE("a value") };
    must(shared_set(shared, &bounds, key_at(i), &v, 0, SHARED_ALWAYS, NULL) == FAIL_NONE);
}
static void set_one(size_t i) { set(i - i); }

static void incr(size_t i) {
    struct shared_value one = { .kind = SHARED_INTEGER, .integer = 1 }, sum;
    (void)i;
    must(shared_incr(shared, &bounds, SLICE("hits"), &one, &one, 0, &sum) == FAIL_NONE);
}

static void look(size_t i) {
    struct slice value;
    must(frozen_get(frozen, key_at(i), &value));
    sink += value.n;
}
static void look_one(size_t i) { look(i - i); }

static void look_absent(size_t i) {
    struct slice value, key = key_at(i);
    sink += frozen_get(frozen, slice_make(key.p + 1, key.n - 1), &value);
}

static void measure(const char *what, void (*once)(size_t)) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double began = clock_monotonic();
        for (size_t i = 0; i < TURNS; i++) once(i);
        double took = (clock_monotonic() - began) / TURNS * 1e9;
        if (took < best) best = took;
    }
    printf("%-28s %7.1f ns\n", what, best);
}

static void fill_map(void) {
    struct frozen_maker *maker = frozen_begin();
    enum frozen_fault why;
    uint32_t place;
    double began = clock_monotonic();
    for (size_t i = 0; i < KEYS; i++) packing_string(frozen_add(maker, slice_of(keys[i]), (uint32_t)i), SLICE("value"));
    frozen = frozen_end(maker, digest_bytes(SLICE("bench")), &why, &place);
    must(frozen);
    printf("%-28s %7.1f ms\n", "map, made of a million", (clock_monotonic() - began) * 1e3);
}

int main(void) {
    keys = must_calloc(KEYS, sizeof *keys);
    for (size_t i = 0; i < KEYS; i++) snprintf(keys[i], KEY_BYTES, "key-%zu", i);
    limit = limit_open(SLICE("bench"), 64 << 20);
    must(limit_rule_set(&rule, 1e6, 1, 1000000000));
    rule.bytes = 64 << 20;
    shared = shared_open(SLICE("bench"));
    measure("limit take, one key", take_one);
    measure("limit take, a million", take);
    measure("shared set, one key", set_one);
    measure("shared set, a million", set);
    measure("shared get, one key", get_one);
    measure("shared get, a million", get);
    measure("shared incr, one key", incr);
    fill_map();
    measure("map get, one key", look_one);
    measure("map get, a million", look);
    measure("map get, absent", look_absent);
    printf("%-28s %7.1f bytes\n", "limit, a key", (double)limit_bytes(limit) / (double)limit_keys(limit));
    printf("%-28s %7.1f bytes\n", "shared, a key", (double)shared_bytes(shared) / (double)shared_count(shared));
    printf("%-28s %7.1f bytes\n", "map, an entry", (double)frozen_bytes(frozen) / (double)frozen_count(frozen));
    frozen_unref(frozen);
    shared_close_all();
    limit_close_all();
    free(keys);
    return 0;
}
