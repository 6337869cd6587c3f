/* Reads the headers of a client's HTTP/2 frames beside nghttp2, and finds the errors that it lets pass, since it
 * forgets streams once they are closed and PRIORITY as soon as it is told to (RFC 9113 5.1, 5.1.1, 6.3), and a
 * PRIORITY_UPDATE of no stream (RFC 9218 7.1). Sans-I/O. */
#pragma once

#include "base/slice.h"

enum { H2_WATCH_IDS = 512 };

/* Zeroed at the start of a connection. */
struct h2_watch {
    uint8_t head[14]; /* of the present frame, as far as it has come: 9 bytes, of a PRIORITY also its 5, of a
                         PRIORITY_UPDATE its stream */
    uint8_t head_n;
    uint32_t left;   /* bytes of the frame behind its head */
    uint32_t seen;   /* bytes of the preface */
    uint32_t frames; /* begun so far */
    uint32_t last;   /* the highest stream identifier so far, divided by two; all that follow are kept by it */
    bool any;
    /* Of the last identifiers: those that were used, and those that the client has ended. */
    uint64_t used[H2_WATCH_IDS / 64], ended[H2_WATCH_IDS / 64];
};

/* Looks at the next bytes. 0, or the error code of RFC 9113 7 to end the connection with. */
unsigned h2_watch_bytes(struct h2_watch *, struct slice bytes);
