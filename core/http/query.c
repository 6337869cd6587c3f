/* Percent-encoding, query arguments and cookies: the small grammars inside a target and a Cookie field. These are for
 * scripts, which want what the application behind would see; so they take what browsers take and never fail. */
#include "http/uri.h"

#include "http/grammar.h"

static bool is_escape(const char *p, const char *end) {
    return *p == '%' && end - p >= 3 && byte_is(p[1], BYTE_HEX) && byte_is(p[2], BYTE_HEX);
}

size_t percent_decode_into(char *to, struct slice s, bool plus_is_space) {
    char *out = to;
    const char *p = s.p, *end = s.p + s.n;
    while (p < end) {
        if (is_escape(p, end)) {
            *out++ = (char)(hex_value(p[1]) << 4 | hex_value(p[2]));
            p += 3;
        } else {
            *out++ = (char)(plus_is_space && *p == '+' ? ' ' : *p);
            p++;
        }
    }
    return (size_t)(out - to);
}

struct slice percent_decode(struct arena *arena, struct slice s, bool plus_is_space) {
    bool plain = !s.n || (!memchr(s.p, '%', s.n) && !(plus_is_space && memchr(s.p, '+', s.n)));
    if (plain) return s;
    char *to = arena_bytes(arena, s.n);
    return slice_make(to, percent_decode_into(to, s, plus_is_space));
}

bool percent_valid(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '%' && !is_escape(s.p + i, s.p + s.n)) return false;
    return true;
}

static bool stays(char c, const char *keep) { return byte_is(c, BYTE_UNRESERVED) || (c && keep && strchr(keep, c)); }

size_t percent_encode_into(char *to, struct slice s, const char *keep) {
    static const char digits[] = "0123456789ABCDEF";
    char *out = to;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (stays(s.p[i], keep)) {
            *out++ = s.p[i];
            continue;
        }
        *out++ = '%';
        *out++ = digits[c >> 4];
        *out++ = digits[c & 15];
    }
    return (size_t)(out - to);
}

struct slice percent_encode(struct arena *arena, struct slice s, const char *keep) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += stays(s.p[i], keep) ? 1 : 3;
    if (n == s.n) return s;
    char *to = arena_bytes(arena, n);
    return slice_make(to, percent_encode_into(to, s, keep));
}

bool query_next(struct slice *rest, struct slice *name, struct slice *value) {
    while (rest->p) {
        *value = slice_cut(rest, '&');
        if (!value->n) continue;
        *name = slice_cut(value, '=');
        return true;
    }
    return false;
}

/* What has no "=" is no pair, and a name is never empty. */
bool cookie_next(struct slice *rest, struct slice *name, struct slice *value) {
    while (rest->p) {
        struct slice pair = slice_cut(rest, ';');
        *name = slice_trim(slice_cut(&pair, '='));
        if (!pair.p || !name->n) continue;
        *value = slice_trim(pair);
        return true;
    }
    return false;
}
