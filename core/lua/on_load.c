/* on_load and on_unload: how what a policy knows passes from one generation to the next.
 *
 * on_load functions run one after the other, as errands that may wait, LOAD_SECONDS in all; each is given what
 * on_unload of the same policy returned in the former generation. The snapshot is a table: site name -> place of the
 * policy in its site -> data. */
#include "lua/errand.h"
#include "lua/policy.h"
#include "lua/report.h"
#include "lua/state_rest.h"

#include "base/log.h"
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

static const double LOAD_SECONDS = 10;
enum {
    WHY_TEXT = 160,
    LOAD_SHARE = 10 /* of the load budget, between two waits: the worker serves meanwhile */
};

struct loader {
    struct state *state;
    struct deadline deadline;
    const struct lifetime_hook *hook; /* the function that runs */
    struct errand *errand;            /* and its run */
    struct value snapshot;
    unsigned site, function; /* where we are */
    struct errors errors;
    void (*done)(void *with, const struct errors *);
    void *with;
};

static void go_on(struct loader *);

/* ---- on_load */

static void free_loader(struct loader *loader) {
    loader->state->rest->loader = NULL;
    deadline_fini(&loader->deadline);
    value_fini(&loader->snapshot);
    errors_fini(&loader->errors);
    free(loader);
}

static void finish(struct loader *loader) {
    loader->done(loader->with, &loader->errors);
    free_loader(loader);
}

static void tell_overdue(struct loader *loader) {
    lua_State *L = loader->state->L;
    char place[WHY_TEXT], text[WHY_TEXT + 64];
    lua_rawgeti(L, LUA_REGISTRYINDEX, loader->hook->ref);
    report_place(L, place, sizeof place);
    snprintf(text, sizeof text, "%sit took longer than %d s", place, (int)LOAD_SECONDS);
    errors_add_raised(&loader->errors, NULL, "on_load", text);
}

static void loader_on_time(struct deadline *d) {
    struct loader *loader = container_of(d, struct loader, deadline);
    struct errand *errand = loader->errand;
    loader->errand = NULL;
    tell_overdue(loader);
    errand_close(errand);
    finish(loader);
}

static void loader_on_end(struct errand *errand, enum run_status status) {
    struct loader *loader = errand->with;
    loader->errand = NULL;
    if (status == RUN_FAILED) {
        struct state *state = loader->state;
        errors_add_raised(&loader->errors, NULL, "on_load", report_text(state, errand_stack(errand)));
        lua_pop(state->L, 1);
        finish(loader);
        return;
    }
    go_on(loader);
}

/* The next on_load, or NULL. */
static const struct lifetime_hook *next_function(struct loader *loader, const struct site_policy **policy) {
    struct state_rest *rest = loader->state->rest;
    for (; loader->site < rest->policy_count; loader->site++, loader->function = 0) {
        *policy = rest->policies[loader->site];
        if (loader->function < (*policy)->on_load_count) return &(*policy)->on_load[loader->function++];
    }
    return NULL;
}

static void push_snapshot(lua_State *L, const struct loader *loader, const struct site_policy *policy, unsigned part) {
    const struct value *of_site =
        loader->snapshot.kind == VALUE_TABLE ? value_get(&loader->snapshot, policy->site->name) : NULL;
    const struct value *data = of_site && of_site->kind == VALUE_TABLE ? value_at(of_site, part + 1) : NULL;
    if (data && data->kind != VALUE_BOOLEAN) value_to_lua(L, data);
    else lua_pushnil(L);
}

static void go_on(struct loader *loader) {
    const struct site_policy *policy;
    const struct lifetime_hook *hook = next_function(loader, &policy);
    if (!hook) {
        finish(loader);
        return;
    }
    loader->hook = hook;
    struct errand *errand = errand_open(loader->state, "on_load");
    errand->subject.site = policy->site;
    errand->subject.run->cpu_limit = loader->state->load_cpu / LOAD_SHARE;
    errand->ended = loader_on_end;
    errand->with = loader;
    loader->errand = errand;
    lua_State *L = errand_stack(errand);
    lua_rawgeti(L, LUA_REGISTRYINDEX, hook->ref);
    push_snapshot(L, loader, policy, hook->part);
    errand_run(errand, 1);
}

void on_load_start(struct state *state, const struct value *snapshot, void (*done)(void *, const struct errors *),
                   void *with) {
    struct loader *loader = must_calloc(1, sizeof *loader);
    loader->state = state;
    loader->done = done;
    loader->with = with;
    if (snapshot) loader->snapshot = value_copy(snapshot);
    errors_init(&loader->errors);
    deadline_init(&loader->deadline, &state->worker->loop, loader_on_time);
    deadline_set(&loader->deadline, LOAD_SECONDS);
    state->rest->loader = loader;
    go_on(loader);
}

void on_load_stop(struct state *state) {
    struct loader *loader = state->rest->loader;
    if (!loader) return;
    if (loader->errand) errand_close(loader->errand);
    free_loader(loader);
}

/* ---- on_unload */

/* What one function returned, as data; nil when it failed, waited, or returned none. */
static struct value read_data(struct errand *errand, enum run_status status) {
    struct value data = { .kind = VALUE_NIL };
    char why[WHY_TEXT];
    lua_State *L = errand_stack(errand);
    if (status == RUN_WAITS) {
        log_error("on_unload of %s cannot wait", errand->subject.site->name);
        return data;
    }
    if (status == RUN_FAILED) {
        errand_log_failure(errand);
        return data;
    }
    if (errand->subject.run->results > 0 && !value_from_lua(L, 1, false, &data, why, sizeof why))
        log_error("on_unload of %s: what it returned is no plain data: %s", errand->subject.site->name, why);
    return data;
}

static struct value ask(struct state *state, const struct site_policy *policy, const struct lifetime_hook *hook) {
    struct errand *errand = errand_open(state, "on_unload");
    errand->subject.site = policy->site;
    lua_rawgeti(errand_stack(errand), LUA_REGISTRYINDEX, hook->ref);
    struct value data = read_data(errand, run_start(errand->subject.run, 0));
    errand_close(errand);
    return data;
}

static struct value integer(unsigned n) { return (struct value){ .kind = VALUE_INTEGER, .integer = n }; }

static struct value unload_site(struct state *state, const struct site_policy *policy) {
    struct value parts = { .kind = VALUE_TABLE };
    for (unsigned i = 0; i < policy->on_unload_count; i++) {
        const struct lifetime_hook *hook = &policy->on_unload[i];
        while (parts.table.count < hook->part) /* places of policies without one */
            value_add(&parts, integer((unsigned)parts.table.count + 1), (struct value){ .kind = VALUE_BOOLEAN });
        struct value data = ask(state, policy, hook);
        if (data.kind == VALUE_NIL) data = (struct value){ .kind = VALUE_BOOLEAN };
        value_add(&parts, integer(hook->part + 1), data);
    }
    return parts;
}

struct value state_unload(struct state *state) {
    struct value all = { .kind = VALUE_TABLE };
    struct state_rest *rest = state->rest;
    for (unsigned i = 0; i < rest->policy_count && !state->stopped; i++) {
        const struct site_policy *policy = rest->policies[i];
        if (!policy->site || !policy->on_unload_count) continue;
        value_add(&all, value_string(slice_of(policy->site->name)), unload_site(state, policy));
    }
    if (all.table.count) return all;
    value_fini(&all);
    return (struct value){ .kind = VALUE_NIL };
}
