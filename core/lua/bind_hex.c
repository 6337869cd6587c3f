/* gate.hex.encode, gate.hex.decode: bytes as two hexadecimal digits each (RFC 4648 8), written in lower case, read in
 * either. */
#include "lua/bind.h"

#include "base/base64.h"
#include "http/grammar.h"
#include "lua/sandbox.h"

enum { BYTES_MAX = 4 << 20 };

static int hex_encode(lua_State *L) {
    struct slice s = string_check(L, 1, BYTES_MAX);
    luaL_Buffer b;
    hex_write(luaL_buffinitsize(L, &b, s.n * 2), s);
    luaL_pushresultsize(&b, s.n * 2);
    return 1;
}

static bool is_hex(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_HEX)) return false;
    return s.n % 2 == 0;
}

static int hex_decode(lua_State *L) {
    struct slice s = string_check(L, 1, 2 * BYTES_MAX);
    if (!is_hex(s)) return fail_world_with(L, "bad_hex", "the text is not pairs of hexadecimal digits");
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, s.n / 2);
    for (size_t i = 0; i < s.n; i += 2) *to++ = (char)(hex_value(s.p[i]) << 4 | hex_value(s.p[i + 1]));
    luaL_pushresultsize(&b, s.n / 2);
    return 1;
}

void bind_hex_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "encode", hex_encode }, { "decode", hex_decode }, { NULL, NULL } };
    luaL_newlib(L, functions);
    front_make(L, "gate.hex");
    lua_setfield(L, -2, "hex");
}
