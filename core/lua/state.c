/* The life of a state: made and loaded on a helper thread, bound to its worker, asked for its hooks, stopped, closed.
 * What runs in it stands in run.c and hook.c, what a script may reach in sandbox.c, what its file says in load.c and
 * policy.c. */
#include "lua/bindings.h"
#include "lua/callback.h"
#include "lua/errand.h"
#include "lua/policy.h"
#include "lua/run.h"
#include "lua/sandbox.h"
#include "lua/state_rest.h"

#include "base/log.h"
#include "base/must.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MEMORY = 32 << 20, HOOK_CPU_US = 10000, LOAD_CPU_US = 1000000 };
enum { GC_STEP_MUL = 100, GC_STEP_LOG = 13 };

/* ---- Making one */

static int on_panic(lua_State *L) {
    log_error("lua: an error outside of a protected call: %s",
              lua_tostring(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1));
    must(!"lua panic");
    return 0;
}

static int open_gate(lua_State *L) {
    lua_newtable(L);
#define OPEN(thing) bind_##thing##_open(L);
    BINDINGS(OPEN)
#undef OPEN
    functions_name(L, "gate");
    front_make(L, "gate");
    load_provide(L, "moongate");
    return 0;
}

/* Everything that may raise for lack of memory is behind a protected call, though nothing is refused yet. */
static int open_all(lua_State *L) {
    struct state *state = state_of(L);
    handles_open(state);
    lua_newtable(L);
    state->links = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    state->ruined = luaL_ref(L, LUA_REGISTRYINDEX);
    sandbox_open(L);
    return open_gate(L);
}

static uint64_t microseconds(double seconds, uint64_t preset) {
    return seconds > 0 ? (uint64_t)(seconds * 1e6) : preset;
}

static void init_lists(struct state *state) {
    list_init(&state->runs);
    list_init(&state->collector.node);
    list_init(&state->rest->errands);
    list_init(&state->callbacks);
    list_init(&state->rest->everies);
}

static struct state *make(int number, const struct state_limits *limits) {
    struct state *state = must_calloc(1, sizeof *state);
    state->rest = must_calloc(1, sizeof *state->rest);
    state->number = number;
    state->hook_cpu = microseconds(limits ? limits->hook_cpu : 0, HOOK_CPU_US);
    state->hook_time = limits ? limits->hook_time : 0;
    state->load_cpu = microseconds(limits ? limits->load_cpu : 0, LOAD_CPU_US);
    state->coverage = limits ? limits->coverage : NULL;
    if (state->coverage) {
        state->hook_cpu *= COVERAGE_SLOWS;
        state->load_cpu *= COVERAGE_SLOWS;
    }
    init_lists(state);
    memory_init(&state->memory, limits && limits->memory ? limits->memory : MEMORY);
    state->hook_memory = limits && limits->hook_memory ? limits->hook_memory : state->memory.limit;
    lua_State *L = state->L = lua_newstate(memory_alloc, &state->memory);
    must(L);
    *(struct state **)lua_getextraspace(L) = state;
    lua_atpanic(L, on_panic);
    lua_gc(L, LUA_GCINC, 0, GC_STEP_MUL, GC_STEP_LOG);
    lua_gc(L, LUA_GCSTOP);
    lua_pushcfunction(L, open_all);
    must(lua_pcall(L, 0, 0, 0) == LUA_OK);
    return state;
}

struct state *state_create(struct sources *sources, int worker, const struct state_limits *limits,
                           struct errors *errors) {
    struct state *state = make(worker, limits);
    budget_count(state->L);
    if (!load_file(state, sources, errors)) {
        state_destroy(state);
        return NULL;
    }
    memory_collect(&state->memory, state->L);
    return state;
}

void state_destroy(struct state *state) {
    if (!state) return;
    must(list_empty(&state->runs) && list_empty(&state->handles));
    runs_trim(state, 0);
    lua_close(state->L);
    memory_fini(&state->memory);
    handles_close(state);
    everies_free(state);
    policies_free(state);
    value_fini(&state->rest->config);
    free(state->rest);
    free(state);
}

const struct value *state_config(const struct state *state) { return &state->rest->config; }

uint32_t state_hooks(struct state *state, size_t index, struct errors *errors) {
    struct state_rest *rest = state->rest;
    policies_build(state, errors);
    size_t at = index ? index - 1 : 0;
    return at < rest->policy_count ? rest->policies[at]->hooks : 0;
}

/* ---- In its worker */

static void collect_between_turns(struct turn_hook *hook) {
    struct state *state = container_of(hook, struct state, collector);
    if (memory_step(&state->memory, state->L)) state->over_limit = state->memory.used > state->memory.limit;
    if (memory_is_exhausted(&state->memory, state->L)) state->over_limit = true;
}

bool state_over_limit(const struct state *state) { return state->over_limit; }

static void begin_in_thread(struct state *state, struct worker *worker, struct generation *generation) {
    state->worker = worker;
    state->generation = generation;
    state->ticking = budget_thread_begin();
    if (state->ticking) budget_count_no_more(state->L);
    deadline_init(&state->overdue, &worker->loop, hook_find_overdue);
    state->collector.run = collect_between_turns;
    turn_hook_add(&worker->loop, &state->collector);
}

static void bind_sites(struct state *state, struct errors *errors) {
    struct state_rest *rest = state->rest;
    struct generation *generation = state->generation;
    if (!policies_build(state, errors)) return;
    for (unsigned i = 0; i < generation->site_count && i < rest->policy_count; i++) {
        struct site *site = generation->sites[i];
        policy_bind(rest->policies[i], site, errors);
        site->policies[state->worker->index] = rest->policies[i];
    }
    rest->bound = true;
}

static void unbind_sites(struct state *state) {
    struct generation *generation = state->generation;
    if (!state->rest->bound) return;
    for (unsigned i = 0; i < generation->site_count; i++) generation->sites[i]->policies[state->worker->index] = NULL;
    state->rest->bound = false;
}

void state_start(struct state *state, struct worker *worker, struct generation *generation,
                 const struct value *snapshot, void (*done)(void *with, const struct errors *), void *with) {
    struct errors errors;
    errors_init(&errors);
    begin_in_thread(state, worker, generation);
    bind_sites(state, &errors);
    if (errors_any(&errors)) done(with, &errors);
    else on_load_start(state, snapshot, done, with);
    errors_fini(&errors);
}

void state_become_current(struct state *state) { everies_start(state); }

void state_retire(struct state *state) { everies_stop(state); }

/* Hooks that still wait are closed too; their subjects are woken and told that the call failed. */
static void close_runs(struct state *state) {
    while (!list_empty(&state->runs)) {
        struct hook_run *run = container_of(state->runs.next, struct hook_run, node);
        struct subject *subject = run->subject;
        run_close(run);
        task_wake(&state->worker->loop, subject->task);
    }
}

void state_stop(struct state *state) {
    if (state->stopped || !state->worker) return;
    state->stopped = true;
    on_load_stop(state);
    everies_stop(state);
    while (!list_empty(&state->rest->errands))
        errand_close(container_of(state->rest->errands.next, struct errand, node));
    callbacks_stop(state);
    close_runs(state);
    handles_end_all(state);
    unbind_sites(state);
    turn_hook_remove(&state->collector);
    deadline_fini(&state->overdue);
    runs_trim(state, 0);
    if (state->ticking) budget_thread_end();
    state->ticking = false;
}

struct state_figures state_figures(const struct state *state) {
    struct state_figures figures = { .bytes = state->memory.used, .waiting = state->waiting };
    for (const struct list *node = state->runs.next; node != &state->runs; node = node->next) figures.runs++;
    return figures;
}

/* ---- Errors */

int fail_world(lua_State *L, enum failure failure) {
    lua_pushnil(L);
    lua_pushstring(L, failure_word(failure));
    lua_pushstring(L, failure_sentence(failure));
    return 3;
}

int fail_world_with(lua_State *L, const char *word, const char *format, ...) {
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    lua_pushnil(L);
    lua_pushstring(L, word);
    lua_pushstring(L, sentence);
    return 3;
}
