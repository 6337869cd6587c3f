/* Free runs of units in bins by their length, eight bins for each doubling (TLSF: Masmano et al., ECRTS 2004). A run
 * that is taken is cut to the very units that were asked for, from the shortest one that has them; one that comes back
 * joins the free ones at both its sides. What is lost is half a unit for each run. A run needs no header: owners know
 * how long theirs are.
 *
 * Where free runs begin and end is written in two maps at the head of their region, a bit for each unit, 0.4 % in all;
 * how long one is, in its own first and last unit. A region is aligned to its size, so an address tells its region.
 *
 * Buddies were built first, with their blocks cut to length. But what comes back at an odd place is short blocks that
 * do not join, whatever lies free beside them: with sizes as on the web, and bodies in pieces of at least 4 KiB, 17 %
 * of a full cache could not be used, with longer pieces 30 %. Slabs of size classes keep what one class once got, until
 * somebody moves pages between them. malloc's memory is neither bounded nor known: what glibc really holds for objects
 * that come and go is more than the sum of their sizes by a share that nobody can tell, and it is not given back.
 *
 * Regions are mapped one by one and touched lazily. Together they are no larger than the limit, so that the process
 * cannot grow by more, however the runs lie. Pages once touched stay; `shrink` gives back those of free runs.
 *
 * Under AddressSanitizer free units are poisoned, but for the words that say how long the run is. */
#include "store/cache_memory.h"

#include "base/must.h"

#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { REGION_BYTES = 16 << 20, REGION_LEAST = 64 << 10, PAGE = 4096, SHRINK_LEAST = 64 << 10 };
enum { RUN_UNITS = MEMORY_RUN_MOST / MEMORY_UNIT, LOOKS = 4 };

/* At the head of its own memory. The maps: a bit where a free run begins, a bit where one ends. */
struct region {
    struct region *next;
    uint32_t units, touched; /* touched: units below it were given out once */
    uint64_t *begins, *ends;
    uint64_t bits[];
};

/* A free run's first unit; in the last word of its last unit its length stands again. */
struct run {
    struct list node;
    uint32_t units;
};

static struct region *region_of(const void *p) {
    return (struct region *)((uintptr_t)p & ~(uintptr_t)(REGION_BYTES - 1));
}

static char *unit_at(struct region *r, uint32_t unit) { return (char *)r + (size_t)unit * MEMORY_UNIT; }

static uint32_t unit_of(const struct region *r, const void *p) {
    return (uint32_t)((size_t)((const char *)p - (const char *)r) / MEMORY_UNIT);
}

static struct run *run_at(struct region *r, uint32_t unit) { return (struct run *)(void *)unit_at(r, unit); }

/* The length in the last word before `unit`. */
static uint32_t *length_before(struct region *r, uint32_t unit) {
    return (uint32_t *)(void *)(unit_at(r, unit) - sizeof(uint32_t));
}

static bool bit(const uint64_t *map, uint32_t unit) { return map[unit / 64] >> (unit % 64) & 1; }
static void flip(uint64_t *map, uint32_t unit) { map[unit / 64] ^= (uint64_t)1 << (unit % 64); }

/* ---- bins */

/* 1 to 8 units: a bin each; above: eight for each doubling. */
static unsigned bin_of(uint32_t units) {
    if (units < 8) return units - 1;
    unsigned log = 31u - (unsigned)__builtin_clz(units);
    return (log - 2) * 8 + (units >> (log - 3) & 7) - 1;
}

/* The first bin from there on with something in it; MEMORY_BINS: none. */
static unsigned filled_from(const struct cache_memory *m, unsigned bin) {
    for (unsigned word = bin / 64; word < MEMORY_BINS / 64; word++) {
        uint64_t bits = m->filled[word];
        if (word == bin / 64) bits &= ~(uint64_t)0 << (bin % 64);
        if (bits) return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return MEMORY_BINS;
}

static struct run *longest(const struct cache_memory *m) {
    for (unsigned word = MEMORY_BINS / 64; word-- > 0;) {
        if (!m->filled[word]) continue;
        unsigned bin = word * 64 + 63u - (unsigned)__builtin_clzll(m->filled[word]);
        return container_of(m->bins[bin].next, struct run, node);
    }
    return NULL;
}

/* One that is long enough, hardly longer than it must be. All in the next bin are; in its own, some may be. */
static struct run *find_run(const struct cache_memory *m, uint32_t units) {
    unsigned bin = bin_of(units), looked = 0;
    list_each(node, &m->bins[bin]) {
        struct run *run = container_of(node, struct run, node);
        if (run->units >= units) return run;
        if (++looked == LOOKS) break;
    }
    bin = filled_from(m, bin + 1);
    return bin < MEMORY_BINS ? container_of(m->bins[bin].next, struct run, node) : NULL;
}

static void add_run(struct cache_memory *m, struct region *r, uint32_t unit, uint32_t units) {
    struct run *run = run_at(r, unit);
    unsigned bin = bin_of(units);
    ASAN_UNPOISON_MEMORY_REGION(run, sizeof *run);
    ASAN_UNPOISON_MEMORY_REGION(length_before(r, unit + units), sizeof(uint32_t));
    run->units = *length_before(r, unit + units) = units;
    list_push_front(&m->bins[bin], &run->node);
    m->filled[bin / 64] |= (uint64_t)1 << (bin % 64);
    flip(r->begins, unit);
    flip(r->ends, unit + units - 1);
}

static void remove_run(struct cache_memory *m, struct region *r, struct run *run) {
    uint32_t unit = unit_of(r, run), units = run->units;
    unsigned bin = bin_of(units);
    list_remove(&run->node);
    if (list_empty(&m->bins[bin])) m->filled[bin / 64] &= ~((uint64_t)1 << (bin % 64));
    flip(r->begins, unit);
    flip(r->ends, unit + units - 1);
    ASAN_POISON_MEMORY_REGION(run, (size_t)units * MEMORY_UNIT);
}

/* With the free runs at both its sides. */
static void add_joined(struct cache_memory *m, struct region *r, uint32_t unit, uint32_t units) {
    if (unit + units < r->units && bit(r->begins, unit + units)) {
        struct run *behind = run_at(r, unit + units);
        units += behind->units;
        remove_run(m, r, behind);
    }
    if (bit(r->ends, unit - 1)) {
        uint32_t before = *length_before(r, unit);
        unit -= before;
        units += before;
        remove_run(m, r, run_at(r, unit));
    }
    add_run(m, r, unit, units);
}

/* ---- regions */

/* So much, aligned to REGION_BYTES. */
static void *map_aligned(size_t bytes) {
    char *p = mmap(NULL, 2 * (size_t)REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    char *at = (char *)region_of(p + REGION_BYTES - 1), *end = p + 2 * (size_t)REGION_BYTES;
    if (at > p) munmap(p, (size_t)(at - p));
    if (end > at + bytes) munmap(at + bytes, (size_t)(end - at) - bytes);
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0) return at;
    munmap(at, bytes);
    return NULL;
}

/* Lays out the maps; returns the units that they and the region itself take, at least one. */
static uint32_t lay_maps(struct region *r) {
    uint32_t words = (r->units + 63) / 64;
    r->begins = r->bits;
    r->ends = r->bits + words;
    return memory_units(sizeof *r + 2 * words * sizeof *r->bits);
}

static bool add_region(struct cache_memory *m) {
    uint64_t bytes = m->limit > m->mapped ? m->limit - m->mapped : 0;
    if (bytes > REGION_BYTES) bytes = REGION_BYTES;
    bytes -= bytes % PAGE;
    if (bytes < REGION_LEAST) return false;
    struct region *r = map_aligned(bytes);
    if (!r) return false;
    r->units = (uint32_t)(bytes / MEMORY_UNIT);
    uint32_t own = lay_maps(r);
    r->touched = own;
    r->next = m->regions;
    m->regions = r;
    m->mapped += bytes;
    m->used += (uint64_t)own * MEMORY_UNIT;
    ASAN_POISON_MEMORY_REGION(unit_at(r, own), (size_t)(r->units - own) * MEMORY_UNIT);
    add_run(m, r, own, r->units - own);
    return true;
}

bool cache_memory_init(struct cache_memory *m, uint64_t limit, uint64_t reserved) {
    *m = (struct cache_memory){ .limit = limit, .used = reserved, .mapped = reserved };
    for (unsigned bin = 0; bin < MEMORY_BINS; bin++) list_init(&m->bins[bin]);
    return add_region(m);
}

void cache_memory_fini(struct cache_memory *m) {
    while (m->regions) {
        struct region *r = m->regions;
        m->regions = r->next;
        size_t bytes = (size_t)r->units * MEMORY_UNIT;
        ASAN_UNPOISON_MEMORY_REGION(r, bytes);
        munmap(r, bytes);
    }
}

void cache_memory_set_limit(struct cache_memory *m, uint64_t limit) { m->limit = limit; }

void cache_memory_reserve(struct cache_memory *m, uint64_t bytes) {
    m->used += bytes;
    m->mapped += bytes;
}

void cache_memory_release(struct cache_memory *m, uint64_t bytes) {
    m->used -= bytes;
    m->mapped -= bytes;
}

/* ---- taking and giving */

static void *cut_run(struct cache_memory *m, struct run *run, uint32_t units) {
    struct region *r = region_of(run);
    uint32_t unit = unit_of(r, run), rest = run->units - units;
    remove_run(m, r, run);
    if (rest) add_run(m, r, unit + units, rest);
    if (unit + units > r->touched) r->touched = unit + units;
    ASAN_UNPOISON_MEMORY_REGION(run, (size_t)units * MEMORY_UNIT);
    m->used += (uint64_t)units * MEMORY_UNIT;
    return run;
}

void *cache_memory_take(struct cache_memory *m, uint32_t want, uint32_t least, uint32_t *units) {
    must(least >= 1 && least <= want);
    uint64_t left = m->used < m->limit ? (m->limit - m->used) / MEMORY_UNIT : 0;
    if (left > RUN_UNITS) left = RUN_UNITS;
    if (left < least) return NULL;
    if (want > left) want = (uint32_t)left;
    struct run *run = find_run(m, want);
    if (!run && add_region(m)) run = find_run(m, want);
    if (!run) run = longest(m);
    if (!run || run->units < least) return NULL;
    *units = run->units < want ? run->units : want;
    return cut_run(m, run, *units);
}

void cache_memory_give(struct cache_memory *m, void *run, uint32_t units) {
    struct region *r = region_of(run);
    ASAN_POISON_MEMORY_REGION(run, (size_t)units * MEMORY_UNIT);
    m->used -= (uint64_t)units * MEMORY_UNIT;
    add_joined(m, r, unit_of(r, run), units);
}

uint64_t cache_memory_touched(const struct cache_memory *m) {
    uint64_t mapped = 0, touched = 0;
    for (const struct region *r = m->regions; r; r = r->next) {
        mapped += (uint64_t)r->units * MEMORY_UNIT;
        touched += (uint64_t)r->touched * MEMORY_UNIT;
    }
    return m->mapped - mapped + touched;
}

/* All its pages but those with its length. */
static void shrink_run(struct run *run) {
    uintptr_t from = ((uintptr_t)(run + 1) + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    uintptr_t to = ((uintptr_t)run + (size_t)run->units * MEMORY_UNIT - 1) & ~(uintptr_t)(PAGE - 1);
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

void cache_memory_shrink(struct cache_memory *m) {
    for (unsigned bin = bin_of(SHRINK_LEAST / MEMORY_UNIT); bin < MEMORY_BINS; bin++)
        list_each(node, &m->bins[bin]) shrink_run(container_of(node, struct run, node));
}
