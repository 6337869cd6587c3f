/* What a hook's results mean (DESIGN 5, the table of hooks). */
#pragma once

#include "lua/engine.h"

enum { WHY_TEXT = 240 };

#define SPENT_REPLY "a reply whose body was read, sent or closed already"

/* Results to be read. */
struct reading {
    struct subject *subject;
    struct site *site; /* whose backends names mean; NULL: names are not looked up */
    enum hook hook;
    struct decision *decision;
    char why[WHY_TEXT]; /* VERDICT_FAILED: what it returned, "a table; expected …" */
};

/* Without clearing the room for `why`: hooks are read all the time and seldom fail. */
static inline void reading_init(struct reading *r, struct subject *subject, struct site *site, enum hook hook,
                                struct decision *decision) {
    r->subject = subject;
    r->site = site;
    r->hook = hook;
    r->decision = decision;
    *r->why = '\0';
}

/* Reads the `count` values from `first` on. Raw: no metamethod runs, nothing raises. */
enum verdict verdict_read(struct reading *, lua_State *L, int first, int count);
/* May this hook be answered with a reply? */
bool verdict_takes_reply(enum hook);
/* One pick: "backend", "backend/server", a list, a backend's handle. */
bool pick_read(struct reading *, lua_State *L, int index, struct pick *);
/* Is the value something that may stand in the place of that hook's function? Else what was expected. */
const char *verdict_constant_expected(lua_State *L, int index, enum hook);
