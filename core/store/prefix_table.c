/* A poptrie (Asai and Ohara, 2015): a trie that eats six bits at a time, whose nodes hold no pointers but two bit
 * vectors of 64. `inner` says which of the 64 ways lead to a further node; these lie side by side, so the number of
 * ones before a bit is the place. The other ways end in values, equal neighbours once: `leaves` marks where each run
 * begins. 24 bytes a node, 4 a run, and no more than a cache line or two each step.
 *
 * IPv4 and IPv6 have a trie each, the former over the last 32 bits of the same keys. A big trie begins with an array
 * over the first 16 bits instead of three nodes.
 *
 * It is built in one pass over the sorted prefixes: a shorter one stands before those within it, so a value is written
 * over by the more specific ones that follow. A radix tree by single bits was the simple way: 30 cache misses an
 * address. */
#include "store/prefix_table.h"

#include "base/map.h"
#include "base/must.h"

#include <pthread.h>
#include <stdlib.h>

typedef unsigned __int128 key128;

enum { STRIDE = 6, WAYS = 1 << STRIDE, DIRECT_BITS = 16, DIRECT_FROM = 1024, KEY_BITS = 128, IPV4_AT = 96 };

/* Where a way leads: a node's index, or with this bit a value. */
static const uint32_t LEAF_BIT = 0x80000000;

struct node {
    uint64_t inner, leaves;
    uint32_t first_inner, first_leaf;
};

struct trie {
    uint32_t *direct; /* by the first 16 bits; NULL: begin at `root` */
    uint32_t root;
    unsigned begin; /* the first bit it looks at */
};

struct prefix_table {
    struct trie ipv4, ipv6;
    struct node *nodes;
    uint32_t *leaves;
    char *texts;
    size_t count, bytes, texts_size;
    uint64_t digest[2];
    size_t refs;
    struct prefix_table *next;
};

static struct {
    pthread_mutex_t lock;
    struct prefix_table *first;
} tables = { .lock = PTHREAD_MUTEX_INITIALIZER };

static key128 key_of(const uint8_t bytes[16]) {
    key128 key = 0;
    for (int i = 0; i < 16; i++) key = key << 8 | bytes[i];
    return key;
}

/* `n` bits from bit `at` on; behind the last there are zeros. */
static unsigned key_bits(key128 key, unsigned at, unsigned n) { return (unsigned)((key << at) >> (KEY_BITS - n)); }

static bool is_ipv4(const uint8_t bytes[16]) {
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    return memcmp(bytes, mapped, sizeof mapped) == 0;
}

/* ---- looking up */

static uint32_t trie_get(const struct prefix_table *t, const struct trie *trie, key128 key) {
    unsigned at = trie->begin;
    uint32_t way = trie->root;
    if (trie->direct) {
        way = trie->direct[key_bits(key, at, DIRECT_BITS)];
        at += DIRECT_BITS;
    }
    for (; !(way & LEAF_BIT); at += STRIDE) {
        const struct node *node = &t->nodes[way];
        uint64_t bit = 1ull << key_bits(key, at, STRIDE);
        if (!(node->inner & bit)) {
            unsigned run = (unsigned)__builtin_popcountll(node->leaves & (bit | (bit - 1)));
            return t->leaves[node->first_leaf + run - 1];
        }
        way = node->first_inner + (uint32_t)__builtin_popcountll(node->inner & (bit - 1));
    }
    return way & ~LEAF_BIT;
}

uint32_t prefix_table_get(const struct prefix_table *t, const uint8_t address[16]) {
    return trie_get(t, is_ipv4(address) ? &t->ipv4 : &t->ipv6, key_of(address));
}

/* ---- building */

struct build {
    struct node *nodes;
    uint32_t *leaves;
    size_t node_count, node_room, leaf_count, leaf_room;
};

/* Prefixes in order, all within one that ends at bit `at`, where `value` holds. */
struct span {
    const struct prefix *list;
    size_t count;
    unsigned at;
    uint32_t value;
};

static uint32_t add_nodes(struct build *b, const struct node *nodes, size_t n) {
    if (b->node_count + n > b->node_room) {
        b->node_room = (b->node_count + n) * 2;
        b->nodes = must_realloc(b->nodes, b->node_room * sizeof *b->nodes);
    }
    if (n) memcpy(b->nodes + b->node_count, nodes, n * sizeof *nodes);
    b->node_count += n;
    must(b->node_count < LEAF_BIT);
    return (uint32_t)(b->node_count - n);
}

static void add_leaf(struct build *b, uint32_t value) {
    if (b->leaf_count == b->leaf_room) {
        b->leaf_room = b->leaf_room ? b->leaf_room * 2 : WAYS;
        b->leaves = must_realloc(b->leaves, b->leaf_room * sizeof *b->leaves);
    }
    b->leaves[b->leaf_count++] = value;
}

/* Takes from the front of the span all prefixes that go on behind the same way of `bits` bits as its first. */
static struct span take_way(struct span *s, unsigned bits, unsigned way) {
    size_t n = 1;
    while (n < s->count && key_bits(key_of(s->list[n].bytes), s->at, bits) == way) n++;
    struct span within = { s->list, n, s->at + bits, 0 };
    s->list += n;
    s->count -= n;
    return within;
}

/* The span's first prefix ends within these `bits` bits: its value, with `mark`, holds on all ways it has. */
static void spread_value(struct span *s, unsigned bits, uint32_t *values, uint32_t mark) {
    const struct prefix *p = s->list;
    unsigned way = key_bits(key_of(p->bytes), s->at, bits), ways = 1u << (s->at + bits - p->bits);
    for (unsigned i = 0; i < ways; i++) values[way + i] = mark | p->value;
    s->list++;
    s->count--;
}

static struct node build_node(struct build *b, struct span s) {
    uint32_t values[WAYS];
    struct node inner[WAYS], node = { 0 };
    unsigned inner_count = 0;
    for (int i = 0; i < WAYS; i++) values[i] = s.value;
    while (s.count) {
        if (s.list->bits <= s.at + STRIDE) {
            spread_value(&s, STRIDE, values, 0);
            continue;
        }
        unsigned way = key_bits(key_of(s.list->bytes), s.at, STRIDE);
        struct span within = take_way(&s, STRIDE, way);
        within.value = values[way];
        inner[inner_count++] = build_node(b, within);
        node.inner |= 1ull << way;
    }
    node.first_inner = add_nodes(b, inner, inner_count);
    node.first_leaf = (uint32_t)b->leaf_count;
    bool any = false;
    for (int i = 0; i < WAYS; i++) {
        if (node.inner >> i & 1) continue;
        if (any && values[i] == b->leaves[b->leaf_count - 1]) continue;
        any = true;
        node.leaves |= 1ull << i;
        add_leaf(b, values[i]);
    }
    return node;
}

static uint32_t build_way(struct build *b, struct span s) {
    struct node node = build_node(b, s);
    return add_nodes(b, &node, 1);
}

static void build_direct(struct build *b, struct trie *trie, struct span s) {
    trie->direct = must_malloc(sizeof(uint32_t) << DIRECT_BITS);
    for (size_t i = 0; i < 1u << DIRECT_BITS; i++) trie->direct[i] = LEAF_BIT | s.value;
    while (s.count) {
        if (s.list->bits <= s.at + DIRECT_BITS) {
            spread_value(&s, DIRECT_BITS, trie->direct, LEAF_BIT);
            continue;
        }
        unsigned way = key_bits(key_of(s.list->bytes), s.at, DIRECT_BITS);
        struct span within = take_way(&s, DIRECT_BITS, way);
        within.value = trie->direct[way] & ~LEAF_BIT;
        trie->direct[way] = build_way(b, within);
    }
}

static void build_trie(struct build *b, struct trie *trie, struct span s) {
    trie->begin = s.at;
    if (s.count && s.list->bits == s.at) {
        s.value = s.list->value;
        s.list++;
        s.count--;
    }
    if (s.count >= DIRECT_FROM) build_direct(b, trie, s);
    else trie->root = s.count ? build_way(b, s) : LEAF_BIT | s.value;
}

/* ---- the list */

static int compare_prefixes(const void *a, const void *b) {
    const struct prefix *x = a, *y = b;
    bool x4 = is_ipv4(x->bytes), y4 = is_ipv4(y->bytes);
    if (x4 != y4) return x4 ? 1 : -1; /* IPv6 first */
    int order = memcmp(x->bytes, y->bytes, sizeof x->bytes);
    if (order) return order;
    if (x->bits != y->bits) return x->bits < y->bits ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static void clear_behind(struct prefix *p) {
    for (unsigned i = 0; i < 16; i++) {
        unsigned kept = p->bits > i * 8 ? p->bits - i * 8 : 0;
        if (kept < 8) p->bytes[i] &= (uint8_t)(0xff00u >> kept);
    }
    memset(p->zero, 0, sizeof p->zero);
}

/* What comes sorted, as published lists do, is not sorted again. */
void prefixes_sort(struct prefix *list, size_t count) {
    bool sorted = true;
    for (size_t i = 0; i < count; i++) {
        clear_behind(&list[i]);
        if (i && sorted) sorted = compare_prefixes(&list[i - 1], &list[i]) <= 0;
    }
    if (!sorted) qsort(list, count, sizeof *list, compare_prefixes);
}

static bool same_prefix(const struct prefix *a, const struct prefix *b) {
    return a->bits == b->bits && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* Leaves one of each; the number of them, or false if one has two values. */
static bool drop_repeated(struct prefix *list, size_t *count, const struct prefix **conflict) {
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        if (kept && same_prefix(&list[kept - 1], &list[i])) {
            *conflict = &list[i];
            if (list[kept - 1].value != list[i].value) return false;
            continue;
        }
        list[kept++] = list[i];
    }
    *count = kept;
    return true;
}

/* ---- tables */

static void build_table(struct prefix_table *t, const struct prefix *list, size_t count) {
    struct build b = { 0 };
    size_t ipv6 = 0;
    while (ipv6 < count && !is_ipv4(list[ipv6].bytes)) ipv6++;
    build_trie(&b, &t->ipv6, (struct span){ list, ipv6, 0, 0 });
    build_trie(&b, &t->ipv4, (struct span){ list + ipv6, count - ipv6, IPV4_AT, 0 });
    /* Nothing is added any more: give the rest of the room back. */
    t->nodes = must_realloc(b.nodes, (b.node_count + 1) * sizeof *t->nodes);
    t->leaves = must_realloc(b.leaves, (b.leaf_count + 1) * sizeof *t->leaves);
    size_t directs = (size_t)(t->ipv4.direct != NULL) + (t->ipv6.direct != NULL);
    t->bytes = sizeof *t + b.node_count * sizeof *t->nodes + b.leaf_count * sizeof *t->leaves + t->texts_size +
               directs * (sizeof(uint32_t) << DIRECT_BITS);
}

static struct prefix_table *make_table(const struct prefix *list, size_t count, struct slice texts) {
    struct prefix_table *t = must_calloc(1, sizeof *t);
    t->refs = 1;
    t->count = count;
    if (texts.p) {
        t->texts = must_malloc(texts.n + 1);
        if (texts.n) memcpy(t->texts, texts.p, texts.n);
        t->texts[texts.n] = '\0';
        t->texts_size = texts.n + 1;
    }
    build_table(t, list, count);
    return t;
}

static void destroy_table(struct prefix_table *t) {
    free(t->ipv4.direct);
    free(t->ipv6.direct);
    free(t->nodes);
    free(t->leaves);
    free(t->texts);
    free(t);
}

/* Two hashes: what one confuses, the other does not, and one is seeded, so that nobody can publish a list that is taken
 * for another. */
static void digest_list(uint64_t digest[2], const struct prefix *list, size_t count, struct slice texts) {
    struct slice bytes = slice_make((const char *)list, count * sizeof *list);
    digest[0] = hash_bytes(bytes) ^ hash_bytes(texts) * 3;
    digest[1] = hash_bytes_stable(bytes) ^ hash_bytes_stable(texts) * 5 ^ (texts.p ? count : ~count);
}

static struct prefix_table *find_table(const uint64_t digest[2]) {
    pthread_mutex_lock(&tables.lock);
    struct prefix_table *t = tables.first;
    while (t && (t->digest[0] != digest[0] || t->digest[1] != digest[1])) t = t->next;
    if (t) t->refs++;
    pthread_mutex_unlock(&tables.lock);
    return t;
}

struct prefix_table *prefix_table_open(struct prefix *list, size_t count, struct slice texts,
                                       const struct prefix **conflict) {
    uint64_t digest[2];
    prefixes_sort(list, count);
    if (!drop_repeated(list, &count, conflict)) return NULL;
    digest_list(digest, list, count, texts);
    struct prefix_table *t = find_table(digest);
    if (t) return t;
    t = make_table(list, count, texts);
    memcpy(t->digest, digest, sizeof digest);
    /* Two threads may build the same at once: then there are two for a while, which does no harm. */
    pthread_mutex_lock(&tables.lock);
    t->next = tables.first;
    tables.first = t;
    pthread_mutex_unlock(&tables.lock);
    return t;
}

struct prefix_table *prefix_table_ref(struct prefix_table *t) {
    pthread_mutex_lock(&tables.lock);
    t->refs++;
    pthread_mutex_unlock(&tables.lock);
    return t;
}

void prefix_table_unref(struct prefix_table *t) {
    if (!t) return;
    pthread_mutex_lock(&tables.lock);
    bool last = --t->refs == 0;
    struct prefix_table **at = &tables.first;
    while (last && *at != t) at = &(*at)->next;
    if (last) *at = t->next;
    pthread_mutex_unlock(&tables.lock);
    if (last) destroy_table(t);
}

const char *prefix_table_text(const struct prefix_table *t, uint32_t value) {
    must(value && value <= t->texts_size);
    return t->texts + value - 1;
}

bool prefix_table_has_texts(const struct prefix_table *t) { return t->texts != NULL; }
size_t prefix_table_count(const struct prefix_table *t) { return t->count; }
size_t prefix_table_bytes(const struct prefix_table *t) { return t->bytes; }

size_t prefix_tables(void) {
    size_t n = 0;
    pthread_mutex_lock(&tables.lock);
    for (const struct prefix_table *t = tables.first; t; t = t->next) n++;
    pthread_mutex_unlock(&tables.lock);
    return n;
}
