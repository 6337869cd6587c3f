/* URI references (RFC 3986 4.1): taken apart, resolved against a base, put together. Nothing is decoded or normalised,
 * and nothing is forgiven: a byte outside of the grammar makes it no reference. */
#pragma once

#include "base/slice.h"

/* p NULL: the part is absent, which is not the same as empty. `path` is always there. The slices point into what was
 * parsed. `host` keeps the brackets of an IPv6 address. */
struct reference {
    struct slice scheme, user, host, port, path, query, fragment;
};

bool reference_parse(struct reference *, struct slice text);
/* The bytes that reference_write takes at most. */
size_t reference_size(const struct reference *);
size_t reference_write(char *to, const struct reference *); /* returns the bytes written */
/* RFC 3986 5.2, strictly. `base` has a scheme. `*out` points into both and into `path`, which has room for the paths of
 * both and one byte more. */
void reference_resolve(struct reference *out, const struct reference *base, const struct reference *, char *path);
