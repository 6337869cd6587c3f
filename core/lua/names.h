/* What the names in a file stand for, looked up in the state that has loaded it: its globals are read-only by now, the
 * libraries always were, so what is not there will never be. */
#pragma once

#include "lua/engine.h"
#include "lua/flow.h"

/* A table, function or object of the state that no script can change. */
struct live {
    const char *path; /* "gate.fetch" */
    int place;        /* in the table of them */
    int type;         /* Lua's */
    bool front;       /* a library: read-only, all its fields are known */
};

struct object_kind {
    const char *name; /* "req.client" */
    const char *kind; /* as handle_kind has it */
    int place;        /* its names, in the table of them; 0: not known */
    const struct field *fields;
};

struct names {
    lua_State *L;
    struct arena *arena;
    int table;           /* stack index: what `place` means */
    int globals;         /* stack index: those of the file that is looked at; 0: none */
    struct map by_path;  /* -> struct live */
    struct map missing;  /* path -> the same, kept */
    struct map assigned; /* globals that the file sets somewhere, in functions too */
    struct object_kind *kinds;
};

/* Uses two places of the Lua stack until names_close, which leaves it as it was. Under protection. */
void names_open(struct names *, lua_State *, struct arena *);
void names_close(struct names *);
/* The file that is looked at from now on, and its code. False: the state has not run it. */
bool names_file(struct names *, const struct proto *main);

struct fact names_global(struct names *, struct slice name);
struct fact names_field(struct names *, struct fact base, struct slice key);
/* `count` of the arguments are known; what lies behind them is not, or they end. */
struct fact names_call(struct names *, struct fact function, const struct fact *arguments, unsigned count);

/* "moongate.req": the kind of what hooks get. */
struct fact names_object(struct names *, const char *kind);
bool names_object_has(struct names *, const struct object_kind *, struct slice field);
bool names_object_keeps(const struct object_kind *, struct slice field); /* it is read-only */
/* Is there such a global, now that all is loaded? */
bool names_is_set(struct names *, struct slice name);

/* The name most like that one: of a field of a library, of an object, of a global ("foo"). NULL: none is like it. In
 * the arena. */
const char *names_like_missing(struct names *, const char *path);
const char *names_like_field(struct names *, const struct object_kind *, struct slice field);
