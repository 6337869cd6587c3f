/* Callbacks. A call is not made where it is asked for: that may be in the gather phase, or in the middle of another
 * script that reads a body. So it has a task, whose advance opens a run, as for a hook.
 *
 * What a call does may close its own callback (a map function that closes the fetch whose body it maps). The run is
 * then left to end by itself, and only its result is nobody's any more. */
#include "lua/callback.h"

#include "lua/report.h"

#include "store/metrics.h"

#include <stdio.h>

static void bury(struct grave *grave) {
    struct callback *cb = container_of(grave, struct callback, grave);
    arena_fini(&cb->arena);
    cb->ops->free(cb);
}

/* The last of it: nothing of it runs. */
static void end(struct callback *cb) {
    task_forget(&cb->task);
    subject_end(&cb->subject);
    loop_bury(&cb->worker->loop, &cb->grave);
}

static void log_failure(const struct callback *cb, const char *text) {
    struct metric *failures = metric_get(METRIC_COUNTER, "moongate_stage_errors_total",
                                         "Functions of scripts for the bytes of a body that failed", SLICE(""));
    metric_add(failures, (int)cb->worker->index, 1);
    report_failure(&cb->subject, cb->ops->what, text);
}

/* It returned what it may not: told with the place of the function. */
static void log_wrong(const struct callback *cb, const char *wrong) {
    char place[128], text[384];
    lua_rawgeti(cb->state->L, LUA_REGISTRYINDEX, cb->ref);
    report_place(cb->state->L, place, sizeof place);
    snprintf(text, sizeof text, "%s%s", place, wrong);
    log_failure(cb, text);
}

static void fail(struct callback *cb, enum failure why) {
    if (cb->failed) return;
    cb->failed = true;
    cb->ops->fail(cb, why);
}

static void settle_failure(struct callback *cb, struct hook_run *run) {
    lua_State *L = cb->state ? cb->state->L : NULL;
    if (L) {
        log_failure(cb, report_text(cb->state, run->root.L));
        lua_pop(L, 1);
    }
    run_close(run);
    if (!L) end(cb);
    else fail(cb, FAIL_HOOK_FAILED);
}

static void settle(struct callback *cb, enum run_status status) {
    struct hook_run *run = cb->subject.run;
    if (status == RUN_WAITS && cb->state) return;
    if (status == RUN_FAILED) {
        settle_failure(cb, run);
        return;
    }
    const char *wrong = cb->state ? cb->ops->take(cb, run->root.L, run->results) : NULL;
    run_close(run);
    if (!cb->state) {
        end(cb);
    } else if (wrong) {
        log_wrong(cb, wrong);
        fail(cb, FAIL_HOOK_FAILED);
    } else cb->ops->go_on(cb);
}

static void advance(struct task *task) {
    struct callback *cb = container_of(task, struct callback, task);
    if (cb->subject.run) {
        settle(cb, run_go_on(cb->subject.run));
        return;
    }
    struct hook_run *run = run_open(cb->state, &cb->subject);
    lua_State *L = run->root.L;
    lua_checkstack(L, 8);
    lua_rawgeti(L, LUA_REGISTRYINDEX, cb->ref);
    settle(cb, run_start(run, cb->ops->push(cb, L)));
}

void callback_open(struct callback *cb, const struct callback_ops *ops, lua_State *L) {
    struct state *state = state_of(L);
    const struct subject *caller = subject_of(L);
    cb->ops = ops;
    cb->state = state;
    cb->worker = state->worker;
    cb->failed = false;
    task_init(&cb->task, advance);
    grave_init(&cb->grave, bury);
    arena_init(&cb->arena);
    /* What it changes may be on its way into the cache, but its own `res` has ended with on_store. */
    enum subject_kind kind = caller->kind == SUBJECT_FILL ? SUBJECT_EXCHANGE : caller->kind;
    cb->subject = (struct subject){ .kind = kind,
                                    .worker = state->worker,
                                    .site = caller->site,
                                    .exchange = caller->exchange,
                                    .arena = &cb->arena,
                                    .task = &cb->task };
    bool script = state->memory.script;
    state->memory.script = false; /* it is a place in a table; nothing may raise from here on */
    cb->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    state->memory.script = script;
    list_push(&state->callbacks, &cb->node);
}

void callback_call(struct callback *cb) {
    if (cb->state && !cb->failed) task_wake(&cb->worker->loop, &cb->task);
}

void callback_close(struct callback *cb) {
    struct state *state = cb->state;
    if (!state) return;
    cb->state = NULL;
    list_remove(&cb->node);
    luaL_unref(state->L, LUA_REGISTRYINDEX, cb->ref);
    bool running = cb->subject.run && state->running == cb->subject.run;
    if (!running) end(cb);
}

void callbacks_stop(struct state *state) {
    while (!list_empty(&state->callbacks)) {
        struct callback *cb = container_of(state->callbacks.next, struct callback, node);
        fail(cb, FAIL_HOOK_DRAINED);
        callback_close(cb);
    }
}
