/* A tunnel: after 101 the client's and the server's conns are two halves of one stream of bytes, each way at its own
 * pace. It holds no generation: policy has had its say when it begins. A FIN is passed on; the tunnel ends when both
 * ways have, or one breaks. */
#pragma once

#include "proxy/exchange.h"

/* The exchange's head has been sent; its fetch stands at a tunnel answer. */
void tunnel_begin(struct exchange *);
/* By exchange.c: the client is gone. */
void tunnel_client_left(struct tunnel *);
/* Ends it now (drain time is over). */
void tunnel_close(struct tunnel *);
/* All of a worker's. */
void tunnels_close(struct worker *);
