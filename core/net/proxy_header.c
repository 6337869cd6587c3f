/* Both versions are told by their first bytes, and nothing that begins otherwise is a header: a receiver that guesses
 * lets everybody write one. Addresses of unix sockets tell nothing about a client and are as if there were none.
 * Extensions (TLVs) are skipped. */
#include "net/proxy_header.h"

#include <arpa/inet.h>

enum { LINE_MOST = 107, SIGNATURE = 12, FIXED = 16 };

static const char signature[SIGNATURE + 1] = "\r\n\r\n\0\r\nQUIT\n";

static bool begins(struct buffer *in, const char *with, size_t n) {
    if (n > in->size) n = in->size;
    return memcmp(buffer_gather(in, n).p, with, n) == 0;
}

/* ---- version 1: a line */

static bool read_port(struct slice text, uint16_t *port) {
    uint64_t n;
    bool plain = text.n && text.n <= 5 && (text.n == 1 || text.p[0] != '0');
    if (!plain || !slice_to_u64(text, &n) || n > UINT16_MAX) return false;
    *port = (uint16_t)n;
    return true;
}

/* "TCP4 SOURCE DESTINATION PORT PORT", single spaces between. */
static bool read_words(struct slice rest, struct addr *source) {
    struct slice words[5];
    struct addr destination;
    uint16_t from, to;
    for (size_t i = 0; i < 5; i++) {
        if (!rest.p) return false;
        words[i] = slice_cut(&rest, ' ');
    }
    bool v4 = slice_equal(words[0], SLICE("TCP4")), v6 = slice_equal(words[0], SLICE("TCP6"));
    if (rest.p || (!v4 && !v6) || !read_port(words[3], &from) || !read_port(words[4], &to)) return false;
    int family = v4 ? AF_INET : AF_INET6;
    return addr_from_ip(source, words[1], from) && addr_from_ip(&destination, words[2], to) &&
           source->u.sa.sa_family == family && destination.u.sa.sa_family == family;
}

static enum proxy_header_result read_line(struct buffer *in, struct addr *source) {
    size_t end = buffer_find(in, '\n', 0);
    if (end >= in->size) return in->size < LINE_MOST ? PROXY_HEADER_MORE : PROXY_HEADER_BAD;
    if (end >= LINE_MOST) return PROXY_HEADER_BAD;
    struct slice line = buffer_gather(in, end);
    if (line.n == 0 || line.p[line.n - 1] != '\r') return PROXY_HEADER_BAD;
    line = slice_skip(slice_make(line.p, line.n - 1), sizeof "PROXY " - 1);
    bool unknown = slice_equal(line, SLICE("UNKNOWN")) || slice_starts_with(line, SLICE("UNKNOWN "));
    if (!unknown && !read_words(line, source)) return PROXY_HEADER_BAD;
    buffer_drop(in, end + 1);
    return PROXY_HEADER_DONE;
}

/* ---- version 2: binary */

static void take_v4(const unsigned char *p, struct addr *a) {
    a->size = sizeof a->u.in;
    a->u.in.sin_family = AF_INET;
    memcpy(&a->u.in.sin_addr, p, 4);
    memcpy(&a->u.in.sin_port, p + 8, 2);
}

static void take_v6(const unsigned char *p, struct addr *a) {
    a->size = sizeof a->u.in6;
    a->u.in6.sin6_family = AF_INET6;
    memcpy(&a->u.in6.sin6_addr, p, 16);
    memcpy(&a->u.in6.sin6_port, p + 32, 2);
}

enum {
    COMMAND_LOCAL = 0x20,
    COMMAND_PROXY = 0x21,
    FAMILY_NONE = 0,
    FAMILY_TCP4 = 0x11,
    FAMILY_TCP6 = 0x21,
    FAMILY_UNIX = 0x31
};
enum { SIZE_TCP4 = 12, SIZE_TCP6 = 36, SIZE_UNIX = 216 };

static bool take_addresses(const unsigned char *head, size_t size, struct addr *source) {
    if (head[12] == COMMAND_LOCAL) return true;
    if (head[12] != COMMAND_PROXY) return false;
    switch (head[13]) {
    case FAMILY_NONE: return true;
    case FAMILY_UNIX: return size >= SIZE_UNIX;
    case FAMILY_TCP4:
        if (size >= SIZE_TCP4) take_v4(head + FIXED, source);
        return size >= SIZE_TCP4;
    case FAMILY_TCP6:
        if (size >= SIZE_TCP6) take_v6(head + FIXED, source);
        return size >= SIZE_TCP6;
    default: return false;
    }
}

static enum proxy_header_result read_binary(struct buffer *in, struct addr *source) {
    if (in->size < FIXED) return PROXY_HEADER_MORE;
    const unsigned char *head = (const unsigned char *)buffer_gather(in, FIXED).p;
    size_t size = (size_t)head[14] << 8 | head[15];
    if (FIXED + size > PROXY_HEADER_MOST) return PROXY_HEADER_BAD;
    if (in->size < FIXED + size) return PROXY_HEADER_MORE;
    head = (const unsigned char *)buffer_gather(in, FIXED + size).p;
    if (!take_addresses(head, size, source)) return PROXY_HEADER_BAD;
    buffer_drop(in, FIXED + size);
    return PROXY_HEADER_DONE;
}

enum proxy_header_result proxy_header_read(struct buffer *in, struct addr *source) {
    *source = (struct addr){ .size = 0 };
    if (in->size == 0) return PROXY_HEADER_MORE;
    if (begins(in, "PROXY ", 6)) return in->size < 6 ? PROXY_HEADER_MORE : read_line(in, source);
    if (begins(in, signature, SIGNATURE)) return read_binary(in, source);
    return PROXY_HEADER_BAD;
}

/* ---- writing */

/* An IPv4 address, also where it is mapped into IPv6; NULL: it is another. */
static const void *v4_of(const struct addr *a) {
    if (a->u.sa.sa_family == AF_INET) return &a->u.in.sin_addr;
    const struct in6_addr *ip = &a->u.in6.sin6_addr;
    return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(ip) ? &ip->s6_addr[12] : NULL;
}

static void write_line(struct buffer *out, const struct addr *source, const struct addr *destination, bool v4) {
    char from[ADDR_TEXT], to[ADDR_TEXT];
    buffer_printf(out, "PROXY TCP%c %s %s %u %u\r\n", v4 ? '4' : '6', addr_ip_text(source, from).p,
                  addr_ip_text(destination, to).p, addr_port(source), addr_port(destination));
}

static void write_binary(struct buffer *out, const struct addr *source, const struct addr *destination, bool v4) {
    size_t ip = v4 ? 4 : 16, size = 2 * ip + 4;
    unsigned char head[FIXED] = {
        [12] = COMMAND_PROXY, [13] = v4 ? FAMILY_TCP4 : FAMILY_TCP6, [15] = (unsigned char)size
    };
    uint16_t ports[2] = { htons(addr_port(source)), htons(addr_port(destination)) };
    memcpy(head, signature, SIGNATURE);
    buffer_append(out, head, sizeof head);
    buffer_append(out, v4 ? v4_of(source) : &source->u.in6.sin6_addr, ip);
    buffer_append(out, v4 ? v4_of(destination) : &destination->u.in6.sin6_addr, ip);
    buffer_append(out, ports, sizeof ports);
}

static void write_nobody(struct buffer *out, unsigned version) {
    static const char line[] = "PROXY UNKNOWN\r\n";
    unsigned char head[FIXED] = { [12] = COMMAND_LOCAL };
    memcpy(head, signature, SIGNATURE);
    if (version == 1) buffer_append(out, line, sizeof line - 1);
    else buffer_append(out, head, sizeof head);
}

void proxy_header_write(struct buffer *out, unsigned version, const struct addr *source,
                        const struct addr *destination) {
    bool both = source->size && destination->size, v4 = both && v4_of(source) && v4_of(destination);
    bool v6 = both && !v4 && !v4_of(source) && !v4_of(destination) && source->u.sa.sa_family == AF_INET6 &&
              destination->u.sa.sa_family == AF_INET6;
    if (!v4 && !v6) write_nobody(out, version);
    else if (version == 1) write_line(out, source, destination, v4);
    else write_binary(out, source, destination, v4);
}
