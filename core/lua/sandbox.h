/* What scripts can reach: the libraries and each file's own environment (sandbox.c). */
#pragma once

#include "lua/engine.h"

/* Opens the libraries in a new state, without `gate`. Under protection. */
void sandbox_open(lua_State *L);
/* Adds what `unsafe` lists: "io", "os", "debug", "package", "bytecode"; to all environments, those that there are
 * included. False: no such name. */
bool sandbox_allow(lua_State *L, const char *name);
void sandbox_allow_listed(lua_State *L, int index); /* the value of `unsafe`: a list of names, or one */
bool sandbox_bytecode(lua_State *L);                /* is "bytecode" allowed? */

/* Pushes a new environment: a front, read-only once the file is loaded, of a table with the libraries and, later, the
 * file's globals. `name` is the file's, `main` says that it is the config itself, whose global `unsafe` takes effect
 * when it is set. */
void environment_push(lua_State *L, const char *name, bool main);
/* Pushes the table behind the front at `index`. */
void environment_globals_push(lua_State *L, int index);
/* Pushes the globals of a file that was loaded; false, and nothing: it was not. */
bool environment_of_file_push(lua_State *L, const char *file);
/* Whether the library table of the state has this very value under this key (both popped: key, value). */
bool environment_is_builtin(lua_State *L);

/* Replaces the table on top by a read-only front for it. `name` is what errors call it, also those about its
 * functions. */
void front_make(lua_State *L, const char *name);
/* Is it a front, which rawset must leave alone? */
bool front_test(lua_State *L, int index);
/* Lets every function of the table on top be known as "NAME.key" ("key" without a name). */
void functions_name(lua_State *L, const char *name);

/* Replaces field `name` of the table on top, a plain C function, by one that spends a step for every 64 bytes of its
 * string arguments. */
void function_count(lua_State *L, const char *name);

/* The libraries; each pushes its table. */
int lib_base_open(lua_State *L); /* what is global itself */
int lib_coroutine_open(lua_State *L);
int lib_string_open(lua_State *L); /* sets the metatable of strings, too */
int lib_table_open(lua_State *L);
/* The closure `load` for an environment at `index`. */
void lib_base_push_load(lua_State *L, int index);
/* load.c: the closure `require` for all environments. */
void require_push(lua_State *L);
