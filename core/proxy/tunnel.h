/* A tunnel: after 101, or the 200 to a CONNECT, what the client and the server send passes as it is, each way at its
 * own pace. It holds no generation: policy has had its say when it begins. The end of one way is passed on; the tunnel
 * ends when both ways have, one breaks, or nothing has passed for timeouts.tunnel. */
#pragma once

#include "proxy/exchange.h"

/* The exchange's head has been sent; its fetch stands at a tunnel answer. */
void tunnel_begin(struct exchange *);
/* By exchange.c: the client is gone. */
void tunnel_client_left(struct tunnel *);
/* By exchange.c: the client was sent all that came down, and the end of it. */
void tunnel_down_sent(struct tunnel *);
/* All of a worker's. */
void tunnels_close(struct worker *);
