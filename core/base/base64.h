/* Bytes as text: base64 and its URL-safe sister (RFC 4648 4 and 5), and hexadecimal digits. */
#pragma once

#include "base/slice.h"

enum base64 { BASE64_PADDED, BASE64_URL }; /* the URL-safe one has no padding, as tokens want it */

/* Room that the text of `n` bytes needs, in either alphabet. */
static inline size_t base64_room(size_t n) { return (n + 2) / 3 * 4; }
/* Room that the bytes of a text of `n` characters need. */
static inline size_t base64_bytes(size_t n) { return n / 4 * 3 + 3; }

/* Writes the text, without a NUL; its length. */
size_t base64_encode(char *to, struct slice bytes, enum base64);
/* Strict, so that two readers cannot disagree: there is one text for each value. False: it is none, and what lies in
 * `to` means nothing. */
bool base64_decode(char *to, size_t *n, struct slice text, enum base64);

/* Two digits for each byte, in lower case. */
void hex_write(char *to, struct slice bytes);
