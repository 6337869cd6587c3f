/* The scan of raw heads: where one ends, and whether every byte of it is inside the grammar (RFC 9112 2 to 5). Used by
 * the head reader and, for trailer sections, by the body decoder.
 *
 * A scan goes on where it stopped: `head` is always the same head from its first byte, `n` grows. What it answers
 * depends on the bytes alone, never on the pieces they came in. After H1_FAILED the scan is not used again. */
#pragma once

#include "http/h1.h"

enum h1_scan_state {
    SCAN_START, /* the method, or a response's version and status */
    SCAN_TARGET,
    SCAN_VERSION,
    SCAN_REASON,
    SCAN_START_LF,
    SCAN_FIELD, /* the first byte of a field line, or of the empty line */
    SCAN_NAME,
    SCAN_VALUE,
    SCAN_VALUE_LF,
    SCAN_END_LF,
};

/* H1_DONE: the head is the first scan->seen bytes. H1_MORE: all `n` bytes are good so far. */
enum h1_result h1_scan_request(struct h1_scan *, const char *head, uint32_t n, const struct h1_limits *,
                               enum failure *why);
enum h1_result h1_scan_response(struct h1_scan *, const char *head, uint32_t n, const struct h1_limits *,
                                enum failure *why);
/* Field lines and the empty line behind them. The state must be SCAN_FIELD at first. At most `fields` lines.
 * `*why`: BAD_REQUEST or HEADERS_TOO_LARGE. */
enum h1_result h1_scan_fields(struct h1_scan *, const char *head, uint32_t n, uint32_t fields, enum failure *why);
/* Takes the next field line off lines that are scanned, the empty one at their end included; the value is trimmed.
 * False: only the empty line is left. */
bool h1_cut_field(struct slice *lines, struct slice *name, struct slice *value);
