/* Structured fields (RFC 8941): a strict reader that allocates nothing, and the strings and tokens to be written.
 *
 * A reader goes through one field value, its lines already joined (headers_joined). A field is valid only as a whole:
 * what was visited counts once the visit has ended and `failed` is still false. The slices it gives point into the
 * text. */
#pragma once

#include "base/slice.h"

enum sf_type { SF_INTEGER, SF_DECIMAL, SF_STRING, SF_TOKEN, SF_BYTES, SF_BOOLEAN, SF_INNER_LIST };

struct sf_value {
    enum sf_type type;
    int64_t number;          /* INTEGER: at most 15 digits; DECIMAL: thousandths; BOOLEAN: 0 or 1 */
    struct slice text;       /* STRING: between the quotes, still escaped; TOKEN; BYTES: the base64; INNER_LIST: between
                                the parentheses, for sf_inner_next */
    struct slice parameters; /* ";a=1;b", for sf_parameter_next; empty: none */
};

struct sf_reader {
    const char *at, *end;
    bool begun;
    bool failed; /* malformed: the whole field is to be ignored (RFC 8941 4.2) */
};

void sf_begin(struct sf_reader *, struct slice text);
/* The next member of a dictionary (RFC 8941 3.2). A key without a value is true. A key may come again: the last counts.
 * False at the end, and when failed. */
bool sf_member_next(struct sf_reader *, struct slice *key, struct sf_value *);
/* The next member of a list (RFC 8941 3.1). False at the end, and when failed. */
bool sf_list_next(struct sf_reader *, struct sf_value *);
/* A field that is one item (RFC 8941 3.3); not an inner list. */
bool sf_item_read(struct slice text, struct sf_value *);

/* The parts of a value that was read; they are well-formed. */
bool sf_inner_next(struct slice *rest, struct sf_value *item);
bool sf_parameter_next(struct slice *rest, struct slice *key, struct sf_value *);

/* May it be written as a string (printable ASCII), as a token (RFC 8941 3.3.3, 3.3.4)? */
bool sf_is_string(struct slice);
bool sf_is_token(struct slice);
/* The bytes that sf_string_write takes at most: its quotes, and each byte escaped. */
static inline size_t sf_string_size(struct slice s) { return 2 * s.n + 2; }
size_t sf_string_write(char *to, struct slice); /* only of sf_is_string; returns the bytes written */
