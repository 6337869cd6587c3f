/* Three questions to the cache, without a network:
 *
 *   ratio    hits of its eviction beside those of a plain LRU with the same memory, a tenth of the set, over three
 *            seeded loads: a Zipf web with sizes, scans through it, wonders of one hit. Ends with status 1 below
 *            1.1 times LRU's
 *   churn    what it says it uses and what the process grew by, after twenty times its size of mixed sizes went
 *            through, and in how many pieces bodies lie then. Ends with status 1 if they differ by more than 5 %
 *   cost     nanoseconds of a look-up, and of a look-up with a body of 1 KB read; bytes an object takes beside its own;
 *            milliseconds of a purge of 100,000 objects by their tag. Best of several rounds
 *
 *     cc -O2 -D_GNU_SOURCE -fno-strict-aliasing -Icore bench/cache_ratio.c core/store/cache*.c \
 *        core/http/vary.c core/http/headers.c core/http/coding.c core/http/grammar.c \
 *        $(ls core/base/[a-z]*.c | grep -v datadir) \
 *        -lxxhash -ljansson -lz -lbrotlienc -lbrotlidec -lzstd -lm -lpthread -o cache_ratio
 *     ./cache_ratio [ratio|churn|cost] */
#include "base/clock.h"
#include "base/must.h"
#include "store/cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { OBJECTS = 100000, REQUESTS = 1000000, HEAD_BYTES = 300 };

static uint64_t seed;

static double draw(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / (double)(1ull << 53);
}

/* ---- sizes: a log-normal middle of 8 KB and a long tail, always the same for one object */

static uint32_t size_of(uint64_t object) {
    uint64_t was = seed;
    seed = object * 0x9E3779B97F4A7C15u + 1;
    draw();
    double normal = sqrt(-2 * log(draw() + 1e-12)) * cos(6.283185307 * draw());
    seed = was;
    double size = exp(9 + 1.3 * normal);
    return size < 100 ? 100 : size > 1e6 ? 1000000 : (uint32_t)size;
}

/* ---- loads */

struct load {
    const char *name;
    uint64_t (*next)(void);
};

static double *zipf; /* cumulated */

static void make_zipf(double exponent) {
    double sum = 0;
    zipf = must_malloc(OBJECTS * sizeof *zipf);
    for (int i = 0; i < OBJECTS; i++) zipf[i] = sum += pow(i + 1, -exponent);
    for (int i = 0; i < OBJECTS; i++) zipf[i] /= sum;
}

static uint64_t draw_zipf(void) {
    double at = draw();
    size_t low = 0, high = OBJECTS - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zipf[middle] < at) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The web: as it is asked for. */
static uint64_t next_web(void) { return draw_zipf(); }

/* Every now and then somebody walks through a fifth of everything, in order. */
static uint64_t next_scan(void) {
    static uint64_t at, left;
    if (!left && draw() < 0.00002) {
        left = OBJECTS / 5;
        at = (uint64_t)(draw() * OBJECTS);
    }
    if (!left || draw() < 0.5) return draw_zipf();
    left--;
    return at++ % OBJECTS;
}

/* Half of all requests are for what nobody asked for before, or will again. */
static uint64_t next_wonder(void) {
    static uint64_t wonders = 1000000000;
    return draw() < 0.5 ? wonders++ : draw_zipf();
}

static const struct load loads[] = { { "Zipf web", next_web },
                                     { "scans through it", next_scan },
                                     { "one-hit wonders", next_wonder } };

/* ---- an LRU, which only counts */

struct lru_object {
    struct list use;
    struct lru_object *next;
    uint64_t object;
    uint32_t size;
};

struct lru {
    struct list uses;
    struct lru_object *buckets[1 << 17];
    uint64_t memory, used;
};

static struct lru_object **lru_find(struct lru *l, uint64_t object) {
    struct lru_object **at = &l->buckets[(object * 0x9E3779B97F4A7C15u) >> 47];
    while (*at && (*at)->object != object) at = &(*at)->next;
    return at;
}

static bool lru_ask(struct lru *l, uint64_t object, uint32_t size) {
    struct lru_object *o = *lru_find(l, object);
    if (o) {
        list_remove(&o->use);
        list_push(&l->uses, &o->use);
        return true;
    }
    while (l->used + size > l->memory) {
        struct lru_object *oldest = container_of(list_pop(&l->uses), struct lru_object, use);
        struct lru_object **at = lru_find(l, oldest->object);
        *at = oldest->next;
        l->used -= oldest->size;
        free(oldest);
    }
    o = must_calloc(1, sizeof *o);
    struct lru_object **at = lru_find(l, object);
    *o = (struct lru_object){ .next = *at, .object = object, .size = size };
    *at = o;
    list_push(&l->uses, &o->use);
    l->used += size;
    return false;
}

/* ---- the cache */

static struct cache *cache;
static const struct headers no_headers;

static struct cache *open_cache(const char *name, uint64_t memory) {
    struct cache_limits limits = { .memory = memory };
    return cache_open(slice_of(name), &limits);
}

static struct cached *look(const char *text, struct cache_key *key) {
    enum cache_miss miss;
    bool stale;
    *key = cache_key_of(slice_of(text));
    return cache_look_up(cache, key, &no_headers, &stale, &miss);
}

static void store(const struct cache_key *key, uint32_t size, const struct headers *headers, struct slice tag) {
    static char bytes[1 << 16];
    struct cache_follower follower;
    struct cache_fill *fill;
    struct buffer from = { 0 };
    struct cache_draft draft = { .status = 200, .url = key->bytes, .headers = headers, .length = size };
    draft.freshness.lifetime = 1000000;
    draft.tags = &tag;
    draft.tag_count = tag.n ? 1 : 0;
    must(cache_join(cache, key, &no_headers, NULL, &follower, &fill) == CACHE_LEAD);
    struct cached *head = cache_fill_store(fill, &draft);
    if (!head) return;
    for (uint32_t at = 0; at < size;) {
        size_t n = size - at < sizeof bytes ? size - at : sizeof bytes;
        buffer_append(&from, bytes, n);
        cache_body_write(head->body, &from);
        at += (uint32_t)n;
    }
    cache_body_end(head->body);
    cached_unref(head);
}

static bool cache_ask(uint64_t object, uint32_t size) {
    char text[HEAD_BYTES];
    struct cache_key key;
    snprintf(text, sizeof text, "http://example.org/objects/%llu", (unsigned long long)object);
    struct cached *head = look(text, &key);
    if (!head) store(&key, size, NULL, (struct slice){ 0 });
    cached_unref(head);
    return head != NULL;
}

/* ---- ratio */

static bool compare(const struct load *load, uint64_t memory) {
    static struct lru lru;
    uint64_t lru_hits = 0, hits = 0, asked = 0;
    memset(&lru, 0, sizeof lru);
    list_init(&lru.uses);
    lru.memory = memory;
    cache = open_cache(load->name, memory);
    seed = 88172645463325252u;
    for (int i = 0; i < REQUESTS; i++) {
        uint64_t object = load->next();
        uint32_t size = size_of(object);
        bool in_lru = lru_ask(&lru, object, size + HEAD_BYTES), in_cache = cache_ask(object, size);
        if (i < REQUESTS / 4) continue; /* it fills */
        asked++;
        lru_hits += in_lru;
        hits += in_cache;
    }
    double ratio = (double)hits / (double)lru_hits;
    printf("%-18s  %5.1f %%  %5.1f %%  %5.2f\n", load->name, 100.0 * (double)hits / (double)asked,
           100.0 * (double)lru_hits / (double)asked, ratio);
    cache_close_all();
    return ratio >= 1.1;
}

static bool run_ratio(void) {
    uint64_t all = 0;
    bool good = true;
    make_zipf(0.8);
    for (uint64_t i = 0; i < OBJECTS; i++) all += size_of(i) + HEAD_BYTES;
    printf("%llu MB in all, memory for a tenth\n%-18s  %7s  %7s  %5s\n", (unsigned long long)all >> 20, "load", "cache",
           "LRU", "ratio");
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) good &= compare(&loads[i], all / 10);
    return good;
}

/* ---- churn */

static uint64_t resident(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file && fscanf(file, "%*u %llu", &pages) == 1);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* In how many pieces bodies of up to so many bytes lie that were stored last. */
static void count_pieces(uint64_t last, uint32_t least, uint32_t most) {
    uint64_t bodies = 0, pieces = 0;
    for (uint64_t object = last; object > last - 5000; object--) {
        char text[64];
        struct cache_key key;
        struct cache_reader r;
        bool passing;
        if (size_of(object) <= least || size_of(object) > most) continue;
        snprintf(text, sizeof text, "http://example.org/objects/%llu", (unsigned long long)object);
        struct cached *head = look(text, &key);
        if (!head) continue;
        bodies++;
        must(cache_reader_open(&r, head->body, 0, NULL));
        for (struct slice s; (s = cache_reader_peek(&r, &passing)).n; pieces++) cache_reader_skip(&r, s.n);
        cache_reader_close(&r);
        cached_unref(head);
    }
    printf("%8u to %7u bytes: %.2f pieces\n", least, most, (double)pieces / (double)bodies);
}

static bool run_churn(void) {
    enum { MEMORY = 64 << 20 };
    struct cache_figures f;
    uint64_t before = resident(), through = 0, object = 0;
    seed = 4711;
    cache = open_cache("churn", MEMORY);
    for (; through < 20ull * MEMORY; object++) {
        uint32_t size = size_of(object);
        through += size;
        cache_ask(object, size);
        if (draw() < 0.3) cache_ask((uint64_t)(draw() * (double)object), size); /* some are used again */
    }
    for (uint32_t least = 1024; least < 1 << 20; least *= 4) count_pieces(object - 1, least, least * 4);
    cache_figures(cache, &f);
    uint64_t grown = resident() - before;
    double off = (double)grown / (double)f.used - 1;
    printf("limit %.1f MB, used %.2f MB, process grew %.2f MB: %+.1f %%; %llu objects, %llu evicted\n", MEMORY / 1e6,
           (double)f.used / 1e6, (double)grown / 1e6, off * 100, (unsigned long long)f.objects,
           (unsigned long long)f.evicted);
    cache_close_all();
    return off < 0.05 && off > -0.05;
}

/* ---- cost */

enum { ROUNDS = 7, TURNS = 1000000, TAGGED = 100000 };

static void ask_one(const char *text, bool read) {
    struct cache_key key;
    struct cached *head = look(text, &key);
    if (read) {
        struct cache_reader r;
        bool passing;
        must(cache_reader_open(&r, head->body, 0, NULL));
        for (struct slice s; (s = cache_reader_peek(&r, &passing)).n;) cache_reader_skip(&r, s.n);
        cache_reader_close(&r);
    }
    cached_unref(head);
}

static void measure(const char *what, bool read, uint64_t among) {
    char(*names)[64] = must_malloc(among * sizeof *names);
    double best = 1e9;
    for (uint64_t i = 0; i < among; i++)
        snprintf(names[i], sizeof *names, "http://example.org/objects/%llu", (unsigned long long)i);
    for (int round = 0; round < ROUNDS; round++) {
        double began = clock_monotonic();
        for (uint64_t i = 0; i < TURNS; i++) ask_one(names[i * 7919 % among], read);
        double took = (clock_monotonic() - began) / TURNS * 1e9;
        if (took < best) best = took;
    }
    free(names);
    printf("%-44s %7.1f ns\n", what, best);
}

static bool run_cost(void) {
    struct cache_figures f;
    cache = open_cache("cost", 512 << 20);
    cache_figures(cache, &f);
    uint64_t tables = f.used;
    for (uint64_t i = 0; i < TAGGED; i++) {
        char text[64];
        snprintf(text, sizeof text, "http://example.org/objects/%llu", (unsigned long long)i);
        struct cache_key key = cache_key_of(slice_of(text));
        store(&key, 1024, NULL, SLICE("all of them"));
    }
    cache_figures(cache, &f);
    printf("an object beside its 1,024 bytes, with a key and URL of 32: %.0f bytes; tables %.1f %% of the limit\n",
           (double)(f.used - tables) / TAGGED - 1024, (double)tables / (512 << 20) * 100);
    measure("look-up, one object", false, 1);
    measure("look-up, 1 KB read, one object", true, 1);
    measure("look-up, 100,000 objects", false, TAGGED);
    measure("look-up, 1 KB read, 100,000 objects", true, TAGGED);
    double began = clock_monotonic();
    uint64_t hit = cache_purge_tag(cache, SLICE("all of them"), false);
    double took = (clock_monotonic() - began) * 1e3;
    printf("purge of a tag: %llu objects, %.4f ms\n", (unsigned long long)hit, took);
    struct cache_key key;
    must(look("http://example.org/objects/7", &key) == NULL);
    cache_close_all();
    return took < 1 && hit == TAGGED;
}

int main(int argc, char **argv) {
    struct slice which = argc > 1 ? slice_of(argv[1]) : SLICE("");
    bool good = true;
    if (!which.n || slice_equal(which, SLICE("ratio"))) good &= run_ratio();
    if (!which.n || slice_equal(which, SLICE("churn"))) good &= run_churn();
    if (!which.n || slice_equal(which, SLICE("cost"))) good &= run_cost();
    return good ? 0 : 1;
}
