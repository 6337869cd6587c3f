/* A parent: an HTTP proxy through which connections are made, as it is configured. Immutable and refcounted, since
 * ad hoc backends outlive the generation that named it. */
#pragma once

#include "base/slice.h"
#include "net/addr.h"

#include <stdatomic.h>

struct tls_trust;

enum { PARENT_AUTH_MAX = 360 }; /* bytes of "user:password" */

struct parent {
    _Atomic unsigned refs;
    char *host; /* a name to be resolved; NULL: `addr` is it */
    struct addr addr;
    uint16_t port;
    char *name;              /* "proxy.example:3128" */
    struct tls_trust *trust; /* a reference: TLS to the proxy itself; NULL: plain */
    char *authorization;     /* the value of Proxy-Authorization; NULL: none */
};

/* "http://host:port" or "https://host:port" (the port may be left out), `auth` is "user:password" (p NULL: none). NULL:
 * it is not one; `*wrong` says what is wrong with it. */
struct parent *parent_create(struct slice url, struct slice auth, const char **wrong);
struct parent *parent_ref(struct parent *); /* NULL is allowed, here and below */
void parent_unref(struct parent *);
/* With TLS to it: what its certificate must bear. */
struct slice parent_tls_name(const struct parent *);
/* The same proxy, asked in the same name? */
bool parent_equal(const struct parent *, const struct parent *);
