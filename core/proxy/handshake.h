/* A handshake that policy is asked about: on_certificate. It is a subject of its own, since there is no request yet; it
 * may wait, and ends with its answer or with its client. */
#pragma once

#include "proxy/client.h"

struct handshake;

/* Asks the site's on_certificate for `name` (copied); conn_tls_present follows, never from inside this call. */
void handshake_begin(struct client *, struct site *, struct slice name);
/* The client leaves. NULL is ignored. */
void handshake_cancel(struct handshake *);
/* The policy of that generation ends in this worker now: the handshakes that wait for it end. */
void handshakes_let_go(struct worker *, const struct generation *);
