/* The grammar of RFC 3986, appendix A, read from left to right: scheme, authority, path, query, fragment are cut at
 * the first byte that ends them, then each is held against the bytes it may have. */
#include "http/reference.h"

#include "http/grammar.h"
#include "http/uri.h"

#define SUB_DELIMS "!$&'()*+,;="

/* Only unreserved bytes, whole escapes, and what `more` names. */
static bool has_only(struct slice s, const char *more) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!byte_is(c, BYTE_UNRESERVED) && c != '%' && (!c || !strchr(more, c))) return false;
    }
    return percent_valid(s);
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static bool is_scheme(struct slice s) {
    if (!s.n || !is_letter(*s.p)) return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_letter(s.p[i]) && !byte_is(s.p[i], BYTE_DIGIT) && !strchr("+-.", s.p[i])) return false;
    return true;
}

/* What stands before the first of the bytes `ends`; it stays in `*rest` with all that follows. */
static struct slice take_until(struct slice *rest, const char *ends) {
    size_t n = 0;
    while (n < rest->n && (!rest->p[n] || !strchr(ends, rest->p[n]))) n++;
    struct slice taken = slice_make(rest->p, n);
    *rest = slice_skip(*rest, n);
    return taken;
}

/* The inside of "[…]": an IPv6 address, or a later version's "v1.…". Which of them are addresses is not asked. */
static bool is_literal(struct slice s) {
    if (s.n && (*s.p | 0x20) == 'v') return s.n > 3 && has_only(s, SUB_DELIMS ":") && !memchr(s.p, '%', s.n);
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_HEX) && s.p[i] != ':' && s.p[i] != '.') return false;
    return s.n >= 2;
}

static bool is_port(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_DIGIT)) return false;
    return true;
}

static bool parse_authority(struct reference *r, struct slice s) {
    if (s.n && memchr(s.p, '@', s.n)) {
        r->user = slice_cut(&s, '@');
        if (!has_only(r->user, SUB_DELIMS ":")) return false;
    }
    if (s.n && *s.p == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (!close) return false;
        r->host = slice_make(s.p, (size_t)(close + 1 - s.p));
        s = slice_skip(s, r->host.n);
        if (!is_literal(slice_make(r->host.p + 1, r->host.n - 2)) || (s.n && *s.p != ':')) return false;
    } else {
        r->host = take_until(&s, ":");
        if (!has_only(r->host, SUB_DELIMS)) return false;
    }
    if (s.n) r->port = slice_skip(s, 1);
    return is_port(r->port);
}

/* Without an authority "//" would begin one, and without a scheme a colon in the first segment would end one. */
static bool path_is_clear(const struct reference *r) {
    if (r->host.p) return !r->path.n || *r->path.p == '/';
    if (slice_starts_with(r->path, SLICE("//"))) return false;
    struct slice rest = r->path, first = take_until(&rest, "/");
    return r->scheme.p || !first.n || !memchr(first.p, ':', first.n);
}

bool reference_parse(struct reference *r, struct slice s) {
    memset(r, 0, sizeof *r);
    struct slice rest = s, scheme = take_until(&rest, ":/?#");
    if (rest.n && *rest.p == ':') {
        if (!is_scheme(scheme)) return false;
        r->scheme = scheme;
        s = slice_skip(rest, 1);
    }
    if (slice_starts_with(s, SLICE("//"))) {
        s = slice_skip(s, 2);
        if (!parse_authority(r, take_until(&s, "/?#"))) return false;
    }
    r->path = take_until(&s, "?#");
    if (s.n && *s.p == '?') {
        s = slice_skip(s, 1);
        r->query = take_until(&s, "#");
    }
    if (s.n) r->fragment = slice_skip(s, 1);
    return path_is_clear(r) && has_only(r->path, SUB_DELIMS ":@/") && has_only(r->query, SUB_DELIMS ":@/?") &&
           has_only(r->fragment, SUB_DELIMS ":@/?");
}

/* ---- putting together (RFC 3986 5.3) */

enum { JOINTS = sizeof "://@:/.?#" };

size_t reference_size(const struct reference *r) {
    return r->scheme.n + r->user.n + r->host.n + r->port.n + r->path.n + r->query.n + r->fragment.n + JOINTS;
}

static char *put(char *to, const char *before, struct slice s, const char *after) {
    if (!s.p) return to;
    size_t n = strlen(before), m = strlen(after);
    memcpy(to, before, n);
    if (s.n) memcpy(to + n, s.p, s.n);
    memcpy(to + n + s.n, after, m);
    return to + n + s.n + m;
}

size_t reference_write(char *to, const struct reference *r) {
    char *at = put(to, "", r->scheme, ":");
    if (r->host.p) at = put(at, "", SLICE("//"), "");
    at = put(at, "", r->user, "@");
    at = put(at, "", r->host, "");
    at = put(at, ":", r->port, "");
    bool seems_authority = !r->host.p && slice_starts_with(r->path, SLICE("//"));
    at = put(at, seems_authority ? "/." : "", r->path, "");
    at = put(at, "?", r->query, "");
    at = put(at, "#", r->fragment, "");
    return (size_t)(at - to);
}

/* ---- resolving (RFC 3986 5.2) */

/* Takes the last segment and its "/" back. */
static size_t drop_segment(const char *path, size_t n) {
    while (n && path[n - 1] != '/') n--;
    return n ? n - 1 : 0;
}

/* The first segment, with the "/" before it. */
static struct slice take_segment(struct slice *rest) {
    size_t n = 1;
    while (n < rest->n && rest->p[n] != '/') n++;
    struct slice taken = slice_make(rest->p, n);
    *rest = slice_skip(*rest, n);
    return taken;
}

/* 5.2.4, in place: what is written never overtakes what is read. */
static size_t remove_dots(char *path, size_t size) {
    struct slice in = { path, size };
    size_t n = 0;
    while (in.n) {
        if (slice_starts_with(in, SLICE("../"))) in = slice_skip(in, 3);
        else if (slice_starts_with(in, SLICE("./"))) in = slice_skip(in, 2);
        else if (slice_equal(in, SLICE(".")) || slice_equal(in, SLICE(".."))) in.n = 0;
        else {
            struct slice segment = take_segment(&in);
            bool up = slice_equal(segment, SLICE("/..")), here = slice_equal(segment, SLICE("/."));
            if (up) n = drop_segment(path, n);
            if (!up && !here) {
                memmove(path + n, segment.p, segment.n);
                n += segment.n;
            } else if (!in.n) path[n++] = '/';
        }
    }
    return n;
}

/* 5.2.3 */
static size_t merge_paths(char *to, const struct reference *base, struct slice path) {
    size_t n = base->path.n;
    if (base->host.p && n == 0) {
        to[0] = '/';
        n = 1;
    } else {
        while (n && base->path.p[n - 1] != '/') n--;
        if (n) memcpy(to, base->path.p, n);
    }
    if (path.n) memcpy(to + n, path.p, path.n);
    return n + path.n;
}

static struct slice copy_path(char *to, struct slice path) {
    if (path.n) memcpy(to, path.p, path.n);
    return slice_make(to, remove_dots(to, path.n));
}

static void take_authority(struct reference *out, const struct reference *from) {
    out->user = from->user;
    out->host = from->host;
    out->port = from->port;
}

void reference_resolve(struct reference *out, const struct reference *base, const struct reference *r, char *path) {
    *out = *r;
    if (r->scheme.p || r->host.p) {
        out->path = copy_path(path, r->path);
        if (!r->scheme.p) out->scheme = base->scheme;
        return;
    }
    out->scheme = base->scheme;
    take_authority(out, base);
    if (!r->path.n) {
        out->path = base->path;
        if (!r->query.p) out->query = base->query;
        return;
    }
    if (*r->path.p == '/') out->path = copy_path(path, r->path);
    else out->path = slice_make(path, remove_dots(path, merge_paths(path, base, r->path)));
}
