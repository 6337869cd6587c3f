/* Buddies with cut ends. Memory is mapped in regions; a region's free units lie in blocks of 2^k units at multiples of
 * 2^k, one list for each k, and a block that comes back joins its other half if that is free. So far that is a buddy
 * allocator, which wastes a quarter of what it gives out by rounding up. This one cuts a block to the very units that
 * were asked for and keeps the rest, as smaller blocks; a run of 17 units comes back as blocks of 16 and 1. What is
 * lost is half a unit for each run, and no header is needed: owners know how long their runs are.
 *
 * Which blocks are free is written in a map at the head of their region, a bit for each block of each size: 2 bits a
 * unit, 0.4 %. A region is aligned to its size, so a run's address tells its region.
 *
 * Why not malloc: its memory is neither bounded nor known. What glibc really holds for a cache whose objects come and
 * go differs from the sum of their sizes by 10 to 60 %, and is never given back. Slabs of size classes were weighed
 * too: they keep what one class once got, until somebody moves pages between classes; and a body in pieces of any
 * length needs none of them.
 *
 * Regions are mapped one by one and touched lazily. Together they are no larger than the limit, so that the process
 * cannot grow by more, however the runs lie. Pages once touched stay; `shrink` gives back those of free blocks.
 *
 * Under AddressSanitizer free units are poisoned, but for the node at the head of each free block. */
#include "store/cache_memory.h"

#include "base/must.h"

#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { REGION_BYTES = 16 << 20, REGION_LEAST = 64 << 10, SHRINK_ORDER = 10, PAGE = 4096, TOP = MEMORY_ORDERS - 1 };
enum { RUN_UNITS = MEMORY_RUN_MOST / MEMORY_UNIT };

/* At the head of its own memory. */
struct region {
    struct region *next;
    uint32_t units, touched;      /* touched: units below it were given out once */
    uint32_t maps[MEMORY_ORDERS]; /* where the bits of each order begin */
    uint64_t bits[];
};

/* At the head of each free block. */
struct block {
    struct list node;
};

static struct region *region_of(const void *p) {
    return (struct region *)((uintptr_t)p & ~(uintptr_t)(REGION_BYTES - 1));
}

static char *unit_at(struct region *r, uint32_t unit) { return (char *)r + (size_t)unit * MEMORY_UNIT; }

static uint32_t unit_of(const struct region *r, const void *p) {
    return (uint32_t)((size_t)((const char *)p - (const char *)r) / MEMORY_UNIT);
}

/* ---- the map of free blocks */

static bool is_free(const struct region *r, uint32_t unit, unsigned order) {
    uint32_t bit = r->maps[order] + (unit >> order);
    return r->bits[bit / 64] >> (bit % 64) & 1;
}

static void flip(struct region *r, uint32_t unit, unsigned order) {
    uint32_t bit = r->maps[order] + (unit >> order);
    r->bits[bit / 64] ^= (uint64_t)1 << (bit % 64);
}

static void add_block(struct cache_memory *m, struct region *r, uint32_t unit, unsigned order) {
    struct block *b = (struct block *)(void *)unit_at(r, unit);
    ASAN_UNPOISON_MEMORY_REGION(b, sizeof *b);
    list_push_front(&m->free[order], &b->node);
    m->filled |= 1u << order;
    flip(r, unit, order);
}

static void remove_block(struct cache_memory *m, struct region *r, uint32_t unit, unsigned order) {
    struct block *b = (struct block *)(void *)unit_at(r, unit);
    list_remove(&b->node);
    if (list_empty(&m->free[order])) m->filled &= ~(1u << order);
    flip(r, unit, order);
}

static void add_joined(struct cache_memory *m, struct region *r, uint32_t unit, unsigned order) {
    for (; order < TOP; order++) {
        uint32_t other = unit ^ 1u << order;
        if (other + (1u << order) > r->units || !is_free(r, other, order)) break;
        remove_block(m, r, other, order);
        ASAN_POISON_MEMORY_REGION(unit_at(r, other), sizeof(struct block));
        unit &= ~(1u << order);
    }
    add_block(m, r, unit, order);
}

static unsigned order_below(uint32_t units) { return 31u - (unsigned)__builtin_clz(units); }
static unsigned order_above(uint32_t units) { return units == 1 ? 0 : order_below(units - 1) + 1; }

/* The largest block that begins at `unit` and is no longer than `units`. */
static unsigned fitting_order(uint32_t unit, uint32_t units) {
    unsigned order = order_below(units), aligned = (unsigned)__builtin_ctz(unit | 1u << TOP);
    if (order > TOP) order = TOP;
    return order < aligned ? order : aligned;
}

static void add_run(struct cache_memory *m, struct region *r, uint32_t unit, uint32_t units) {
    while (units) {
        unsigned order = fitting_order(unit, units);
        add_joined(m, r, unit, order);
        unit += 1u << order;
        units -= 1u << order;
    }
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

/* Lays out the maps; returns the units that they and the region itself take. */
static uint32_t lay_maps(struct region *r) {
    uint32_t bits = 0;
    for (unsigned order = 0; order < MEMORY_ORDERS; order++) {
        r->maps[order] = bits;
        bits += (r->units >> order) + 1;
    }
    return memory_units(sizeof *r + (bits + 63) / 64 * 8);
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
    for (unsigned order = 0; order < MEMORY_ORDERS; order++) list_init(&m->free[order]);
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

/* The order of the block to cut `*want` units from; if none is so large, the largest, and `*want` what it has. */
static int choose_order(const struct cache_memory *m, uint32_t *want, uint32_t least) {
    unsigned order = order_above(*want);
    uint32_t large = order < MEMORY_ORDERS ? m->filled >> order << order : 0;
    if (large) return __builtin_ctz(large);
    if (!m->filled) return -1;
    order = order_below(m->filled);
    if (1u << order < least) return -1;
    if (*want > 1u << order) *want = 1u << order;
    return (int)order;
}

static void *cut_run(struct cache_memory *m, unsigned order, uint32_t units) {
    struct block *b = container_of(m->free[order].next, struct block, node);
    struct region *r = region_of(b);
    uint32_t unit = unit_of(r, b);
    remove_block(m, r, unit, order);
    if (units < 1u << order) add_run(m, r, unit + units, (1u << order) - units);
    if (unit + units > r->touched) r->touched = unit + units;
    ASAN_UNPOISON_MEMORY_REGION(b, (size_t)units * MEMORY_UNIT);
    m->used += (uint64_t)units * MEMORY_UNIT;
    return b;
}

/* A run as wanted may need another region. */
static bool wants_region(const struct cache_memory *m, uint32_t want) {
    unsigned order = order_above(want);
    return m->mapped < m->limit && (order >= MEMORY_ORDERS || m->filled >> order == 0);
}

void *cache_memory_take(struct cache_memory *m, uint32_t want, uint32_t least, uint32_t *units) {
    must(least >= 1 && least <= want);
    uint64_t left = m->used < m->limit ? (m->limit - m->used) / MEMORY_UNIT : 0;
    if (left > RUN_UNITS) left = RUN_UNITS;
    if (left < least) return NULL;
    if (want > left) want = (uint32_t)left;
    if (wants_region(m, want)) add_region(m);
    int order = choose_order(m, &want, least);
    if (order < 0) return NULL;
    *units = want;
    return cut_run(m, (unsigned)order, want);
}

void cache_memory_give(struct cache_memory *m, void *run, uint32_t units) {
    struct region *r = region_of(run);
    ASAN_POISON_MEMORY_REGION(run, (size_t)units * MEMORY_UNIT);
    m->used -= (uint64_t)units * MEMORY_UNIT;
    add_run(m, r, unit_of(r, run), units);
}

uint64_t cache_memory_touched(const struct cache_memory *m) {
    uint64_t mapped = 0, touched = 0;
    for (const struct region *r = m->regions; r; r = r->next) {
        mapped += (uint64_t)r->units * MEMORY_UNIT;
        touched += (uint64_t)r->touched * MEMORY_UNIT;
    }
    return m->mapped - mapped + touched;
}

/* All pages of a block but the first, where its node is. */
void cache_memory_shrink(struct cache_memory *m) {
    for (unsigned order = SHRINK_ORDER; order < MEMORY_ORDERS; order++) {
        size_t bytes = (size_t)MEMORY_UNIT << order;
        list_each(node, &m->free[order]) {
            uintptr_t from = ((uintptr_t)node + sizeof(struct block) + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
            uintptr_t to = ((uintptr_t)node + bytes) & ~(uintptr_t)(PAGE - 1);
            if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
        }
    }
}
