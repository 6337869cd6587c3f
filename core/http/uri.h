/* Request targets (RFC 9112 3.2), URIs (RFC 3986), query arguments, and cookies of requests (RFC 6265). */
#pragma once

#include "http/message.h"

/* Parses `raw` in the form that the method allows (origin, absolute, authority for CONNECT, asterisk for OPTIONS) into
 * its parts. `default_scheme` is the listener's. Host comes from an absolute target, else from `host_field` (Host's
 * value, p NULL when there was none). Paths: percent-decoded where unreserved, other escapes upper-cased, dot segments
 * removed (RFC 3986 6.2.2), "%2F" kept; with `raw_path` it is left as it came. FAIL_BAD_REQUEST or FAIL_BAD_HOST. */
enum failure target_parse(struct target *, struct arena *, enum method, struct slice raw, struct slice host_field,
                          struct slice default_scheme, bool raw_path);

/* "host", "host:port", "[::1]:80": lower-cased host and port (0: none). False if it is not valid. */
bool authority_parse(struct arena *, struct slice text, struct slice *host, uint16_t *port);
/* The same question without an answer: nothing is copied. */
bool authority_valid(struct slice text);
/* "host" or "host:port", the port left out where it is the scheme's own or 0. */
struct slice authority_write(struct arena *, const struct target *);
/* What is written in a forwarded start line: "path?query" in origin form, "*" for OPTIONS *. */
struct slice target_write(struct arena *, const struct target *);
/* "scheme://authority/path?query" */
struct slice target_url(struct arena *, const struct target *);

/* As target_parse does it; p NULL for a path that does not begin with "/", has a malformed escape or "%00", or a byte
 * that stands in no path (control, space, "?", "#", beyond ASCII). A path that is normal already is not copied. */
struct slice path_normalise(struct arena *, struct slice path);
/* An absolute http or https URL into its parts (no user info, fragment dropped). False if it is not one. */
bool url_parse(struct arena *, struct slice url, struct target *);

struct slice percent_decode(struct arena *, struct slice, bool plus_is_space);
/* Escapes all but unreserved (RFC 3986 2.3); `keep` names further bytes that stay. */
struct slice percent_encode(struct arena *, struct slice, const char *keep);
/* The same into memory of the caller's: 3 bytes for each of `s`, or as many as `s` has. Return the bytes written. */
size_t percent_encode_into(char *to, struct slice s, const char *keep);
size_t percent_decode_into(char *to, struct slice s, bool plus_is_space);
/* Is every "%" followed by two hexadecimal digits? (Decoding leaves others as they are.) */
bool percent_valid(struct slice);

/* Visits name and value of a query or form ("a=1&b"): raw, still encoded; value.p NULL without "=". */
bool query_next(struct slice *rest, struct slice *name, struct slice *value);
/* Visits the pairs of one Cookie field value; quotes round a value are kept. */
bool cookie_next(struct slice *rest, struct slice *name, struct slice *value);
