/* gate.base64.encode, gate.base64.decode: RFC 4648 4, with padding. Decoding is strict: one text for each value, so
 * that two readers cannot disagree; what is no such text is a failure of the world, since it comes from there. */
#include "lua/bind.h"
#include "lua/sandbox.h"

enum { TEXT_MAX = 4 << 20 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* One to three bytes. */
static void encode_group(char to[4], const unsigned char *p, size_t n) {
    unsigned bits = (unsigned)p[0] << 16 | (n > 1 ? (unsigned)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
    to[0] = alphabet[bits >> 18];
    to[1] = alphabet[bits >> 12 & 63];
    to[2] = '=';
    to[3] = '=';
    if (n > 1) to[2] = alphabet[bits >> 6 & 63];
    if (n > 2) to[3] = alphabet[bits & 63];
}

static int base64_encode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, (s.n + 2) / 3 * 4);
    size_t written = 0;
    for (size_t i = 0; i < s.n; i += 3, written += 4)
        encode_group(to + written, (const unsigned char *)s.p + i, s.n - i < 3 ? s.n - i : 3);
    luaL_pushresultsize(&b, written);
    return 1;
}

static int digit_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters into one to three bytes; 0: they are none. Only the last group has padding; bits behind the last
 * byte are zero. */
static size_t decode_group(char to[3], const char *p, bool last) {
    size_t n = p[3] != '=' ? 3 : p[2] != '=' ? 2 : 1;
    unsigned bits = 0;
    if (n < 3 && !last) return 0;
    for (size_t i = 0; i <= n; i++) {
        int value = digit_value(p[i]);
        if (value < 0) return 0;
        bits |= (unsigned)value << (18 - 6 * i);
    }
    to[0] = (char)(bits >> 16);
    to[1] = (char)(bits >> 8);
    to[2] = (char)bits;
    unsigned behind = n == 3 ? 0 : n == 2 ? bits & 0xff : bits & 0xffff;
    return behind ? 0 : n;
}

static int base64_decode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, s.n / 4 * 3 + 3);
    size_t written = 0;
    bool good = s.n % 4 == 0;
    for (size_t i = 0; good && i < s.n; i += 4) {
        size_t n = decode_group(to + written, s.p + i, i + 4 == s.n);
        good = n > 0;
        written += n;
    }
    luaL_pushresultsize(&b, good ? written : 0);
    return good ? 1 : fail_world_with(L, "bad_base64", "the text is not base64");
}

void bind_base64_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "encode", base64_encode }, { "decode", base64_decode }, { NULL, NULL } };
    luaL_newlib(L, functions);
    front_make(L, "gate.base64");
    lua_setfield(L, -2, "base64");
}
