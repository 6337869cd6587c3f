/* The header by which a load balancer says for whom it connects (the PROXY protocol of HAProxy, versions 1 and 2):
 * bytes in, an address out. */
#pragma once

#include "base/buffer.h"
#include "net/addr.h"

enum proxy_header_result {
    PROXY_HEADER_MORE, /* it has not come whole */
    PROXY_HEADER_DONE, /* it was taken off the front of `in` */
    PROXY_HEADER_BAD   /* what comes is none, or says what cannot be */
};

enum { PROXY_HEADER_MOST = 4096 }; /* bytes of one, extensions included */

/* `*source`: size 0 if it names nobody (a health check of the load balancer's own, a protocol it does not know). */
enum proxy_header_result proxy_header_read(struct buffer *in, struct addr *source);

/* Appends one, `version` 1 or 2. A source of size 0, or addresses of two families: one that names nobody. */
void proxy_header_write(struct buffer *out, unsigned version, const struct addr *source,
                        const struct addr *destination);
