/* Socket addresses and CIDR sets, as text and back.
 *
 * Everything here is numeric: a text that is a host name is simply not an address (`addr_parse` says false), and the
 * resolver turns it into one. Ranges are kept as 128 bits, IPv4 mapped into ::ffff:0:0/96, so that a client which came
 * over a dual-stack socket is found in the IPv4 ranges an operator writes. The other way round does not hold: "::/0" is
 * meant by nobody to cover IPv4, so a range shorter than the mapping prefix never matches a mapped address. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { MAPPED_BITS = 96 };
static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static bool parse_port(struct slice text, uint16_t *port) {
    uint64_t n;
    if (text.n == 0 || text.n > 5 || !slice_to_u64(text, &n) || n > UINT16_MAX) return false;
    *port = (uint16_t)n;
    return true;
}

/* inet_pton wants a C string. */
static bool parse_ip(int family, struct slice ip, void *to) {
    char text[INET6_ADDRSTRLEN];
    if (ip.n == 0 || ip.n >= sizeof text || memchr(ip.p, 0, ip.n)) return false;
    memcpy(text, ip.p, ip.n);
    text[ip.n] = 0;
    return inet_pton(family, text, to) == 1;
}

static bool parse_unix(struct addr *a, struct slice path) {
    struct sockaddr_un *un = &a->u.un;
    /* One byte stays for the NUL: paths without one are legal in Linux and trouble everywhere else. */
    if (path.n == 0 || path.n >= sizeof un->sun_path || memchr(path.p, 0, path.n)) return false;
    bool abstract = path.p[0] == '@';
    if (abstract && path.n == 1) return false;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path.p, path.n);
    if (abstract) un->sun_path[0] = 0;
    a->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + (abstract ? 0 : 1));
    return true;
}

static void set_any(struct addr *a, uint16_t port) {
    a->u.in6.sin6_family = AF_INET6;
    a->u.in6.sin6_addr = in6addr_any;
    a->u.in6.sin6_port = htons(port);
    a->size = sizeof a->u.in6;
}

bool addr_from_ip(struct addr *a, struct slice ip, uint16_t port) {
    memset(a, 0, sizeof *a);
    if (parse_ip(AF_INET, ip, &a->u.in.sin_addr)) {
        a->u.in.sin_family = AF_INET;
        a->u.in.sin_port = htons(port);
        a->size = sizeof a->u.in;
        return true;
    }
    if (!parse_ip(AF_INET6, ip, &a->u.in6.sin6_addr)) return false;
    a->u.in6.sin6_family = AF_INET6;
    a->u.in6.sin6_port = htons(port);
    a->size = sizeof a->u.in6;
    return true;
}

/* Splits at the last colon, or after the bracket; `*bracketed` tells which. */
static bool cut_port(struct slice text, struct slice *host, uint16_t *port, bool *bracketed) {
    *bracketed = text.n && text.p[0] == '[';
    if (*bracketed) {
        const char *close = memchr(text.p, ']', text.n);
        if (!close) return false;
        size_t at = (size_t)(close - text.p);
        if (at + 1 >= text.n || text.p[at + 1] != ':') return false;
        *host = slice_make(text.p + 1, at - 1);
        return parse_port(slice_skip(text, at + 2), port);
    }
    size_t colon = text.n;
    while (colon && text.p[colon - 1] != ':') colon--;
    if (colon == 0) return false;
    *host = slice_make(text.p, colon - 1);
    return parse_port(slice_skip(text, colon), port);
}

bool addr_parse(struct addr *a, struct slice text) {
    memset(a, 0, sizeof *a);
    if (slice_starts_with(text, SLICE("unix:"))) return parse_unix(a, slice_skip(text, 5));
    uint16_t port;
    if (parse_port(text, &port)) {
        set_any(a, port);
        return true;
    }
    struct slice host;
    bool bracketed;
    if (!cut_port(text, &host, &port, &bracketed)) return false;
    if (!bracketed && slice_equal(host, SLICE("*"))) {
        set_any(a, port);
        return true;
    }
    bool colons = host.n && memchr(host.p, ':', host.n);
    return bracketed == colons && addr_from_ip(a, host, port);
}

static bool is_host_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_';
}

bool addr_split(struct slice text, struct slice *host, uint16_t *port) {
    bool bracketed;
    if (!cut_port(text, host, port, &bracketed) || *port == 0) return false;
    if (bracketed) {
        struct in6_addr ip;
        return parse_ip(AF_INET6, *host, &ip);
    }
    if (host->n == 0 || host->n > 255) return false;
    for (size_t i = 0; i < host->n; i++)
        if (!is_host_char(host->p[i])) return false;
    return true;
}

bool addr_equal(const struct addr *a, const struct addr *b) {
    if (a->size == 0 || b->size == 0) return a->size == b->size;
    if (a->u.sa.sa_family != b->u.sa.sa_family) return false;
    switch (a->u.sa.sa_family) {
    case AF_INET: return a->u.in.sin_port == b->u.in.sin_port && a->u.in.sin_addr.s_addr == b->u.in.sin_addr.s_addr;
    case AF_INET6:
        return a->u.in6.sin6_port == b->u.in6.sin6_port && a->u.in6.sin6_scope_id == b->u.in6.sin6_scope_id &&
               memcmp(&a->u.in6.sin6_addr, &b->u.in6.sin6_addr, sizeof a->u.in6.sin6_addr) == 0;
    default: return a->size == b->size && memcmp(&a->u, &b->u, a->size) == 0;
    }
}

uint16_t addr_port(const struct addr *a) {
    if (a->size == 0) return 0;
    if (a->u.sa.sa_family == AF_INET) return ntohs(a->u.in.sin_port);
    return a->u.sa.sa_family == AF_INET6 ? ntohs(a->u.in6.sin6_port) : 0;
}

void addr_set_port(struct addr *a, uint16_t port) {
    if (a->size == 0) return;
    if (a->u.sa.sa_family == AF_INET) a->u.in.sin_port = htons(port);
    if (a->u.sa.sa_family == AF_INET6) a->u.in6.sin6_port = htons(port);
}

static struct slice print_unix(const struct addr *a, char to[ADDR_TEXT]) {
    size_t start = offsetof(struct sockaddr_un, sun_path);
    /* An unnamed socket (any client of ours) has no path at all, not even an empty one. */
    size_t n = a->size > start ? a->size - start : 0;
    const char *path = a->u.un.sun_path;
    bool abstract = n && path[0] == 0;
    if (!abstract) n = strnlen(path, n);
    memcpy(to, "unix:", 5);
    memcpy(to + 5, path, n);
    if (abstract) to[5] = '@';
    to[5 + n] = 0;
    return slice_make(to, 5 + n);
}

/* Once per request, for X-Forwarded-For: inet_ntop, which goes through printf, takes ten times as long. */
static void print_v4(const uint8_t bytes[4], char *to) {
    for (int i = 0; i < 4; i++) {
        unsigned b = bytes[i];
        if (b >= 100) *to++ = (char)('0' + b / 100);
        if (b >= 10) *to++ = (char)('0' + b / 10 % 10);
        *to++ = (char)('0' + b % 10);
        *to++ = i < 3 ? '.' : 0;
    }
}

/* True if it is IPv6 (which needs brackets before a port). */
static bool print_ip(const struct addr *a, char to[INET6_ADDRSTRLEN]) {
    const struct in6_addr *ip = &a->u.in6.sin6_addr;
    if (a->u.sa.sa_family == AF_INET) print_v4((const uint8_t *)&a->u.in.sin_addr, to);
    else if (IN6_IS_ADDR_V4MAPPED(ip)) print_v4(&ip->s6_addr[12], to);
    else return inet_ntop(AF_INET6, ip, to, INET6_ADDRSTRLEN) != NULL;
    return false;
}

static bool is_ip(const struct addr *a) {
    return a->size && (a->u.sa.sa_family == AF_INET || a->u.sa.sa_family == AF_INET6);
}

struct slice addr_text(const struct addr *a, char to[ADDR_TEXT]) {
    to[0] = 0;
    if (a->size && a->u.sa.sa_family == AF_UNIX) return print_unix(a, to);
    if (!is_ip(a)) return slice_make(to, 0);
    char ip[INET6_ADDRSTRLEN];
    bool brackets = print_ip(a, ip);
    int n = snprintf(to, ADDR_TEXT, brackets ? "[%s]:%u" : "%s:%u", ip, addr_port(a));
    return slice_make(to, (size_t)n);
}

struct slice addr_ip_text(const struct addr *a, char to[ADDR_TEXT]) {
    to[0] = 0;
    if (a->size && a->u.sa.sa_family == AF_UNIX) return slice_make(memcpy(to, "unix:", 6), 5);
    if (is_ip(a)) print_ip(a, to);
    return slice_of(to);
}

bool cidr_parse(struct cidr *c, struct slice text) {
    memset(c, 0, sizeof *c);
    if (slice_equal(text, SLICE("unix"))) return c->unix_socket = true;
    struct slice ip = slice_cut(&text, '/');
    uint64_t bits = 0;
    if (text.p && (text.n > 3 || !slice_to_u64(text, &bits))) return false;
    bool v4 = parse_ip(AF_INET, ip, c->bytes + 12);
    if (v4) memcpy(c->bytes, mapped_prefix, sizeof mapped_prefix);
    if (!v4 && !parse_ip(AF_INET6, ip, c->bytes)) return false;
    uint64_t most = v4 ? 32 : 128;
    if (!text.p) bits = most;
    if (bits > most) return false;
    c->bits = (uint8_t)(bits + (v4 ? MAPPED_BITS : 0));
    return true;
}

static bool match_bits(const uint8_t *a, const uint8_t *b, unsigned bits) {
    if (memcmp(a, b, bits / 8) != 0) return false;
    unsigned rest = bits % 8;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

/* An address as ranges see it. */
struct matched {
    uint8_t bytes[16];
    bool unix_socket, mapped;
};

static struct matched matched_of(const struct addr *a) {
    struct matched m = { .unix_socket = a->u.sa.sa_family == AF_UNIX };
    if (a->u.sa.sa_family == AF_INET) {
        memcpy(m.bytes, mapped_prefix, sizeof mapped_prefix);
        memcpy(m.bytes + 12, &a->u.in.sin_addr, 4);
        m.mapped = true;
    } else if (a->u.sa.sa_family == AF_INET6) {
        memcpy(m.bytes, &a->u.in6.sin6_addr, 16);
        m.mapped = memcmp(m.bytes, mapped_prefix, sizeof mapped_prefix) == 0;
    }
    return m;
}

static bool holds(const struct cidr *c, const struct matched *m) {
    if (c->unix_socket || m->unix_socket) return c->unix_socket && m->unix_socket;
    if (m->mapped && c->bits < MAPPED_BITS) return false;
    return match_bits(m->bytes, c->bytes, c->bits);
}

bool cidr_match(const struct cidr *list, size_t count, const struct addr *a) {
    if (a->size == 0) return false;
    struct matched m = matched_of(a);
    for (size_t i = 0; i < count; i++)
        if (holds(&list[i], &m)) return true;
    return false;
}

int cidr_narrowest(const struct cidr *list, size_t count, const struct addr *a) {
    int narrowest = -1;
    if (a->size == 0) return narrowest;
    struct matched m = matched_of(a);
    for (size_t i = 0; i < count; i++)
        if (list[i].bits > narrowest && holds(&list[i], &m)) narrowest = list[i].bits;
    return narrowest;
}
