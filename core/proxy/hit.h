/* A hit: a stored body on its way to one client, through a pipe like any other. Its source is a cache_reader: bytes are
 * referenced where the cache has them, and read as they come while the body is still arriving. What is cut out of it
 * (RFC 9110 14) is a list of pieces: text, then bytes of the body. */
#pragma once

#include "net/news.h"
#include "proxy/pipe.h"
#include "store/cache.h"

/* Text first, then `length` bytes of the body from `first`. */
struct hit_piece {
    struct slice text;
    uint64_t first, length;
};

struct hit {
    struct pipe pipe;
    struct task task; /* the body has grown */
    struct turn_hook next_turn;
    struct cache_body *body;
    struct cache_reader reader;
    struct news *news; /* NULL: it never had to wait */
    struct loop *loop;
    struct mailbox *mailbox;
    const struct hit_piece *pieces;
    unsigned piece_count, piece; /* the present one */
    struct hit_piece whole;      /* the one piece of an answer that is not cut */
    uint64_t skip;               /* bytes to read away before the present piece: they have not arrived yet */
    uint64_t left;               /* bytes of the present piece */
    uint64_t offset;             /* where in the whole content the body begins (a stored part) */
    bool open, flowing;
    bool polite; /* nothing flows in this turn */
    bool lost;   /* what a piece needs is gone */
};

/* All of it. The body is referenced until hit_close. False: it is a window that has gone on; nothing is open. */
bool hit_open(struct hit *, struct cache_body *, struct loop *, struct mailbox *);
/* One of many who waited for the same body: their heads leave first, in this turn, and then its bytes. Before anybody
 * reads. */
void hit_be_polite(struct hit *);
/* Only these pieces, which must live as long; before anybody reads. Positions are those of the whole content, of which
 * the body has what is behind `offset`. */
void hit_cut(struct hit *, const struct hit_piece *, unsigned count, uint64_t offset);
void hit_close(struct hit *); /* safe when it is not open; zeroed is not open */
