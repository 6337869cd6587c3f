/* Frozen maps: all entries lie one behind the other in the order they came, each the length of its key, the key, its
 * packed value; beside them an index of eight bytes a place, three quarters full: where the entry lies, and 32 bits of
 * the key's hash, so that a probe touches an entry only if it is the one, but for one in four billion. An entry of a
 * short key and value takes some 30 bytes in all.
 *
 * A perfect hash would save the empty quarter and cost a second level to read; a sorted array costs twenty probes for a
 * million keys. The hash is seeded (base/map.h): the keys asked for come from strangers, and so may a list of them. */
#include "store/frozen.h"

#include "base/must.h"

#include <pthread.h>
#include <stdlib.h>

enum { LENGTH_WORDS = FROZEN_KEY_MAX / 64 + 1 };
static const size_t BYTES_MOST = UINT32_MAX - 1; /* places are 32 bits, and 0 is none */

struct frozen {
    uint64_t *index; /* hash << 32 | offset + 1; 0: free */
    size_t room;
    char *entries;
    size_t size, count;
    uint64_t lengths[LENGTH_WORDS]; /* bits of the lengths that keys have */
    struct digest source;
    unsigned refs; /* under the lock */
    struct frozen *next;
};

struct frozen_maker {
    struct packing entries;
    uint32_t *places; /* of each entry, in order */
    size_t count, room;
};

static struct {
    pthread_mutex_t lock;
    struct frozen *first;
} maps = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- entries and index */

static struct slice read_entry(const char *at, const char *end, struct slice *key) {
    size_t n;
    struct slice rest = packed_read_size(slice_make(at, (size_t)(end - at)), &n);
    *key = slice_make(rest.p, n);
    return slice_skip(rest, n);
}

/* The place where the key stands or belongs. */
static uint64_t *find_place(const struct frozen *f, struct slice key, uint64_t hash, struct slice *value) {
    size_t i = (size_t)((hash >> 32) * (uint64_t)f->room >> 32);
    for (;; i = i + 1 == f->room ? 0 : i + 1) {
        uint64_t place = f->index[i];
        if (place == 0) return &f->index[i];
        if (place >> 32 != (hash & UINT32_MAX)) continue;
        struct slice there;
        *value = read_entry(f->entries + (uint32_t)place - 1, f->entries + f->size, &there);
        if (slice_equal(there, key)) return &f->index[i];
    }
}

bool frozen_get(const struct frozen *f, struct slice key, struct slice *value) {
    if (key.n > FROZEN_KEY_MAX || !(f->lengths[key.n / 64] >> key.n % 64 & 1)) return false;
    return *find_place(f, key, hash_bytes(key), value) != 0;
}

/* The largest length up to `n` that keys have; 0: none. */
static size_t length_below(const struct frozen *f, size_t n) {
    uint64_t mask = n % 64 == 63 ? UINT64_MAX : (UINT64_C(1) << (n % 64 + 1)) - 1;
    for (size_t word = n / 64;; mask = UINT64_MAX) {
        uint64_t bits = f->lengths[word] & mask;
        if (bits) return word * 64 + 63 - (size_t)__builtin_clzll(bits);
        if (word-- == 0) return 0;
    }
}

bool frozen_prefix(const struct frozen *f, struct slice text, struct slice *key, struct slice *value, size_t *steps) {
    size_t n = text.n < FROZEN_KEY_MAX ? text.n : FROZEN_KEY_MAX;
    *steps = 0;
    for (n = length_below(f, n); n > 0; n = length_below(f, n - 1)) {
        ++*steps;
        *key = slice_make(text.p, n);
        if (frozen_get(f, *key, value)) return true;
    }
    return false;
}

bool frozen_next(const struct frozen *f, size_t *at, struct slice *key, struct slice *value) {
    if (*at >= f->size) return false;
    *value = read_entry(f->entries + *at, f->entries + f->size, key);
    *at = (size_t)(packed_skip(*value).p - f->entries);
    return true;
}

size_t frozen_count(const struct frozen *f) { return f->count; }
size_t frozen_bytes(const struct frozen *f) { return sizeof *f + f->size + f->room * sizeof *f->index; }

/* ---- making one */

struct frozen_maker *frozen_begin(void) {
    struct frozen_maker *m = must_calloc(1, sizeof *m);
    m->entries.limit = BYTES_MOST;
    return m;
}

void frozen_abandon(struct frozen_maker *m) {
    if (!m) return;
    packing_fini(&m->entries);
    free(m->places);
    free(m);
}

static void note_place(struct frozen_maker *m, uint32_t place) {
    if (m->count == m->room) {
        m->room = m->room ? m->room * 2 : 64;
        m->places = must_realloc(m->places, m->room * sizeof *m->places);
    }
    m->places[m->count++] = place;
}

struct packing *frozen_add(struct frozen_maker *m, struct slice key, uint32_t place) {
    if (key.n == 0 || key.n > FROZEN_KEY_MAX) return NULL;
    note_place(m, place);
    packing_size(&m->entries, key.n);
    packing_raw(&m->entries, key);
    return &m->entries;
}

struct digest frozen_digest(const struct frozen_maker *m) {
    return digest_bytes(slice_make(m->entries.bytes, m->entries.size));
}

static void free_frozen(struct frozen *f) {
    if (!f) return;
    free(f->index);
    free(f->entries);
    free(f);
}

/* Takes the maker's bytes. */
static struct frozen *make_empty(struct frozen_maker *m, struct digest source) {
    struct frozen *f = must_calloc(1, sizeof *f);
    f->source = source;
    f->refs = 1;
    f->entries = m->entries.bytes;
    f->size = m->entries.size;
    m->entries.bytes = NULL;
    f->room = m->count + m->count / 3 + 1;
    f->index = calloc(f->room, sizeof *f->index);
    return f;
}

/* Enters the entry at `*from`, which moves on; it is moved down to `*to`, where the former one ends, unless it is one
 * that is there. False: a clash. */
static bool enter(struct frozen *f, size_t *from, size_t *to) {
    struct slice key, value, there = SLICE("");
    value = read_entry(f->entries + *from, f->entries + f->size, &key);
    size_t end = (size_t)(packed_skip(value).p - f->entries), size = end - *from;
    value.n = (size_t)(f->entries + end - value.p);
    uint64_t hash = hash_bytes(key), *place = find_place(f, key, hash, &there);
    if (*place) {
        *from = end;
        there.n = (size_t)(packed_skip(there).p - there.p);
        return slice_equal(value, there);
    }
    f->lengths[key.n / 64] |= UINT64_C(1) << key.n % 64;
    if (*to != *from) memmove(f->entries + *to, f->entries + *from, size);
    *place = hash << 32 | (uint64_t)(*to + 1);
    f->count++;
    *from = end;
    *to += size;
    return true;
}

static bool enter_all(struct frozen *f, const struct frozen_maker *m, uint32_t *place) {
    size_t from = 0, to = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (enter(f, &from, &to)) continue;
        *place = m->places[i];
        return false;
    }
    f->size = to;
    char *smaller = to ? realloc(f->entries, to) : NULL;
    if (smaller) f->entries = smaller;
    return true;
}

/* Another thread may have made the same meanwhile: then that is it. */
static struct frozen *publish(struct frozen *f) {
    pthread_mutex_lock(&maps.lock);
    struct frozen *there = maps.first;
    while (there && !digest_equal(there->source, f->source)) there = there->next;
    if (there) {
        there->refs++;
    } else {
        f->next = maps.first;
        maps.first = f;
    }
    pthread_mutex_unlock(&maps.lock);
    if (there) free_frozen(f);
    return there ? there : f;
}

struct frozen *frozen_end(struct frozen_maker *m, struct digest source, enum frozen_fault *why, uint32_t *place) {
    struct frozen *f = NULL;
    *why = FROZEN_LARGE;
    *place = 0;
    if (m->entries.refused) goto fail;
    f = make_empty(m, source);
    if (!f->index) goto fail;
    *why = FROZEN_CLASH;
    if (!enter_all(f, m, place)) goto fail;
    *why = FROZEN_FINE;
    frozen_abandon(m);
    return publish(f);
fail:
    free_frozen(f);
    frozen_abandon(m);
    return NULL;
}

/* ---- having one */

struct frozen *frozen_find(struct digest source) {
    pthread_mutex_lock(&maps.lock);
    struct frozen *f = maps.first;
    while (f && !digest_equal(f->source, source)) f = f->next;
    if (f) f->refs++;
    pthread_mutex_unlock(&maps.lock);
    return f;
}

struct frozen *frozen_ref(struct frozen *f) {
    pthread_mutex_lock(&maps.lock);
    f->refs++;
    pthread_mutex_unlock(&maps.lock);
    return f;
}

void frozen_unref(struct frozen *f) {
    if (!f) return;
    pthread_mutex_lock(&maps.lock);
    bool last = --f->refs == 0;
    struct frozen **at = &maps.first;
    while (last && *at != f) at = &(*at)->next;
    if (last) *at = f->next;
    pthread_mutex_unlock(&maps.lock);
    if (last) free_frozen(f);
}
