/* The parts of a state that only its own files look at: state.c, load.c, policy.c, on_load.c, gate_task.c. */
#pragma once

#include "lua/engine.h"

struct site_policy;
struct loader;

struct state_rest {
    struct sources *sources; /* while the file is loaded */
    struct errors *errors;   /* likewise */

    int result;  /* registry reference: the table the file returned, or that of its globals */
    bool listed; /* the result has `sites` */
    struct value config;

    struct site_policy **policies; /* by index: one, or one for each of `sites` */
    unsigned policy_count;
    bool bound; /* site->policies point here */

    struct list errands; /* errand.h */
    unsigned errand_count;
    struct list everies;   /* gate_task.c */
    struct loader *loader; /* on_load is under way */
};

/* sources.c: the text of a file, read now or before; NULL: `why` (static or errno's text) says why not. */
const char *sources_read(struct sources *, const char *path, size_t *size, const char **why);
const char *sources_main(const struct sources *);
/* Finds a module; its path and text, or NULL after writing the paths that were tried, a line each, into `tried`. */
const char *sources_find(struct sources *, const char *module, const char **text, size_t *size, char *tried,
                         size_t room);
/* The path that Lua has shortened to `shown` ("...rest"), or `shown`. */
const char *sources_full_path(const struct sources *, const char *shown);

/* Data files that the config names, beside its modules. `path`: `name` as it is, or beside the config if it is
 * relative. False: too long. */
bool sources_resolve(const struct sources *, const char *name, char *path, size_t room);
int sources_open(const struct sources *, const char *path, const char **why); /* -1: could not be opened */
/* All of a data file, of at most `most` bytes, malloc'd; NULL: why not. */
char *sources_slurp(const struct sources *, const char *path, size_t most, size_t *size, const char **why);
/* What was made of a file during this load, so that all its runs see the same: kept until the sources are destroyed.
 * `kind` tells the makers apart. NULL: nothing yet. */
void *sources_made(const struct sources *, const char *path, const void *kind);
void sources_keep(struct sources *, const char *path, const void *kind, void *made, void (*release)(void *made));

/* load.c: runs the file; leaves rest->result, rest->config. False: errors were added. */
bool load_file(struct state *, struct sources *, struct errors *);
/* Makes the value on top what `require "NAME"` gives; pops it. */
void load_provide(lua_State *L, const char *name);
/* Pushes what that gives; nil: no such module was loaded. */
void load_provided_push(lua_State *L, struct slice name);
/* Compiles a file's text and pushes the function. Raises on a syntax error. */
void load_chunk_push(lua_State *L, const char *path, struct slice text);
/* Adds an error that a script raised: `text` begins with "file:line: " or not, and ends with the traceback, if any. */
void errors_add_raised(struct errors *, const struct sources *, const char *path, const char *text);

/* policy.c */
/* Builds the policies of all sites; false: errors were added. */
bool policies_build(struct state *, struct errors *);
void policies_free(struct state *);

/* on_load.c: begins on_load of all sites; ends it early. */
void on_load_start(struct state *, const struct value *snapshot, void (*done)(void *with, const struct errors *),
                   void *with);
void on_load_stop(struct state *);

/* gate_task.c */
void everies_start(struct state *);
void everies_stop(struct state *);
void everies_free(struct state *);
