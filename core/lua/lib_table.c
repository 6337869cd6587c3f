/* The `table` library, written again because all of its functions loop as often as a number says that the script
 * gives, or that a lying __len does: every element is a step of the budget. Semantics, messages and metamethods are
 * those of Lua 5.4. */
#include "base/clock.h"
#include "lua/sandbox.h"

#include <limits.h>

/* What an operation needs of its argument, if that is no table. */
enum { READS = 1, WRITES = 2, COUNTS = 4 };

static bool has_metamethod(lua_State *L, int arg, const char *name) {
    if (luaL_getmetafield(L, arg, name) == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

static void check_table(lua_State *L, int arg, int needs) {
    if (lua_type(L, arg) == LUA_TTABLE) return;
    if (!(needs & READS && !has_metamethod(L, arg, "__index")) &&
        !(needs & WRITES && !has_metamethod(L, arg, "__newindex")) &&
        !(needs & COUNTS && !has_metamethod(L, arg, "__len")))
        return;
    luaL_checktype(L, arg, LUA_TTABLE);
}

static lua_Integer check_length(lua_State *L, int arg, int needs) {
    check_table(L, arg, needs | COUNTS);
    return luaL_len(L, arg);
}

static int table_insert(lua_State *L) {
    lua_Integer end = (lua_Integer)((lua_Unsigned)check_length(L, 1, READS | WRITES) + 1), at = end;
    int args = lua_gettop(L);
    if (args != 2 && args != 3) return luaL_error(L, "wrong number of arguments to 'insert'");
    if (args == 3) {
        at = luaL_checkinteger(L, 2);
        luaL_argcheck(L, (lua_Unsigned)at - 1u < (lua_Unsigned)end, 2, "position out of bounds");
    }
    for (lua_Integer i = end; i > at; i--) {
        budget_spend(L, 1);
        lua_geti(L, 1, i - 1);
        lua_seti(L, 1, i);
    }
    lua_seti(L, 1, at);
    return 0;
}

static int table_remove(lua_State *L) {
    lua_Integer size = check_length(L, 1, READS | WRITES), at = luaL_optinteger(L, 2, size);
    if (at != size) luaL_argcheck(L, (lua_Unsigned)at - 1u <= (lua_Unsigned)size, 2, "position out of bounds");
    lua_geti(L, 1, at);
    for (; at < size; at++) {
        budget_spend(L, 1);
        lua_geti(L, 1, at + 1);
        lua_seti(L, 1, at);
    }
    lua_pushnil(L);
    lua_seti(L, 1, at);
    return 1;
}

static int table_move(lua_State *L) {
    lua_Integer from = luaL_checkinteger(L, 2), end = luaL_checkinteger(L, 3), to = luaL_checkinteger(L, 4);
    int target = lua_isnoneornil(L, 5) ? 1 : 5;
    check_table(L, 1, READS);
    check_table(L, target, WRITES);
    lua_pushvalue(L, target);
    if (end < from) return 1;
    luaL_argcheck(L, from > 0 || end < LUA_MAXINTEGER + from, 3, "too many elements to move");
    lua_Integer n = end - from + 1;
    luaL_argcheck(L, to <= LUA_MAXINTEGER - n + 1, 4, "destination wrap around");
    bool forward = to > end || to <= from || (target != 1 && !lua_compare(L, 1, target, LUA_OPEQ));
    for (lua_Integer i = 0; i < n; i++) {
        lua_Integer at = forward ? i : n - 1 - i;
        budget_spend(L, 1);
        lua_geti(L, 1, from + at);
        lua_seti(L, target, to + at);
    }
    return 1;
}

static void add_field(lua_State *L, luaL_Buffer *buffer, lua_Integer i) {
    size_t n = 0;
    lua_geti(L, 1, i);
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid value (%s) at index %I in table for 'concat'", luaL_typename(L, -1), (LUAI_UACINT)i);
    lua_tolstring(L, -1, &n);
    budget_spend(L, 1 + n / 64);
    luaL_addvalue(buffer);
}

static int table_concat(lua_State *L) {
    lua_Integer size = check_length(L, 1, READS);
    size_t n;
    const char *separator = luaL_optlstring(L, 2, "", &n);
    lua_Integer i = luaL_optinteger(L, 3, 1), end = luaL_optinteger(L, 4, size);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (; i < end; i++) {
        add_field(L, &buffer, i);
        luaL_addlstring(&buffer, separator, n);
    }
    if (i == end) add_field(L, &buffer, i);
    luaL_pushresult(&buffer);
    return 1;
}

static int table_pack(lua_State *L) {
    int n = lua_gettop(L);
    budget_spend(L, (size_t)n);
    lua_createtable(L, n, 1);
    lua_insert(L, 1);
    for (int i = n; i >= 1; i--) lua_rawseti(L, 1, i);
    lua_pushinteger(L, n);
    lua_setfield(L, 1, "n");
    return 1;
}

static int table_unpack(lua_State *L) {
    lua_Integer i = luaL_optinteger(L, 2, 1);
    lua_Integer end = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
    if (i > end) return 0;
    lua_Unsigned n = (lua_Unsigned)end - (lua_Unsigned)i;
    if (n >= (lua_Unsigned)INT_MAX || !lua_checkstack(L, (int)++n)) return luaL_error(L, "too many results to unpack");
    for (lua_Unsigned k = 0; k < n; k++) {
        budget_spend(L, 1);
        lua_geti(L, 1, i + (lua_Integer)k);
    }
    return (int)n;
}

/* ---- sort: quicksort in place, the pivot chosen at random, so that no order of the elements is a bad one */

/* a < b for the values at these places of the stack, counted from its bottom. */
static bool is_less(lua_State *L, int a, int b) {
    budget_spend(L, 2);
    if (lua_isnil(L, 2)) {
        if (lua_type(L, a) == LUA_TSTRING) budget_spend(L, lua_rawlen(L, a) / 64);
        return lua_compare(L, a, b, LUA_OPLT);
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, a);
    lua_pushvalue(L, b);
    lua_call(L, 2, 1);
    bool less = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return less;
}

static void swap(lua_State *L, lua_Integer a, lua_Integer b) {
    lua_geti(L, 1, a);
    lua_geti(L, 1, b);
    lua_seti(L, 1, a);
    lua_seti(L, 1, b);
}

enum { PIVOT = 3, ELEMENT = 4 }; /* places of the stack */

/* Parts low..high round a pivot, which lies at `high` meanwhile; returns its place. With an honest order the first
 * search ends at the pivot at the latest, the second where the first one stands. */
static lua_Integer part(lua_State *L, lua_Integer low, lua_Integer high) {
    swap(L, low + (lua_Integer)(random_u64() % (lua_Unsigned)(high - low + 1)), high);
    lua_geti(L, 1, high);
    lua_Integer i = low, j = high - 1;
    for (;; i++, j--) {
        for (lua_geti(L, 1, i); is_less(L, ELEMENT, PIVOT); lua_settop(L, PIVOT), lua_geti(L, 1, i))
            if (++i > high) luaL_error(L, "invalid order function for sorting");
        lua_settop(L, PIVOT);
        for (lua_geti(L, 1, j); j > i && is_less(L, PIVOT, ELEMENT); lua_settop(L, PIVOT), lua_geti(L, 1, j)) j--;
        lua_settop(L, PIVOT);
        if (i >= j) break;
        swap(L, i, j);
    }
    lua_settop(L, PIVOT - 1);
    swap(L, i, high);
    return i;
}

static void sort_range(lua_State *L, lua_Integer low, lua_Integer high) {
    while (low < high) {
        lua_Integer middle = part(L, low, high);
        if (middle - low < high - middle) {
            sort_range(L, low, middle - 1);
            low = middle + 1;
        } else {
            sort_range(L, middle + 1, high);
            high = middle - 1;
        }
    }
}

static int table_sort(lua_State *L) {
    lua_Integer n = check_length(L, 1, READS | WRITES);
    if (n < 2) return 0;
    luaL_argcheck(L, n < INT_MAX, 1, "array too big");
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    luaL_checkstack(L, 40, "");
    sort_range(L, 1, n);
    return 0;
}

int lib_table_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "concat", table_concat }, { "insert", table_insert }, { "move", table_move },     { "pack", table_pack },
        { "remove", table_remove }, { "sort", table_sort },     { "unpack", table_unpack }, { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
