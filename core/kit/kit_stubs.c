/* What C asks the test while a rehearsal turns its loop: a connection is opened, a name is looked up, a request or
 * bytes have come to a stub.
 *
 * These functions run protected; the first error is kept, what waits for the stub is let down (the connection breaks),
 * and the error is raised when the call that turned the loop returns. So no longjmp ever passes through the
 * core. */
#include "kit/kit_inside.h"

#include "base/clock.h"

#include <errno.h>

/* Calls a function of the test with the arguments on top; false: it raised. Leaves one result. */
static bool call_stub(struct kit *kit, const char *name, int args) {
    lua_State *L = kit->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, kit->functions);
    lua_getfield(L, -1, name);
    lua_replace(L, -2);
    lua_insert(L, -1 - args);
    if (lua_pcall(L, args, 1, 0) == LUA_OK) return true;
    if (kit->raised == LUA_NOREF) kit->raised = luaL_ref(L, LUA_REGISTRYINDEX);
    else lua_pop(L, 1);
    return false;
}

static int kit_on_connect(void *with, const char *place, const char *server) {
    static const struct {
        const char *word;
        int error;
    } words[] = { { "connect_refused", ECONNREFUSED },
                  { "connect_failed", EHOSTUNREACH },
                  { "connect_timeout", ETIMEDOUT } };
    struct kit *kit = with;
    lua_State *L = kit->L;
    luaL_checkstack(L, 8, NULL);
    lua_pushstring(L, place);
    lua_pushstring(L, server);
    lua_pushnumber(L, clock_monotonic());
    if (!call_stub(kit, "connect", 3)) return ECONNREFUSED;
    const char *word = lua_tostring(L, -1);
    int error = 0;
    for (size_t i = 0; word && i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i].word) == 0) error = words[i].error;
    lua_pop(L, 1);
    return error;
}

static unsigned kit_on_resolve(void *with, const char *name, struct addr *to, unsigned most) {
    struct kit *kit = with;
    lua_State *L = kit->L;
    unsigned n = 0;
    luaL_checkstack(L, 8, NULL);
    lua_pushstring(L, name);
    if (!call_stub(kit, "resolve", 1)) return 0;
    for (lua_Integer i = 1; lua_istable(L, -1) && n < most; i++) {
        size_t size;
        lua_rawgeti(L, -1, i);
        const char *ip = lua_tolstring(L, -1, &size);
        bool ok = ip && addr_from_ip(&to[n], slice_make(ip, size), 0);
        lua_pop(L, 1);
        if (!ok) break;
        n++;
    }
    lua_pop(L, 1);
    return n;
}

static void push_request(lua_State *L, const struct play *play) {
    const struct request *r = rehearsal_play_request(play);
    lua_createtable(L, 0, 8);
    text_set(L, "place", rehearsal_play_place(play));
    text_set(L, "server", rehearsal_play_server(play));
    slice_set(L, "method", r->method_name);
    slice_set(L, "target", r->target.raw);
    slice_set(L, "body", rehearsal_play_body(play));
    number_set(L, "at", clock_monotonic()); /* the rehearsal's */
    header_list_push(L, &r->headers);
    lua_setfield(L, -2, "headers");
    header_list_push(L, &r->trailers);
    lua_setfield(L, -2, "trailers");
}

/* The list on top: strings are sent, numbers are pauses; `ends`: "close" or "reset". */
static void take_answer(lua_State *L, struct play *play) {
    if (!lua_istable(L, -1)) return;
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
        size_t n;
        if (lua_type(L, -1) == LUA_TNUMBER) {
            rehearsal_play_pause(play, lua_tonumber(L, -1));
        } else {
            const char *bytes = lua_tolstring(L, -1, &n);
            if (bytes) rehearsal_play_bytes(play, slice_make(bytes, n));
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    const char *ends = lua_getfield(L, -1, "ends") == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (strcmp(ends, "close") == 0) rehearsal_play_close(play);
    if (strcmp(ends, "reset") == 0) rehearsal_play_reset(play);
    lua_pop(L, 1);
}

static void kit_on_answer(void *with, struct play *play) {
    struct kit *kit = with;
    lua_State *L = kit->L;
    luaL_checkstack(L, 12, NULL);
    push_request(L, play);
    if (!call_stub(kit, "answer", 1)) {
        rehearsal_play_reset(play);
        return;
    }
    take_answer(L, play);
    lua_pop(L, 1);
}

static void kit_on_bytes(void *with, struct play *play, struct slice bytes, bool opening) {
    struct kit *kit = with;
    lua_State *L = kit->L;
    luaL_checkstack(L, 12, NULL);
    lua_pushlightuserdata(L, play);
    lua_pushstring(L, rehearsal_play_server(play));
    lua_pushlstring(L, bytes.n ? bytes.p : "", bytes.n);
    lua_pushboolean(L, opening);
    if (!call_stub(kit, "bytes", 4)) {
        rehearsal_play_reset(play);
        return;
    }
    take_answer(L, play);
    lua_pop(L, 1);
}

const struct rehearsal_stubs kit_stubs = { kit_on_connect, kit_on_answer, kit_on_bytes, kit_on_resolve };
