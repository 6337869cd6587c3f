/* What the files of core/lua share: a state from the inside, handles, errors. Nobody outside
 * this folder includes it. The engine implements it (state.c, handle.c); the bindings (bind_*.c) stand on it.
 *
 * A script only ever runs inside a run (run.h) or while the file is loaded. Where C stands then:
 *   - C functions called by a script may raise and may be refused memory: own what you allocate before anything can
 *     throw.
 *   - Everything else (event callbacks, wait cancels, `pointer` owners) runs outside of Lua: it must not raise. Pushing
 *     values, making handles and tables is fine there, since the allocator refuses only while a script runs; what can
 *     raise for another reason (metamethods, lua_error, luaL_check*) has no business there: C enters scripts through
 *     runs. */
#pragma once

#include "base/failure.h"
#include "lua/budget.h"
#include "lua/memory.h"
#include "lua/state.h"
#include "proxy/exchange.h"
#include "proxy/hook.h"
#include "proxy/worker.h"

#include <lauxlib.h>
#include <lua.h>

struct arrival;
struct handle_kind;
struct hook_run;
struct strand;

enum { KIND_PLACES = 64, RECALL_PLACES = 256, RECALL_TEXT_MAX = 32 };

/* A kind of handle whose metatable this state has made. */
struct known_kind {
    const struct handle_kind *kind;
    int metatable;              /* registry reference */
    const struct field *fields; /* object_kind_open's (bind.h); NULL: none */
};

struct recalled {
    const void *string, *scope;
    struct slice text;
    lua_Integer meaning;
};

struct state {
    lua_State *L;                  /* the main thread; scripts run in it only while the file is loaded */
    struct worker *worker;         /* NULL until state_start: while the file is loaded, and in a config run */
    struct generation *generation; /* not a reference; NULL until state_start */
    struct hook_run *running;      /* the run whose script executes now; NULL: none */
    struct meter meter;            /* CPU budget */
    struct memory memory;
    uint64_t hook_cpu, load_cpu; /* budgets, microseconds */
    size_t hook_memory;          /* bytes that one hook call may add */
    double hook_time;            /* seconds that one may last, waits included; 0: no limit */
    struct deadline overdue;     /* looks for those that last longer, while there are any that wait */
    struct coverage *coverage;   /* NULL: none */
    bool passing;                /* a wait is on its way out through the coroutines (run.c) */
    bool killing;                /* passing: it is no wait, the call is over its budget */
    bool loading;                /* the file is being loaded: `require` reads, gate.every declares */
    bool stopped;                /* no run starts any more */
    bool ticking;                /* budget_thread_begin succeeded */
    bool over_limit;
    int number; /* the worker it was made for, -1: the config run */

    /* handle.c */
    int handle_slots;     /* registry reference: the array all slots lie in */
    unsigned handle_sets; /* sets made so far */
    struct handles *free_handles;
    struct list handles; /* sets in use */
    struct known_kind kinds[KIND_PLACES];
    struct recalled recalled[RECALL_PLACES];

    /* run.c */
    struct hook_run *free_runs;
    struct strand *free_strands;
    unsigned free_run_count, free_strand_count;
    struct list runs;      /* all that are under way */
    size_t waiting;        /* how many of them wait */
    struct list callbacks; /* callback.c: all */
    int links;             /* registry reference: outer coroutine -> inner one, for those that wait */
    size_t link_count;
    unsigned resets; /* coroutine_reset calls under way */
    int ruined;      /* registry reference: coroutines that died within a hook -> true, weak */
    bool any_ruined;

    struct turn_hook collector; /* state.c */
    struct state_rest *rest;    /* what only state.c, load.c, policy.c and gate_task.c look at (state_rest.h) */
};

/* Any coroutine of the state. */
static inline struct state *state_of(lua_State *L) { return *(struct state **)lua_getextraspace(L); }

/* A C function that a script can reach and that loops says how many steps it takes (one is about ten nanoseconds, or
 * 64 bytes copied): every few thousand the budget is looked at, and a call that is late raises. Steps are counted
 * across calls, so short loops within loops add up. */
enum { BUDGET_STEPS = 2048 };
static inline void budget_spend(lua_State *L, size_t steps) {
    struct meter *m = &state_of(L)->meter;
    if (m->steps + steps < BUDGET_STEPS) {
        m->steps += (unsigned)steps;
        return;
    }
    m->steps = 0;
    budget_check(L);
}

/* The run, and the subject, whose script calls; NULL while the file is loaded. */
static inline struct hook_run *run_of(lua_State *L) { return state_of(L)->running; }
struct subject *subject_of(lua_State *L);
/* The same, but raises "NAME cannot be used while the file is loaded" where there is none. */
struct subject *subject_check(lua_State *L, const char *name);

/* ---- Errors */

/* A world failure: pushes nil, word, sentence and returns 3. */
int fail_world(lua_State *L, enum failure);
/* The same with a sentence of one's own. */
int fail_world_with(lua_State *L, const char *word, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A script's mistake is luaL_error / luaL_argerror, naming the argument. */

/* ---- Handles
 *
 * A handle is a userdata that holds a pointer to something of C, which C nulls when that ends: from then on any use
 * raises "the exchange has ended" (or what kind->ended says). The handles of a subject are made on first use and kept
 * in numbered slots, so that `req` is one object through all hooks of an exchange. A fetch shares the handles (also
 * `ctx`) of its exchange; so does a fill, but for `res` and its parts: they stand for what it is about to store, and
 * end with on_store. */

struct handle_kind {
    const char *name;  /* "moongate.req": what tostring, type errors and state_config say */
    const char *ended; /* "the exchange has ended": raised once the pointer is NULL; NULL: this default */
    /* The userdata is collected and its pointer is not NULL (never called for handles in slots, whose pointers end
     * before). May be NULL. */
    void (*collect)(void *pointer);
};

struct handle {
    const struct handle_kind *kind;
    void *pointer;       /* NULL: it ended */
    struct handle *next; /* of the same subject */
};

enum handle_slot {
    HANDLE_REQ,
    HANDLE_RES,
    HANDLE_REQ_HEADERS,
    HANDLE_RES_HEADERS,
    HANDLE_ARGS,
    HANDLE_COOKIES,
    HANDLE_REQ_BODY,
    HANDLE_RES_BODY,
    HANDLE_CTX,
    HANDLE_CLIENT,
    HANDLE_CLIENT_TLS,
    HANDLE_REQ_CACHE,
    HANDLE_RES_CACHE,
    HANDLE_SITE,
    HANDLE_SLOTS
};

/* What the metamethods of a kind have as upvalues, beside the metatable itself, which is upvalue 1. */
enum { UPVALUE_NAMES = 2, UPVALUE_SLOTS };

/* Makes the metatable of a kind, in a binding's open function: `metamethods` (may hold __index, __newindex, __pairs,
 * __len, …) is filled in, `methods` (may be NULL) becomes a table that is UPVALUE_NAMES of the metamethods, and
 * __index if there is no such metamethod. __name, __metatable = false, __tostring and (with `collect`) __gc are
 * added. */
void handle_kind_open(lua_State *L, const struct handle_kind *, const luaL_Reg *metamethods, const luaL_Reg *methods);
/* Pushes the metatable of a kind that is open. */
void handle_metatable_push(lua_State *L, const struct handle_kind *);
/* Pushes what lies in the slot; if there is nothing yet, makes a handle of that kind and pointer and puts it there. */
void handle_push(lua_State *L, struct subject *, enum handle_slot, const struct handle_kind *, void *pointer);
/* The same from within a metamethod: finds the slots among its upvalues. */
void handle_push_part(lua_State *L, struct subject *, enum handle_slot, const struct handle_kind *, void *pointer);
/* The same for a value that is no handle (`ctx`): pushes the value and returns true, or pushes nothing and returns
 * false. */
bool slot_push(lua_State *L, struct subject *, enum handle_slot);
bool slot_push_part(lua_State *L, struct subject *, enum handle_slot); /* from within a metamethod */
void slot_set(lua_State *L, struct subject *, enum handle_slot);       /* pops the value */
/* A handle of no slot: the maker keeps the returned pointer as long as the userdata is referenced, or nulls ->pointer
 * from `collect`. */
struct handle *handle_new(lua_State *L, const struct handle_kind *, void *pointer);
/* The pointer of argument `arg`; raises if it is no handle of that kind, or has ended. Never NULL. */
void *handle_check(lua_State *L, int arg, const struct handle_kind *);
/* NULL instead of raising on another type; its pointer may be NULL. */
struct handle *handle_test(lua_State *L, int arg, const struct handle_kind *);

/* ---- Recall: what a metamethod has found out about a name, by the address of the Lua string.
 *
 * Short strings are interned: one that is equal to a string which something keeps has its address. So only strings
 * that are keys of UPVALUE_NAMES, from which nothing is ever removed, may be recalled, and only short ones. A scope is
 * any address that tells apart what the same name means to different kinds. */

static inline struct recalled *recall_place(lua_State *L, const void *scope, const void *string) {
    uintptr_t mixed = (uintptr_t)string ^ (uintptr_t)scope;
    return &state_of(L)->recalled[(mixed >> 4 ^ mixed >> 11) & (RECALL_PLACES - 2)]; /* it, or its neighbour */
}

/* The key at index 2; NULL: it has to be looked up. */
static inline const struct recalled *recall_find(lua_State *L, const void *scope) {
    const void *string = lua_topointer(L, 2);
    const struct recalled *r = recall_place(L, scope, string);
    for (int i = 0; i < 2; i++, r++)
        if (r->string == string && r->scope == scope) return r;
    return NULL;
}

/* The string at index 2 is a key of UPVALUE_NAMES and means this. Ignored if it is not short. */
void recall_keep(lua_State *L, const void *scope, lua_Integer meaning);

/* Ties to the subject whose script calls (proxy/hook.h): an exchange, with its fetches, or what errand.h runs. To a
 * run: run_tie (run.h); both end also where no <close> handler runs. */
void subject_tie(lua_State *L, struct tie *);

bool handle_kind_known(lua_State *L, const void *kind);
/* The place of the kind, or a free one. */
struct known_kind *known_kind_find(struct state *, const struct handle_kind *);
/* By the engine only. */
void handles_open(struct state *);
void handles_close(struct state *);
void handles_end(struct subject *); /* pointers are nulled */
void handles_end_all(struct state *);

/* ---- Bindings (bindings.h lists them)
 *
 * `void bind_<thing>_open(lua_State *L)` is called once per state, under protection, with the `gate` table on top of
 * the stack, and leaves the stack as it found it. Scripts see `gate` through a read-only front, so what is put in
 * here is fixed. */

/* state->overdue: wakes the subjects of hooks that wait longer than they may (hook.c). */
void hook_find_overdue(struct deadline *);

/* What hook.c needs of the bindings. None of them may raise, but for lack of memory. */
void req_push(lua_State *L, struct subject *); /* `req` of subject->exchange */
void res_push(lua_State *L, struct subject *);
void arrival_push(lua_State *L, struct subject *, const struct arrival *); /* the `client` of on_connect */
bool reply_test(lua_State *L, int index); /* is it what gate.reply or gate.redirect returned? */
/* Copies it into the subject's arena. False: its body flows, and was sent or closed already. Called outside of
 * scripts. */
bool reply_read(lua_State *L, int index, const struct subject *, struct reply *out);

/* ---- Plain data (lua_value.c) */

/* Copies the value at `index`. Cycles, more than 32 levels or 200,000 pairs: false, `*out` is nil and `why` (of
 * `size` bytes) says where. With `functions` false so do functions, threads and userdata. */
bool value_from_lua(lua_State *L, int index, bool functions, struct value *out, char *why, size_t size);
void value_to_lua(lua_State *L, const struct value *); /* marks become nil */
