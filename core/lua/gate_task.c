/* gate.sleep, gate.all, gate.spawn, gate.every: time and concurrency of scripts. */
#include "lua/bind.h"
#include "lua/bindings.h"
#include "lua/errand.h"
#include "lua/state_rest.h"

#include "base/clock.h"
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

enum { ALL_MAX = 64, ERRANDS_MAX = 1000, EVERIES_MAX = 256 };
static const double SLEEP_MIN = 1e-6, SLEEP_MAX = 86400, EVERY_MIN = 0.01, EVERY_MAX = 366 * 86400.0;

/* ---- sleep */

struct nap {
    struct wait wait;
    struct deadline deadline;
};

static void nap_free(struct nap *nap) {
    deadline_fini(&nap->deadline);
    free(nap);
}

static void nap_cancel(struct wait *w) { nap_free(container_of(w, struct nap, wait)); }

static void nap_on_time(struct deadline *d) { wait_done(&container_of(d, struct nap, deadline)->wait); }

static int end_sleep(lua_State *L, int status, lua_KContext context) {
    (void)L, (void)status;
    nap_free((struct nap *)context);
    return 0;
}

static double check_seconds(lua_State *L, int arg, double low, double high) {
    double seconds;
    if (seconds_read(L, arg, &seconds) && seconds >= low && seconds <= high) return seconds;
    char range[96];
    snprintf(range, sizeof range, "expected seconds from %g to %.0f, or a text like \"500ms\"", low, high);
    return luaL_argerror(L, arg, range);
}

/* gate.sleep(seconds): 0 lets others go first. */
static int gate_sleep(lua_State *L) {
    double seconds = check_seconds(L, 1, 0, SLEEP_MAX);
    wait_check(L);
    struct nap *nap = must_calloc(1, sizeof *nap);
    nap->wait.cancel = nap_cancel;
    struct loop *loop = &state_of(L)->worker->loop;
    deadline_init(&nap->deadline, loop, nap_on_time);
    /* The loop's time is that of the turn's beginning; a script may call later, and sleeps no less than it asked. */
    double age = clock_monotonic() - loop_now(loop);
    deadline_set(&nap->deadline, (seconds > SLEEP_MIN ? seconds : SLEEP_MIN) + age);
    return wait_begin(L, &nap->wait, (lua_KContext)nap, end_sleep);
}

/* ---- all */

struct all {
    struct wait wait;
    int count, left;          /* of strands; those still under way */
    int failed;               /* which one raised, -1: none */
    struct strand *strands[]; /* NULL: closed */
};

static void close_strands(struct all *all, int but) {
    for (int i = 0; i < all->count; i++) {
        if (i == but || !all->strands[i]) continue;
        strand_close(all->strands[i]);
        all->strands[i] = NULL;
    }
}

static void all_cancel(struct wait *w) {
    struct all *all = container_of(w, struct all, wait);
    close_strands(all, -1);
    free(all);
}

/* Ended strands stay as they are, with their results, until all have ended. */
static void all_on_end(struct strand *s, int status, int results) {
    struct all *all = s->with;
    if (status == LUA_OK) {
        lua_settop(s->L, lua_gettop(s->L) - results + (results ? 1 : 0));
        if (--all->left == 0) wait_done(&all->wait);
        return;
    }
    for (int i = 0; i < all->count; i++)
        if (all->strands[i] == s) all->failed = i;
    close_strands(all, all->failed);
    wait_done(&all->wait);
}

/* Moves what strand `i` ended with to L; nil when it returned nothing. */
static void move_result(lua_State *L, struct all *all, int i) {
    lua_State *from = all->strands[i]->L;
    if (lua_gettop(from) == 0) lua_pushnil(L);
    else {
        lua_checkstack(from, 1);
        lua_pushvalue(from, -1);
        lua_xmove(from, L, 1);
    }
}

static int end_all(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct all *all = (struct all *)context;
    int count = all->count, failed = all->failed;
    luaL_checkstack(L, count + 1, NULL);
    if (failed >= 0) move_result(L, all, failed);
    else
        for (int i = 0; i < count; i++) move_result(L, all, i);
    close_strands(all, -1);
    free(all);
    return failed >= 0 ? lua_error(L) : count;
}

static struct strand *begin_strand(lua_State *L, struct all *all, int function) {
    struct strand *s = strand_open(run_of(L));
    s->with = all;
    s->ended = all_on_end;
    lua_pushvalue(L, function);
    lua_xmove(L, s->L, 1);
    return s;
}

/* gate.all(f, g, …): runs them side by side; the first result of each. */
static int gate_all(lua_State *L) {
    int count = lua_gettop(L);
    luaL_argcheck(L, count <= ALL_MAX, ALL_MAX + 1, "too many functions");
    for (int i = 1; i <= count; i++) luaL_checktype(L, i, LUA_TFUNCTION);
    if (count == 0) return 0;
    luaL_checkstack(L, count + 4, NULL);
    wait_check(L);
    struct all *all = must_calloc(1, sizeof *all + (size_t)count * sizeof *all->strands);
    all->wait.cancel = all_cancel;
    all->count = all->left = count;
    all->failed = -1;
    for (int i = 0; i < count; i++) strand_ready(all->strands[i] = begin_strand(L, all, i + 1));
    return wait_begin(L, &all->wait, (lua_KContext)all, end_all);
}

/* ---- spawn */

/* gate.spawn(f, …): runs f(…) when the present hook has answered. True, or nil and why not. */
static int gate_spawn(lua_State *L) {
    const struct subject *spawner = subject_check(L, "gate.spawn");
    luaL_checktype(L, 1, LUA_TFUNCTION);
    struct state *state = state_of(L);
    int n = lua_gettop(L);
    if (state->stopped) return fail_world(L, FAIL_HOOK_DRAINED); /* a <close> handler at the very end */
    if (state->rest->errand_count >= ERRANDS_MAX)
        return fail_world_with(L, failure_word(FAIL_OVERLOADED), "there are too many spawned tasks");
    bool script = state->memory.script;
    state->memory.script = false;
    struct errand *errand = errand_open(state, "a spawned task");
    errand->subject.site = spawner->site; /* whose backends are meant by their names */
    state->memory.script = script;
    errand->args = n - 1;
    list_remove(&errand->node);
    list_push(&state->running->spawned, &errand->node);
    luaL_checkstack(L, 1, NULL);
    if (!lua_checkstack(errand_stack(errand), n)) return luaL_error(L, "too many arguments");
    lua_xmove(L, errand_stack(errand), n);
    lua_pushboolean(L, 1);
    return 1;
}

void spawned_begin(struct hook_run *run) {
    for (struct list *node; (node = list_pop(&run->spawned));) {
        struct errand *errand = container_of(node, struct errand, node);
        list_push(&run->state->rest->errands, node);
        if (run->state->stopped || lua_gettop(errand_stack(errand)) == 0) errand_close(errand);
        else errand_begin(errand, errand->args);
    }
}

/* ---- every */

struct every {
    struct list node; /* in state->rest->everies */
    struct state *state;
    struct deadline deadline;
    struct errand *errand; /* while it runs */
    double seconds;
    int ref;
    bool each_worker;
    bool started;
};

static void every_on_end(struct errand *errand, enum run_status status);

static void every_on_time(struct deadline *d) {
    struct every *every = container_of(d, struct every, deadline);
    struct errand *errand = errand_open(every->state, "a repeated task (gate.every)");
    every->errand = errand;
    errand->ended = every_on_end;
    errand->with = every;
    lua_rawgeti(errand_stack(errand), LUA_REGISTRYINDEX, every->ref);
    errand_begin(errand, 0);
}

/* The next time is counted from the end, so that it never overlaps itself. */
static void every_on_end(struct errand *errand, enum run_status status) {
    struct every *every = errand->with;
    every->errand = NULL;
    if (status == RUN_FAILED) errand_log_failure(errand);
    if (every->started) deadline_set(&every->deadline, every->seconds);
}

/* gate.every(seconds, f[, { each = "worker" }]) */
static int gate_every(lua_State *L) {
    static const char *const names[] = { "each", NULL };
    struct state *state = state_of(L);
    double seconds = check_seconds(L, 1, EVERY_MIN, EVERY_MAX);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    options_check(L, 3, "gate.every", names);
    if (!state->loading) return luaL_error(L, "gate.every is declared while the file is loaded, not in a hook");
    bool each = false;
    if (option_push(L, 3, "each") != LUA_TNIL) {
        each = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "worker") == 0;
        if (!each) return luaL_argerror(L, 3, "each: expected \"worker\"");
    }
    lua_settop(L, 2);
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    struct every *every = must_calloc(1, sizeof *every);
    *every = (struct every){ .state = state, .seconds = seconds, .ref = ref, .each_worker = each };
    list_init(&every->node);
    list_push(&state->rest->everies, &every->node);
    return 0;
}

void everies_start(struct state *state) {
    list_each(node, &state->rest->everies) {
        struct every *every = container_of(node, struct every, node);
        if (every->started || (!every->each_worker && state->worker->index != 0)) continue;
        every->started = true;
        deadline_init(&every->deadline, &state->worker->loop, every_on_time);
        deadline_set(&every->deadline, every->seconds);
    }
}

void everies_stop(struct state *state) {
    list_each(node, &state->rest->everies) {
        struct every *every = container_of(node, struct every, node);
        if (!every->started) continue;
        deadline_fini(&every->deadline);
        every->started = false;
    }
}

void everies_free(struct state *state) {
    for (struct list *node; (node = list_pop(&state->rest->everies));) free(container_of(node, struct every, node));
}

/* ---- open */

void bind_task_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "sleep", gate_sleep }, { "all", gate_all }, { "spawn", gate_spawn }, { "every", gate_every }, { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
