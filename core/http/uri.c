/* Request targets and URIs. Reading them is strict where two readers could come to different servers or paths:
 *
 * - A host is letters, digits, "-", ".", "_", "~", or an IPv6 address in brackets. RFC 3986 would allow escapes and
 *   sub-delims too; no name that resolves has them, and each is a way to say one name in two spellings.
 * - User information is refused; "host:" is "host"; port 0 is refused.
 * - Only http and https have an absolute form here.
 *
 * Writing gives the origin form. What needs no change is a slice of what came, not a copy. */
#include "http/uri.h"

#include "http/grammar.h"

#include <arpa/inet.h>

enum { HOST_MAX_BYTES = 255, PORT_MAX_DIGITS = 5 };

/* ---- authority */

static bool is_ipv6(struct slice s) {
    char text[INET6_ADDRSTRLEN];
    unsigned char address[16];
    if (s.n == 0 || s.n >= sizeof text || memchr(s.p, '\0', s.n)) return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, address) == 1;
}

static bool is_reg_name(struct slice s) {
    if (s.n == 0 || s.n > HOST_MAX_BYTES) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_UNRESERVED)) return false;
    return true;
}

static bool read_port(struct slice s, uint16_t *port) {
    uint64_t n = 0;
    if (s.n > PORT_MAX_DIGITS) return false;
    if (s.n && (!slice_to_u64(s, &n) || n == 0 || n > UINT16_MAX)) return false;
    *port = (uint16_t)n;
    return true;
}

/* The host as it is spelled, and the port. */
static bool split_authority(struct slice text, struct slice *host, uint16_t *port) {
    *port = 0;
    if (text.n && text.p[0] == '[') {
        const char *close = memchr(text.p, ']', text.n);
        if (!close) return false;
        *host = slice_make(text.p, (size_t)(close + 1 - text.p));
        struct slice rest = slice_skip(text, host->n);
        if (!is_ipv6(slice_make(text.p + 1, host->n - 2))) return false;
        return rest.n == 0 || (rest.p[0] == ':' && read_port(slice_skip(rest, 1), port));
    }
    *host = slice_cut(&text, ':');
    return is_reg_name(*host) && (!text.p || read_port(text, port));
}

bool authority_valid(struct slice text) {
    struct slice host;
    uint16_t port;
    return split_authority(text, &host, &port);
}

static struct slice lower(struct arena *arena, struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 'A' && s.p[i] <= 'Z') return arena_copy_lower(arena, s);
    return s;
}

bool authority_parse(struct arena *arena, struct slice text, struct slice *host, uint16_t *port) {
    struct slice spelled;
    uint16_t number;
    if (!split_authority(text, &spelled, &number)) return false;
    *host = lower(arena, spelled);
    *port = number;
    return true;
}

static uint16_t port_of_scheme(struct slice scheme) {
    if (slice_equal(scheme, SLICE("http"))) return 80;
    return slice_equal(scheme, SLICE("https")) ? 443 : 0;
}

struct slice authority_write(struct arena *arena, const struct target *target) {
    char port[6]; /* ":65535" */
    size_t at = sizeof port;
    unsigned rest = target->port;
    if (rest == 0 || rest == port_of_scheme(target->scheme)) return target->host;
    do port[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    port[--at] = ':';
    return arena_join(arena, target->host, slice_make(port + at, sizeof port - at));
}

/* ---- paths */

static int hex_pair(const char *p, const char *end) {
    if (end - p < 3 || !byte_is(p[1], BYTE_HEX) || !byte_is(p[2], BYTE_HEX)) return -1;
    return (int)(hex_value(p[1]) << 4 | hex_value(p[2]));
}

static bool is_normal(struct slice path) {
    for (size_t i = 0; i < path.n; i++) {
        if (byte_is(path.p[i], BYTE_PATH)) continue;
        if (path.p[i] != '.' || path.p[i - 1] == '/') return false;
    }
    return true;
}

static const char hex_digits[] = "0123456789ABCDEF";

/* One byte of a path, or one escape: decoded where unreserved, else upper-cased. NULL: there is no such byte in a
 * path. */
static const char *copy_byte(const char *p, const char *end, char **out) {
    if (byte_is(*p, BYTE_PATH) || *p == '.') {
        *(*out)++ = *p;
        return p + 1;
    }
    int byte = *p == '%' ? hex_pair(p, end) : -1;
    if (byte <= 0) return NULL;
    if (byte_is((char)byte, BYTE_UNRESERVED)) {
        *(*out)++ = (char)byte;
    } else {
        *(*out)++ = '%';
        *(*out)++ = hex_digits[byte >> 4];
        *(*out)++ = hex_digits[byte & 15];
    }
    return p + 3;
}

/* The end of the output when the segment that begins at `segment` (behind a "/") is complete: "." goes, and ".." goes
 * with the segment before it, never beyond the first "/". `first` is that "/". */
static char *end_segment(const char *first, char *segment, char *end) {
    size_t n = (size_t)(end - segment);
    if (n == 1 && segment[0] == '.') return segment;
    if (n != 2 || segment[0] != '.' || segment[1] != '.') return end;
    char *slash = segment - 1;
    if (slash == first) return segment;
    do slash--;
    while (*slash != '/');
    return slash + 1;
}

/* One pass: an escape is decoded before its segment is judged, so "%2e%2e" is "..", and nothing is decoded twice
 * ("%252e" stays). Empty segments are kept: "//" is another path than "/" (RFC 3986 6.2.2). */
struct slice path_normalise(struct arena *arena, struct slice path) {
    struct slice none = { NULL, 0 };
    if (path.n == 0 || path.p[0] != '/') return none;
    if (is_normal(path)) return path;
    char *first = arena_bytes(arena, path.n), *out = first, *segment = first + 1;
    const char *p = path.p, *end = path.p + path.n;
    *out++ = *p++;
    while (p < end) {
        if (*p != '/') {
            p = copy_byte(p, end, &out);
            if (!p) return none;
            continue;
        }
        char *kept = end_segment(first, segment, out);
        bool whole = kept == out;
        out = kept;
        if (whole) *out++ = '/'; /* a dot segment took its "/" along: the one before it stands already */
        segment = out;
        p++;
    }
    out = end_segment(first, segment, out);
    return slice_make(first, (size_t)(out - first));
}

/* ---- targets */

/* A URI in its parts, as they are spelled. False if it is not http or https with an authority and visible bytes. */
static bool split_url(struct arena *arena, struct slice url, struct target *target) {
    static const struct slice schemes[] = { { "https", 5 }, { "http", 4 } };
    struct slice rest = { NULL, 0 };
    for (size_t i = 0; i < 2 && !rest.p; i++) {
        struct slice scheme = schemes[i];
        if (url.n < scheme.n + 3 || strncasecmp(url.p, scheme.p, scheme.n) != 0) continue;
        if (memcmp(url.p + scheme.n, "://", 3) != 0) continue;
        target->scheme = scheme;
        rest = slice_skip(url, scheme.n + 3);
    }
    if (!rest.p) return false;
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?') n++;
    target->absolute = true;
    target->path = slice_skip(rest, n);
    return authority_parse(arena, slice_make(rest.p, n), &target->host, &target->port);
}

/* path becomes what stands before "?", query what stands behind it. */
static bool split_path(struct target *target) {
    for (size_t i = 0; i < target->path.n; i++)
        if (!byte_is(target->path.p[i], BYTE_TARGET)) return false;
    target->query = target->path;
    target->path = slice_cut(&target->query, '?');
    return true;
}

bool url_parse(struct arena *arena, struct slice url, struct target *target) {
    *target = (struct target){ .raw = url };
    struct slice whole = url;
    if (!split_url(arena, slice_cut(&whole, '#'), target) || !split_path(target)) return false;
    if (!target->path.n) target->path = SLICE("/");
    return true;
}

/* "host:port", both needed (RFC 9112 3.2.3). */
static enum failure parse_authority_form(struct target *target, struct arena *arena, struct slice scheme) {
    target->scheme = scheme;
    bool valid = authority_parse(arena, target->raw, &target->host, &target->port) && target->port;
    return valid ? FAIL_NONE : FAIL_BAD_REQUEST;
}

static enum failure take_host_field(struct target *target, struct arena *arena, struct slice host_field) {
    if (!host_field.p) return FAIL_NONE;
    return authority_parse(arena, host_field, &target->host, &target->port) ? FAIL_NONE : FAIL_BAD_HOST;
}

static enum failure finish_path(struct target *target, struct arena *arena, bool raw_path) {
    if (!split_path(target)) return FAIL_BAD_REQUEST;
    if (!raw_path) target->path = path_normalise(arena, target->path);
    return target->path.p && target->path.n ? FAIL_NONE : FAIL_BAD_REQUEST;
}

/* An absolute form without a path means "/", or for OPTIONS the server itself (RFC 9112 3.2.4). */
static enum failure parse_absolute_form(struct target *target, struct arena *arena, enum method method, bool raw_path) {
    if (!split_url(arena, target->raw, target)) return FAIL_BAD_REQUEST;
    if (!target->path.n) {
        target->path = method == METHOD_OPTIONS ? SLICE("*") : SLICE("/");
        return FAIL_NONE;
    }
    if (target->path.p[0] == '?') { target->path = arena_join(arena, SLICE("/"), target->path); }
    return finish_path(target, arena, raw_path);
}

enum failure target_parse(struct target *target, struct arena *arena, enum method method, struct slice raw,
                          struct slice host_field, struct slice default_scheme, bool raw_path) {
    *target = (struct target){ .raw = raw, .host = SLICE(""), .path = SLICE("") };
    if (method == METHOD_CONNECT) return parse_authority_form(target, arena, default_scheme);
    bool star = slice_equal(raw, SLICE("*"));
    if (!star && (!raw.n || raw.p[0] != '/')) return parse_absolute_form(target, arena, method, raw_path);
    if (star && method != METHOD_OPTIONS) return FAIL_BAD_REQUEST;

    target->scheme = default_scheme;
    target->path = raw;
    enum failure failed = take_host_field(target, arena, host_field);
    if (failed || star) return failed;
    return finish_path(target, arena, raw_path);
}

struct slice target_write(struct arena *arena, const struct target *target) {
    struct slice path = target->path, query = target->query;
    if (!path.n) return arena_printf(arena, "%.*s:%u", FMT(target->host), (unsigned)target->port);
    if (!query.p) return path;
    if (path.p + path.n + 1 == query.p && path.p[path.n] == '?') return slice_make(path.p, path.n + 1 + query.n);
    return arena_join(arena, path, arena_join(arena, SLICE("?"), query));
}

struct slice target_url(struct arena *arena, const struct target *target) {
    struct slice authority = authority_write(arena, target);
    struct slice path = slice_equal(target->path, SLICE("*")) ? SLICE("") : target->path;
    struct slice before = arena_join(arena, target->scheme, arena_join(arena, SLICE("://"), authority));
    struct slice whole = arena_join(arena, before, path);
    return target->query.p ? arena_join(arena, whole, arena_join(arena, SLICE("?"), target->query)) : whole;
}
