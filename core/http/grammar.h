/* The bytes of HTTP (RFC 9110 5.5 and 5.6, RFC 3986 2): one table of classes, a bit each. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum byte_class {
    BYTE_TOKEN = 1,  /* tchar */
    BYTE_TARGET = 2, /* visible ASCII but "#": what we take in a request target */
    BYTE_VALUE = 4,  /* HTAB, SP, visible ASCII, obs-text */
    BYTE_DIGIT = 8,
    BYTE_HEX = 16,
    BYTE_UNRESERVED = 32, /* ALPHA DIGIT - . _ ~ */
    BYTE_PATH = 64,       /* of a path that needs no second look: BYTE_TARGET but "%", "?", "." */
};

extern const uint8_t byte_classes[256];

static inline bool byte_is(char c, int classes) { return (byte_classes[(unsigned char)c] & classes) != 0; }

/* The value of a hexadecimal digit; only for BYTE_HEX. */
static inline unsigned hex_value(char c) { return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a') + 10; }
