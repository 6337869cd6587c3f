/* The text between the braces of a series. One bad byte in it would make the whole page unreadable to Prometheus, and
 * labels come partly from strangers. */
#include "store/metrics.h"

#include <string.h>

/* Bytes of the UTF-8 sequence at p, 0 if it is none. */
static size_t measure_rune(const char *p, size_t n) {
    unsigned char c = (unsigned char)*p;
    size_t size = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (size > n) return 0;
    for (size_t i = 1; i < size; i++)
        if (((unsigned char)p[i] & 0xc0) != 0x80) return 0;
    unsigned char next = size > 2 ? (unsigned char)p[1] : 0;
    bool overlong = (c == 0xe0 && next < 0xa0) || (c == 0xf0 && next < 0x90);
    bool outside = (c == 0xed && next > 0x9f) || (c == 0xf4 && next > 0x8f);
    return overlong || outside ? 0 : size;
}

/* Writes one escaped character at `to`, at most 4 bytes; returns how many, and steps over it. */
static size_t escape_rune(char *to, struct slice *rest) {
    char c = *rest->p;
    size_t size = c ? measure_rune(rest->p, rest->n) : 0;
    if (c == '\\' || c == '"' || c == '\n') {
        to[0] = '\\';
        to[1] = c == '\n' ? 'n' : c;
        *rest = slice_skip(*rest, 1);
        return 2;
    }
    if (size) memcpy(to, rest->p, size);
    else to[0] = '?';
    *rest = slice_skip(*rest, size ? size : 1);
    return size ? size : 1;
}

/* Writes one pair, its value cut to what fits. Returns its length, 0 if not even an empty value fits. */
static size_t write_label(char *to, size_t size, bool first, const struct label *label) {
    size_t name = strlen(label->name), used = 0;
    if (size < name + 4) return 0;
    if (!first) to[used++] = ',';
    memcpy(to + used, label->name, name);
    used += name;
    to[used++] = '=';
    to[used++] = '"';
    for (struct slice rest = label->value; rest.n;) {
        char rune[4];
        size_t n = escape_rune(rune, &rest);
        if (used + n + 1 > size) break;
        memcpy(to + used, rune, n);
        used += n;
    }
    to[used++] = '"';
    return used;
}

struct slice metric_labels(char *to, size_t size, const struct label *labels, size_t count) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = write_label(to + used, size - used, used == 0, &labels[i]);
        if (n == 0) break;
        used += n;
    }
    return slice_make(to, used);
}
