/* Bodies: chains of pieces, one writer, readers in any thread.
 *
 * Reading takes no lock. The writer fills a piece, links the next, and then says how many bytes there are (`available`,
 * release); who has read that (acquire) finds the bytes, and the links to them. A piece is full before the next is
 * begun, so a reader knows by itself when to go on.
 *
 * Readers that come while the body arrives stand in a list, under a lock, because the writer wakes them; those of a
 * whole body, nearly all, do not.
 *
 * A window. A body that may not be stored any further (it is too large, no memory can be had, or it was evicted while
 * it came) leaves the index, and goes on for those who read it: new pieces come from malloc, like all bytes in flight,
 * WINDOW ahead of the slowest reader, and pieces that all have passed are freed. Those from the time before may still
 * be held by who peeked at them when the body was not passing; whoever keeps bytes has a reference of the kind that
 * cache_body_ref gives. So such pieces are put aside, and freed when there is none of these references. (If a long
 * body's readers hold one all the time, what had been stored stays that long: at most max_object.)
 *
 * A piece is as long as what is still to come, if that is known; of unknown lengths it begins with PIECE_FIRST and
 * triples what there is, and at the end the rest of the last one is cut off and given back. In a full cache shorter
 * ones are taken rather than more evicted, but none below a quarter of what is wanted, up to PIECE_ENOUGH. (Measured
 * with sizes as on the web: bodies of 4 to 16 KB lie in 1.9 pieces, up to 64 KB in 2.9, and 1.3 % of the memory is left
 * over. Without the quarter it is 4.1 pieces and 0.3 %.)
 *
 * Purged and replaced bodies are stored on as before, although nobody will find them: a window would tie their readers
 * to the slowest. */
#include "store/cache_inside.h"

#include "base/must.h"

#include <stdlib.h>

#ifdef MOONGATE_HARD
enum { WINDOW = 96, PIECE_FIRST = 80, PIECE_MOST = 256, PIECE_LONGEST = 512, PIECE_ENOUGH = 128, PIECE_LEAST = 128 };
#else
enum {
    WINDOW = 256 << 10,
    PIECE_FIRST = 16 << 10, /* of a body of unknown length */
    PIECE_MOST = 256 << 10,
    PIECE_LONGEST = MEMORY_RUN_MOST, /* of one whose length is known */
    PIECE_ENOUGH = 16 << 10,         /* nothing is evicted for a longer one */
    PIECE_LEAST = 256
};
#endif
static const uint64_t HOLD = (uint64_t)1 << 32;

struct piece {
    struct piece *_Atomic next;
    uint32_t room;  /* bytes it holds when it is full */
    uint32_t units; /* of the cache's memory; 0: malloc'd */
    char bytes[];
};

static pthread_mutex_t *lock_of(const struct cache_body *b) {
    return &b->cache->body_locks[(uintptr_t)b / MEMORY_UNIT % BODY_LOCKS].lock;
}

static bool is_passing(const struct cache_body *b) { return atomic_load_explicit(&b->passing, memory_order_acquire); }
static struct piece *next_of(const struct piece *p) { return atomic_load_explicit(&p->next, memory_order_acquire); }

static void set_next(struct piece *p, struct piece *next) {
    atomic_store_explicit(&p->next, next, memory_order_release);
}

/* ---- pieces */

static struct piece *init_piece(struct piece *p, size_t room, uint32_t units) {
    *p = (struct piece){ .room = (uint32_t)room, .units = units };
    return p;
}

/* Of about `want` bytes, perhaps fewer. NULL: there is no room. */
static struct piece *take_piece(struct cache_body *b, uint64_t want) {
    if (want > PIECE_LONGEST - sizeof(struct piece)) want = PIECE_LONGEST - sizeof(struct piece);
    uint32_t units, wanted = memory_units(want + sizeof(struct piece)), least = wanted / 4;
    if (least > memory_units(PIECE_ENOUGH)) least = memory_units(PIECE_ENOUGH);
    if (least < memory_units(PIECE_LEAST)) least = memory_units(PIECE_LEAST);
    struct piece *p = room_take(b->cache, b, wanted, least < wanted ? least : wanted, &units);
    if (!p) return NULL;
    return init_piece(p, (size_t)units * MEMORY_UNIT - sizeof *p, units);
}

static void give_piece(struct cache_body *b, struct piece *p) {
    if (p->units) room_give(b->cache, b, p, p->units);
    else free(p);
}

static void give_pieces(struct cache_body *b, struct piece *p) {
    while (p) {
        struct piece *next = next_of(p);
        give_piece(b, p);
        p = next;
    }
}

static void append_piece(struct cache_body *b, struct piece *p) {
    if (b->last) set_next(b->last, p);
    else atomic_store_explicit(&b->first, p, memory_order_release);
}

/* ---- life */

struct cache_body *body_create(struct cache *cache, uint64_t length) {
    uint32_t units;
    struct cache_body *b = room_take(cache, NULL, memory_units(sizeof *b), memory_units(sizeof *b), &units);
    if (!b) return NULL;
    static _Atomic uint64_t serials;
    *b = (struct cache_body){ .refs = 1, .cache = cache, .expected = length, .units = units };
    b->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed);
    list_init(&b->readers);
    struct piece *tail = NULL;
    uint64_t at_once = length == UINT64_MAX ? 0 : length < PIECE_LONGEST ? length : PIECE_LONGEST;
    for (uint64_t got = 0; got < at_once; got += tail->room) {
        struct piece *p = take_piece(b, at_once - got);
        if (!p) {
            body_unref(b);
            return NULL;
        }
        if (tail) set_next(tail, p);
        else b->first = p;
        tail = p;
    }
    return b;
}

struct cache_body *body_ref(struct cache_body *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

static void destroy(struct cache_body *b) {
    must(list_empty(&b->readers) && !b->owner);
    give_pieces(b, b->first);
    give_pieces(b, b->kept);
    room_give(b->cache, NULL, b, memory_units(sizeof *b));
}

static void unref(struct cache_body *b, uint64_t kind) {
    uint64_t before = atomic_fetch_sub_explicit(&b->refs, kind, memory_order_acq_rel);
    if ((uint32_t)before == 1) destroy(b);
}

void body_unref(struct cache_body *b) {
    if (b) unref(b, 1);
}

struct cache_body *cache_body_ref(struct cache_body *b) {
    atomic_fetch_add_explicit(&b->refs, HOLD + 1, memory_order_relaxed);
    return b;
}

void cache_body_unref(struct cache_body *b) {
    if (b) unref(b, HOLD + 1);
}

static bool is_held(const struct cache_body *b) { return atomic_load_explicit(&b->refs, memory_order_acquire) >= HOLD; }

/* ---- looking */

enum cache_body_state cache_body_state(const struct cache_body *b) {
    return (enum cache_body_state)atomic_load_explicit(&b->state, memory_order_acquire);
}

uint64_t cache_body_serial(const struct cache_body *b) { return b->serial; }

uint64_t cache_body_length(const struct cache_body *b) {
    return atomic_load_explicit(&b->available, memory_order_acquire);
}

uint64_t cache_body_expected(const struct cache_body *b) {
    return cache_body_state(b) == CACHE_BODY_WHOLE ? cache_body_length(b) : b->expected;
}

bool body_is_sound(const struct cache_body *b) {
    return !atomic_load(&b->passing) && cache_body_state(b) != CACHE_BODY_BROKEN;
}

void body_squeeze(struct cache_body *b) {
    if (cache_body_state(b) == CACHE_BODY_ARRIVING) atomic_store_explicit(&b->squeezed, true, memory_order_relaxed);
}

/* ---- the window. All with the body locked */

/* What is available when nobody reads. */
static uint64_t slowest_position(const struct cache_body *b) {
    uint64_t slowest = cache_body_length(b);
    list_each(node, &b->readers) {
        struct cache_reader *r = container_of(node, struct cache_reader, node);
        uint64_t position = atomic_load(&r->position);
        if (position < slowest) slowest = position;
    }
    return slowest;
}

static void free_kept(struct cache_body *b) {
    if (is_held(b)) return;
    give_pieces(b, b->kept);
    b->kept = NULL;
}

/* A reader that stands at the end of a piece still has its hands on it: so only those that all are beyond. */
static void drop_passed(struct cache_body *b) {
    uint64_t slowest = slowest_position(b);
    for (struct piece *p; (p = b->first) && b->dropped + p->room < slowest;) {
        atomic_store_explicit(&b->first, next_of(p), memory_order_release);
        b->dropped += p->room;
        if (!p->units) {
            free(p);
            continue;
        }
        set_next(p, b->kept);
        b->kept = p;
    }
    free_kept(b);
}

/* Once nobody reads what nobody finds, nobody ever will. */
static bool is_given_up(struct cache_body *b) {
    if (b->given_up) return true;
    if (!list_empty(&b->readers) || atomic_load(&b->links) > 0) return false;
    if (cache_body_state(b) != CACHE_BODY_ARRIVING) return false;
    b->given_up = true;
    atomic_store(&b->passing, true);
    return true;
}

static size_t window_room(struct cache_body *b) {
    if (is_given_up(b)) return SIZE_MAX;
    if (!is_passing(b)) return WINDOW;
    uint64_t lag = cache_body_length(b) - slowest_position(b);
    return lag < WINDOW ? (size_t)(WINDOW - lag) : 0;
}

/* Enough of it is free again, or nobody reads any more. */
static void tell_room(struct cache_body *b) {
    if (!b->tell_room || window_room(b) < WINDOW / 2) return;
    void (*tell)(void *) = b->tell_room;
    b->tell_room = NULL;
    tell(b->room_data);
}

static void on_reader_moved(struct cache_body *b) {
    drop_passed(b);
    tell_room(b);
}

/* ---- writing */

static void remove_owner(struct cache_body *b, enum removal why) {
    struct stored *s = room_owner(b->cache, b);
    if (!s) return;
    index_remove(b->cache, s, why);
    cached_unref(&s->head);
}

/* What was taken in advance. Readers do not go beyond what is available, so nobody has seen it. */
static void give_rest(struct cache_body *b) {
    struct piece *rest = b->last ? next_of(b->last) : b->first;
    append_piece(b, NULL);
    give_pieces(b, rest);
}

static void begin_window(struct cache_body *b) {
    if (is_passing(b)) return;
    give_rest(b);
    pthread_mutex_lock(lock_of(b));
    atomic_store(&b->passing, true);
    pthread_mutex_unlock(lock_of(b));
    remove_owner(b, REMOVED_REFUSED);
}

static struct piece *malloc_piece(size_t want) {
    size_t room = want > PIECE_FIRST ? want : PIECE_FIRST;
    return init_piece(must_malloc(sizeof(struct piece) + room), room, 0);
}

/* How long the next piece should be for `n` bytes that are there. */
static uint64_t wanted_room(const struct cache_body *b, uint64_t written, size_t n) {
    if (b->expected != UINT64_MAX && b->expected > written) return b->expected - written;
    uint64_t want = written * 2;
    if (want < PIECE_FIRST) want = PIECE_FIRST;
    if (want > PIECE_MOST) want = PIECE_MOST;
    return want < n ? n : want;
}

/* `written`: bytes before it; `n`: those that are waiting. */
static void begin_piece(struct cache_body *b, uint64_t written, size_t n) {
    struct piece *p = b->last ? next_of(b->last) : b->first;
    if (!p && !is_passing(b)) p = take_piece(b, wanted_room(b, written, n));
    if (!p) {
        begin_window(b);
        p = malloc_piece(n);
    }
    append_piece(b, p);
    b->last = p;
    b->left = p->room;
}

/* The readers that wait. */
static void tell_readers(struct cache_body *b) {
    list_each_safe(node, &b->readers) {
        struct cache_reader *r = container_of(node, struct cache_reader, node);
        if (!r->armed) continue;
        r->armed = false;
        r->tell(r);
    }
}

static void publish(struct cache_body *b, uint64_t available) {
    pthread_mutex_lock(lock_of(b));
    atomic_store_explicit(&b->available, available, memory_order_release);
    if (is_passing(b)) drop_passed(b);
    tell_readers(b);
    pthread_mutex_unlock(lock_of(b));
}

size_t cache_body_room(struct cache_body *b, void (*tell)(void *), void *data) {
    if (atomic_load(&b->links) > 0 && !is_passing(b)) return WINDOW;
    pthread_mutex_lock(lock_of(b));
    size_t room = window_room(b);
    if (is_passing(b)) drop_passed(b);
    b->tell_room = room ? NULL : tell;
    b->room_data = data;
    pthread_mutex_unlock(lock_of(b));
    return room;
}

bool cache_body_abandoned(struct cache_body *b) {
    if (atomic_load(&b->links) > 0) return false;
    pthread_mutex_lock(lock_of(b));
    bool abandoned = is_given_up(b);
    pthread_mutex_unlock(lock_of(b));
    return abandoned;
}

void cache_body_write(struct cache_body *b, struct buffer *from) {
    uint64_t available = cache_body_length(b), after = available + from->size;
    if (cache_body_abandoned(b)) {
        buffer_drop(from, from->size);
        return;
    }
    uint64_t most = atomic_load_explicit(&b->cache->max_object, memory_order_relaxed);
    if (after > most || atomic_load_explicit(&b->squeezed, memory_order_relaxed)) begin_window(b);
    while (from->size) {
        if (!b->left) begin_piece(b, available, from->size);
        struct slice front = buffer_front(from);
        size_t n = front.n < b->left ? front.n : b->left;
        memcpy(b->last->bytes + b->last->room - b->left, front.p, n);
        buffer_drop(from, n);
        b->left -= (uint32_t)n;
        available += n;
    }
    publish(b, available);
}

/* The end of the last piece that nobody wrote to goes back; `room` stays, there is no next. */
static void cut_last(struct cache_body *b) {
    struct piece *p = b->last;
    if (!p || !p->units) return;
    uint32_t units = memory_units(sizeof *p + p->room - b->left);
    if (units == p->units) return;
    room_give(b->cache, b, (char *)p + (size_t)units * MEMORY_UNIT, p->units - units);
    p->units = units;
}

static void finish(struct cache_body *b, enum cache_body_state state) {
    give_rest(b);
    cut_last(b);
    pthread_mutex_lock(lock_of(b));
    atomic_store(&b->state, (unsigned char)state);
    b->tell_room = NULL; /* who asked for room may go now, and what it would be told by with it */
    tell_readers(b);
    pthread_mutex_unlock(lock_of(b));
}

void cache_body_end(struct cache_body *b) { finish(b, CACHE_BODY_WHOLE); }

void cache_body_break(struct cache_body *b) {
    finish(b, CACHE_BODY_BROKEN);
    remove_owner(b, REMOVED_REFUSED);
}

/* ---- reading */

/* Where `position` is: perhaps the end of a piece. */
static void seek(struct cache_reader *r, uint64_t position) {
    struct cache_body *b = r->body;
    struct piece *p = atomic_load_explicit(&b->first, memory_order_acquire);
    uint64_t offset = position - b->dropped;
    if (!position && !cache_body_length(b)) p = NULL; /* what is taken in advance may be given back yet */
    for (; p && offset > p->room; p = next_of(p)) offset -= p->room;
    r->piece = p;
    r->offset = (size_t)offset;
    atomic_store_explicit(&r->position, position, memory_order_relaxed);
}

/* One of a body that arrives, or of a window. */
static bool enlist(struct cache_reader *r, uint64_t position) {
    struct cache_body *b = r->body;
    pthread_mutex_lock(lock_of(b));
    bool there = !b->given_up && position >= b->dropped;
    if (there) {
        seek(r, position);
        list_push(&b->readers, &r->node);
        r->listed = true;
    }
    pthread_mutex_unlock(lock_of(b));
    return there;
}

bool cache_reader_open(struct cache_reader *r, struct cache_body *b, uint64_t position,
                       void (*tell)(struct cache_reader *)) {
    *r = (struct cache_reader){ .body = b, .tell = tell };
    list_init(&r->node);
    if (cache_body_state(b) == CACHE_BODY_WHOLE && !is_passing(b)) {
        seek(r, position);
    } else if (!enlist(r, position)) {
        r->body = NULL;
        return false;
    }
    body_ref(b);
    return true;
}

struct slice cache_reader_peek(struct cache_reader *r, bool *passing) {
    const struct cache_body *b = r->body;
    uint64_t position = atomic_load_explicit(&r->position, memory_order_relaxed);
    uint64_t available = cache_body_length(b) - position;
    *passing = r->listed && is_passing(b);
    if (!available) return slice_make("", 0);
    struct piece *p = r->piece;
    if (!p) p = r->piece = atomic_load_explicit(&b->first, memory_order_acquire);
    if (r->offset == p->room) {
        p = r->piece = next_of(p);
        r->offset = 0;
    }
    size_t n = p->room - r->offset;
    return slice_make(p->bytes + r->offset, n < available ? n : (size_t)available);
}

void cache_reader_skip(struct cache_reader *r, size_t n) {
    uint64_t position = atomic_load_explicit(&r->position, memory_order_relaxed) + n;
    r->offset += n;
    if (!r->listed) {
        atomic_store_explicit(&r->position, position, memory_order_relaxed);
        return;
    }
    /* Sequentially consistent, as is begin_window: either it sees the new position, or we see that it passes. */
    atomic_store(&r->position, position);
    if (!atomic_load(&r->body->passing)) return;
    pthread_mutex_lock(lock_of(r->body));
    on_reader_moved(r->body);
    pthread_mutex_unlock(lock_of(r->body));
}

bool cache_reader_at_end(const struct cache_reader *r) {
    return cache_body_state(r->body) == CACHE_BODY_WHOLE &&
           cache_body_length(r->body) == atomic_load_explicit(&r->position, memory_order_relaxed);
}

bool cache_reader_await(struct cache_reader *r) {
    struct cache_body *b = r->body;
    if (!r->listed) return false;
    pthread_mutex_lock(lock_of(b));
    r->armed = cache_body_state(b) == CACHE_BODY_ARRIVING && cache_body_length(b) == atomic_load(&r->position);
    bool armed = r->armed;
    pthread_mutex_unlock(lock_of(b));
    return armed;
}

void cache_reader_close(struct cache_reader *r) {
    struct cache_body *b = r->body;
    if (!b) return;
    if (r->listed) {
        pthread_mutex_lock(lock_of(b));
        list_remove(&r->node);
        if (is_passing(b)) on_reader_moved(b);
        pthread_mutex_unlock(lock_of(b));
    }
    r->listed = r->armed = false;
    r->body = NULL;
    body_unref(b);
}
