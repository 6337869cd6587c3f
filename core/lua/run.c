/* Runs, strands and waits.
 *
 * A script function is not called on a stack of ours but resumed on a coroutine of its own, so that it may stop in
 * the middle. The coroutines are pooled: one whose function has returned takes the next function, without anything
 * being allocated or reset; only one that failed, or was closed in the middle, is reset (which runs its <close>
 * handlers).
 *
 * A wait is a yield with nothing on the stack and state->passing set. Whoever resumed the coroutine sees the flag:
 * our own `coroutine.resume` and `wrap` yield on at once (and remember in the table of links which coroutine they
 * resumed), until the wait arrives here, at the strand, and the flag is cleared. When the wait is done the strand is
 * resumed, resume and wrap resume what they had resumed, and so inward to the continuation of the C function that
 * waited.
 *
 * What C owns for a wait is freed by its `cancel` or by its continuation, never both. A run may be closed while
 * another run's script executes (a binding ends something whose hook waits): the meter is set aside meanwhile. */
#include "lua/run.h"

#include "base/log.h"
#include "base/must.h"

#include <stdlib.h>
#include <string.h>

enum {
#ifdef MOONGATE_HARD
    POOL_RUNS = 1,
    POOL_STRANDS = 1,
#else
    POOL_RUNS = 512,
    POOL_STRANDS = 64,
#endif
    CLOSE_BUDGET_US = 1000
};

/* ---- Strands and their coroutines */

static void strand_init(struct strand *s, struct state *state) {
    *s = (struct strand){ 0 };
    s->L = lua_newthread(state->L);
    s->ref = luaL_ref(state->L, LUA_REGISTRYINDEX);
    list_init(&s->node);
}

static void strand_fini(struct strand *s, struct state *state) { luaL_unref(state->L, LUA_REGISTRYINDEX, s->ref); }

/* A coroutine that died within a hook is left to the collector. */
static void strand_replace(struct strand *s, struct state *state) {
    strand_fini(s, state);
    s->L = lua_newthread(state->L);
    s->ref = luaL_ref(state->L, LUA_REGISTRYINDEX);
}

/* Whether the allocator may refuse, as it was: strands are also made while a script runs, and must not throw then. */
static bool stop_refusing(struct state *state) {
    bool script = state->memory.script;
    state->memory.script = false;
    return script;
}

struct strand *strand_open(struct hook_run *run) {
    struct state *state = run->state;
    struct strand *s = state->free_strands;
    if (s) {
        state->free_strands = s->next_free;
        state->free_strand_count--;
    } else {
        bool script = stop_refusing(state);
        s = must_calloc(1, sizeof *s);
        strand_init(s, state);
        state->memory.script = script;
    }
    s->run = run;
    s->ended = NULL;
    s->args = 0;
    return s;
}

void strand_ready(struct strand *s) {
    struct hook_run *run = s->run;
    if (!list_empty(&s->node)) return;
    list_push(&run->ready, &s->node);
    if (run->state->running != run) task_wake(&run->state->worker->loop, run->subject->task);
}

/* ---- Links: which coroutine waits inside which */

/* Pushes the table of links. */
static void push_links(lua_State *L) { lua_rawgeti(L, LUA_REGISTRYINDEX, state_of(L)->links); }

static void set_link(lua_State *L, lua_State *outer, lua_State *inner) {
    struct state *state = state_of(L);
    bool script = stop_refusing(state);
    push_links(L);
    if (inner) {
        lua_pushthread(inner);
        lua_xmove(inner, L, 1);
        state->link_count++;
    } else {
        lua_pushnil(L);
        state->link_count--;
    }
    lua_rawsetp(L, -2, outer);
    lua_pop(L, 1);
    state->memory.script = script;
}

static lua_State *inner_of(lua_State *L) {
    struct state *state = state_of(L);
    if (!state->link_count) return NULL;
    push_links(L);
    lua_rawgetp(L, -1, L);
    lua_State *inner = lua_tothread(L, -1);
    lua_pop(L, 2);
    return inner;
}

/* The innermost coroutine is linked to itself, so that all of a chain are found as keys. */
void run_link(lua_State *L, lua_State *inner) {
    if (inner) {
        lua_checkstack(inner, 2);
        if (!inner_of(inner)) set_link(L, inner, inner);
        set_link(L, L, inner);
        return;
    }
    inner = inner_of(L);
    if (inner == L) return;
    set_link(L, L, NULL);
    if (inner && inner_of(inner) == inner) set_link(L, inner, NULL);
}

bool run_is_linked(lua_State *co) { return state_of(co)->link_count && inner_of(co); }

/* ---- Closing coroutines */

static bool has_open_work(lua_State *co) { return lua_status(co) != LUA_OK; }

/* lua_resetthread gives back the error the coroutine died of as well as one of its handlers: only the latter is news.
 */
static void reset_coroutine(struct state *state, lua_State *co) {
    lua_State *L = state->L;
    bool failed = lua_status(co) > LUA_YIELD;
    lua_checkstack(co, 2);
    if (failed) {
        lua_pushvalue(co, -1);
        lua_xmove(co, L, 1);
    } else lua_pushnil(L);
    if (coroutine_reset(L, co) != LUA_OK) {
        lua_xmove(co, L, 1);
        if (!failed || !lua_rawequal(L, -1, -2))
            log_error("a <close> handler failed: %s", lua_isstring(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_settop(co, 0);
}

static void close_inward(struct state *state, lua_State *co) {
    lua_State *inner = inner_of(co);
    if (inner) set_link(state->L, co, NULL);
    if (inner && inner != co) close_inward(state, inner);
    reset_coroutine(state, co);
}

/* Closes what is under way in a strand's coroutine, innermost first, under a small budget of its own. Outside of
 * scripts. */
static void close_coroutines(struct hook_run *run, struct strand *s) {
    struct state *state = run->state;
    if (!has_open_work(s->L)) {
        lua_settop(s->L, 0);
        return;
    }
    if (run->ruined && lua_status(s->L) > LUA_YIELD) {
        bool script = stop_refusing(state);
        strand_replace(s, state);
        state->memory.script = script;
        return;
    }
    struct hook_run *before = state->running;
    bool closing = run->closing;
    bool script = state->memory.script;
    struct meter_pause pause;
    meter_pause(&state->meter, &pause);
    state->running = run;
    run->closing = true;
    state->memory.script = true;
    meter_enter_exact(&state->meter, s->L, CLOSE_BUDGET_US);
    close_inward(state, s->L);
    meter_leave(&state->meter);
    if (state->meter.late) budget_disarm(s->L);
    state->memory.script = script;
    state->running = before;
    run->closing = closing;
    meter_go_on(&state->meter, &pause);
}

/* Cancels what a strand waits for. */
static void cancel_wait(struct strand *s) {
    struct wait *w = s->wait;
    list_remove(&s->node);
    s->wait = NULL;
    if (!w) return;
    w->strand = NULL;
    w->cancel(w);
}

void strand_close(struct strand *s) {
    struct hook_run *run = s->run;
    struct state *state = run->state;
    cancel_wait(s);
    close_coroutines(run, s);
    if (state->free_strand_count >= POOL_STRANDS) {
        strand_fini(s, state);
        free(s);
        return;
    }
    s->next_free = state->free_strands;
    state->free_strands = s;
    state->free_strand_count++;
}

/* ---- Runs */

static struct hook_run *take_run(struct state *state) {
    struct hook_run *run = state->free_runs;
    if (run) {
        state->free_runs = run->next_free;
        state->free_run_count--;
        return run;
    }
    run = must_calloc(1, sizeof *run);
    strand_init(&run->root, state);
    run->root.run = run;
    run->state = state;
    list_init(&run->ready);
    list_init(&run->ties);
    list_init(&run->spawned);
    list_init(&run->node);
    return run;
}

static void destroy_run(struct hook_run *run) {
    strand_fini(&run->root, run->state);
    free(run);
}

static void give_run(struct hook_run *run) {
    struct state *state = run->state;
    if (state->free_run_count >= POOL_RUNS) {
        destroy_run(run);
        return;
    }
    run->next_free = state->free_runs;
    state->free_runs = run;
    state->free_run_count++;
}

void runs_trim(struct state *state, unsigned keep) {
    while (state->free_run_count > keep) {
        struct hook_run *run = state->free_runs;
        state->free_runs = run->next_free;
        state->free_run_count--;
        destroy_run(run);
    }
    while (state->free_strand_count > keep) {
        struct strand *s = state->free_strands;
        state->free_strands = s->next_free;
        state->free_strand_count--;
        strand_fini(s, state);
        free(s);
    }
}

struct hook_run *run_open(struct state *state, struct subject *subject) {
    must(!state->stopped && !subject->run);
    struct hook_run *run = take_run(state);
    run->subject = subject;
    run->chain = NULL;
    run->current = NULL;
    run->barrier = 0;
    run->closing = run->waiting = run->waited = run->delayed = run->ruined = run->endless = false;
    run->cpu_used = 0;
    run->cpu_limit = state->hook_cpu;
    run->memory_used = 0;
    run->overdue = false;
    list_push(&state->runs, &run->node);
    subject->run = run;
    return run;
}

static void set_waiting(struct hook_run *run, bool waiting) {
    if (run->waiting == waiting) return;
    run->waiting = waiting;
    run->state->waiting += waiting ? 1 : (size_t)-1;
    if (waiting) run->waited = true;
}

void run_close(struct hook_run *run) {
    must(run->state->running != run);
    cancel_wait(&run->root);
    close_coroutines(run, &run->root);
    set_waiting(run, false);
    ties_end(&run->ties);
    run->subject->run = NULL;
    run->subject = NULL;
    list_remove(&run->node);
    spawned_begin(run);
    give_run(run);
}

void run_tie(lua_State *L, struct tie *tie) { list_push(&run_of(L)->ties, &tie->node); }

/* Resumes one strand until it waits or ends, inside of script territory. */
static int resume_strand(struct hook_run *run, struct strand *s, int *results) {
    struct state *state = run->state;
    run->current = s;
    s->wait = NULL;
    meter_switch(&state->meter, s->L);
    state->memory.script = true;
    int status = lua_resume(s->L, NULL, s->args, results);
    state->memory.script = false;
    run->current = NULL;
    s->args = 0;
    if (status == LUA_YIELD) {
        must(state->passing);
        state->passing = false;
    }
    return status;
}

/* The call is over its budget: whatever its strands are at, it has failed. */
static enum run_status fail_late(struct hook_run *run) {
    struct state *state = run->state;
    lua_State *L = run->root.L;
    state->killing = false;
    run->ruined = state->meter.raised;
    lua_checkstack(L, 1);
    if (lua_status(L) <= LUA_YIELD) lua_pushstring(L, state->meter.text);
    return RUN_FAILED;
}

static enum run_status run_strands(struct hook_run *run) {
    for (struct list *node; (node = list_pop(&run->ready));) {
        struct strand *s = container_of(node, struct strand, node);
        int results = 0;
        int status = resume_strand(run, s, &results);
        if (run->state->killing || (run->state->meter.late && status > LUA_YIELD)) return fail_late(run);
        if (status == LUA_YIELD) continue;
        if (s->ended) {
            s->ended(s, status, results);
            continue;
        }
        run->results = results;
        return status == LUA_OK ? RUN_DONE : RUN_FAILED;
    }
    return RUN_WAITS;
}

static enum run_status execute(struct hook_run *run) {
    struct state *state = run->state;
    must(!state->running);
    state->running = run;
    meter_enter(&state->meter, run->root.L, run->endless ? 0 : run->cpu_used, run->cpu_limit);
    size_t share = run->chain ? state->hook_memory - run->memory_used : SIZE_MAX; /* of a call of a hook */
    memory_enter(&state->memory, share);
    enum run_status status = run_strands(run);
    run->memory_used += memory_leave(&state->memory, share);
    run->cpu_used = meter_leave(&state->meter);
    if (meter_was_long(&state->meter)) state->worker->loop.long_task = true;
    if (state->meter.late) budget_disarm(run->root.L);
    state->running = NULL;
    set_waiting(run, status == RUN_WAITS);
    return status;
}

enum run_status run_start(struct hook_run *run, int args) {
    run->root.args = args;
    list_push(&run->ready, &run->root.node);
    return execute(run);
}

enum run_status run_go_on(struct hook_run *run) { return list_empty(&run->ready) ? RUN_WAITS : execute(run); }

/* ---- Waits */

/* What is called `name` lets waits pass. */
static bool lets_pass(const char *name) {
    return strcmp(name, "pcall") == 0 || strcmp(name, "xpcall") == 0 || strncmp(name, "coroutine.", 10) == 0;
}

/* Pushes the name of the nearest C function that a wait cannot pass, from the top of L's stack. Those without a name
 * are parts of others. */
static void push_obstacle(lua_State *L) {
    lua_Debug frame;
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "nSf", &frame);
        const char *name = function_name(L);
        if (*frame.what != 'C' || (name && lets_pass(name)) || (!name && !frame.name)) continue;
        lua_pushfstring(L, name ? "%s" : "'%s'", name ? name : frame.name);
        return;
    }
    lua_pushliteral(L, "a <close> handler");
}

/* Raises: L's stack has a C function on it that is not yieldable, or so has the stack of a coroutine further out. */
static int raise_obstacle(lua_State *L, lua_State *blocked) {
    lua_checkstack(blocked, 4);
    push_obstacle(blocked);
    if (blocked != L) lua_xmove(blocked, L, 1);
    return luaL_error(L, "cannot wait inside %s", lua_tostring(L, -1));
}

void wait_check(lua_State *L) {
    struct hook_run *run = run_of(L);
    if (!run) luaL_error(L, "cannot wait while the file is loaded");
    else if (run->closing) luaL_error(L, "cannot wait in a <close> handler while the hook is closed");
    else if (!lua_isyieldable(L)) raise_obstacle(L, L);
    else if (run->barrier) raise_obstacle(L, run->blocked);
}

int wait_begin(lua_State *L, struct wait *w, lua_KContext context, lua_KFunction k) {
    struct state *state = state_of(L);
    struct strand *s = state->running->current;
    w->strand = s;
    s->wait = w;
    state->passing = true;
    return lua_yieldk(L, 0, context, k);
}

void wait_done(struct wait *w) {
    if (w->strand) strand_ready(w->strand);
}
