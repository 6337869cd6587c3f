/* A slice: bytes that belong to somebody else. It is two words, passed by value, never NUL-terminated,
 * and valid as long as the owner says (an arena, a chunk, a literal). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *p;
    size_t n;
};

#define SLICE(literal) ((struct slice){ "" literal, sizeof(literal) - 1 })
/* For printf: "%.*s", FMT(s). */
#define FMT(s) (int)(s).n, (s).p

static inline struct slice slice_of(const char *text) { return (struct slice){ text, text ? strlen(text) : 0 }; }
static inline struct slice slice_make(const char *p, size_t n) { return (struct slice){ p, n }; }

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII only, whatever the locale. */
static inline bool slice_equal_nocase(struct slice a, struct slice b) {
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

static inline bool slice_starts_with(struct slice s, struct slice prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static inline bool slice_ends_with(struct slice s, struct slice suffix) {
    return s.n >= suffix.n && (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

static inline struct slice slice_skip(struct slice s, size_t n) { return (struct slice){ s.p + n, s.n - n }; }

/* Without optional white space (RFC 9110 5.6.3: SP and HTAB) at both ends. */
static inline struct slice slice_trim(struct slice s) {
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

/* Splits `*rest` at the first `at`: returns what stands before, `*rest` becomes what stands after
 * (p NULL when there was no `at`, so that `while (rest.p)` visits every part). */
static inline struct slice slice_cut(struct slice *rest, char at) {
    struct slice head = *rest;
    const char *found = rest->n ? memchr(rest->p, at, rest->n) : NULL;
    if (!found) {
        *rest = (struct slice){ NULL, 0 };
        return head;
    }
    head.n = (size_t)(found - head.p);
    *rest = (struct slice){ found + 1, rest->n - head.n - 1 };
    return head;
}

/* Decimal digits and nothing else, no sign, no overflow. False leaves `*out` alone. */
bool slice_to_u64(struct slice s, uint64_t *out);
