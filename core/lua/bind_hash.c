/* gate.hash, gate.equal and gate.base64: small functions of strings. */
#include "lua/bind.h"

#include "base/map.h"

#include <inttypes.h>
#include <stdio.h>

enum { NUMBER_TEXT = 32, SECRET_MAX = 1 << 20, HASHED_PER_STEP = 64 };

/* 1 and 1.0 are one number in Lua, and one here. */
static struct slice number_text(lua_State *L, char to[NUMBER_TEXT]) {
    int whole;
    lua_Integer n = lua_tointegerx(L, 1, &whole);
    int length = whole ? snprintf(to, NUMBER_TEXT, "%" PRId64, (int64_t)n)
                       : snprintf(to, NUMBER_TEXT, "%.17g", lua_tonumber(L, 1));
    return slice_make(to, (size_t)length);
}

/* The same for the same value in every process: 63 bits, so that `%` gives what one expects. */
static int gate_hash(lua_State *L) {
    char text[NUMBER_TEXT];
    struct slice s = { "", 0 };
    switch (lua_type(L, 1)) {
    case LUA_TNONE:
    case LUA_TNIL: break;
    case LUA_TBOOLEAN: s = slice_of(lua_toboolean(L, 1) ? "true" : "false"); break;
    case LUA_TNUMBER: s = number_text(L, text); break;
    case LUA_TSTRING: s = text_check(L, 1); break;
    default: return luaL_typeerror(L, 1, "string, number, boolean or nil");
    }
    budget_spend(L, s.n / HASHED_PER_STEP);
    lua_pushinteger(L, (lua_Integer)(hash_bytes_stable(s) & INT64_MAX));
    return 1;
}

static struct slice secret_check(lua_State *L, int arg) {
    if (lua_isnoneornil(L, arg)) return slice_make(NULL, 0);
    if (lua_type(L, arg) != LUA_TSTRING) luaL_typeerror(L, arg, "string or nil");
    struct slice s = text_check(L, arg);
    if (s.n > SECRET_MAX) luaL_argerror(L, arg, "longer than 1 MiB");
    budget_spend(L, s.n);
    return s;
}

/* Takes as long whatever differs; only the lengths show. */
static bool same_bytes(struct slice a, struct slice b) {
    if (!a.p || !b.p || a.n != b.n) return false;
    volatile unsigned char differs = 0;
    for (size_t i = 0; i < a.n; i++) differs |= (unsigned char)(a.p[i] ^ b.p[i]);
    return differs == 0;
}

static int gate_equal(lua_State *L) {
    struct slice a = secret_check(L, 1), b = secret_check(L, 2);
    lua_pushboolean(L, same_bytes(a, b));
    return 1;
}

void bind_hash_open(lua_State *L) {
    lua_pushcfunction(L, gate_hash);
    lua_setfield(L, -2, "hash");
    lua_pushcfunction(L, gate_equal);
    lua_setfield(L, -2, "equal");
    bind_base64_open(L);
}
