/* Forward requests: those that name their own target, in absolute form or by CONNECT, on a site that is a forward
 * proxy. Policy sees them as all others; where it does not say otherwise, they go to the target itself. */
#pragma once

#include "proxy/exchange.h"

/* Does the request name its own target? `x->request.target` is parsed, `x->named_scheme` what HTTP/2 said of it. */
bool forward_names_target(const struct exchange *, const struct site *forward);
/* The request has found its site: what follows from being a forward one. LOOP: it went through here before. */
enum failure forward_receive(struct exchange *);
/* Our element of Via in a forward request, by which forward_receive knows it again. */
struct slice forward_via(struct arena *, uint8_t version);

struct forward_choice {
    struct backend *backend;     /* ad hoc: its user gives it back */
    struct slice target;         /* for the start line; p NULL: as always */
    struct slice authorization;  /* Proxy-Authorization to send along; p NULL: none */
    const struct egress *egress; /* of the backend's addresses; NULL: they are the parent's */
};
/* The target itself, or the way to it through the parent; what policy has made of the request counts. PORT_REFUSED,
 * DESTINATION_REFUSED, OVERLOADED, BAD_HOST. */
enum failure forward_choose(struct exchange *, struct forward_choice *);
