/* A queue of segments, each a run of bytes in a chunk that it holds a reference to. The counts are plain integers: a
 * chunk never leaves its thread.
 *
 * A chunk remembers how far it is filled. A segment that ends exactly there may grow into what is left: so bytes read
 * or appended one by one fill one chunk. Bytes below the mark are never written again, which is what makes sharing
 * safe. Asking for room moves the mark to the chunk's end and commit moves it back, so nobody else writes there
 * meanwhile.
 *
 * Room that does not fit behind the last segment is made in spare segments of no bytes. They hang behind `last`, where
 * nothing looks for bytes, and commit either makes them real or frees them.
 *
 * The usual life is short: a read of some hundred bytes into a fresh chunk, a head gathered (it lies in one piece) and
 * dropped, the chunk given back while it is still in the CPU's cache. So the inline checks come first, and loops, new
 * chunks and sharing are functions of their own.
 *
 * Rejected: a ring per conn (memory for idle ones, and a copy per hop), and passing every piece on by reference (a peer
 * that sends a byte at a time then holds 16 KiB per byte; see `pass_is_cheap`). */
#include "base/buffer.h"

#include "base/must.h"
#include "base/slab.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct chunk {
    uint32_t refs;
    size_t size; /* of bytes; only CHUNK_BYTES ones are the slab's. 0: a hold on bytes of somebody else's */
    size_t used; /* the mark: bytes below belong to segments, or are claimed */
    char bytes[];
};

/* What stands in `bytes` of a chunk without room: its segments' bytes lie elsewhere. */
struct hold {
    void (*release)(void *owner);
    void *owner;
};

struct segment {
    struct segment *next;
    struct chunk *chunk; /* NULL: static bytes */
    char *p;
    size_t n;
    size_t room; /* claimed behind p + n by buffer_room, until commit */
};

enum { CHUNKS_KEPT = 64, SEGMENTS_KEPT = 256, HOLDS_KEPT = 64, PRINTF_FIRST = 128 };

static _Thread_local struct slab chunks = SLAB_BYTES(sizeof(struct chunk) + CHUNK_BYTES, CHUNKS_KEPT);
static _Thread_local struct slab segments = SLAB(struct segment, SEGMENTS_KEPT);
static _Thread_local struct slab holds = SLAB_BYTES(sizeof(struct chunk) + sizeof(struct hold), HOLDS_KEPT);
static _Thread_local size_t chunk_bytes;

size_t buffer_chunk_bytes(void) { return chunk_bytes; }

void buffer_thread_fini(void) {
    slab_fini(&chunks);
    slab_fini(&segments);
    slab_fini(&holds);
}

/* ---- chunks and segments */

static struct chunk *take_chunk(size_t n) {
    struct chunk *chunk;
    if (n <= CHUNK_BYTES) {
        chunk = slab_take(&chunks);
        chunk->size = CHUNK_BYTES;
    } else {
        must(n < SIZE_MAX / 2);
        chunk = must_malloc(sizeof *chunk + n);
        chunk->size = n;
    }
    chunk_bytes += chunk->size;
    chunk->refs = 1;
    chunk->used = 0;
    return chunk;
}

static void give_hold(struct chunk *chunk) {
    struct hold h;
    memcpy(&h, chunk->bytes, sizeof h);
    slab_give(&holds, chunk);
    h.release(h.owner);
}

static void give_chunk(struct chunk *chunk) {
    if (chunk->size == 0) {
        give_hold(chunk);
        return;
    }
    chunk_bytes -= chunk->size;
    if (chunk->size == CHUNK_BYTES) slab_give(&chunks, chunk);
    else free(chunk);
}

static struct segment *make_segment(struct chunk *chunk, char *p, size_t n) {
    struct segment *s = slab_take(&segments);
    s->next = NULL;
    s->chunk = chunk;
    s->p = p;
    s->n = n;
    s->room = 0;
    return s;
}

static void free_segment(struct segment *s) {
    if (s->chunk && --s->chunk->refs == 0) give_chunk(s->chunk);
    slab_give(&segments, s);
}

static void free_segments(struct segment *s) {
    while (s) {
        struct segment *next = s->next;
        free_segment(s);
        s = next;
    }
}

/* How many bytes the segment may grow. */
static size_t segment_room(const struct segment *s) {
    const struct chunk *chunk = s->chunk;
    if (!chunk || s->p + s->n != chunk->bytes + chunk->used) return 0;
    return chunk->size - chunk->used;
}

/* The room is claimed until commit. */
static void claim_room(struct segment *s) {
    s->room = (size_t)(s->chunk->bytes + s->chunk->size - (s->p + s->n));
    s->chunk->used = s->chunk->size;
}

/* Where uncommitted room begins: NULL when there is none. */
static struct segment *first_claimed(const struct buffer *b) {
    if (!b->last) return b->first;
    return b->last->room ? b->last : b->last->next;
}

static void settle(struct buffer *b) {
    if (first_claimed(b)) buffer_commit(b, 0);
}

static void link_segment(struct buffer *b, struct segment *s) {
    if (b->last) b->last->next = s;
    else b->first = s;
    b->last = s;
    b->size += s->n;
}

/* ---- life */

void buffer_init(struct buffer *b) { *b = (struct buffer){ 0 }; }

void buffer_fini(struct buffer *b) {
    if (!b) return;
    free_segments(b->first);
    buffer_init(b);
}

/* ---- room */

/* A spare segment of `n` bytes of room behind everything. */
static struct segment *hang_spare(struct buffer *b, struct segment *behind, size_t n) {
    struct chunk *chunk = take_chunk(n);
    struct segment *spare = make_segment(chunk, chunk->bytes, 0);
    claim_room(spare);
    if (behind) behind->next = spare;
    else b->first = spare;
    return spare;
}

char *buffer_room(struct buffer *b, size_t n) {
    settle(b);
    struct segment *last = b->last;
    if (n == 0) n = 1;
    if (last && segment_room(last) >= n) {
        claim_room(last);
        return last->p + last->n;
    }
    return hang_spare(b, last, n)->p;
}

int buffer_room_vectors(struct buffer *b, struct iovec *vectors, int max, size_t want) {
    settle(b);
    struct segment *last = b->last;
    size_t got = 0;
    int count = 0;
    if (max < 1) return 0;
    if (last && segment_room(last)) {
        claim_room(last);
        vectors[count++] = (struct iovec){ last->p + last->n, last->room };
        got += last->room;
    }
    while (count < max && (got < want || count == 0)) {
        last = hang_spare(b, last, 1);
        vectors[count++] = (struct iovec){ last->p, last->room };
        got += last->room;
    }
    return count;
}

void buffer_commit(struct buffer *b, size_t n) {
    struct segment *s = first_claimed(b);
    b->size += n;
    while (s && s->room) {
        size_t taken = n < s->room ? n : s->room;
        s->n += taken;
        s->room = 0;
        s->chunk->used = (size_t)(s->p + s->n - s->chunk->bytes);
        n -= taken;
        if (s->n == 0) break;
        b->last = s;
        s = s->next;
    }
    must(n == 0);
    struct segment **spares = b->last ? &b->last->next : &b->first;
    free_segments(*spares);
    *spares = NULL;
}

/* ---- appending */

static __attribute__((noinline)) void append_slowly(struct buffer *b, const char *bytes, size_t n) {
    while (n) {
        struct iovec room;
        buffer_room_vectors(b, &room, 1, n);
        size_t piece = n < room.iov_len ? n : room.iov_len;
        memcpy(room.iov_base, bytes, piece);
        buffer_commit(b, piece);
        bytes += piece;
        n -= piece;
    }
}

void buffer_append(struct buffer *b, const void *bytes, size_t n) {
    struct segment *last = b->last;
    if (n == 0) return;
    if (!last || last->room || last->next || segment_room(last) < n) {
        append_slowly(b, bytes, n);
        return;
    }
    memcpy(last->p + last->n, bytes, n);
    last->n += n;
    last->chunk->used += n;
    b->size += n;
}

void buffer_append_static(struct buffer *b, const void *bytes, size_t n) {
    if (n < COPY_BELOW) {
        buffer_append(b, bytes, n);
        return;
    }
    settle(b);
    link_segment(b, make_segment(NULL, (char *)(uintptr_t)bytes, n));
}

void buffer_append_held(struct buffer *b, const void *bytes, size_t n, void (*release)(void *owner), void *owner) {
    if (n < COPY_BELOW) {
        buffer_append(b, bytes, n);
        release(owner);
        return;
    }
    struct chunk *chunk = slab_take(&holds);
    *chunk = (struct chunk){ .refs = 1 };
    memcpy(chunk->bytes, &(struct hold){ release, owner }, sizeof(struct hold));
    settle(b);
    link_segment(b, make_segment(chunk, (char *)(uintptr_t)bytes, n));
}

void buffer_printf(struct buffer *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer_room(b, PRINTF_FIRST), PRINTF_FIRST, format, args);
    va_end(args);
    must(n >= 0);
    if (n >= PRINTF_FIRST) {
        va_start(args, format);
        vsnprintf(buffer_room(b, (size_t)n + 1), (size_t)n + 1, format, args);
        va_end(args);
    }
    buffer_commit(b, (size_t)n);
}

/* ---- looking */

int buffer_vectors(const struct buffer *b, struct iovec *vectors, int max) {
    int count = 0;
    size_t left = b->size;
    for (const struct segment *s = b->first; left && count < max; s = s->next) {
        vectors[count++] = (struct iovec){ s->p, s->n };
        left -= s->n;
    }
    return count;
}

struct slice buffer_front(const struct buffer *b) {
    if (!b->size) return (struct slice){ "", 0 };
    return slice_make(b->first->p, b->first->n);
}

size_t buffer_find(const struct buffer *b, char byte, size_t from) {
    size_t before = 0;
    for (const struct segment *s = b->first; s && before < b->size; before += s->n, s = s->next) {
        size_t skip = from > before ? from - before : 0;
        if (skip >= s->n) continue;
        const char *found = memchr(s->p + skip, byte, s->n - skip);
        if (found) return before + (size_t)(found - s->p);
    }
    return b->size;
}

void buffer_peek(const struct buffer *b, void *to, size_t n) {
    must(n <= b->size);
    char *at = to;
    for (const struct segment *s = b->first; n; s = s->next) {
        size_t piece = n < s->n ? n : s->n;
        memcpy(at, s->p, piece);
        at += piece;
        n -= piece;
    }
}

/* Puts the first `n` bytes into a chunk of their own, twice as large as needed, so that gathering
 * a little more again and again does not copy everything each time. */
static void gather_afresh(struct buffer *b, size_t n) {
    struct chunk *chunk = take_chunk(2 * n);
    buffer_peek(b, chunk->bytes, n);
    buffer_drop(b, n);
    chunk->used = n;
    struct segment *s = make_segment(chunk, chunk->bytes, n);
    s->next = b->first;
    b->first = s;
    if (!b->last) b->last = s;
    b->size += n;
}

/* Grows the first segment by bytes of the next ones. */
static void gather_behind(struct buffer *b, size_t missing) {
    struct segment *s = b->first;
    struct buffer rest = { .first = s->next, .last = b->last, .size = b->size - s->n };
    buffer_peek(&rest, s->p + s->n, missing);
    buffer_drop(&rest, missing);
    s->n += missing;
    s->chunk->used += missing;
    s->next = rest.first;
    b->last = rest.size ? rest.last : s;
}

struct slice buffer_gather(struct buffer *b, size_t n) {
    must(n <= b->size);
    if (n && b->first->n < n) {
        settle(b);
        size_t missing = n - b->first->n;
        if (segment_room(b->first) >= missing) gather_behind(b, missing);
        else gather_afresh(b, n);
    }
    return slice_make(n ? b->first->p : "", n);
}

/* ---- taking off and passing on */

static __attribute__((noinline)) void drop_slowly(struct buffer *b, size_t n) {
    must(n <= b->size);
    settle(b);
    b->size -= n;
    while (n) {
        struct segment *s = b->first;
        if (n < s->n) {
            s->p += n;
            s->n -= n;
            return;
        }
        n -= s->n;
        b->first = s->next;
        free_segment(s);
    }
    if (!b->first) b->last = NULL;
}

void buffer_drop(struct buffer *b, size_t n) {
    struct segment *s = b->first;
    if (n == 0) return;
    if (n > b->size || n >= s->n) {
        drop_slowly(b, n);
        return;
    }
    s->p += n;
    s->n -= n;
    b->size -= n;
}

/* Whether handing over the whole segment holds no more memory than a copy would: it is large, or room is left
 * behind it that the next small pieces are copied into. */
static bool pass_is_cheap(const struct segment *s) {
    return s->n >= COPY_BELOW || !s->chunk || segment_room(s) >= s->n;
}

static bool fits_behind(const struct buffer *b, size_t n) { return b->last && segment_room(b->last) >= n; }

/* Part of a segment (or a whole one that stays where it is) into `to`: a copy if small, else a reference. */
static void share_piece(struct buffer *to, const struct segment *s, size_t n) {
    if (n < COPY_BELOW) {
        buffer_append(to, s->p, n);
        return;
    }
    if (s->chunk) s->chunk->refs++;
    link_segment(to, make_segment(s->chunk, s->p, n));
}

/* The whole first segment: handed over, or copied if that is cheaper. */
static void move_first(struct buffer *to, struct buffer *from) {
    struct segment *s = from->first;
    size_t n = s->n;
    if (n < COPY_BELOW && (fits_behind(to, n) || !pass_is_cheap(s))) {
        buffer_append(to, s->p, n);
        buffer_drop(from, n);
        return;
    }
    from->first = s->next;
    if (!from->first) from->last = NULL;
    from->size -= n;
    s->next = NULL;
    link_segment(to, s);
}

void buffer_move(struct buffer *to, struct buffer *from, size_t n) {
    must(n <= from->size && to != from);
    settle(to);
    settle(from);
    if (n && n == from->size && !to->size) {
        *to = *from;
        buffer_init(from);
        return;
    }
    while (n) {
        struct segment *s = from->first;
        if (n < s->n) {
            share_piece(to, s, n);
            buffer_drop(from, n);
            return;
        }
        n -= s->n;
        move_first(to, from);
    }
}

void buffer_share(struct buffer *to, const struct buffer *from) {
    size_t left = from->size;
    must(to != from);
    settle(to);
    for (const struct segment *s = from->first; left; s = s->next) {
        left -= s->n;
        share_piece(to, s, s->n);
    }
}
