/* Hooks: proxy/hook.h on top of runs.
 *
 * A call goes along its chain (policy.c) until an entry answers. Constants are decided here, without entering Lua;
 * the first function takes a run from the pool, and the functions after it use the same one. What a function returned
 * is read by verdict.c; what it raised is logged and fails closed, except a reply: `error(gate.reply(403))` is that
 * reply.
 *
 * Time is measured without a system call per hook: one call in SAMPLE reads the clock and is observed SAMPLE times;
 * one that waited is measured by the loop's own time and observed once. Each hook counts its own calls: with one count
 * for all, a site with two hooks would see the second one sampled for ever, and the first never. */
#include "proxy/hook.h"

#include "lua/bind.h"
#include "lua/policy.h"
#include "lua/report.h"
#include "lua/verdict.h"

#include "base/clock.h"
#include "base/must.h"

#include <stdio.h>

enum { SAMPLE = 16 };

/* ---- Measures */

static void measure_begin(struct hook_run *run) {
    static _Thread_local unsigned calls[HOOK_COUNT];
    run->began = loop_now(&run->state->worker->loop);
    run->sampled = ++calls[run->hook] % SAMPLE == 0 ? clock_monotonic() : 0;
}

static void measure_end(struct hook_run *run) {
    const struct subject *subject = run->subject;
    struct site_metrics *metrics = subject->site ? subject->site->metrics : NULL;
    if (!metrics) return;
    struct metric *seconds = metrics->hook_seconds[run->hook];
    int worker = (int)subject->worker->index;
    if (run->waited) {
        metric_observe(seconds, worker, loop_now(&subject->worker->loop) - run->began);
        return;
    }
    if (run->sampled == 0) return;
    metric_observe_times(seconds, worker, clock_monotonic() - run->sampled, SAMPLE);
}

/* Ends the run of a call; the answer is known, or the next function needs another one. */
static void end_run(struct hook_run *run) {
    measure_end(run);
    run_close(run);
}

/* ---- Failures */

static enum verdict fail_call(const struct subject *subject, enum hook hook, const char *text) {
    struct site *site = subject->site;
    struct hook_observer *observer = subject->worker->observer;
    if (observer) observer->failed(observer, subject, text);
    report_failure(subject, hook_name(hook), text);
    if (site && site->metrics) metric_add(site->metrics->hook_errors[hook], (int)subject->worker->index, 1);
    return site && site->fail_open[hook] ? VERDICT_CARRY_ON : VERDICT_FAILED;
}

/* It returned what it may not: told with the place of the function, or of the constant. */
static enum verdict fail_reading(struct reading *r, struct state *state, const struct policy_entry *entry) {
    char place[128], text[WHY_TEXT + 256];
    if (entry->kind == ENTRY_FUNCTION) {
        lua_rawgeti(state->L, LUA_REGISTRYINDEX, entry->ref);
        report_place(state->L, place, sizeof place);
    } else snprintf(place, sizeof place, "%.120s: ", entry->path);
    snprintf(text, sizeof text, "%s%s returned %s", place, hook_name(r->hook), r->why);
    return fail_call(r->subject, r->hook, text);
}

/* ---- Time: hooks that wait too long are found in steps, by the state's one deadline */

static double step_of(const struct state *state) { return state->hook_time / 8 < 1 ? state->hook_time / 8 : 1; }

static bool is_call(const struct hook_run *run) { return run->chain && run->waiting && !run->overdue; }

void hook_find_overdue(struct deadline *d) {
    struct state *state = container_of(d, struct state, overdue);
    double now = loop_now(&state->worker->loop);
    bool more = false;
    list_each(node, &state->runs) {
        struct hook_run *run = container_of(node, struct hook_run, node);
        if (!is_call(run)) continue;
        run->overdue = now - run->began >= state->hook_time;
        if (run->overdue) task_wake(&state->worker->loop, run->subject->task);
        else more = true;
    }
    if (more) deadline_set(d, step_of(state));
}

static void watch_time(struct state *state) {
    if (state->hook_time > 0 && state->overdue.at == 0) deadline_set(&state->overdue, step_of(state));
}

static enum verdict fail_overdue(struct hook_run *run) {
    char text[96];
    lua_State *L = run->state->L;
    snprintf(text, sizeof text, "it has lasted longer than its %g s, waits included (lua.hook_time)",
             run->state->hook_time);
    luaL_traceback(L, run->root.L, text, 0);
    enum verdict verdict = fail_call(run->subject, run->hook, lua_tostring(L, -1));
    lua_pop(L, 1);
    end_run(run);
    return verdict;
}

/* ---- Entries */

static enum verdict decide_constant(struct subject *subject, enum hook hook, const struct site_policy *policy,
                                    const struct policy_entry *entry, struct decision *decision) {
    if (entry->kind == ENTRY_PICK) {
        pick_copy(&decision->pick, entry->pick);
        return VERDICT_PICK;
    }
    lua_State *L = policy->state->L;
    struct reading r;
    reading_init(&r, subject, policy->site, hook, decision);
    lua_rawgeti(L, LUA_REGISTRYINDEX, entry->ref);
    enum verdict verdict = verdict_read(&r, L, lua_gettop(L), 1);
    lua_pop(L, 1);
    return verdict == VERDICT_FAILED ? fail_reading(&r, policy->state, entry) : verdict;
}

static void push_last(lua_State *L, const struct last_try *last) {
    lua_createtable(L, 0, 5);
    if (last->backend) {
        lua_pushstring(L, last->backend->name);
        lua_setfield(L, -2, "backend");
    }
    if (last->server) {
        lua_pushstring(L, last->server->name);
        lua_setfield(L, -2, "server");
    }
    if (last->status) {
        lua_pushinteger(L, last->status);
        lua_setfield(L, -2, "status");
    }
    if (last->failure != FAIL_NONE) {
        lua_pushstring(L, failure_word(last->failure));
        lua_setfield(L, -2, "error");
    }
    lua_pushinteger(L, last->tries);
    lua_setfield(L, -2, "tries");
}

static void push_error_info(lua_State *L, const struct error_info *info) {
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, info->status);
    lua_setfield(L, -2, "status");
    lua_pushstring(L, failure_word(info->failure));
    lua_setfield(L, -2, "word");
    lua_pushstring(L, failure_sentence(info->failure));
    lua_setfield(L, -2, "sentence");
    if (info->hook) {
        lua_pushstring(L, info->hook);
        lua_setfield(L, -2, "hook");
    }
}

/* nil: the client did not say. */
static void push_name(lua_State *L, const struct slice *name) {
    if (name->n) lua_pushlstring(L, name->p, name->n);
    else lua_pushnil(L);
}

/* Pushes the arguments of the run's hook; their number. */
static int push_arguments(struct hook_run *run, lua_State *L) {
    struct subject *subject = run->subject;
    switch (run->hook) {
    case HOOK_ON_CONNECT: arrival_push(L, subject, run->detail); return 1;
    case HOOK_ON_CERTIFICATE: push_name(L, run->detail); return 1;
    default: break;
    }
    req_push(L, subject);
    switch (run->hook) {
    case HOOK_PICK_BACKEND:
        if (run->detail) push_last(L, run->detail);
        return run->detail ? 2 : 1;
    case HOOK_ON_ERROR:
        if (run->detail) push_error_info(L, run->detail);
        return run->detail ? 2 : 1;
    case HOOK_ON_STORE:
    case HOOK_ON_RESPONSE:
    case HOOK_ON_LOG: res_push(L, subject); return 2;
    default: return 1;
    }
}

static enum run_status start_function(struct hook_run *run, const struct policy_entry *entry) {
    lua_State *L = run->root.L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, entry->ref);
    return run_start(run, push_arguments(run, L));
}

/* ---- Calls */

static enum verdict read_failure(struct hook_run *run, struct decision *decision) {
    struct state *state = run->state;
    lua_State *L = run->root.L;
    if (verdict_takes_reply(run->hook) && reply_test(L, -1)) {
        if (reply_read(L, lua_gettop(L), run->subject, &decision->reply)) return VERDICT_REPLY;
        return fail_call(run->subject, run->hook, "returned " SPENT_REPLY);
    }
    enum verdict verdict = fail_call(run->subject, run->hook, report_text(state, L));
    lua_pop(state->L, 1);
    return verdict;
}

/* What the function of the present entry came to. A run that failed is over. */
static enum verdict settle(struct hook_run *run, enum run_status status, struct decision *decision) {
    if (status == RUN_WAITS) {
        watch_time(run->state);
        return VERDICT_WAIT;
    }
    if (status == RUN_FAILED) {
        enum verdict verdict = read_failure(run, decision);
        end_run(run);
        return verdict;
    }
    struct reading r;
    reading_init(&r, run->subject, run->subject->site, run->hook, decision);
    enum verdict verdict = verdict_read(&r, run->root.L, 1, run->results);
    if (verdict == VERDICT_FAILED) verdict = fail_reading(&r, run->state, &run->chain->entries[run->at]);
    lua_settop(run->root.L, 0);
    return verdict;
}

static struct hook_run *begin_run(struct subject *subject, enum hook hook, const void *detail,
                                  const struct site_policy *policy) {
    struct hook_run *run = run_open(policy->state, subject);
    run->hook = hook;
    run->detail = detail;
    run->chain = &policy->chains[hook];
    measure_begin(run);
    return run;
}

/* The hard build lets every hook wait before it begins. */
static bool delays(struct hook_run *run) {
#ifdef MOONGATE_HARD
    run->delayed = true;
    task_wake(&run->state->worker->loop, run->subject->task);
    return true;
#else
    (void)run;
    return false;
#endif
}

static enum verdict ask(struct subject *subject, enum hook hook, const void *detail, const struct site_policy *policy,
                        unsigned at, struct decision *decision);

/* `verdict` is what entry `at` came to: the answer, or the next is asked. */
static enum verdict go_on_with(struct subject *subject, enum hook hook, const void *detail,
                               const struct site_policy *policy, unsigned at, enum verdict verdict,
                               struct decision *decision) {
    if (verdict == VERDICT_WAIT) return verdict;
    struct hook_observer *observer = subject->worker->observer;
    if (observer) observer->answered(observer, subject, hook, verdict, decision);
    if (verdict == VERDICT_CARRY_ON || hook == HOOK_ON_LOG) return ask(subject, hook, detail, policy, at + 1, decision);
    if (subject->run) end_run(subject->run);
    return verdict;
}

static void tell_asked(struct hook_observer *observer, lua_State *L, const struct subject *subject, enum hook hook,
                       const struct policy_entry *entry) {
    struct hook_asked asked = { .hook = hook, .path = entry->path };
    lua_Debug about;
    if (entry->kind == ENTRY_FUNCTION) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, entry->ref);
        lua_getinfo(L, ">S", &about);
        asked.file = about.short_src;
        asked.line = about.linedefined;
    }
    observer->asked(observer, subject, &asked);
}

/* Asks entry `at` of the chain and those after it. */
static enum verdict ask(struct subject *subject, enum hook hook, const void *detail, const struct site_policy *policy,
                        unsigned at, struct decision *decision) {
    const struct policy_chain *chain = &policy->chains[hook];
    if (at == chain->count) {
        if (subject->run) end_run(subject->run);
        return VERDICT_CARRY_ON;
    }
    const struct policy_entry *entry = &chain->entries[at];
    struct hook_observer *observer = subject->worker->observer;
    if (observer) tell_asked(observer, policy->state->L, subject, hook, entry);
    if (entry->kind != ENTRY_FUNCTION)
        return go_on_with(subject, hook, detail, policy, at, decide_constant(subject, hook, policy, entry, decision),
                          decision);
    struct hook_run *run = subject->run;
    bool fresh = !run;
    if (fresh) run = begin_run(subject, hook, detail, policy);
    run->at = at;
    if (fresh && delays(run)) return VERDICT_WAIT;
    return go_on_with(subject, hook, detail, policy, at, settle(run, start_function(run, entry), decision), decision);
}

static const struct site_policy *policy_of(const struct subject *subject) {
    const struct site *site = subject->site;
    return site && site->policies ? site->policies[subject->worker->index] : NULL;
}

enum verdict hook_call(struct subject *subject, enum hook hook, const void *detail, struct decision *decision) {
    decision_init(decision);
    const struct site_policy *policy = policy_of(subject);
    bool wanted = subject->site && (subject->site->hooks & 1u << hook);
    if (!policy) return wanted ? VERDICT_FAILED : VERDICT_CARRY_ON; /* a rule that cannot be asked does not say yes */
    if (policy->chains[hook].count == 0) return VERDICT_CARRY_ON;
    must(!subject->run);
    return ask(subject, hook, detail, policy, 0, decision);
}

enum verdict hook_go_on(struct subject *subject, struct decision *decision) {
    struct hook_run *run = subject->run;
    decision_init(decision);
    if (!run) return VERDICT_FAILED;
    const struct site_policy *policy = policy_of(subject);
    must(policy);
    enum hook hook = run->hook;
    const void *detail = run->detail;
    unsigned at = run->at;
    if (run->overdue) return go_on_with(subject, hook, detail, policy, at, fail_overdue(run), decision);
    enum run_status status;
    if (run->delayed) {
        run->delayed = false;
        status = start_function(run, &run->chain->entries[at]);
    } else status = run_go_on(run);
    return go_on_with(subject, hook, detail, policy, at, settle(run, status, decision), decision);
}

void hook_cancel(struct subject *subject) {
    if (subject->run) run_close(subject->run);
}

void subject_end(struct subject *subject) {
    hook_cancel(subject);
    handles_end(subject);
}

struct subject *subject_of(lua_State *L) {
    struct hook_run *run = run_of(L);
    return run ? run->subject : NULL;
}

struct subject *subject_check(lua_State *L, const char *name) {
    struct subject *subject = subject_of(L);
    if (!subject) luaL_error(L, "%s cannot be used while the file is loaded", name);
    return subject;
}
