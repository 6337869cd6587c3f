/* Socket addresses and CIDR sets. */
#pragma once

#include "base/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addr {
    socklen_t size; /* 0: none */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } u;
};

/* Numeric only: "1.2.3.4:80", "[::1]:80", "unix:/path" ("unix:@name": abstract), "*:80" and "80" ([::]:80, both
 * families). False if it is something else (a host name, say). */
bool addr_parse(struct addr *, struct slice text);
/* "name:port" or numeric: splits into name and port without resolving; false if malformed. IPv6 in brackets. */
bool addr_split(struct slice text, struct slice *host, uint16_t *port);
bool addr_from_ip(struct addr *, struct slice ip, uint16_t port); /* "1.2.3.4", "::1" */
bool addr_equal(const struct addr *, const struct addr *);
uint16_t addr_port(const struct addr *);
void addr_set_port(struct addr *, uint16_t port);

enum { ADDR_TEXT = 128 };
/* "1.2.3.4:80", "[::1]:80", "unix:/path"; IPv4-mapped IPv6 as IPv4. NUL-terminated; returns a slice of `to`. */
struct slice addr_text(const struct addr *, char to[ADDR_TEXT]);
/* The IP alone, no brackets; "unix:" for unix sockets. */
struct slice addr_ip_text(const struct addr *, char to[ADDR_TEXT]);

/* ---- CIDR sets: IPv4-mapped addresses match IPv4 ranges. "unix" matches unix-socket clients. */
struct cidr {
    uint8_t bytes[16];
    uint8_t bits; /* of 128; IPv4 is mapped */
    bool unix_socket;
};
bool cidr_parse(struct cidr *, struct slice text); /* "10.0.0.0/8", "::1", "unix" */
bool cidr_match(const struct cidr *list, size_t count, const struct addr *);
/* The bits of the narrowest range that holds it; -1: none does. */
int cidr_narrowest(const struct cidr *list, size_t count, const struct addr *);
