/* Who the client really is, and how the backend is told: X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239).
 * What an untrusted peer says of itself is removed before any script sees it. */
#pragma once

#include "proxy/exchange.h"

/* Fills client_addr, client_trusted, forwarded_scheme; removes what is not believed. After the site is found. */
void forwarded_receive(struct exchange *);
/* Adds this hop to the request's headers, before it is sent to a backend. */
void forwarded_send(struct exchange *);
