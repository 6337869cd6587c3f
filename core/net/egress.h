/* Where connections may go: the one decision over an address that somebody else chose (the target of a forward
 * request, the URL a script was handed). It is asked of each address, after names were resolved and right before a
 * connection to it is opened or taken out of a pool, so that no name, however often its answer changes, gets by it. */
#pragma once

#include "net/addr.h"

struct egress {
    bool private;              /* all addresses, not the public ones alone */
    struct cidr *allow, *deny; /* owned */
    size_t allow_count, deny_count;
};

/* An address of the public internet: no loopback, private, shared (CGNAT), link-local, unique-local, multicast,
 * unspecified, documentation or reserved one, no IPv6 form of an IPv4 address (compatible, NAT64, 6to4, Teredo), none
 * at which clouds tell machines their secrets, no unix socket. An IPv4-mapped one is what it maps. */
bool addr_is_public(const struct addr *);

/* The narrowest range of `allow` and `deny` that holds it decides, `deny` between two of one size; without any: it is
 * public, or `private` is set. What carries an IPv4 address must pass as that, too. NULL: everything is allowed. */
bool egress_allows(const struct egress *, const struct addr *);

struct egress egress_copy(const struct egress *);
void egress_fini(struct egress *);

/* Would a connection to it come in at one of these listeners? One that listens on all addresses has every local one
 * (only that asks the kernel). */
bool addr_is_listened(const struct addr *to, const struct addr *listeners, size_t count);
