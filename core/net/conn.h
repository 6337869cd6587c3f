/* A conn: one byte stream, plain or TLS (net/tls.h), either side. It reads into `in`, writes from `out`, watches what
 * its state calls for, and tells its owner what happened. It knows no HTTP.
 *
 * A conn is embedded in what it serves (client, server_conn, control session); the owner finds itself with
 * container_of. It belongs to one loop. Handlers run in the gather phase, and what follows from a write (on_room,
 * on_flushed, its failure) also in the flush phase: they move bytes, record facts, wake tasks; they may call
 * conn_close, which stops all events at once but frees nothing (the owner's grave does).
 *
 * Interest is computed from the state in one place (conn.c, compute_interest): a conn reads while `in` is below its
 * limit and no end was seen, and asks for writability only after a write could not take all. So an ordinary request
 * changes no epoll registration. */
#pragma once

#include "base/buffer.h"
#include "base/failure.h"
#include "net/addr.h"
#include "net/loop.h"
#include "net/tls.h"

struct conn;

struct conn_handlers {
    /* `in` gained bytes. What is not consumed stays; reading pauses at the limit and goes on when the owner
     * has consumed some and calls conn_consumed. */
    void (*on_bytes)(struct conn *);
    /* The other side closed its direction (FIN). `in` may still hold bytes. Once. */
    void (*on_end)(struct conn *);
    /* Broken: reset, failed write, failed connect or handshake (`why`: RESET, CONNECT_REFUSED, CONNECT_FAILED,
     * CONNECT_TIMEOUT, TLS_FAILED, CERTIFICATE). No further event but what the owner does. Once. What had arrived
     * before a failed write is read first (on_bytes), unless the conn is paused. The socket stays until conn_close. */
    void (*on_broken)(struct conn *, enum failure why);
    /* After conn_tls_accept: a client asks for the certificate of `name` (SNI; empty: it does not say). To be answered
     * with conn_tls_present, now or later; nothing else may be done with the conn now. */
    void (*on_hello)(struct conn *, struct slice name);
    /* The handshake is over that early data had overtaken (conn_tls_early). May be NULL where none is taken. */
    void (*on_secured)(struct conn *);
    /* After conn_tls_accept, instead of a handshake: what came (it lies in `in`) is no TLS, but may be HTTP. The conn
     * is open, and plain. */
    void (*on_plain)(struct conn *);
    /* A connect has succeeded (only after conn_connect), and its TLS handshake if there is one; or the
     * handshake of conn_tls_accept. May be NULL. */
    void (*on_connected)(struct conn *);
    /* `out` fell below half of its limit after it had been at or above it: there is room again. */
    void (*on_room)(struct conn *);
    /* `out` has become empty by a write. May be NULL. */
    void (*on_flushed)(struct conn *);
    /* The deadline set with conn_deadline has passed. */
    void (*on_deadline)(struct conn *);
};

enum conn_state { CONN_NEW, CONN_CONNECTING, CONN_SHAKING /* TLS handshake */, CONN_OPEN, CONN_BROKEN, CONN_CLOSED };

struct conn {
    const struct conn_handlers *handlers;
    struct loop *loop;
    struct buffer in, out;
    ev_io io;
    struct list dirty; /* in loop->dirty while `out` waits for the flush phase */
    struct tls *tls;   /* NULL: plain */
    struct deadline deadline;
    uint32_t in_limit, out_limit;
    uint8_t state;    /* enum conn_state */
    bool ended;       /* FIN received, or TLS's close_notify */
    bool shut;        /* our FIN was sent, or will be when `out` is empty */
    bool was_full;    /* out reached its limit since on_room */
    bool read_filled; /* the last read filled its room: read more at once next time */
    bool blocked;     /* the last write could not take all */
    uint8_t shake;    /* CONN_SHAKING: enum tls_shake, what it waits for */
    bool paused;      /* conn_pause */
    bool drained;     /* a write emptied `out`: on_flushed is due */
    bool fin_sent;
    bool brief;              /* conn_finish: lingering ends with the last write */
    bool lingering;          /* conn_linger */
    uint8_t failed;          /* enum failure that is told in the next gather phase; 0: none */
    uint32_t linger_left;    /* bytes that are still read and dropped */
    uint64_t received, sent; /* bytes */
    uint64_t progress;       /* conn_progress at the last look while it lingers */
};

enum { CONN_IN_LIMIT = 65536, CONN_OUT_LIMIT = 65536, CONN_TURN_BYTES = 65536 };

/* Takes over an accepted, non-blocking socket. */
void conn_open(struct conn *, struct loop *, int fd, const struct conn_handlers *);
/* Starts a non-blocking connect; on_connected or on_broken follows (never from inside this call). What is appended
 * to `out` meanwhile is sent once it stands. */
void conn_connect(struct conn *, struct loop *, const struct addr *, const struct conn_handlers *);
/* Stops events and deadlines, closes the socket, drops the buffers. Idempotent; NEW conns allowed. */
void conn_close(struct conn *);
/* Closes so that the other side gets what we wrote (RFC 9112 9.6 lingering close): FIN after `out`, then input is
 * read and dropped for a short bounded time (2 s, 256 KiB), then on_broken(CANCELLED) tells the owner to end:
 * always, never from inside this call, and it is the only event that still comes. `out` has 30 s in which the other side
 * takes something, again and again. Not for closed conns. */
void conn_linger(struct conn *);
/* The same for a peer that will send no more (it said so, and all it sent was read): closed as soon as `out` has been
 * written. */
void conn_finish(struct conn *);
/* conn_close with RST instead of FIN. */
void conn_reset(struct conn *);
/* FIN when `out` has been written. */
void conn_shut(struct conn *);

/* Says that bytes were appended to `out`: they are written in this turn's flush phase. */
void conn_wrote(struct conn *);
/* Writes now what the socket takes, once: only for what cannot wait for the phase (a last word before close). Calls
 * no handler: what it has to tell is told in the flush phase, a failure in the next gather phase. */
void conn_flush(struct conn *);
/* Says that bytes were taken from `in`: reading goes on if it had paused. */
void conn_consumed(struct conn *);
/* Stops and resumes reading, whatever `in` holds. */
void conn_pause(struct conn *, bool paused);
/* Bytes that `out` still takes before its limit; 0: full. */
size_t conn_room(const struct conn *);
/* Another number when the socket took bytes of `out`, or the other side took some from the socket: that may hold
 * megabytes for who reads slowly, and asks for more only when a third of them is gone. A system call, for deadlines. */
uint64_t conn_progress(const struct conn *);
/* Sets the one deadline of this conn, seconds from now (0: none). Costs a store. */
void conn_deadline(struct conn *, double seconds);
static inline int conn_fd(const struct conn *c) { return c->io.fd; }
static inline bool conn_alive(const struct conn *c) { return c->state == CONN_OPEN; }
/* Its end came as a TCP FIN inside TLS: anybody on the way can have cut it off there. */
bool conn_truncated(const struct conn *);
/* Is an idle pooled conn still good? False if it ended, broke, or has unread bytes. No syscall. */
bool conn_reusable(const struct conn *);
/* The loop's flush phase: writes every dirty conn once. Called by loop.c only. */
void conn_flush_all(struct loop *);
/* TCP_NODELAY, keepalive; ignores what the family does not know. Accepted sockets inherit both from their listening
 * socket. */
void conn_tune(int fd, const struct addr *);
