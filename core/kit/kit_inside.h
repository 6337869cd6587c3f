/* What the files of the kit's rehearsals share; nobody else includes it.
 *
 *   kit_values.c   fields of tables, to and fro
 *   kit_stubs.c    what C asks the test: connections, names, answers
 *   kit_notes.c    what was observed, as tables
 *   kit.c          rehearsals, requests, the module */
#pragma once

#include "kit/kit.h"
#include "server/rehearsal.h"

#include <lauxlib.h>

struct kit {
    struct rehearsal *rehearsal; /* NULL: closed */
    lua_State *L;                /* of the call under way; NULL: none */
    int functions;               /* registry reference: { connect =, answer =, bytes =, resolve = } */
    int raised;                  /* registry reference: what a stub raised; LUA_NOREF */
};

struct kit *kit_check(lua_State *L); /* at index 1; raises unless it is open and not at work */

extern const struct rehearsal_stubs kit_stubs; /* with a struct kit */
int kit_notes(lua_State *L);                   /* a method */

/* Field `name` of the table at index 2, which keeps it, onto the stack; p NULL: there is none. */
struct slice field_text(lua_State *L, const char *name);
double field_number(lua_State *L, const char *name, double missing);

void slice_push(lua_State *L, struct slice); /* p NULL: nil */
/* Fields of the table on top. NULL: nil. */
void text_set(lua_State *L, const char *field, const char *text);
void slice_set(lua_State *L, const char *field, struct slice);
void number_set(lua_State *L, const char *field, double);
void integer_set(lua_State *L, const char *field, lua_Integer);
/* { { name, value }, … } */
void header_list_push(lua_State *L, const struct headers *);
