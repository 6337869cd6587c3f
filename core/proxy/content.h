/* The content of a message, where it is read or changed on its way: its coding, what has been declared of it, and the
 * fields that must then be told differently. Stages do the work (stages.h); this says which, and keeps the head
 * true.
 *
 * A body that is only read goes on as it came. One that is changed is decoded, changed, and coded again as it was, if
 * the other side takes that. */
#pragma once

#include "http/coding.h"
#include "http/message.h"
#include "proxy/pipe.h"

struct exchange;

struct content {
    enum coding coding; /* as it came; content_look */
    bool looked;
    bool decoded; /* its pipe begins with the stage that takes the coding off */
    bool changed; /* a stage of policy changes it: the head waits for what comes of that */
    bool plain;   /* policy wants no coding on it */
    bool settled; /* nothing more will be declared: its last stage is there */
};

/* A response that policy may change before it goes on: the answer of an exchange, or what a fill is about to store. */
struct answer {
    struct response *response;
    struct content *content;
    struct pipe **body; /* where its body comes from; *body NULL: it has none */
    struct pipe **made; /* a body that policy gave it, in the arena; *made NULL: none. NULL: it cannot be given one */
    struct pipe_watch *watch; /* who waits for what stages make of its body */
    struct arena *arena;
    const bool *gone; /* it has gone on: nothing can be changed any more */
};

/* Which failures decoding ends in. */
struct content_failures {
    enum failure broken, bomb;
};
extern const struct content_failures request_failures, response_failures;

enum { CONTENT_MOST_GIB = 4 }; /* what an answer may decode to */
uint64_t content_most(void);

/* Its coding, from the head as it is now. */
enum coding content_look(struct content *, const struct headers *);
/* A part of a content (206, or Content-Range): nobody can decode or change that. */
bool content_is_partial(int status, const struct headers *);
/* Its pipe gives plain bytes from now on; nothing to do for one that has no coding. Not for UNKNOWN. */
void content_decode(struct content *, struct pipe *, uint64_t most, const struct content_failures *);
/* It is being changed: the fields that told of what it was go, its length is not known. */
void content_change(struct content *, struct headers *, struct framing *);

/* ---- for exchange.c and fill.c */

enum content_state { CONTENT_READY, CONTENT_WAITS, CONTENT_FAILED };

/* The request is about to be sent: what was taken off is put on again. */
void content_settle_request(struct exchange *);
/* A response is about to be stored: likewise. */
void content_settle_stored(const struct answer *, const struct exchange *);
/* Has a body that is changed its first bytes, or its end, by now? Then it is framed by the latter. Else it begins to
 * gather, and answer->watch, which must have its on_news, is told. FAILED: (*answer->body)->why. */
enum content_state content_await(const struct answer *);

/* The answer's head is about to leave: what was taken off is put on again, or the site's `compress` puts it on. The
 * head of an answer that is changed waits for the first bytes (WAITS: exchange is woken), so that a change that fails
 * at once is a page and not a torn answer; and so that a short one has a length. FAILED: x->body->why. */
enum content_state content_settle_answer(struct exchange *);
/* Before a 200 becomes a 304: the Vary and the ETag that its coding would have given it (RFC 9110 15.4.5). */
void content_suit_unchanged(struct exchange *);

/* ---- `compress`, a site's */

enum { COMPRESS_TYPES = 32, COMPRESS_CODINGS = 4 };

struct compress {
    bool on;
    enum coding codings[COMPRESS_CODINGS]; /* the preferred first */
    unsigned coding_count;
    unsigned level;
    uint64_t min; /* bytes; an answer whose length is known to be less is left alone */
    char **types; /* "text/html", or all of a kind: "text/" and a star; NULL-terminated; malloc'd */
};
