/* core/lua without a network: states made from a text, bound to a worker and a site of their own, whose hooks are called for
 * exchanges that were never received. The loop is turned until a call has answered.
 *
 *     local state = lua.open("return { on_request = function(req) … end }", { backends = { "app" }, modules = { ["a.b"] = text } })
 *     state:start()
 *     local answer = state:call "on_request"          -- { verdict = "reply", status = 403, … }
 *     local call = state:begin "on_request"           -- call.verdict is "wait": call:go(), call:cancel(), call:finish()
 *     state:close()                                   -- stops and destroys it
 */
#include "module.h"

#include "base/log.h"
#include "base/must.h"
#include "lua/engine.h"
#include "net/resolver.h"
#include "store/lock.h"
#include "store/metrics.h"
#include "store/shared.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STATE_TYPE "moongate_core.lua.state"
#define CALL_TYPE  "moongate_core.lua.call"

enum { SITES = 4, BACKENDS = 4, FILES = 16 };
static const double PATIENCE = 30;

/* What a state needs around it. */
struct rig {
    struct worker worker;
    struct generation generation;
    struct site sites[SITES];
    struct site *site_list[SITES];
    struct site_policy *policies[SITES][1];
    struct state *state_list[1];
    struct state *state;
    struct deadline patience;
    bool impatient, started, done;
    char *errors;
};

struct call {
    struct rig *rig;
    struct exchange exchange;
    struct decision decision;
    struct last_try last;
    struct error_info error;
    enum hook hook;
    enum verdict verdict;
    unsigned wakes;
    bool open;
};

/* ---- Files that are not there */

static struct { char *path, *text; } files[FILES];

static void add_file(const char *path, const char *text) {
    for (size_t i = 0; i < FILES; i++) {
        if (files[i].path) continue;
        files[i].path = must_strdup(path);
        files[i].text = must_strdup(text);
        return;
    }
}

static void forget_files(void) {
    for (size_t i = 0; i < FILES; i++) {
        free(files[i].path);
        free(files[i].text);
        files[i].path = files[i].text = NULL;
    }
}

static int open_file(const char *path) {
    for (size_t i = 0; i < FILES && files[i].path; i++) {
        if (strcmp(files[i].path, path) != 0) continue;
        int fd = memfd_create("source", MFD_CLOEXEC);
        size_t n = strlen(files[i].text);
        must(fd >= 0 && write(fd, files[i].text, n) == (ssize_t)n && lseek(fd, 0, SEEK_SET) == 0);
        return fd;
    }
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void add_modules(lua_State *L, int options) {
    if (!lua_istable(L, options) || lua_getfield(L, options, "modules") != LUA_TTABLE) return;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        luaL_gsub(L, lua_tostring(L, -2), ".", "/");
        lua_pushfstring(L, "nowhere/%s.lua", lua_tostring(L, -1));
        add_file(lua_tostring(L, -1), lua_tostring(L, -3));
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

/* ---- The rig */

static unsigned rigs; /* alive: they share the metrics */

static struct rig *check_rig(lua_State *L) {
    struct rig **rig = luaL_checkudata(L, 1, STATE_TYPE);
    luaL_argcheck(L, *rig, 1, "closed");
    return *rig;
}

static double option_number(lua_State *L, int options, const char *name) {
    if (!lua_istable(L, options)) return 0;
    lua_getfield(L, options, name);
    double n = (double)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return n;
}

static struct backend *make_backend(const char *name) {
    struct server_spec *spec = must_calloc(1, sizeof *spec);
    must(addr_parse(&spec->addr, slice_of("127.0.0.1:1")));
    spec->name = must_strdup("one");
    spec->weight = 1;
    struct backend_settings settings = { .tries = 3 };
    return backend_create(slice_of(name), spec, 1, &settings, 1, NULL);
}

static void add_backends(lua_State *L, int options, struct site *site) {
    site->backends = must_calloc(BACKENDS, sizeof *site->backends);
    if (!lua_istable(L, options) || lua_getfield(L, options, "backends") != LUA_TTABLE) return;
    for (lua_Integer i = 1; i <= luaL_len(L, -1) && i <= BACKENDS; i++) {
        lua_geti(L, -1, i);
        struct backend *backend = make_backend(lua_tostring(L, -1));
        lua_pop(L, 1);
        site->backends[site->backend_count++] = backend;
        map_set(&site->backends_by_name, slice_of(backend->name), backend);
    }
    lua_pop(L, 1);
}

static void add_fail(lua_State *L, int options, struct site *site) {
    if (!lua_istable(L, options) || lua_getfield(L, options, "fail_open") != LUA_TTABLE) return;
    for (enum hook h = 0; h < HOOK_COUNT; h++) {
        lua_getfield(L, -1, hook_name(h));
        site->fail_open[h] = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Not site_metrics_get's, which live as long as the process: other specs close the metrics. */
static struct site_metrics *make_metrics(const char *site) {
    struct site_metrics *metrics = must_calloc(1, sizeof *metrics);
    for (enum hook h = 0; h < HOOK_COUNT; h++) {
        struct label labels[] = { { "site", slice_of(site) }, { "hook", slice_of(hook_name(h)) } };
        char text[256];
        metrics->hook_errors[h] =
            metric_get(METRIC_COUNTER, "hook_errors", "", metric_labels(text, sizeof text, labels, 2));
        metrics->hook_seconds[h] =
            metric_get(METRIC_HISTOGRAM, "hook_seconds", "", metric_labels(text, sizeof text, labels, 2));
    }
    return metrics;
}

static void make_sites(lua_State *L, int options, struct rig *rig) {
    double count = option_number(L, options, "sites");
    rig->generation.site_count = count > 0 ? (unsigned)count : 1;
    for (unsigned i = 0; i < rig->generation.site_count; i++) {
        struct site *site = rig->site_list[i] = &rig->sites[i];
        site->generation = &rig->generation;
        site->index = i;
        lua_pushfstring(L, "site%d", (int)i + 1);
        site->name = must_strdup(lua_tostring(L, -1));
        site->metrics = make_metrics(site->name);
        site->policies = rig->policies[i];
        add_backends(L, options, site);
        add_fail(L, options, site);
    }
}

static void free_rig(struct rig *rig) {
    if (rig->state) {
        state_stop(rig->state);
        state_destroy(rig->state);
    }
    for (unsigned i = 0; i < rig->generation.site_count; i++) {
        struct site *site = &rig->sites[i];
        for (unsigned b = 0; b < site->backend_count; b++) backend_destroy(site->backends[b]);
        free(site->backends);
        free(site->name);
        free(site->metrics);
        map_fini(&site->backends_by_name);
    }
    deadline_fini(&rig->patience);
    resolver_destroy(rig->worker.resolver);
    rig->worker.generation = NULL;
    worker_fini(&rig->worker);
    free(rig->errors);
    free(rig);
    if (--rigs > 0) return;
    metrics_close();
    locks_close_all();
    shared_close_all();
}

static void rig_on_time(struct deadline *d) { container_of(d, struct rig, patience)->impatient = true; }

static struct rig *make_rig(lua_State *L, int options) {
    if (rigs++ == 0) metrics_open(1);
    struct rig *rig = must_calloc(1, sizeof *rig);
    worker_init(&rig->worker, (unsigned)option_number(L, options, "worker"), 1);
    rig->worker.loop.index = 0;
    rig->worker.resolver = resolver_create(&rig->worker.mailbox, "127.0.0.1:9"); /* nobody answers there */
    rig->generation.refs = 1;
    rig->generation.number = 1;
    rig->generation.sites = rig->site_list;
    rig->generation.states = rig->state_list;
    make_sites(L, options, rig);
    rig->worker.generation = &rig->generation;
    deadline_init(&rig->patience, &rig->worker.loop, rig_on_time);
    return rig;
}

/* Turns the loop until `done` says so. */
static void turn_until(lua_State *L, struct rig *rig, bool (*done)(void *), void *with) {
    rig->impatient = false;
    deadline_set(&rig->patience, PATIENCE);
    while (!done(with) && !rig->impatient) loop_turn(&rig->worker.loop);
    deadline_clear(&rig->patience);
    if (rig->impatient) luaL_error(L, "nothing happened for a long time");
}

/* ---- Opening */

static int fail_errors(lua_State *L, const struct errors *errors) {
    char *text = errors_text(errors);
    lua_pushnil(L);
    lua_pushstring(L, text);
    free(text);
    return 2;
}

/* open(text[, options]) → state, or nil and the errors. */
static int lua_lua_open(lua_State *L) {
    struct errors errors;
    struct state_limits limits = { .memory = (size_t)option_number(L, 2, "memory"),
                                   .hook_memory = (size_t)option_number(L, 2, "hook_memory"),
                                   .hook_cpu = option_number(L, 2, "hook_cpu"),
                                   .hook_time = option_number(L, 2, "hook_time"),
                                   .load_cpu = option_number(L, 2, "load_cpu") };
    int number = (int)option_number(L, 2, "number");
    lua_settop(L, 2);
    forget_files();
    add_file("nowhere/config.lua", luaL_checkstring(L, 1));
    add_modules(L, 2);
    errors_init(&errors);
    struct sources *sources = sources_create("nowhere/config.lua", open_file);
    struct state *state = state_create(sources, number, &limits, &errors);
    sources_destroy(sources);
    int results = 2;
    if (!state) fail_errors(L, &errors);
    else {
        struct rig *rig = make_rig(L, 2);
        rig->state = rig->state_list[0] = state;
        *(struct rig **)lua_newuserdatauv(L, sizeof rig, 0) = rig;
        luaL_setmetatable(L, STATE_TYPE);
        results = 1;
    }
    errors_fini(&errors);
    forget_files();
    return results;
}

static int state_lua_close(lua_State *L) {
    struct rig **rig = luaL_checkudata(L, 1, STATE_TYPE);
    if (*rig) free_rig(*rig);
    *rig = NULL;
    return 0;
}

/* Plain data as a spec reads it: functions are "function LINE", others their names. */
static void push_data(lua_State *L, const struct value *v) {
    luaL_checkstack(L, 8, NULL);
    if (v->kind == VALUE_FUNCTION) lua_pushfstring(L, "function %d", v->function.line);
    else if (v->kind == VALUE_OTHER) lua_pushstring(L, v->other);
    else if (v->kind != VALUE_TABLE) value_to_lua(L, v);
    else {
        lua_newtable(L);
        for (size_t i = 0; i < v->table.count; i++) {
            push_data(L, &v->table.list[i].key);
            push_data(L, &v->table.list[i].value);
            lua_rawset(L, -3);
        }
    }
}

static int state_lua_config(lua_State *L) {
    push_data(L, state_config(check_rig(L)->state));
    return 1;
}

/* hooks(index) → set of names, error text or "". */
static int state_lua_hooks(lua_State *L) {
    struct errors errors;
    errors_init(&errors);
    uint32_t bits = state_hooks(check_rig(L)->state, (size_t)luaL_optinteger(L, 2, 0), &errors);
    lua_newtable(L);
    for (enum hook h = 0; h < HOOK_COUNT; h++) {
        if (!(bits & 1u << h)) continue;
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, hook_name(h));
    }
    char *text = errors_text(&errors);
    lua_pushstring(L, text);
    free(text);
    errors_fini(&errors);
    return 2;
}

/* ---- Life */

static void on_started(void *with, const struct errors *errors) {
    struct rig *rig = with;
    rig->done = true;
    free(rig->errors);
    rig->errors = errors_any(errors) ? errors_text(errors) : NULL;
}

static bool is_done(void *rig) { return ((struct rig *)rig)->done; }

/* A snapshot is what unload returned: a light userdata owned by nobody but the spec. */
static int state_lua_start(lua_State *L) {
    struct rig *rig = check_rig(L);
    const struct value *snapshot = lua_isuserdata(L, 2) ? lua_touserdata(L, 2) : NULL;
    rig->done = false;
    rig->started = true;
    state_start(rig->state, &rig->worker, &rig->generation, snapshot, on_started, rig);
    turn_until(L, rig, is_done, rig);
    lua_pushboolean(L, !rig->errors);
    lua_pushstring(L, rig->errors);
    return 2;
}

static int state_lua_become_current(lua_State *L) {
    state_become_current(check_rig(L)->state);
    return 0;
}

static int free_snapshot(lua_State *L) {
    value_fini(lua_touserdata(L, 1));
    return 0;
}

/* unload() → data for a spec, snapshot for another state. */
static int state_lua_unload(lua_State *L) {
    struct rig *rig = check_rig(L);
    struct value *v = lua_newuserdatauv(L, sizeof *v, 0);
    *v = state_unload(rig->state);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, free_snapshot);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    push_data(L, v);
    lua_insert(L, -2);
    return 2;
}

static int state_lua_stop(lua_State *L) {
    state_stop(check_rig(L)->state);
    return 0;
}

/* turn(n): turns that do not wait for anything new. */
static int state_lua_turn(lua_State *L) {
    struct rig *rig = check_rig(L);
    for (lua_Integer n = luaL_optinteger(L, 2, 1); n > 0; n--) {
        deadline_set(&rig->patience, 1e-6);
        loop_turn(&rig->worker.loop);
    }
    deadline_clear(&rig->patience);
    return 0;
}

static bool is_impatient(void *rig) { return ((struct rig *)rig)->impatient; }

/* wait(seconds): turns the loop for so long. */
static int state_lua_wait(lua_State *L) {
    struct rig *rig = check_rig(L);
    rig->impatient = false;
    deadline_set(&rig->patience, (double)luaL_checknumber(L, 2));
    while (!is_impatient(rig)) loop_turn(&rig->worker.loop);
    return 0;
}

static int state_lua_figures(lua_State *L) {
    struct rig *rig = check_rig(L);
    struct state_figures figures = state_figures(rig->state);
    lua_newtable(L);
    lua_pushinteger(L, (lua_Integer)figures.bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushinteger(L, (lua_Integer)figures.runs);
    lua_setfield(L, -2, "runs");
    lua_pushinteger(L, (lua_Integer)figures.waiting);
    lua_setfield(L, -2, "waiting");
    lua_pushboolean(L, state_over_limit(rig->state));
    lua_setfield(L, -2, "over_limit");
    return 1;
}

/* errors(hook[, site]) → how many failures of that hook the metrics have counted. */
static int state_lua_errors(lua_State *L) {
    struct rig *rig = check_rig(L);
    const char *name = luaL_checkstring(L, 2);
    for (enum hook h = 0; h < HOOK_COUNT; h++)
        if (strcmp(name, hook_name(h)) == 0) {
            lua_pushinteger(L, metric_value(rig->sites[luaL_optinteger(L, 3, 1) - 1].metrics->hook_errors[h]));
            return 1;
        }
    return luaL_argerror(L, 2, "no such hook");
}

/* ---- Calls */

static enum hook check_hook(lua_State *L, int arg) {
    const char *name = luaL_checkstring(L, arg);
    for (enum hook h = 0; h < HOOK_COUNT; h++)
        if (strcmp(name, hook_name(h)) == 0) return h;
    luaL_argerror(L, arg, "no such hook");
    return HOOK_COUNT;
}

static void call_advance(struct task *task) { container_of(task, struct exchange, task)->bytes_in++; }

static void fill_request(struct exchange *x) {
    x->request.method_name = SLICE("GET");
    x->request.method = METHOD_GET;
    x->request.version = HTTP_1_1;
    x->request.target.raw = x->request.target.path = SLICE("/");
    x->request.target.scheme = SLICE("http");
    x->request.target.host = SLICE("example.com");
    headers_init(&x->request.headers, &x->arena);
    headers_init(&x->request.trailers, &x->arena);
    headers_init(&x->response.headers, &x->arena);
    headers_init(&x->response.trailers, &x->arena);
    headers_add(&x->request.headers, SLICE("Host"), SLICE("example.com"));
    x->request_body.state = PIPE_ENDED;
    list_init(&x->request_body.stages);
    list_init(&x->request_body.readers);
    x->response.status = 200;
    memcpy(x->id, "0123456789abcdef", sizeof x->id);
}

static struct call *make_call(struct rig *rig, unsigned site) {
    struct call *c = must_calloc(1, sizeof *c);
    struct exchange *x = &c->exchange;
    c->rig = rig;
    c->open = true;
    task_init(&x->task, call_advance);
    list_init(&x->node);
    arena_init(&x->arena);
    x->site = &rig->sites[site];
    x->site_name = slice_of(x->site->name);
    x->subject = (struct subject){ .kind = SUBJECT_EXCHANGE,
                                   .worker = &rig->worker,
                                   .site = x->site,
                                   .exchange = x,
                                   .arena = &x->arena,
                                   .task = &x->task };
    fill_request(x);
    return c;
}

static void end_call(struct call *c) {
    if (!c->open) return;
    c->open = false;
    subject_end(&c->exchange.subject);
    task_forget(&c->exchange.task);
    arena_fini(&c->exchange.arena);
}

static const char *verdict_name(enum verdict v) {
    static const char *const names[] = { "carry_on", "wait", "reply", "pick", "no", "key", "certificate", "failed" };
    return names[v];
}

static void push_headers(lua_State *L, const struct headers *headers) {
    lua_newtable(L);
    headers_each(h, headers) {
        module_push_slice(L, h->name);
        module_push_slice(L, h->value);
        lua_settable(L, -3);
    }
}

static void push_pick(lua_State *L, const struct pick *pick) {
    lua_createtable(L, (int)pick->count, 4);
    for (unsigned i = 0; i < pick->count; i++) {
        struct slice server = pick->servers[i];
        if (server.p) lua_pushfstring(L, "%s/%s", pick->backends[i]->name, lua_pushlstring(L, server.p, server.n));
        else lua_pushstring(L, pick->backends[i]->name);
        if (server.p) lua_remove(L, -2);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushboolean(L, pick->listed);
    lua_setfield(L, -2, "listed");
    lua_pushinteger(L, pick->tries);
    lua_setfield(L, -2, "tries");
    lua_pushnumber(L, pick->timeout);
    lua_setfield(L, -2, "timeout");
    if (!pick->has_retry_on) return;
    lua_pushinteger(L, pick->retry_on);
    lua_setfield(L, -2, "retry_on");
    lua_pushboolean(L, status_set_has(&pick->retry_statuses, 503));
    lua_setfield(L, -2, "retry_503");
}

/* The answer as a table. */
static void push_answer(lua_State *L, const struct call *c) {
    const struct decision *d = &c->decision;
    lua_newtable(L);
    lua_pushstring(L, verdict_name(c->verdict));
    lua_setfield(L, -2, "verdict");
    if (c->verdict == VERDICT_KEY) module_set_slice(L, "key", d->key);
    if (c->verdict == VERDICT_PICK) {
        push_pick(L, &d->pick);
        lua_setfield(L, -2, "pick");
    }
    if (c->verdict != VERDICT_REPLY) return;
    lua_pushinteger(L, d->reply.status);
    lua_setfield(L, -2, "status");
    module_set_slice(L, "body", d->reply.body);
    push_headers(L, &d->reply.headers);
    lua_setfield(L, -2, "headers");
}

/* options: site, last (pick_backend is re-asked), reusing `c` for further hooks of one exchange. */
static void begin_call(lua_State *L, struct call *c, int options) {
    const void *detail = NULL;
    if (c->hook == HOOK_PICK_BACKEND && option_number(L, options, "last") > 0) {
        c->last =
            (struct last_try){ .backend = c->exchange.site->backends[0], .failure = FAIL_CONNECT_REFUSED, .tries = 1 };
        detail = &c->last;
    }
    if (c->hook == HOOK_ON_ERROR) {
        c->error = (struct error_info){ .status = 502, .failure = FAIL_CONNECT_REFUSED };
        detail = &c->error;
    }
    c->verdict = hook_call(&c->exchange.subject, c->hook, detail, &c->decision);
}

static bool has_answered(void *with) {
    struct call *c = with;
    if (c->verdict != VERDICT_WAIT) return true;
    if (c->exchange.bytes_in == 0) return false;
    c->exchange.bytes_in = 0;
    c->wakes++;
    c->verdict = hook_go_on(&c->exchange.subject, &c->decision);
    return c->verdict != VERDICT_WAIT;
}

/* call(hook[, options]) → the answer. */
static int state_lua_call(lua_State *L) {
    struct rig *rig = check_rig(L);
    enum hook hook = check_hook(L, 2);
    struct call *c = make_call(rig, (unsigned)option_number(L, 3, "site"));
    c->hook = hook;
    begin_call(L, c, 3);
    turn_until(L, rig, has_answered, c);
    push_answer(L, c);
    end_call(c);
    free(c);
    return 1;
}

static struct call *check_call(lua_State *L) { return *(struct call **)luaL_checkudata(L, 1, CALL_TYPE); }

/* begin(hook[, options]) → a call that may wait. In the hard build it is taken over the first wait, which is the
 * build's. */
static int state_lua_begin(lua_State *L) {
    struct rig *rig = check_rig(L);
    enum hook hook = check_hook(L, 2);
    struct call *c = make_call(rig, (unsigned)option_number(L, 3, "site"));
    c->hook = hook;
    *(struct call **)lua_newuserdatauv(L, sizeof c, 1) = c;
    luaL_setmetatable(L, CALL_TYPE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    begin_call(L, c, 3);
#ifdef MOONGATE_HARD
    if (c->verdict == VERDICT_WAIT) c->verdict = hook_go_on(&c->exchange.subject, &c->decision);
#endif
    return 1;
}

/* again(hook[, options]): another hook of the same exchange. */
static int call_lua_again(lua_State *L) {
    struct call *c = check_call(L);
    c->hook = check_hook(L, 2);
    begin_call(L, c, 3);
    turn_until(L, c->rig, has_answered, c);
    push_answer(L, c);
    return 1;
}

static int call_lua_finish(lua_State *L) {
    struct call *c = check_call(L);
    turn_until(L, c->rig, has_answered, c);
    push_answer(L, c);
    return 1;
}

/* go(): whether or not it was woken. */
static int call_lua_go(lua_State *L) {
    struct call *c = check_call(L);
    if (c->verdict == VERDICT_WAIT) c->verdict = hook_go_on(&c->exchange.subject, &c->decision);
    lua_pushstring(L, verdict_name(c->verdict));
    return 1;
}

static int call_lua_verdict(lua_State *L) {
    lua_pushstring(L, verdict_name(check_call(L)->verdict));
    return 1;
}

static int call_lua_cancel(lua_State *L) {
    hook_cancel(&check_call(L)->exchange.subject);
    return 0;
}

static int call_lua_end(lua_State *L) {
    end_call(check_call(L));
    return 0;
}

static int call_lua_gc(lua_State *L) {
    struct call *c = check_call(L);
    lua_getiuservalue(L, 1, 1);
    struct rig **rig = lua_touserdata(L, -1);
    if (rig && *rig) end_call(c);
    else arena_fini(&c->exchange.arena);
    free(c);
    return 0;
}

/* bench(hook, n) → nanoseconds a call, all for one exchange as often as `each` says. */
static int state_lua_bench(lua_State *L) {
    struct rig *rig = check_rig(L);
    enum hook hook = check_hook(L, 2);
    lua_Integer n = luaL_checkinteger(L, 3), each = luaL_optinteger(L, 4, 1);
    struct timespec from, to;
    struct call *c = make_call(rig, 0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (lua_Integer i = 0; i < n; i += each) {
        for (lua_Integer k = 0; k < each; k++) c->verdict = hook_call(&c->exchange.subject, hook, NULL, &c->decision);
        subject_end(&c->exchange.subject);
        arena_fini(&c->exchange.arena);
        if (i % 100 == 0) rig->state->collector.run(&rig->state->collector);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    free(c);
    lua_pushnumber(L, ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)n);
    return 1;
}

/* collect(): a full collection; its figures are current then. */
static int state_lua_collect(lua_State *L) {
    struct rig *rig = check_rig(L);
    memory_collect(&rig->state->memory, rig->state->L);
    return 0;
}

/* ---- */

int module_lua_open(lua_State *L) {
    static const luaL_Reg state_methods[] = {
        { "become_current", state_lua_become_current },
        { "begin", state_lua_begin },
        { "bench", state_lua_bench },
        { "call", state_lua_call },
        { "close", state_lua_close },
        { "collect", state_lua_collect },
        { "config", state_lua_config },
        { "errors", state_lua_errors },
        { "figures", state_lua_figures },
        { "hooks", state_lua_hooks },
        { "start", state_lua_start },
        { "stop", state_lua_stop },
        { "turn", state_lua_turn },
        { "unload", state_lua_unload },
        { "wait", state_lua_wait },
        { "__gc", state_lua_close },
        { NULL, NULL },
    };
    static const luaL_Reg call_methods[] = {
        { "again", call_lua_again },     { "cancel", call_lua_cancel },
        { "end_subject", call_lua_end }, { "finish", call_lua_finish },
        { "go", call_lua_go },           { "verdict", call_lua_verdict },
        { "__gc", call_lua_gc },         { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "open", lua_lua_open }, { NULL, NULL } };
    module_make_type(L, STATE_TYPE, state_methods);
    module_make_type(L, CALL_TYPE, call_methods);
    luaL_newlib(L, functions);
    return 1;
}
