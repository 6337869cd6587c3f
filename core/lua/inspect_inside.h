/* What the files of the inspection share; nobody else includes it.
 *
 *   inspect.c          files, their hooks, the queue of scenes
 *   inspect_see.c      instructions: what each does with facts that are known
 *   inspect_return.c   what hooks return
 *   inspect_tell.c     sentences, and what was meant */
#pragma once

#include "lua/inspect.h"

#include "lua/bind.h"
#include "lua/flow.h"
#include "lua/names.h"

#include "base/list.h"

/* A function of the file that is looked at, and a hook of a site. */
struct found_hook {
    struct found_hook *next;
    const struct proto *proto; /* read for itself: none of those that are walked */
    enum hook hook;
    unsigned site;
};

/* A scene that is to be looked at, or has been. */
struct visit {
    struct scene scene;
    struct visit *next;
    const struct found_hook *hook; /* it is one: the first of those that it is */
    const char *callback_of;       /* a C function that runs it, in which nothing can wait */
    bool tentative;                /* within pcall: what fails may be meant to */
    bool late;                     /* runs only when the file has been loaded */
    unsigned depth;                /* of calls */
    struct made_return *returns;
    const char **ways; /* by inner function: what runs it, a mark as below; NULL: nothing that is known */
};

struct made_return {
    struct made_return *next;
    int line;
    unsigned count;
    struct fact values[4];
};

/* How a function is run by what it is handed to: a mark, or the name of a function in which nothing waits. */
extern const char TENTATIVELY[], LATER[];

struct inspection {
    struct flow flow;
    struct names names;
    struct arena arena;
    struct state *state;
    struct sources *sources;
    struct errors *errors;
    const struct inspect_site *sites;
    unsigned site_count;
    size_t from; /* errors of this file begin here */
    struct found_hook *hooks;
    struct proto *main;
    struct visit *visits, **next;
    unsigned count;
    struct visit *now;
};

static inline struct visit *visit_of(struct scene *s) { return container_of(s, struct visit, scene); }

/* ---- the queue */

/* `like` says how it is run. NULL: there are too many; one that is known already is the same. */
struct visit *inspect_add_visit(struct inspection *, const struct proto *, struct scene *outer,
                                const struct fact *upvalues, const struct fact *arguments, const struct visit *like);
void arguments_any(struct fact to[SCENE_ARGUMENTS]); /* nothing is known of them */

/* ---- seeing */

/* The flow's `see`. */
void inspect_see(struct flow *, struct scene *, unsigned at, struct fact *registers);
/* What a hook returns is kept, and looked at when all of its scene has been seen. */
void inspect_note_return(struct inspection *, const struct scene *, unsigned at, const struct fact *registers);
void inspect_returns(struct inspection *, const struct visit *, const struct found_hook *);

/* The value of a register is used so that nil raises. `consequence`: "and it is called". */
void inspect_needed(struct inspection *, int line, struct fact, const char *consequence);
/* It is handed on: nil may be meant. */
void inspect_used(struct inspection *, int line, struct fact);

/* ---- telling */

/* Only what hooks do, as far as it can be followed, is surely meant to work: a library may have functions that nobody
 * calls here. */
bool visit_is_sure(const struct visit *);
/* An error if it is sure, else a warning; once for each line. */
void inspect_tell(struct inspection *, int line, bool sure, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void inspect_tell_missing(struct inspection *, int line, bool sure, const char *path, const char *consequence);
/* There is no such backend; `where`: "" or " in this site". */
void inspect_tell_backend(struct inspection *, int line, const char *where, struct slice name);
bool inspect_has_backend(const struct inspection *, unsigned site, struct slice name);
bool name_is_one_of(const char *name, const char *const *list); /* the list ends with NULL */
