/* `require "moongate_kit"`: one userdata for each rehearsal.
 *
 * There is one rehearsal at a time (rehearsal.h): opening another ends the former, whose uses raise from then on. What
 * happens while a rehearsal turns its loop is in kit_stubs.c. */
#include "kit/kit_inside.h"

#include <stdlib.h>

#define KIT_TYPE "moongate.rehearsal"

static struct kit *open_kit; /* the one that is open */

struct kit *kit_check(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (!kit->rehearsal) luaL_error(L, "the kit is closed");
    if (kit->L) luaL_error(L, "the kit is at work: this cannot be called within a stub");
    return kit;
}

/* ---- around every call that turns the loop */

static void begin(struct kit *kit, lua_State *L) { kit->L = L; }

static void end(struct kit *kit) {
    lua_State *L = kit->L;
    kit->L = NULL;
    if (kit->raised == LUA_NOREF) return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, kit->raised);
    luaL_unref(L, LUA_REGISTRYINDEX, kit->raised);
    kit->raised = LUA_NOREF;
    lua_error(L);
}

/* ---- open and close */

static void close_kit(struct kit *kit, lua_State *L) {
    if (!kit->rehearsal) return;
    kit->L = L;
    rehearsal_close(kit->rehearsal);
    kit->rehearsal = NULL;
    kit->L = NULL;
    luaL_unref(L, LUA_REGISTRYINDEX, kit->functions);
    luaL_unref(L, LUA_REGISTRYINDEX, kit->raised);
    kit->raised = LUA_NOREF;
    if (open_kit == kit) open_kit = NULL;
}

static int kit_gc(lua_State *L) {
    close_kit(luaL_checkudata(L, 1, KIT_TYPE), L);
    return 0;
}

static int push_errors(lua_State *L, struct errors *errors) {
    char *text = errors_text(errors);
    lua_pushnil(L);
    lua_pushstring(L, text);
    free(text);
    errors_fini(errors);
    return 2;
}

static void read_options(lua_State *L, struct kit *kit, struct rehearsal_options *o) {
    *o = (struct rehearsal_options){ .stubs = &kit_stubs, .with = kit };
    o->file = field_text(L, "file").p;
    o->text = field_text(L, "text");
    o->now = field_number(L, "now", 0);
    o->seed = (uint64_t)field_number(L, "seed", 1);
    lua_getfield(L, 2, "coverage");
    if (lua_toboolean(L, -1)) o->coverage = kit_coverage();
    luaL_argcheck(L, o->file, 2, "file is missing");
}

/* open{ file =, text =, now =, seed =, coverage =, connect =, answer =, bytes =, resolve = } */
static int kit_open(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_insert(L, 1); /* so that the options are at index 2 as in methods */
    if (open_kit && open_kit->L) return luaL_error(L, "the kit is at work: no other can be loaded within a stub");
    struct rehearsal_options options;
    struct kit *kit = lua_newuserdatauv(L, sizeof *kit, 0);
    *kit = (struct kit){ .raised = LUA_NOREF };
    luaL_setmetatable(L, KIT_TYPE);
    read_options(L, kit, &options);
    lua_pushvalue(L, 2);
    kit->functions = luaL_ref(L, LUA_REGISTRYINDEX);
    if (open_kit) close_kit(open_kit, L);
    struct errors errors;
    errors_init(&errors);
    begin(kit, L);
    kit->rehearsal = rehearsal_open(&options, &errors);
    if (!kit->rehearsal) {
        luaL_unref(L, LUA_REGISTRYINDEX, kit->functions);
        int pushed = push_errors(L, &errors);
        end(kit);
        return pushed;
    }
    open_kit = kit;
    char *warnings = errors_text(&errors);
    errors_fini(&errors);
    lua_pushvalue(L, 3);
    lua_pushstring(L, warnings);
    free(warnings);
    end(kit);
    return 2;
}

static struct slice check_text(lua_State *L, int arg) {
    struct slice s;
    s.p = luaL_checklstring(L, arg, &s.n);
    return s;
}

/* reload(file, text): true, or nil and the errors. */
static int kit_reload(lua_State *L) {
    struct kit *kit = kit_check(L);
    const char *file = luaL_checkstring(L, 2);
    struct slice text = lua_isnoneornil(L, 3) ? slice_make(NULL, 0) : check_text(L, 3);
    struct errors errors;
    errors_init(&errors);
    begin(kit, L);
    bool ok = rehearsal_reload(kit->rehearsal, file, text, &errors);
    if (!ok) {
        int pushed = push_errors(L, &errors);
        end(kit);
        return pushed;
    }
    errors_fini(&errors);
    end(kit);
    lua_pushboolean(L, true);
    return 1;
}

static int kit_close(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (kit->L) return luaL_error(L, "the kit is at work: it cannot be closed within a stub");
    close_kit(kit, L);
    return 0;
}

/* ---- a request */

static const struct site *nth_site(lua_State *L, const struct kit *kit, int index) {
    const struct generation *g = rehearsal_generation(kit->rehearsal);
    lua_Integer i = lua_tointeger(L, index);
    if (lua_isnil(L, index)) return NULL;
    luaL_argcheck(L, i >= 1 && i <= (lua_Integer)g->site_count, 2, "there is no such site");
    return g->sites[i - 1];
}

static void read_request(lua_State *L, const struct kit *kit, struct rehearsal_request *request) {
    *request = (struct rehearsal_request){ .bytes = field_text(L, "bytes") };
    request->method = method_of(field_text(L, "method"));
    request->host = field_text(L, "host");
    request->leave = field_number(L, "leave", 0);
    struct slice ip = field_text(L, "ip");
    uint16_t port = (uint16_t)field_number(L, "port", 40000);
    if (!addr_from_ip(&request->from, ip.p ? ip : SLICE("127.0.0.1"), port))
        luaL_error(L, "kit:request: client.ip is no IP address");
    const char *listener = field_text(L, "listen").p;
    lua_getfield(L, 2, "site");
    request->listener = rehearsal_listener(kit->rehearsal, listener, nth_site(L, kit, lua_gettop(L)));
    luaL_argcheck(L, request->bytes.p, 2, "bytes are missing");
    luaL_argcheck(L, request->listener >= 0, 2, "nothing of this config listens there");
}

static void push_answer(lua_State *L, const struct rehearsal_answer *answer) {
    lua_createtable(L, 0, 6);
    integer_set(L, "status", answer->status);
    slice_set(L, "body", answer->body);
    lua_pushboolean(L, answer->whole);
    lua_setfield(L, -2, "whole");
    if (answer->headers) header_list_push(L, answer->headers);
    else lua_newtable(L);
    lua_setfield(L, -2, "headers");
    if (answer->trailers) header_list_push(L, answer->trailers);
    else lua_newtable(L);
    lua_setfield(L, -2, "trailers");
    lua_newtable(L);
    for (lua_Integer i = 0; answer->interim[i]; i++) {
        lua_pushinteger(L, answer->interim[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "interim");
}

static void check_rest(const struct kit *kit, lua_State *L) {
    if (rehearsal_is_restless(kit->rehearsal))
        luaL_error(L, "something goes on for ever while no time passes (tasks that spawn tasks?)");
}

/* request{ bytes =, method =, ip =, port =, listen =, site =, leave = } -> answer, did the exchange end? */
static int kit_request(lua_State *L) {
    struct kit *kit = kit_check(L);
    struct rehearsal_request request;
    struct rehearsal_answer answer;
    luaL_checktype(L, 2, LUA_TTABLE);
    read_request(L, kit, &request);
    begin(kit, L);
    bool ended = rehearsal_request(kit->rehearsal, &request, &answer);
    end(kit);
    check_rest(kit, L);
    push_answer(L, &answer);
    lua_pushboolean(L, ended);
    return 2;
}

/* ---- the rest */

static int kit_advance(lua_State *L) {
    struct kit *kit = kit_check(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 2, "expected seconds");
    begin(kit, L);
    rehearsal_advance(kit->rehearsal, seconds);
    end(kit);
    check_rest(kit, L);
    return 0;
}

/* now() -> Unix seconds, monotonic seconds */
static int kit_now(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (!kit->rehearsal) return luaL_error(L, "the kit is closed");
    lua_pushnumber(L, rehearsal_now(kit->rehearsal));
    lua_pushnumber(L, rehearsal_clock(kit->rehearsal));
    return 2;
}

static int kit_drop(lua_State *L) {
    rehearsal_drop_idle(kit_check(L)->rehearsal);
    return 0;
}

static int kit_health(lua_State *L) {
    struct kit *kit = kit_check(L);
    const char *backend = luaL_optstring(L, 2, NULL), *server = luaL_checkstring(L, 3);
    lua_pushboolean(L, rehearsal_set_health(kit->rehearsal, backend, server, lua_toboolean(L, 4)));
    return 1;
}

/* sites() -> { { name =, hosts = { … }, backends = { … } }, … } */
static int kit_sites(lua_State *L) {
    struct kit *kit = kit_check(L);
    const struct generation *g = rehearsal_generation(kit->rehearsal);
    lua_createtable(L, (int)g->site_count, 0);
    for (unsigned i = 0; i < g->site_count; i++) {
        const struct site *site = g->sites[i];
        lua_createtable(L, 0, 3);
        text_set(L, "name", site->name);
        lua_newtable(L);
        for (lua_Integer h = 0; site->hosts[h]; h++) {
            lua_pushstring(L, site->hosts[h]);
            lua_rawseti(L, -2, h + 1);
        }
        lua_setfield(L, -2, "hosts");
        lua_newtable(L);
        for (unsigned b = 0; b < site->backend_count; b++) {
            lua_pushstring(L, site->backends[b]->name);
            lua_rawseti(L, -2, (lua_Integer)b + 1);
        }
        lua_setfield(L, -2, "backends");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int kit_sources(lua_State *L) {
    struct kit *kit = kit_check(L);
    const char *path;
    lua_newtable(L);
    for (size_t i = 0; (path = rehearsal_source(kit->rehearsal, i)); i++) {
        lua_pushstring(L, path);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    { "reload", kit_reload },   { "close", kit_close }, { "notes", kit_notes },   { "request", kit_request },
    { "advance", kit_advance }, { "now", kit_now },     { "health", kit_health }, { "sites", kit_sites },
    { "sources", kit_sources }, { "drop", kit_drop },   { NULL, NULL },
};

__attribute__((visibility("default"))) int luaopen_moongate_kit(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "open", kit_open }, { "coverage", kit_coverage_push }, { "json", kit_json }, { NULL, NULL }
    };
    if (luaL_newmetatable(L, KIT_TYPE)) {
        lua_pushcfunction(L, kit_gc);
        lua_setfield(L, -2, "__gc");
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    kit_push_null(L);
    lua_setfield(L, -2, "null");
    return 1;
}
