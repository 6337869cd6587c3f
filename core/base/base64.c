/* Base64, three bytes at a time. Decoding looks characters up in a table that is made of the alphabet once: a chain of
 * comparisons took three times as long, and tokens are decoded at every request. */
#include "base/base64.h"

#include <pthread.h>

static const char alphabets[2][65] = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

enum { NO_DIGIT = 64 };

static unsigned char digits[2][256];

static void make_digits(void) {
    for (int a = 0; a < 2; a++) {
        memset(digits[a], NO_DIGIT, sizeof digits[a]);
        for (unsigned i = 0; i < 64; i++) digits[a][(unsigned char)alphabets[a][i]] = (unsigned char)i;
    }
}

/* One to three bytes; how many characters. */
static size_t encode_group(char *to, const unsigned char *p, size_t n, enum base64 kind) {
    const char *alphabet = alphabets[kind];
    unsigned bits = (unsigned)p[0] << 16 | (n > 1 ? (unsigned)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
    for (size_t i = 0; i <= n; i++) to[i] = alphabet[bits >> (18 - 6 * i) & 63];
    if (kind == BASE64_URL) return n + 1;
    for (size_t i = n + 1; i < 4; i++) to[i] = '=';
    return 4;
}

size_t base64_encode(char *to, struct slice bytes, enum base64 kind) {
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t written = 0;
    for (size_t i = 0; i < bytes.n; i += 3)
        written += encode_group(to + written, p + i, bytes.n - i < 3 ? bytes.n - i : 3, kind);
    return written;
}

/* Two to four digits into one to three bytes. The bits behind the last byte must be zero. */
static bool decode_group(char *to, const char *p, size_t n, const unsigned char *table) {
    unsigned bits = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned digit = table[(unsigned char)p[i]];
        bad |= digit & NO_DIGIT;
        bits |= digit << (18 - 6 * i);
    }
    for (size_t i = 0; i + 1 < n; i++) to[i] = (char)(bits >> (16 - 8 * i));
    unsigned behind = n == 4 ? 0 : n == 3 ? bits & 0xff : bits & 0xffff;
    return !bad && !behind;
}

bool base64_decode(char *to, size_t *n, struct slice text, enum base64 kind) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_digits);
    if (kind == BASE64_PADDED) {
        if (text.n % 4 != 0) return false;
        for (int i = 0; i < 2 && text.n && text.p[text.n - 1] == '='; i++) text.n--;
    }
    *n = 0;
    if (text.n % 4 == 1) return false;
    for (size_t i = 0; i < text.n; i += 4) {
        size_t group = text.n - i < 4 ? text.n - i : 4;
        if (!decode_group(to + *n, text.p + i, group, digits[kind])) return false;
        *n += group - 1;
    }
    return true;
}

void hex_write(char *to, struct slice bytes) {
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.n; i++) {
        to[2 * i] = hex[(unsigned char)bytes.p[i] >> 4];
        to[2 * i + 1] = hex[bytes.p[i] & 15];
    }
}
