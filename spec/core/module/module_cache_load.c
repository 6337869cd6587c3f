/* A cache under load: threads that look up, lead, follow, write, read, hold bytes, leave early, purge and sweep, all at
 * once, over few keys and little memory. A body's bytes follow from a seed that stands in its head, so each reader can
 * tell whether it gets what belongs there. */
#include "module_cache.h"

#include "base/clock.h"
#include "base/must.h"
#include "store/cache_memory.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MOST = 16, PATIENCE = 60, HELD_MOST = 8, TAGS = 7, NAME_BYTES = 64 };

static unsigned room_told;

void module_cache_count(void *counter) { ++*(unsigned *)counter; }
void *module_cache_counter(void) { return &room_told; }
int64_t module_cache_now(void) { return (int64_t)(clock_wall() * 1000); }

static int load_on_room_told(lua_State *L) {
    lua_pushinteger(L, room_told);
    return 1;
}

/* ---- a storm */

struct storm {
    struct cache *cache;
    uint64_t memory, max_object;
    unsigned keys, longest;
    lua_Integer rounds;
    atomic_uint next_seed;
    atomic_uint hits, led, followed, refused, windows, broken, gone, purged, wrong, stuck;
};

struct stormer {
    pthread_t thread;
    struct storm *storm;
    sem_t woken;
    uint64_t random;
};

struct storm_reader {
    struct cache_reader reader;
    struct stormer *stormer;
};

struct storm_follower {
    struct cache_follower follower;
    struct stormer *stormer;
};

static uint64_t draw(struct stormer *t, uint64_t below) {
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (t->random >> 11) % below;
}

/* Half of all go to an eighth of the keys. */
static unsigned draw_key(struct stormer *t) {
    unsigned keys = t->storm->keys;
    return (unsigned)draw(t, draw(t, 2) || keys < 8 ? keys : keys / 8);
}

static char byte_of(uint64_t seed, uint64_t position) {
    return (char)(seed * 31 + position * 7 + (position >> 8) * 13);
}

static void add(atomic_uint *n) { atomic_fetch_add_explicit(n, 1, memory_order_relaxed); }

static void check(struct storm *s, uint64_t seed, uint64_t position, struct slice bytes) {
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.p[i] == byte_of(seed, position + i)) continue;
        add(&s->wrong);
        return;
    }
}

static bool wait_woken(struct stormer *t) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    while (sem_timedwait(&t->woken, &until) != 0) {
        if (errno == EINTR) continue;
        add(&t->storm->stuck);
        return false;
    }
    return true;
}

static void wake(struct stormer *t) { sem_post(&t->woken); }
static void stormer_on_room(void *t) { wake(t); }
static void stormer_on_news(struct cache_reader *r) { wake(container_of(r, struct storm_reader, reader)->stormer); }
static void stormer_on_outcome(struct cache_follower *f) {
    wake(container_of(f, struct storm_follower, follower)->stormer);
}

/* ---- reading */

/* What a client's connection does with bytes it could not send at once. */
struct held {
    struct slice bytes;
    uint64_t position;
};

struct reading {
    struct storm_reader r;
    struct stormer *t;
    const struct cached *head;
    struct cache_body *body; /* a reference, while something is held */
    struct held held[HELD_MOST];
    unsigned held_count;
};

static bool begin_reading(struct reading *x, struct stormer *t, struct cached *head) {
    uint64_t arrived = cache_body_length(head->body);
    uint64_t position = arrived && draw(t, 4) == 0 ? draw(t, arrived + 1) : 0;
    *x = (struct reading){ .r = { .stormer = t }, .t = t, .head = head };
    return cache_reader_open(&x->r.reader, head->body, position, stormer_on_news);
}

static void release_held(struct reading *x) {
    for (unsigned i = 0; i < x->held_count; i++)
        check(x->t->storm, x->head->first, x->held[i].position, x->held[i].bytes);
    x->held_count = 0;
    cache_body_unref(x->body);
    x->body = NULL;
}

static void hold(struct reading *x, struct slice bytes) {
    if (!x->body) x->body = cache_body_ref(x->head->body);
    x->held[x->held_count++] = (struct held){ bytes, x->r.reader.position };
}

/* What there is, now. */
static void read_on(struct reading *x) {
    bool passing;
    for (struct slice s; (s = cache_reader_peek(&x->r.reader, &passing)).n;) {
        size_t n = draw(x->t, 4) ? s.n : 1 + draw(x->t, s.n);
        check(x->t->storm, x->head->first, x->r.reader.position, slice_make(s.p, n));
        if (!passing && draw(x->t, 4) == 0) hold(x, slice_make(s.p, n));
        cache_reader_skip(&x->r.reader, n);
        if (x->held_count == HELD_MOST) release_held(x);
        if (!passing) continue;
        add(&x->t->storm->windows);
    }
}

static void end_reading(struct reading *x) {
    struct storm *s = x->t->storm;
    if (cache_reader_at_end(&x->r.reader) && x->r.reader.position != x->head->total) add(&s->wrong);
    cache_reader_close(&x->r.reader);
    release_held(x);
}

static bool is_over(const struct reading *x) {
    return cache_reader_at_end(&x->r.reader) || cache_body_state(x->head->body) == CACHE_BODY_BROKEN;
}

static void read_cached(struct stormer *t, struct cached *head) {
    struct reading x;
    unsigned waits = draw(t, 8) ? UINT32_MAX : (unsigned)draw(t, 4); /* some leave early */
    if (!begin_reading(&x, t, head)) {
        add(&t->storm->gone);
        return;
    }
    for (;; waits--) {
        read_on(&x);
        if (is_over(&x)) break;
        if (cache_reader_await(&x.r.reader) && (waits == 0 || !wait_woken(t))) break;
    }
    end_reading(&x);
    while (sem_trywait(&t->woken) == 0) {}
}

/* ---- writing */

static void write_some(struct cache_body *body, uint64_t seed, uint64_t *at, size_t n) {
    struct buffer from = { 0 };
    char bytes[4096];
    for (size_t done = 0; done < n;) {
        size_t piece = n - done < sizeof bytes ? n - done : sizeof bytes;
        for (size_t i = 0; i < piece; i++) bytes[i] = byte_of(seed, *at + done + i);
        buffer_append(&from, bytes, piece);
        done += piece;
    }
    cache_body_write(body, &from);
    *at += n;
    buffer_fini(&from);
}

/* Writes the whole body; `x`, which may be closed, reads along as the leader's own client. False: broken off. */
static bool write_body(struct stormer *t, struct cached *head, struct reading *x) {
    uint64_t at = 0, breaks_at = draw(t, 16) ? UINT64_MAX : draw(t, head->total + 1);
    while (at < head->total) {
        if (at >= breaks_at || cache_body_abandoned(head->body)) return false;
        size_t room = cache_body_room(head->body, stormer_on_room, t);
        if (room == 0) {
            if (x->r.reader.body) read_on(x);
            if (cache_body_room(head->body, stormer_on_room, t) == 0 && !wait_woken(t)) return false;
            continue;
        }
        size_t n = 1 + draw(t, head->total - at);
        write_some(head->body, head->first, &at, n < room ? n : room);
        if (x->r.reader.body && draw(t, 2)) read_on(x);
        if (x->r.reader.body && draw(t, 64) == 0) end_reading(x);
    }
    return true;
}

static void finish_body(struct stormer *t, struct cached *head, struct reading *x) {
    bool whole = write_body(t, head, x);
    if (whole) cache_body_end(head->body);
    else cache_body_break(head->body);
    if (!whole) add(&t->storm->broken);
    if (x->r.reader.body) {
        read_on(x);
        end_reading(x);
    }
    while (sem_trywait(&t->woken) == 0) {}
}

/* ---- fills */

struct naming {
    char key[NAME_BYTES], url[NAME_BYTES], tag[NAME_BYTES];
};

static struct naming name_of(unsigned number) {
    struct naming n;
    snprintf(n.key, sizeof n.key, "key %u", number);
    snprintf(n.url, sizeof n.url, "http://x.example/%u/%u", number % 10, number / 2);
    snprintf(n.tag, sizeof n.tag, "tag %u", number % TAGS);
    return n;
}

static struct cache_draft draft_of(const struct naming *names, struct slice tags[2], uint64_t seed, uint64_t length) {
    tags[0] = slice_of(names->tag);
    tags[1] = SLICE("every");
    return (struct cache_draft){ .status = 200,
                                 .url = slice_of(names->url),
                                 .tags = tags,
                                 .tag_count = 2,
                                 .freshness = { .received = module_cache_now(), .lifetime = 60000 },
                                 .first = seed,
                                 .total = length,
                                 .length = length };
}

static void store_response(struct stormer *t, struct cache_fill *fill, const struct naming *names) {
    struct storm *s = t->storm;
    struct slice tags[2];
    struct reading x = { 0 };
    uint64_t length = draw(t, 3) ? draw(t, 3000) : draw(t, s->longest);
    struct cache_draft draft = draft_of(names, tags, atomic_fetch_add(&s->next_seed, 1), length);
    if (draw(t, 2)) draft.length = UINT64_MAX;
    struct cached *head = cache_fill_store(fill, &draft);
    if (!head) {
        add(&s->refused);
        return;
    }
    if (!begin_reading(&x, t, head)) add(&s->wrong);
    finish_body(t, head, &x);
    cached_unref(head);
}

static void lead_fill(struct stormer *t, struct cache_fill *fill, const struct naming *names) {
    uint64_t what = draw(t, 32);
    add(&t->storm->led);
    if (draw(t, 2)) usleep(1); /* a backend is slower than this, and others come meanwhile */
    if (what == 0) cache_fill_fail(fill);
    else if (what == 1) cache_fill_pass(fill, CACHE_RULE_PRIVATE, slice_of(names->url), 0.01);
    else store_response(t, fill, names);
}

/* Some lose patience. */
static void follow_fill(struct stormer *t, struct storm_follower *f) {
    add(&t->storm->followed);
    if (draw(t, 8)) wait_woken(t);
    cache_unfollow(&f->follower);
    while (sem_trywait(&t->woken) == 0) {}
}

static void fetch(struct stormer *t, const struct cache_key *key, const struct naming *names, struct cached *known) {
    struct storm_follower f = { .follower = { .tell = stormer_on_outcome }, .stormer = t };
    struct cache_fill *fill;
    struct headers none = { 0 };
    if (known && known->pass) {
        lead_fill(t, cache_fill_alone(t->storm->cache, key, &none), names);
        return;
    }
    switch (cache_join(t->storm->cache, key, &none, known, &f.follower, &fill)) {
    case CACHE_CHANGED: return;
    case CACHE_FOLLOW: follow_fill(t, &f); return;
    case CACHE_LEAD: break;
    }
    if (!known) {
        lead_fill(t, fill, names);
        return;
    }
    struct slice tags[2];
    struct cache_draft draft = draft_of(names, tags, known->first, known->total);
    cached_unref(cache_fill_freshen(fill, known, &draft));
}

static void use(struct stormer *t, unsigned number) {
    struct naming names = name_of(number);
    struct cache_key key = cache_key_of(slice_of(names.key));
    struct headers none = { 0 };
    enum cache_miss miss;
    bool stale;
    struct cached *head = cache_look_up(t->storm->cache, &key, &none, &stale, &miss);
    if (head && !slice_equal(head->key, key.bytes)) add(&t->storm->wrong);
    if (!head || head->pass || stale || draw(t, 32) == 0) {
        fetch(t, &key, &names, head);
    } else {
        add(&t->storm->hits);
        read_cached(t, head);
    }
    cached_unref(head);
}

static void purge(struct stormer *t, unsigned number) {
    struct naming names = name_of(number);
    struct cache_key key = cache_key_of(slice_of(names.key));
    struct cache *cache = t->storm->cache;
    bool soft = draw(t, 2);
    add(&t->storm->purged);
    switch (draw(t, 6)) {
    case 0: cache_purge_key(cache, &key, soft); break;
    case 1: cache_purge_url(cache, slice_of(names.url), soft); break;
    case 2: cache_purge_tag(cache, slice_of(names.tag), soft); break;
    case 3: cache_purge_prefix(cache, slice_make(names.url, sizeof "http://x.example/0/" - 1), soft); break;
    case 4:
        if (draw(t, 16) == 0) cache_purge_all(cache, soft);
        break;
    case 5: cache_sweep(cache, 64); break;
    }
}

/* A reload that changes the limit. */
static void resize(struct storm *s, uint64_t memory) {
    struct cache_limits limits = { .memory = memory, .max_object = s->max_object };
    must(cache_open(cache_site(s->cache), &limits) == s->cache);
}

static void *run_stormer(void *arg) {
    struct stormer *t = arg;
    for (lua_Integer i = 0; i < t->storm->rounds && !t->storm->stuck; i++) {
        if (draw(t, 2000) == 0) resize(t->storm, t->storm->memory - draw(t, 2) * t->storm->memory / 2);
        else if (draw(t, 64) == 0) purge(t, draw_key(t));
        else use(t, draw_key(t));
    }
    buffer_thread_fini();
    arena_thread_fini();
    return NULL;
}

static void push_count(lua_State *L, const char *name, unsigned n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, name);
}

/* storm(cache, threads, rounds, keys, longest, max_object): what came of it. */
static int load_on_storm(lua_State *L) {
    struct cache_figures figures;
    struct stormer list[THREADS_MOST];
    unsigned threads = (unsigned)luaL_checkinteger(L, 2);
    struct storm s = { .cache = lua_touserdata(L, 1),
                       .rounds = luaL_checkinteger(L, 3),
                       .keys = (unsigned)luaL_checkinteger(L, 4),
                       .longest = (unsigned)luaL_checkinteger(L, 5),
                       .max_object = (uint64_t)luaL_optinteger(L, 6, 0) };
    cache_figures(s.cache, &figures);
    s.memory = figures.memory;
    luaL_argcheck(L, threads <= THREADS_MOST, 2, "too many");
    for (unsigned i = 0; i < threads; i++) {
        list[i] = (struct stormer){ .storm = &s, .random = 88172645463325252u + i * 7919u };
        sem_init(&list[i].woken, 0, 0);
        must(pthread_create(&list[i].thread, NULL, run_stormer, &list[i]) == 0);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(list[i].thread, NULL);
        sem_destroy(&list[i].woken);
    }
    resize(&s, s.memory);
    lua_newtable(L);
#define COUNT(name) push_count(L, #name, s.name);
    COUNT(hits)
    COUNT(led)
    COUNT(followed)
    COUNT(refused)
    COUNT(windows)
    COUNT(broken)
    COUNT(gone)
    COUNT(purged)
    COUNT(wrong)
    COUNT(stuck)
#undef COUNT
    return 1;
}

/* ---- memory alone */

enum { RUNS = 2000 };

struct taken {
    unsigned char *p;
    uint32_t units;
    unsigned char mark;
};

static bool is_whole(const struct taken *t) {
    for (size_t i = 0; i < (size_t)t->units * MEMORY_UNIT; i++)
        if (t->p[i] != t->mark) return false;
    return true;
}

/* Gives back all of a run, or its end. */
static void give_some(struct cache_memory *m, struct taken *t, uint64_t keep) {
    keep = keep < t->units ? keep : 0;
    cache_memory_give(m, t->p + keep * MEMORY_UNIT, t->units - (uint32_t)keep);
    t->units = (uint32_t)keep;
}

static void take_some(struct cache_memory *m, struct taken *t, uint32_t want, uint32_t least) {
    t->p = cache_memory_take(m, want, least, &t->units);
    if (!t->p) t->units = 0;
    must(t->units == 0 || (t->units >= least && t->units <= want));
    if (t->p) memset(t->p, t->mark, (size_t)t->units * MEMORY_UNIT);
}

/* One step; false: something is wrong. */
static bool churn_once(struct stormer *t, struct cache_memory *m, struct taken *one, bool *refused) {
    bool good = is_whole(one) && m->used <= m->limit;
    *refused = false;
    if (one->units) {
        give_some(m, one, draw(t, 4) ? 0 : draw(t, one->units));
        return good;
    }
    uint32_t want = 1 + (uint32_t)draw(t, draw(t, 8) ? 30 : 2000);
    one->mark = (unsigned char)draw(t, 256);
    take_some(m, one, want, 1 + want / 4);
    *refused = !one->units;
    return good;
}

/* When all came back: but for the maps of further regions nothing is missing, and the longest run can be had. */
static bool is_one_again(struct cache_memory *m, uint64_t before) {
    struct taken last = { 0 };
    bool good = m->used >= before && m->used < before + m->limit / 100 && cache_memory_touched(m) <= m->limit;
    cache_memory_shrink(m);
    take_some(m, &last, MEMORY_RUN_MOST / MEMORY_UNIT, 1);
    return good && (last.units == MEMORY_RUN_MOST / MEMORY_UNIT || m->limit <= MEMORY_RUN_MOST);
}

/* churn(limit, rounds): runs of all lengths are taken, cut and given back. Whether each kept its bytes and all came
 * back, and how much of the limit was taken, in the mean, when one was refused. */
static int load_on_churn(lua_State *L) {
    static struct taken list[RUNS];
    struct cache_memory m;
    struct stormer t = { .random = 4711 };
    bool good = cache_memory_init(&m, (uint64_t)luaL_checkinteger(L, 1), 1000), refused;
    uint64_t before = m.used;
    double taken = 0, times = 0;
    memset(list, 0, sizeof list);
    for (lua_Integer i = luaL_checkinteger(L, 2); i > 0; i--) {
        good &= churn_once(&t, &m, &list[draw(&t, RUNS)], &refused);
        if (!refused) continue;
        taken += (double)m.used / (double)m.limit;
        times++;
    }
    for (int i = 0; i < RUNS; i++)
        if (list[i].units) give_some(&m, &list[i], 0);
    good &= is_one_again(&m, before);
    cache_memory_fini(&m);
    lua_pushboolean(L, good);
    lua_pushnumber(L, times > 0 ? taken / times : 1);
    return 2;
}

void module_cache_load_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "room_told", load_on_room_told }, { "storm", load_on_storm }, { "churn", load_on_churn }, { NULL, NULL }
    };
    luaL_setfuncs(L, functions, 0);
}
