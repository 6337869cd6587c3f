/* What the parts of the test module that drive core/net share. Not for others. */
#pragma once

#include "net/loop.h"

#include <lauxlib.h>
#include <lua.h>

struct home;

/* Something that lives in a loop and calls Lua: a userdata whose first member this is. It keeps itself alive from
 * handle_make to handle_close; its user value is the table of its handlers. */
struct handle {
    struct list node; /* in home->handles */
    struct home *home;
    void (*close)(struct handle *); /* stops it; called once */
    int ref;                        /* of itself, in the registry */
};

/* A loop as Lua sees it. */
struct home {
    struct loop loop;
    struct list handles;
    struct deadline patience; /* wakes run_until */
    lua_State *L;             /* of the call that runs the loop */
    int error;                /* first error of a handler, in the registry */
    bool open;
};

struct home *home_check(lua_State *L, int at);
/* Pushes a zeroed userdata of `size` with metatable `type`; the handlers are at `handlers` (a table, or one
 * function, then named "call"). */
void *handle_make(lua_State *L, struct home *home, const char *type, size_t size, int handlers,
                  void (*close)(struct handle *));
void handle_close(struct handle *); /* idempotent */
/* Pushes the handler and the object; false if there is no such handler. Then push arguments and call handle_run. */
bool handle_push_method(struct handle *, const char *name);
void handle_run(struct handle *, int arguments);
void handle_call(struct handle *, const char *name); /* without arguments */

void module_type(lua_State *L, const char *type, const luaL_Reg *methods);

/* The other files' shares of the loop's methods and of the table `net`. */
extern const luaL_Reg conn_loop_methods[], thread_loop_methods[];
extern const luaL_Reg socket_functions[], thread_functions[];
void module_open_conns(lua_State *L);
void module_open_threads(lua_State *L);
