/* Which addresses are public is the registries' to say (IANA's of special-purpose addresses, RFC 6890 and its
 * successors). For IPv4 that is a list of exceptions; for IPv6 it is the other way round: only 2000::/3 was ever given
 * out, so all else is refused without being named, also what will be invented there.
 *
 * Clouds tell machines their secrets at link-local, shared and unique-local addresses, which fall under these; one
 * (168.63.129.16) is public by number and stands here for that reason.
 *
 * Ways round that were considered: IPv4 within IPv6 (mapped is the same address; compatible, NAT64 and 6to4 are judged
 * twice, as themselves and as what they carry, so that allowing NAT64 does not open 10.0.0.0/8 behind it); numbers in
 * other notations ("0x7f.1") are names here, and whatever they resolve to comes here as an address; zones of link-local
 * addresses are no part of a host. */
#include "net/egress.h"

#include "base/must.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>

/* ---- what is public */

static const struct {
    uint32_t net;
    uint8_t bits;
} special_v4[] = {
    { 0x00000000, 8 },  /* this network */
    { 0x0a000000, 8 },  /* private */
    { 0x64400000, 10 }, /* shared: CGNAT */
    { 0x7f000000, 8 },  /* loopback */
    { 0xa83f8110, 32 }, /* a cloud's host agent */
    { 0xa9fe0000, 16 }, /* link-local */
    { 0xac100000, 12 }, /* private */
    { 0xc0000000, 24 }, /* protocol assignments */
    { 0xc0000200, 24 }, /* documentation */
    { 0xc0586300, 24 }, /* 6to4 relays */
    { 0xc0a80000, 16 }, /* private */
    { 0xc6120000, 15 }, /* benchmarks */
    { 0xc6336400, 24 }, /* documentation */
    { 0xcb007100, 24 }, /* documentation */
    { 0xe0000000, 3 },  /* multicast, reserved, broadcast */
};

static const struct {
    uint8_t bytes[4];
    uint8_t bits;
} special_v6[] = {
    { { 0x20, 0x01, 0x00, 0x00 }, 23 }, /* protocol assignments, Teredo among them */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, /* documentation */
    { { 0x20, 0x02, 0x00, 0x00 }, 16 }, /* 6to4 */
    { { 0x3f, 0xff, 0x00, 0x00 }, 20 }, /* documentation */
};

static bool in_net(uint32_t ip, uint32_t net, unsigned bits) { return (ip ^ net) >> (32 - bits) == 0; }

static uint32_t word_of(const uint8_t bytes[4]) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static bool is_public_v4(uint32_t ip) {
    for (size_t i = 0; i < sizeof special_v4 / sizeof *special_v4; i++)
        if (in_net(ip, special_v4[i].net, special_v4[i].bits)) return false;
    return true;
}

static bool is_public_v6(const uint8_t bytes[16]) {
    if ((bytes[0] & 0xe0) != 0x20) return false;
    for (size_t i = 0; i < sizeof special_v6 / sizeof *special_v6; i++)
        if (in_net(word_of(bytes), word_of(special_v6[i].bytes), special_v6[i].bits)) return false;
    return true;
}

bool addr_is_public(const struct addr *a) {
    const struct in6_addr *ip = &a->u.in6.sin6_addr;
    if (a->size == 0) return false;
    if (a->u.sa.sa_family == AF_INET) return is_public_v4(ntohl(a->u.in.sin_addr.s_addr));
    if (a->u.sa.sa_family != AF_INET6) return false;
    return IN6_IS_ADDR_V4MAPPED(ip) ? is_public_v4(word_of(ip->s6_addr + 12)) : is_public_v6(ip->s6_addr);
}

/* ---- rules */

static bool passes(const struct egress *e, const struct addr *a) {
    int allow = cidr_narrowest(e->allow, e->allow_count, a), deny = cidr_narrowest(e->deny, e->deny_count, a);
    if (allow >= 0 || deny >= 0) return allow > deny;
    return e->private || addr_is_public(a);
}

/* Where the IPv4 address stands in one that carries it (but for mapped ones, which are it); NULL: it carries none. */
static const uint8_t *carried_v4(const uint8_t bytes[16]) {
    static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b }, zeros[15];
    if (bytes[0] == 0x20 && bytes[1] == 0x02) return bytes + 2;
    if (memcmp(bytes, nat64, sizeof nat64) == 0) return bytes + 12;
    bool compatible = memcmp(bytes, zeros, 12) == 0, own = memcmp(bytes, zeros, 15) == 0 && bytes[15] <= 1;
    return compatible && !own ? bytes + 12 : NULL; /* :: and ::1 are themselves */
}

bool egress_allows(const struct egress *e, const struct addr *a) {
    if (!e) return true;
    if (!passes(e, a)) return false;
    const uint8_t *carried = a->u.sa.sa_family == AF_INET6 ? carried_v4(a->u.in6.sin6_addr.s6_addr) : NULL;
    if (!carried) return true;
    struct addr inner = { .size = sizeof inner.u.in, .u.in.sin_family = AF_INET };
    memcpy(&inner.u.in.sin_addr, carried, 4);
    return passes(e, &inner);
}

static struct cidr *copy_ranges(const struct cidr *from, size_t count) {
    if (count == 0) return NULL;
    return memcpy(must_calloc(count, sizeof *from), from, count * sizeof *from);
}

struct egress egress_copy(const struct egress *from) {
    struct egress copy = *from;
    copy.allow = copy_ranges(from->allow, from->allow_count);
    copy.deny = copy_ranges(from->deny, from->deny_count);
    return copy;
}

void egress_fini(struct egress *e) {
    free(e->allow);
    free(e->deny);
    *e = (struct egress){ .private = false };
}

/* ---- ourselves */

static bool is_any(const struct addr *a) {
    if (a->u.sa.sa_family == AF_INET) return a->u.in.sin_addr.s_addr == htonl(INADDR_ANY);
    return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr);
}

/* Asked of the kernel only when a connection to a port is opened on which we listen at all addresses. (That a socket
 * can be bound to it would say the same, but for machines that let sockets be bound to what is not theirs.) */
static bool is_local(const struct addr *to) {
    struct ifaddrs *all = NULL;
    bool local = to->u.sa.sa_family == AF_INET && ntohl(to->u.in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    if (local || getifaddrs(&all) != 0) return local;
    for (const struct ifaddrs *i = all; i && !local; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != to->u.sa.sa_family) continue;
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)i->ifa_addr;
        const struct sockaddr_in *in = (const struct sockaddr_in *)i->ifa_addr;
        local = to->u.sa.sa_family == AF_INET ? in->sin_addr.s_addr == to->u.in.sin_addr.s_addr
                                              : IN6_ARE_ADDR_EQUAL(&in6->sin6_addr, &to->u.in6.sin6_addr);
    }
    freeifaddrs(all);
    return local;
}

/* Mapped addresses as IPv4: both name one listener. Connecting to "any" reaches loopback. */
static struct addr plain_addr(const struct addr *a) {
    struct addr plain = *a;
    const struct in6_addr *ip = &a->u.in6.sin6_addr;
    if (a->u.sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(ip)) return plain;
    char text[ADDR_TEXT];
    addr_from_ip(&plain, addr_ip_text(a, text), addr_port(a));
    return plain;
}

bool addr_is_listened(const struct addr *to, const struct addr *listeners, size_t count) {
    struct addr plain = plain_addr(to);
    bool asked = is_any(&plain), local = asked; /* "any" reaches loopback */
    for (size_t i = 0; i < count; i++) {
        if (addr_equal(&listeners[i], &plain)) return true;
        if (addr_port(&listeners[i]) == 0 || addr_port(&listeners[i]) != addr_port(&plain)) continue;
        if (!is_any(&listeners[i])) {
            if (is_any(&plain)) return true;
            continue;
        }
        if (!asked) local = is_local(&plain);
        asked = true;
        if (local) return true;
    }
    return false;
}
