/* Lua states: one per worker and generation (policy), and one per load for the config itself. Everything else of the
 * house reaches Lua through this header and proxy/hook.h. */
#pragma once

#include "base/errors.h"
#include "base/value.h"
#include "proxy/worker.h"

/* The files of one load: the config and every module it requires, each read once, so that all runs see the same
 * bytes. */
struct sources;
/* `open_file` opens a file for reading (the supervisor does it where privilege is needed); NULL: open(2). */
struct sources *sources_create(const char *config_path, int (*open_file)(const char *path));
void sources_destroy(struct sources *);
/* The paths that were read, for --watch: visited in order. */
const char *sources_path(const struct sources *, size_t i); /* NULL: no more */
const char *sources_text(const struct sources *, size_t i, size_t *size);
/* The text of a file that the config names, relative to the config's folder: read now or before. NULL: `why` (static)
 * says why not. */
const char *sources_file(struct sources *, const char *name, size_t *size, const char **why);
/* Could anybody but its owner read that file when it was read, or write to it? What root owns its group may read: that
 * is how a key is given to one group (Debian's ssl-cert). */
bool sources_file_open_to_others(struct sources *, const char *name);

struct state;

/* Who is told of every line that scripts execute: `file` as it was opened. It must not enter Lua. */
struct coverage {
    void (*line)(struct coverage *, const char *file, int line);
};

struct state_limits {
    size_t memory;             /* bytes; 0: 32 MiB */
    size_t hook_memory;        /* bytes that one hook call may add; 0: all of `memory` */
    double hook_cpu;           /* seconds; 0: 0.010 */
    double hook_time;          /* seconds, waits included; 0: no limit */
    double load_cpu;           /* seconds; 0: 1.0 */
    struct coverage *coverage; /* NULL: none, which costs nothing; else the CPU limits are COVERAGE_SLOWS times that */
};
enum { COVERAGE_SLOWS = 20 };

/* Runs the config's bytes in a new state (any thread, no waits, under the load budget). `worker` is the number of the
 * worker it is for, -1 for the config run. `snapshot` is what on_unload of the former generation gave this worker
 * (NULL: none). NULL on errors, which are added, with file:line. */
struct state *state_create(struct sources *, int worker, const struct state_limits *, struct errors *);
void state_destroy(struct state *); /* any thread, once nothing runs in it; NULL is ignored */

/* What the file returned (or its globals, when it returned nothing), as plain data: functions are marks. */
const struct value *state_config(const struct state *);
/* Bits 1 << enum hook that site `index` (1-based as in `sites`; 0: the file is itself the site) has, those of its
 * `use` included. Errors in policies (a hook that is neither function nor allowed constant, unknown hook names, a
 * `use` entry that is no table) are added. */
uint32_t state_hooks(struct state *, size_t index, struct errors *);

/* In the worker's thread, before the generation serves: binds the state to its worker and the generation's sites
 * (fills site->policies[worker]), then runs on_load(snapshot) of all sites; `done(with, errors)` follows, perhaps at
 * once, perhaps after waits (10 s at most). */
void state_start(struct state *, struct worker *, struct generation *, const struct value *snapshot,
                 void (*done)(void *with, const struct errors *), void *with);
/* In the worker's thread: on_unload of all sites; plain data, an error is logged and gives nil. */
struct value state_unload(struct state *);
/* In the worker's thread: no hook starts any more; what runs or waits (spawned tasks, every) is closed.
 * `site->policies[worker]` become NULL. */
void state_stop(struct state *);

/* Which every-tasks run: the keeper's state runs the once-per-instance ones. Called after the generation became
 * current. */
void state_become_current(struct state *);
/* Another generation becomes current: its every-tasks do not begin any more, lest they run twice while this one
 * drains. */
void state_retire(struct state *);

/* In the worker's thread: it holds more than its limit even after a full collection: to be replaced in its worker. */
bool state_over_limit(const struct state *);

struct state_figures {
    size_t bytes;         /* in use by Lua */
    size_t runs, waiting; /* coroutines in hook calls; of them waiting */
};
struct state_figures state_figures(const struct state *);
