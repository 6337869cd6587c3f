/* core/net for specs: loops, tasks, graves, deadlines, turn hooks, addresses. A loop's objects stay alive until they or
 * the loop are closed. An error in a handler is raised by the call that runs the loop. */
#include "module_net.h"

#include "base/clock.h"
#include "module.h"
#include "net/addr.h"
#include "net/egress.h"
#include "net/tls.h"

#include <stdlib.h>

static const char LOOP[] = "moongate_core.loop";
static const char TASK[] = "moongate_core.task", GRAVE[] = "moongate_core.grave", HOOK[] = "moongate_core.turn_hook";
static const char DEADLINE[] = "moongate_core.deadline", WATCH[] = "moongate_core.watch";

/* ---- handles */

struct home *home_check(lua_State *L, int at) {
    struct home *home = luaL_checkudata(L, at, LOOP);
    luaL_argcheck(L, home->open, at, "the loop is closed");
    return home;
}

void *handle_make(lua_State *L, struct home *home, const char *type, size_t size, int handlers,
                  void (*close)(struct handle *)) {
    handlers = lua_absindex(L, handlers);
    struct handle *h = lua_newuserdatauv(L, size, 1);
    memset(h, 0, size);
    h->home = home;
    h->close = close;
    luaL_setmetatable(L, type);
    if (lua_isfunction(L, handlers)) {
        lua_createtable(L, 0, 1);
        lua_pushvalue(L, handlers);
        lua_setfield(L, -2, "call");
    } else {
        lua_pushvalue(L, handlers);
    }
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, -1);
    h->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    list_push(&home->handles, &h->node);
    return h;
}

void handle_close(struct handle *h) {
    if (!h->close) return;
    void (*close)(struct handle *) = h->close;
    h->close = NULL;
    list_remove(&h->node);
    close(h);
    luaL_unref(h->home->L, LUA_REGISTRYINDEX, h->ref);
    h->ref = LUA_NOREF;
}

bool handle_push_method(struct handle *h, const char *name) {
    lua_State *L = h->home->L;
    luaL_checkstack(L, 20, "handlers");
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref);
    if (!lua_isuserdata(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    lua_getiuservalue(L, -1, 1);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    lua_insert(L, -2);
    if (lua_isfunction(L, -2)) return true;
    lua_pop(L, 2);
    return false;
}

void handle_run(struct handle *h, int arguments) {
    struct home *home = h->home;
    lua_State *L = home->L;
    if (lua_pcall(L, arguments + 1, 0, 0) == LUA_OK) return;
    if (home->error == LUA_NOREF) home->error = luaL_ref(L, LUA_REGISTRYINDEX);
    else lua_pop(L, 1);
}

void handle_call(struct handle *h, const char *name) {
    if (handle_push_method(h, name)) handle_run(h, 0);
}

static int handle_on_close(lua_State *L) {
    struct handle *h = lua_touserdata(L, 1);
    if (!h->close) return 0; /* closed before, perhaps with its loop */
    h->home->L = L;
    handle_close(h);
    return 0;
}

void module_type(lua_State *L, const char *type, const luaL_Reg *methods) {
    luaL_newmetatable(L, type);
    lua_createtable(L, 0, 8);
    lua_pushcfunction(L, handle_on_close);
    lua_setfield(L, -2, "close");
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

/* ---- tasks, graves, hooks */

struct lua_task {
    struct handle handle;
    struct task task;
};

static void task_on_advance(struct task *t) { handle_call(&container_of(t, struct lua_task, task)->handle, "call"); }

static void close_task(struct handle *h) { task_forget(&((struct lua_task *)h)->task); }

static int loop_task(lua_State *L) {
    struct lua_task *t = handle_make(L, home_check(L, 1), TASK, sizeof *t, 2, close_task);
    task_init(&t->task, task_on_advance);
    return 1;
}

static int task_on_wake(lua_State *L) {
    struct lua_task *t = luaL_checkudata(L, 1, TASK);
    task_wake(&t->handle.home->loop, &t->task);
    return 0;
}

static int task_on_long(lua_State *L) {
    struct lua_task *t = luaL_checkudata(L, 1, TASK);
    t->handle.home->loop.long_task = true;
    return 0;
}

static int task_on_forget(lua_State *L) {
    struct lua_task *t = luaL_checkudata(L, 1, TASK);
    task_forget(&t->task);
    return 0;
}

static const luaL_Reg task_methods[] = {
    { "wake", task_on_wake }, { "long", task_on_long }, { "forget", task_on_forget }, { NULL, NULL }
};

/* A grave's memory is really freed when it is buried, so that a sanitizer sees who comes too late. */
struct corpse {
    struct grave grave;
    struct handle *handle;
};

struct lua_grave {
    struct handle handle;
    struct corpse *corpse;
};

static void corpse_on_bury(struct grave *g) {
    struct corpse *corpse = container_of(g, struct corpse, grave);
    struct lua_grave *l = (struct lua_grave *)corpse->handle;
    l->corpse = NULL;
    free(corpse);
    handle_call(&l->handle, "call");
}

static void close_grave(struct handle *h) {
    struct lua_grave *g = (struct lua_grave *)h;
    if (g->corpse) list_remove(&g->corpse->grave.node);
    free(g->corpse);
    g->corpse = NULL;
}

static int loop_grave(lua_State *L) {
    struct lua_grave *g = handle_make(L, home_check(L, 1), GRAVE, sizeof *g, 2, close_grave);
    g->corpse = malloc(sizeof *g->corpse);
    g->corpse->handle = &g->handle;
    grave_init(&g->corpse->grave, corpse_on_bury);
    return 1;
}

static int grave_on_bury(lua_State *L) {
    struct lua_grave *g = luaL_checkudata(L, 1, GRAVE);
    luaL_argcheck(L, g->corpse, 1, "is buried");
    loop_bury(&g->handle.home->loop, &g->corpse->grave);
    return 0;
}

static const luaL_Reg grave_methods[] = { { "bury", grave_on_bury }, { NULL, NULL } };

struct lua_hook {
    struct handle handle;
    struct turn_hook hook;
};

static void hook_on_turn(struct turn_hook *hook) {
    handle_call(&container_of(hook, struct lua_hook, hook)->handle, "call");
}

static void close_hook(struct handle *h) { turn_hook_remove(&((struct lua_hook *)h)->hook); }

static int loop_hook(lua_State *L) {
    struct home *home = home_check(L, 1);
    struct lua_hook *hook = handle_make(L, home, HOOK, sizeof *hook, 2, close_hook);
    hook->hook.run = hook_on_turn;
    turn_hook_add(&home->loop, &hook->hook);
    return 1;
}

static const luaL_Reg hook_methods[] = { { NULL, NULL } };

/* ---- deadlines */

struct lua_deadline {
    struct handle handle;
    struct deadline deadline;
};

static void deadline_on_time(struct deadline *d) {
    handle_call(&container_of(d, struct lua_deadline, deadline)->handle, "call");
}

static void close_deadline(struct handle *h) { deadline_fini(&((struct lua_deadline *)h)->deadline); }

static int loop_deadline(lua_State *L) {
    struct home *home = home_check(L, 1);
    struct lua_deadline *d = handle_make(L, home, DEADLINE, sizeof *d, 2, close_deadline);
    deadline_init(&d->deadline, &home->loop, deadline_on_time);
    return 1;
}

static int deadline_on_set(lua_State *L) {
    struct lua_deadline *d = luaL_checkudata(L, 1, DEADLINE);
    deadline_set(&d->deadline, luaL_checknumber(L, 2));
    return 0;
}

static int deadline_on_clear(lua_State *L) {
    struct lua_deadline *d = luaL_checkudata(L, 1, DEADLINE);
    deadline_clear(&d->deadline);
    return 0;
}

/* When its timer looks next, loop time; nil while none runs. */
static int deadline_on_fires(lua_State *L) {
    struct lua_deadline *d = luaL_checkudata(L, 1, DEADLINE);
    if (!ev_is_active(&d->deadline.timer)) return 0;
    lua_pushnumber(L, d->deadline.fires);
    return 1;
}

static const luaL_Reg deadline_methods[] = {
    { "set", deadline_on_set }, { "clear", deadline_on_clear }, { "fires", deadline_on_fires }, { NULL, NULL }
};

/* ---- events of the gather phase: a readable descriptor, or just the next one */

struct lua_watch {
    struct handle handle;
    ev_io io;
};

static void watch_on_event(struct ev_loop *ev, ev_io *io, int events) {
    handle_call(&container_of(io, struct lua_watch, io)->handle, "call");
}

static void close_watch(struct handle *h) { ev_io_stop(h->home->loop.ev, &((struct lua_watch *)h)->io); }

static int loop_watch(lua_State *L) {
    struct home *home = home_check(L, 1);
    int fd = (int)luaL_checkinteger(L, 2);
    struct lua_watch *w = handle_make(L, home, WATCH, sizeof *w, 3, close_watch);
    ev_io *io = &w->io;
    ev_io_init(io, watch_on_event, fd, EV_READ);
    ev_io_start(home->loop.ev, io);
    return 1;
}

static int loop_gather(lua_State *L) {
    struct home *home = home_check(L, 1);
    struct lua_watch *w = handle_make(L, home, WATCH, sizeof *w, 2, close_watch);
    ev_io *io = &w->io;
    ev_io_init(io, watch_on_event, -1, EV_READ);
    ev_feed_event(home->loop.ev, io, EV_READ);
    return 1;
}

static const luaL_Reg watch_methods[] = { { NULL, NULL } };

/* ---- the loop */

static void home_on_patience(struct deadline *d) {}

static int net_loop(lua_State *L) {
    int index = (int)luaL_optinteger(L, 1, 0);
    struct home *home = lua_newuserdatauv(L, sizeof *home, 0);
    memset(home, 0, sizeof *home);
    luaL_setmetatable(L, LOOP);
    loop_init(&home->loop, index);
    list_init(&home->handles);
    deadline_init(&home->patience, &home->loop, home_on_patience);
    home->error = LUA_NOREF;
    home->open = true;
    home->L = L;
    return 1;
}

static void raise_error(lua_State *L, struct home *home) {
    if (home->error == LUA_NOREF) return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, home->error);
    luaL_unref(L, LUA_REGISTRYINDEX, home->error);
    home->error = LUA_NOREF;
    lua_error(L);
}

static int loop_on_turn(lua_State *L) {
    struct home *home = home_check(L, 1);
    home->L = L;
    loop_turn(&home->loop);
    raise_error(L, home);
    return 0;
}

/* run_until(is_done, seconds): turns until it returns true; false when the time has passed. */
static int loop_on_run_until(lua_State *L) {
    struct home *home = home_check(L, 1);
    double until = clock_monotonic() + luaL_optnumber(L, 3, 10);
    home->L = L;
    for (;;) {
        lua_pushvalue(L, 2);
        lua_call(L, 0, 1);
        bool done = lua_toboolean(L, -1);
        lua_pop(L, 1);
        double left = until - clock_monotonic();
        if (done || left <= 0) {
            deadline_clear(&home->patience);
            lua_pushboolean(L, done);
            return 1;
        }
        deadline_set(&home->patience, left);
        loop_turn(&home->loop);
        raise_error(L, home);
    }
}

static int loop_on_run(lua_State *L) {
    struct home *home = home_check(L, 1);
    home->L = L;
    loop_run(&home->loop);
    home->loop.stopping = false;
    raise_error(L, home);
    return 0;
}

static int loop_on_stop(lua_State *L) {
    loop_stop(&home_check(L, 1)->loop);
    return 0;
}

static int loop_on_now(lua_State *L) {
    lua_pushnumber(L, loop_now(&home_check(L, 1)->loop));
    return 1;
}

static int loop_on_turns(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)home_check(L, 1)->loop.turns);
    return 1;
}

static int loop_on_close(lua_State *L) {
    struct home *home = luaL_checkudata(L, 1, LOOP);
    if (!home->open) return 0;
    home->L = L;
    while (!list_empty(&home->handles)) handle_close(container_of(home->handles.prev, struct handle, node));
    deadline_fini(&home->patience);
    loop_fini(&home->loop);
    home->open = false;
    return 0;
}

static const luaL_Reg loop_methods[] = {
    { "task", loop_task },         { "grave", loop_grave }, { "hook", loop_hook },
    { "deadline", loop_deadline }, { "watch", loop_watch }, { "gather", loop_gather },
    { "turn", loop_on_turn },      { "run", loop_on_run },  { "run_until", loop_on_run_until },
    { "stop", loop_on_stop },      { "now", loop_on_now },  { "turns", loop_on_turns },
    { "close", loop_on_close },    { NULL, NULL },
};

static void open_loops(lua_State *L) {
    luaL_newmetatable(L, LOOP);
    lua_createtable(L, 0, 32);
    luaL_setfuncs(L, loop_methods, 0);
    luaL_setfuncs(L, conn_loop_methods, 0);
    luaL_setfuncs(L, thread_loop_methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, loop_on_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

/* ---- addresses */

static int push_addr(lua_State *L, const struct addr *a) {
    char text[ADDR_TEXT];
    lua_createtable(L, 0, 3);
    module_push_slice(L, addr_text(a, text));
    lua_setfield(L, -2, "text");
    module_push_slice(L, addr_ip_text(a, text));
    lua_setfield(L, -2, "ip");
    lua_pushinteger(L, addr_port(a));
    lua_setfield(L, -2, "port");
    return 1;
}

static int net_addr_parse(lua_State *L) {
    struct addr a;
    return addr_parse(&a, module_check_slice(L, 1)) ? push_addr(L, &a) : 0;
}

static int net_addr_from_ip(lua_State *L) {
    struct addr a;
    return addr_from_ip(&a, module_check_slice(L, 1), (uint16_t)luaL_checkinteger(L, 2)) ? push_addr(L, &a) : 0;
}

static int net_addr_split(lua_State *L) {
    struct slice host;
    uint16_t port;
    if (!addr_split(module_check_slice(L, 1), &host, &port)) return 0;
    module_push_slice(L, host);
    lua_pushinteger(L, port);
    return 2;
}

static int net_addr_equal(lua_State *L) {
    struct addr a, b;
    luaL_argcheck(L, addr_parse(&a, module_check_slice(L, 1)), 1, "address expected");
    luaL_argcheck(L, addr_parse(&b, module_check_slice(L, 2)), 2, "address expected");
    lua_pushboolean(L, addr_equal(&a, &b));
    return 1;
}

/* cidr_match(addr, range, …): nil if a range is none. */
static int net_cidr_match(lua_State *L) {
    struct cidr list[8];
    struct addr a;
    luaL_argcheck(L, addr_parse(&a, module_check_slice(L, 1)), 1, "address expected");
    int count = lua_gettop(L) - 1;
    luaL_argcheck(L, count <= 8, 2, "too many ranges");
    for (int i = 0; i < count; i++)
        if (!cidr_parse(&list[i], module_check_slice(L, i + 2))) return 0;
    lua_pushboolean(L, cidr_match(list, (size_t)count, &a));
    return 1;
}

static size_t read_ranges(lua_State *L, const char *name, struct cidr *to, size_t room) {
    size_t count = 0;
    if (lua_getfield(L, 2, name) == LUA_TTABLE)
        for (lua_Integer i = 1; lua_geti(L, -1, i) != LUA_TNIL && count < room; i++, lua_pop(L, 1))
            luaL_argcheck(L, cidr_parse(&to[count++], module_check_slice(L, -1)), 2, "range expected");
    lua_settop(L, 2);
    return count;
}

/* egress_allows(addr, { private =, allow = { range, … }, deny = { … } }) */
static int net_egress_allows(lua_State *L) {
    struct cidr allow[8], deny[8];
    struct egress e = { .allow = allow, .deny = deny };
    struct addr a;
    luaL_argcheck(L, addr_parse(&a, module_check_slice(L, 1)), 1, "address expected");
    lua_settop(L, 2);
    e.allow_count = read_ranges(L, "allow", allow, 8);
    e.deny_count = read_ranges(L, "deny", deny, 8);
    lua_getfield(L, 2, "private");
    e.private = lua_toboolean(L, -1);
    lua_pushboolean(L, egress_allows(&e, &a));
    return 1;
}

/* addr_is_listened(addr, listener, …) */
static int net_addr_is_listened(lua_State *L) {
    struct addr to, listeners[8];
    int count = lua_gettop(L) - 1;
    luaL_argcheck(L, addr_parse(&to, module_check_slice(L, 1)), 1, "address expected");
    luaL_argcheck(L, count <= 8, 2, "too many listeners");
    for (int i = 0; i < count; i++)
        luaL_argcheck(L, addr_parse(&listeners[i], module_check_slice(L, i + 2)), i + 2, "address expected");
    lua_pushboolean(L, addr_is_listened(&to, listeners, (size_t)count));
    return 1;
}

/* tls_replay_note(hello, now): is it new? */
static int net_tls_replay_note(lua_State *L) {
    lua_pushboolean(L, tls_replay_note(module_check_slice(L, 1), luaL_checknumber(L, 2)));
    return 1;
}

static const luaL_Reg net_functions[] = {
    { "loop", net_loop },
    { "addr_parse", net_addr_parse },
    { "addr_from_ip", net_addr_from_ip },
    { "addr_split", net_addr_split },
    { "addr_equal", net_addr_equal },
    { "cidr_match", net_cidr_match },
    { "egress_allows", net_egress_allows },
    { "addr_is_listened", net_addr_is_listened },
    { "tls_replay_note", net_tls_replay_note },
    { NULL, NULL },
};

int module_net_open(lua_State *L) {
    open_loops(L);
    module_type(L, TASK, task_methods);
    module_type(L, GRAVE, grave_methods);
    module_type(L, HOOK, hook_methods);
    module_type(L, DEADLINE, deadline_methods);
    module_type(L, WATCH, watch_methods);
    module_open_conns(L);
    module_open_threads(L);
    luaL_newlib(L, net_functions);
    luaL_setfuncs(L, socket_functions, 0);
    luaL_setfuncs(L, thread_functions, 0);
    return 1;
}
