/* Bytes in flight: a queue of segments that point into refcounted chunks. Moving bytes from one
 * buffer to another passes the reference on; nothing is copied, but for pieces under COPY_BELOW bytes, which are
 * copied into the room behind the last ones (a chunk per byte would let a stranger size our memory).
 *
 * A buffer belongs to one thread, and so do its chunks. It has no limit of its own: who fills it
 * asks first (conn_wants_bytes, pipe_room). Zeroed is empty and valid. */
#pragma once

#include "base/slice.h"

#include <sys/types.h>
#include <sys/uio.h>

#ifdef MOONGATE_HARD
enum { CHUNK_BYTES = 64, COPY_BELOW = 8 };
#else
enum { CHUNK_BYTES = 16384 - 32, COPY_BELOW = 2048 };
#endif

struct segment;

struct buffer {
    struct segment *first, *last;
    size_t size; /* bytes in it */
};

void buffer_init(struct buffer *);
void buffer_fini(struct buffer *); /* drops everything; usable afterwards */

/* Appends. `append` copies; `append_static` keeps the pointer, whose bytes must outlive every buffer; `append_held`
 * keeps it until no buffer has any of the bytes, and then calls release(owner), in this thread. */
void buffer_append(struct buffer *, const void *bytes, size_t n);
void buffer_append_static(struct buffer *, const void *bytes, size_t n);
void buffer_append_held(struct buffer *, const void *bytes, size_t n, void (*release)(void *owner), void *owner);
void buffer_printf(struct buffer *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for at least `n` bytes (any n), contiguous, at the end, to be written into and then committed with
 * what was really written. No other call on this buffer in between. */
char *buffer_room(struct buffer *, size_t n);
void buffer_commit(struct buffer *, size_t n);

/* For readv: up to `max` vectors of room, about `want` bytes in all (at least 1); returns their number.
 * `buffer_commit` then takes the bytes read, over all of them; what was not used is given back. */
int buffer_room_vectors(struct buffer *, struct iovec *vectors, int max, size_t want);

/* For writev: the first `max` segments. */
int buffer_vectors(const struct buffer *, struct iovec *vectors, int max);
/* The first contiguous run, empty for an empty buffer. */
struct slice buffer_front(const struct buffer *);
/* Makes the first `n` bytes contiguous (n <= size), copying only if they are not. */
struct slice buffer_gather(struct buffer *, size_t n);
/* The place of the first `byte` at or behind `from`; size if there is none. */
size_t buffer_find(const struct buffer *, char byte, size_t from);
/* Copies the first `n` bytes out without removing them. */
void buffer_peek(const struct buffer *, void *to, size_t n);

void buffer_drop(struct buffer *, size_t n);                        /* n <= size */
void buffer_move(struct buffer *to, struct buffer *from, size_t n); /* n <= from->size; to != from */
void buffer_share(struct buffer *to, const struct buffer *from);    /* all of `from`, which stays */
/* Chunk memory that this thread's buffers hold now, in bytes: for figures and specs. */
size_t buffer_chunk_bytes(void);
/* Frees this thread's free lists. */
void buffer_thread_fini(void);
