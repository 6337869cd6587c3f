/* `require "moongate_kit"`: one userdata for each rehearsal.
 *
 * While a rehearsal turns its loop, C calls back into the test: a connection is opened, a request has come to a stub.
 * Those functions run protected; the first error is kept, what waits for the stub is let down (the connection breaks),
 * and the error is raised when the call that turned the loop returns. So no longjmp ever passes through the core.
 *
 * There is one rehearsal at a time (rehearsal.h): opening another ends the former, whose uses raise from then on. */
#include "kit/kit.h"

#include "base/clock.h"
#include "server/rehearsal.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>

#define KIT_TYPE "moongate.rehearsal"

struct kit {
    struct rehearsal *rehearsal; /* NULL: closed */
    lua_State *L;                /* of the call under way; NULL: none */
    int functions;               /* registry reference: { connect =, answer =, bytes =, resolve = } */
    int raised;                  /* registry reference: what a stub raised; LUA_NOREF */
};

static struct kit *open_kit; /* the one that is open */

static struct kit *check_kit(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (!kit->rehearsal) luaL_error(L, "the kit is closed");
    if (kit->L) luaL_error(L, "the kit is at work: this cannot be called within a stub");
    return kit;
}

static struct slice check_text(lua_State *L, int arg) {
    struct slice s;
    s.p = luaL_checklstring(L, arg, &s.n);
    return s;
}

/* Field `name` of the table at index 2 onto the stack. */
static struct slice text_field(lua_State *L, const char *name) {
    struct slice s = { NULL, 0 };
    if (lua_getfield(L, 2, name) != LUA_TNIL) s.p = luaL_checklstring(L, -1, &s.n);
    return s; /* the table keeps it */
}

static double number_field(lua_State *L, const char *name, double missing) {
    double n = lua_getfield(L, 2, name) == LUA_TNIL ? missing : luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return n;
}

static void push_slice(lua_State *L, struct slice s) {
    if (s.p) lua_pushlstring(L, s.p, s.n);
    else lua_pushnil(L);
}

static void set_text(lua_State *L, const char *field, const char *text) {
    lua_pushstring(L, text); /* NULL: nil */
    lua_setfield(L, -2, field);
}

static void set_slice(lua_State *L, const char *field, struct slice s) {
    push_slice(L, s);
    lua_setfield(L, -2, field);
}

static void set_number(lua_State *L, const char *field, double n) {
    lua_pushnumber(L, n);
    lua_setfield(L, -2, field);
}

static void set_integer(lua_State *L, const char *field, lua_Integer n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, field);
}

/* { { name, value }, … } */
static void push_headers(lua_State *L, const struct headers *headers) {
    lua_newtable(L);
    lua_Integer n = 0;
    headers_each(h, headers) {
        lua_createtable(L, 2, 0);
        push_slice(L, h->name);
        lua_rawseti(L, -2, 1);
        push_slice(L, h->value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, ++n);
    }
}

/* ---- Stubs */

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
    set_text(L, "place", rehearsal_play_place(play));
    set_text(L, "server", rehearsal_play_server(play));
    set_slice(L, "method", r->method_name);
    set_slice(L, "target", r->target.raw);
    set_slice(L, "body", rehearsal_play_body(play));
    set_number(L, "at", clock_monotonic()); /* the rehearsal's */
    push_headers(L, &r->headers);
    lua_setfield(L, -2, "headers");
    push_headers(L, &r->trailers);
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

static const struct rehearsal_stubs stubs = { kit_on_connect, kit_on_answer, kit_on_bytes, kit_on_resolve };

/* ---- Around every call that turns the loop */

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

static int rehearsal_gc(lua_State *L) {
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
    *o = (struct rehearsal_options){ .stubs = &stubs, .with = kit };
    o->file = text_field(L, "file").p;
    o->text = text_field(L, "text");
    o->now = number_field(L, "now", 0);
    o->seed = (uint64_t)number_field(L, "seed", 1);
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

/* reload(file, text): true, or nil and the errors. */
static int rehearsal_lua_reload(lua_State *L) {
    struct kit *kit = check_kit(L);
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

static int rehearsal_lua_close(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (kit->L) return luaL_error(L, "the kit is at work: it cannot be closed within a stub");
    close_kit(kit, L);
    return 0;
}

/* ---- What was observed */

static void push_changes(lua_State *L, const struct change_note *change) {
    lua_newtable(L);
    for (lua_Integer n = 1; change; change = change->next, n++) {
        lua_createtable(L, 0, 3);
        set_text(L, "field", change->field);
        set_slice(L, "before", change->before);
        set_slice(L, "after", change->after);
        lua_rawseti(L, -2, n);
    }
}

static void push_hook(lua_State *L, const struct hook_note *h) {
    lua_createtable(L, 0, 9);
    set_text(L, "hook", hook_name(h->hook));
    set_text(L, "policy", h->path);
    set_text(L, "verdict", h->verdict);
    if (h->status) set_integer(L, "status", h->status);
    if (h->picked.p) set_slice(L, "picked", h->picked);
    if (h->key.p) set_slice(L, "key", h->key);
    set_text(L, "error", h->error);
    set_number(L, "time", h->seconds);
    push_changes(L, h->changes);
    lua_setfield(L, -2, "changes");
}

static void push_exchange(lua_State *L, const struct exchange_note *x) {
    lua_createtable(L, 0, 10);
    set_text(L, "id", x->id);
    set_text(L, "site", x->site);
    set_text(L, "source", x->source);
    set_text(L, "error", x->word);
    set_text(L, "failed_hook", x->failed_hook);
    set_number(L, "time", x->seconds);
    set_integer(L, "tries", x->tries);
    if (x->cache_key.p) set_slice(L, "cache_key", x->cache_key);
    set_text(L, "cache", x->cache);
    lua_newtable(L);
    lua_Integer n = 0;
    for (const struct tried_note *t = x->tried; t; t = t->next) {
        lua_createtable(L, 0, 2);
        set_text(L, "backend", t->backend);
        set_text(L, "server", t->server);
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "tried");
}

/* notes() -> hooks, lines, exchanges: those since the last call, but for those that a request forgot. */
static int rehearsal_lua_notes(lua_State *L) {
    struct kit *kit = check_kit(L);
    const struct rehearsal_notes *notes = rehearsal_notes(kit->rehearsal);
    lua_Integer n = 0;
    lua_newtable(L);
    for (const struct hook_note *h = notes->hooks; h; h = h->next) {
        push_hook(L, h);
        lua_rawseti(L, -2, ++n);
    }
    lua_newtable(L);
    n = 0;
    for (const struct rehearsal_line *line = notes->lines; line; line = line->next) {
        lua_createtable(L, 0, 2);
        set_text(L, "level", line->level);
        set_text(L, "text", line->text);
        lua_rawseti(L, -2, ++n);
    }
    lua_newtable(L);
    n = 0;
    for (const struct exchange_note *x = notes->exchanges; x; x = x->next) {
        push_exchange(L, x);
        lua_rawseti(L, -2, ++n);
    }
    rehearsal_forget(kit->rehearsal);
    return 3;
}

/* ---- A request */

static const struct site *nth_site(lua_State *L, const struct kit *kit, int index) {
    const struct generation *g = rehearsal_generation(kit->rehearsal);
    lua_Integer i = lua_tointeger(L, index);
    if (lua_isnil(L, index)) return NULL;
    luaL_argcheck(L, i >= 1 && i <= (lua_Integer)g->site_count, 2, "there is no such site");
    return g->sites[i - 1];
}

static void read_request(lua_State *L, const struct kit *kit, struct rehearsal_request *request) {
    *request = (struct rehearsal_request){ .bytes = text_field(L, "bytes") };
    request->method = method_of(text_field(L, "method"));
    request->host = text_field(L, "host");
    request->leave = number_field(L, "leave", 0);
    struct slice ip = text_field(L, "ip");
    uint16_t port = (uint16_t)number_field(L, "port", 40000);
    if (!addr_from_ip(&request->from, ip.p ? ip : SLICE("127.0.0.1"), port))
        luaL_error(L, "kit:request: client.ip is no IP address");
    const char *listener = text_field(L, "listen").p;
    lua_getfield(L, 2, "site");
    request->listener = rehearsal_listener(kit->rehearsal, listener, nth_site(L, kit, lua_gettop(L)));
    luaL_argcheck(L, request->bytes.p, 2, "bytes are missing");
    luaL_argcheck(L, request->listener >= 0, 2, "nothing of this config listens there");
}

static void push_answer(lua_State *L, const struct rehearsal_answer *answer) {
    lua_createtable(L, 0, 6);
    set_integer(L, "status", answer->status);
    set_slice(L, "body", answer->body);
    lua_pushboolean(L, answer->whole);
    lua_setfield(L, -2, "whole");
    if (answer->headers) push_headers(L, answer->headers);
    else lua_newtable(L);
    lua_setfield(L, -2, "headers");
    if (answer->trailers) push_headers(L, answer->trailers);
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
static int rehearsal_lua_request(lua_State *L) {
    struct kit *kit = check_kit(L);
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

/* ---- The rest */

static int rehearsal_lua_advance(lua_State *L) {
    struct kit *kit = check_kit(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 2, "expected seconds");
    begin(kit, L);
    rehearsal_advance(kit->rehearsal, seconds);
    end(kit);
    check_rest(kit, L);
    return 0;
}

/* now() -> Unix seconds, monotonic seconds */
static int rehearsal_lua_now(lua_State *L) {
    struct kit *kit = luaL_checkudata(L, 1, KIT_TYPE);
    if (!kit->rehearsal) return luaL_error(L, "the kit is closed");
    lua_pushnumber(L, rehearsal_now(kit->rehearsal));
    lua_pushnumber(L, rehearsal_clock(kit->rehearsal));
    return 2;
}

static int rehearsal_lua_drop(lua_State *L) {
    rehearsal_drop_idle(check_kit(L)->rehearsal);
    return 0;
}

static int rehearsal_lua_health(lua_State *L) {
    struct kit *kit = check_kit(L);
    const char *backend = luaL_optstring(L, 2, NULL), *server = luaL_checkstring(L, 3);
    lua_pushboolean(L, rehearsal_set_health(kit->rehearsal, backend, server, lua_toboolean(L, 4)));
    return 1;
}

/* sites() -> { { name =, hosts = { … }, backends = { … } }, … } */
static int rehearsal_lua_sites(lua_State *L) {
    struct kit *kit = check_kit(L);
    const struct generation *g = rehearsal_generation(kit->rehearsal);
    lua_createtable(L, (int)g->site_count, 0);
    for (unsigned i = 0; i < g->site_count; i++) {
        const struct site *site = g->sites[i];
        lua_createtable(L, 0, 3);
        set_text(L, "name", site->name);
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

static int rehearsal_lua_sources(lua_State *L) {
    struct kit *kit = check_kit(L);
    const char *path;
    lua_newtable(L);
    for (size_t i = 0; (path = rehearsal_source(kit->rehearsal, i)); i++) {
        lua_pushstring(L, path);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    { "reload", rehearsal_lua_reload },
    { "close", rehearsal_lua_close },
    { "notes", rehearsal_lua_notes },
    { "request", rehearsal_lua_request },
    { "advance", rehearsal_lua_advance },
    { "now", rehearsal_lua_now },
    { "health", rehearsal_lua_health },
    { "sites", rehearsal_lua_sites },
    { "sources", rehearsal_lua_sources },
    { "drop", rehearsal_lua_drop },
    { NULL, NULL },
};

__attribute__((visibility("default"))) int luaopen_moongate_kit(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "open", kit_open }, { "coverage", kit_coverage_push }, { "json", kit_json }, { NULL, NULL }
    };
    if (luaL_newmetatable(L, KIT_TYPE)) {
        lua_pushcfunction(L, rehearsal_gc);
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
