/* The `coroutine` table of scripts. To a script it is plain Lua's; inside it does two things more: resume and wrap
 * tell the budget which coroutine runs, and they pass a wait outward, so that gate.fetch may stand in a script's own
 * generator (run.c tells how).
 *
 * A coroutine in which a wait is under way looks "normal" to others: it has not yielded, so nobody may resume or
 * close it. A hook itself cannot yield, as there is nobody to yield to. */
#include "lua/run.h"
#include "lua/sandbox.h"

/* What resuming came to. */
enum { RESUME_FAILED = -1, RESUME_PASSES = -2 };

static lua_State *check_coroutine(lua_State *L, int arg) {
    lua_State *co = lua_tothread(L, arg);
    luaL_argexpected(L, co, arg, "coroutine");
    return co;
}

static const char *status_of(lua_State *L, lua_State *co) {
    if (L == co) return "running";
    if (run_is_linked(co)) return "normal";
    lua_Debug frame;
    switch (lua_status(co)) {
    case LUA_YIELD: return "suspended";
    case LUA_OK:
        if (lua_getstack(co, 0, &frame)) return "normal";
        return lua_gettop(co) == 0 ? "dead" : "suspended";
    default: return "dead";
    }
}

static bool can_resume(lua_State *L, lua_State *co) {
    if (L == co || run_is_linked(co)) return false;
    if (lua_status(co) == LUA_YIELD) return true;
    lua_Debug frame;
    return lua_status(co) == LUA_OK && !lua_getstack(co, 0, &frame) && lua_gettop(co) > 0;
}

/* Notes where no wait can pass: in the outermost coroutine with a C function on its stack. */
static bool raise_barrier(lua_State *L) {
    struct hook_run *run = run_of(L);
    if (!run || lua_isyieldable(L)) return false;
    if (run->barrier++ == 0) run->blocked = L;
    return true;
}

/* Resumes and moves the results, or the error, to L: returns their number or one of the above. */
static int resume(lua_State *L, lua_State *co, int args) {
    struct state *state = state_of(L);
    bool barrier = raise_barrier(L);
    int results;
    meter_switch(&state->meter, co);
    int status = lua_resume(co, L, args, &results);
    meter_switch(&state->meter, L);
    if (barrier) state->running->barrier--;
    if (state->passing && lua_isyieldable(L)) {
        run_link(L, co);
        return RESUME_PASSES;
    }
    state->passing = state->killing = false;
    if (state->meter.raised && status != LUA_OK && status != LUA_YIELD) coroutine_ruin(co);
    budget_check(L);
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return RESUME_FAILED;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return RESUME_FAILED;
    }
    lua_xmove(co, L, results);
    return results;
}

/* The first time: with `args` values on top of L as arguments. */
static int begin_resume(lua_State *L, lua_State *co, int args) {
    if (!can_resume(L, co)) {
        const char *status = status_of(L, co);
        lua_pushfstring(L, "cannot resume %s coroutine",
                        status[0] == 's' || status[0] == 'd' ? "dead" : "non-suspended");
        return RESUME_FAILED;
    }
    if (!lua_checkstack(co, args)) {
        lua_pushliteral(L, "too many arguments to resume");
        return RESUME_FAILED;
    }
    lua_xmove(L, co, args);
    return resume(L, co, args);
}

/* ---- resume */

static int resume_k(lua_State *L, int status, lua_KContext context);

static int end_resume(lua_State *L, int results) {
    if (results == RESUME_PASSES) return lua_yieldk(L, 0, 0, resume_k);
    lua_pushboolean(L, results >= 0);
    if (results < 0) results = 1;
    lua_insert(L, -(results + 1));
    return results + 1;
}

static int resume_k(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    run_link(L, NULL);
    return end_resume(L, resume(L, lua_tothread(L, 1), 0));
}

static int coroutine_resume(lua_State *L) {
    lua_State *co = check_coroutine(L, 1);
    return end_resume(L, begin_resume(L, co, lua_gettop(L) - 1));
}

/* ---- Closing */

/* lua_resetthread of Lua 5.4.4 does not know who calls it, so handlers that close coroutines that have handlers would
 * go on until the C stack is full. */
enum { RESETS_MAX = 8 };

static bool is_ruined(lua_State *L, lua_State *co) {
    struct state *state = state_of(L);
    if (!state->any_ruined) return false;
    lua_checkstack(co, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, state->ruined);
    lua_pushthread(co);
    lua_xmove(co, L, 1);
    bool ruined = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 2);
    return ruined;
}

void coroutine_ruin(lua_State *co) {
    struct state *state = state_of(co);
    bool script = state->memory.script;
    state->memory.script = false;
    state->any_ruined = true;
    lua_State *L = state->L;
    lua_checkstack(co, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, state->ruined);
    lua_pushthread(co);
    lua_xmove(co, L, 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    state->memory.script = script;
}

int coroutine_reset(lua_State *L, lua_State *co) {
    struct state *state = state_of(L);
    if (is_ruined(L, co)) {
        lua_pushliteral(co, "over its CPU budget");
        return LUA_ERRRUN;
    }
    if (state->resets >= RESETS_MAX) return luaL_error(L, "C stack overflow (<close> handlers that close coroutines)");
    state->resets++;
    meter_switch(&state->meter, co);
    int status = lua_resetthread(co);
    meter_switch(&state->meter, L);
    state->resets--;
    return status;
}

/* ---- wrap */

static int wrap_k(lua_State *L, int status, lua_KContext context);

static int end_wrap(lua_State *L, lua_State *co, int results) {
    if (results == RESUME_PASSES) return lua_yieldk(L, 0, 0, wrap_k);
    if (results >= 0) return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* it died of this error: its <close> handlers run now */
        lua_checkstack(co, 2);
        lua_pushvalue(L, -1);
        lua_xmove(L, co, 1);
        status = coroutine_reset(L, co);
        if (status != LUA_OK) lua_xmove(co, L, 1); /* theirs, if they failed */
        budget_check(L);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int wrap_k(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    run_link(L, NULL);
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    return end_wrap(L, co, resume(L, co, 0));
}

static int call_wrapped(lua_State *L) {
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    return end_wrap(L, co, begin_resume(L, co, lua_gettop(L)));
}

/* ---- The rest */

static int coroutine_create(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int coroutine_wrap(lua_State *L) {
    coroutine_create(L);
    lua_pushcclosure(L, call_wrapped, 1);
    return 1;
}

/* The hook itself: what a script cannot yield out of. */
static bool is_root(lua_State *L) {
    struct hook_run *run = run_of(L);
    return run ? run->current && run->current->L == L : state_of(L)->L == L;
}

static int coroutine_yield(lua_State *L) {
    if (is_root(L)) return luaL_error(L, "attempt to yield from outside a coroutine");
    return lua_yield(L, lua_gettop(L));
}

static int coroutine_isyieldable(lua_State *L) {
    lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
    lua_pushboolean(L, lua_isyieldable(co) && !is_root(co));
    return 1;
}

static int coroutine_running(lua_State *L) {
    lua_pushthread(L);
    lua_pushboolean(L, is_root(L));
    return 2;
}

static int coroutine_status(lua_State *L) {
    lua_pushstring(L, status_of(L, check_coroutine(L, 1)));
    return 1;
}

static int coroutine_close(lua_State *L) {
    lua_State *co = check_coroutine(L, 1);
    const char *status = status_of(L, co);
    if (status[0] == 'r' || status[0] == 'n') return luaL_error(L, "cannot close a %s coroutine", status);
    int result = coroutine_reset(L, co);
    budget_check(L);
    lua_pushboolean(L, result == LUA_OK);
    if (result == LUA_OK) return 1;
    lua_xmove(co, L, 1);
    return 2;
}

int lib_coroutine_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "close", coroutine_close },   { "create", coroutine_create },   { "isyieldable", coroutine_isyieldable },
        { "resume", coroutine_resume }, { "running", coroutine_running }, { "status", coroutine_status },
        { "wrap", coroutine_wrap },     { "yield", coroutine_yield },     { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
