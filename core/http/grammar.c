/* The table of byte classes, written as ranges so that it can be read against the RFCs. */
#include "http/grammar.h"

#define VISIBLE (BYTE_VALUE | BYTE_TARGET)
#define MARK    (VISIBLE | BYTE_PATH)
#define ALPHA   (MARK | BYTE_TOKEN | BYTE_UNRESERVED)

#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif

/* Later lines refine earlier ones. */
const uint8_t byte_classes[256] = {
    ['\t'] = BYTE_VALUE,
    [' '] = BYTE_VALUE,
    [0x21 ... 0x7e] = MARK,
    [0x80 ... 0xff] = BYTE_VALUE,
    ['0' ... '9'] = ALPHA | BYTE_DIGIT | BYTE_HEX,
    ['A' ... 'F'] = ALPHA | BYTE_HEX,
    ['G' ... 'Z'] = ALPHA,
    ['a' ... 'f'] = ALPHA | BYTE_HEX,
    ['g' ... 'z'] = ALPHA,
    ['-'] = ALPHA,
    ['_'] = ALPHA,
    ['~'] = ALPHA,
    ['.'] = VISIBLE | BYTE_TOKEN | BYTE_UNRESERVED,
    ['%'] = VISIBLE | BYTE_TOKEN,
    ['?'] = VISIBLE,
    ['#'] = BYTE_VALUE | BYTE_TOKEN,
    ['!'] = MARK | BYTE_TOKEN,
    ['$'] = MARK | BYTE_TOKEN,
    ['&'] = MARK | BYTE_TOKEN,
    ['\''] = MARK | BYTE_TOKEN,
    ['*'] = MARK | BYTE_TOKEN,
    ['+'] = MARK | BYTE_TOKEN,
    ['^'] = MARK | BYTE_TOKEN,
    ['`'] = MARK | BYTE_TOKEN,
    ['|'] = MARK | BYTE_TOKEN,
};

#pragma GCC diagnostic pop
