/* gate.base64.encode, gate.base64.decode: RFC 4648 4, with padding. What is no such text is a failure of the world,
 * since it comes from there. */
#include "lua/bind.h"
#include "lua/sandbox.h"

#include "base/base64.h"

enum { TEXT_MAX = 4 << 20 };

static int gate_base64_encode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, base64_room(s.n));
    luaL_pushresultsize(&b, base64_encode(to, s, BASE64_PADDED));
    return 1;
}

static int gate_base64_decode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, base64_bytes(s.n));
    size_t n;
    bool good = base64_decode(to, &n, s, BASE64_PADDED);
    luaL_pushresultsize(&b, good ? n : 0);
    return good ? 1 : fail_world_with(L, "bad_base64", "the text is not base64");
}

void bind_base64_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "encode", gate_base64_encode },
                                          { "decode", gate_base64_decode },
                                          { NULL, NULL } };
    luaL_newlib(L, functions);
    front_make(L, "gate.base64");
    lua_setfield(L, -2, "base64");
}
