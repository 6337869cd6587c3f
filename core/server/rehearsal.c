/* How a rehearsal comes, changes its config, lets time pass, and goes: the loads of reload.c and the ends of tenure.c,
 * done at once by one thread for one worker. */
#include "server/rehearsal_parts.h"

#include "base/must.h"
#include "net/tls.h"
#include "server/ask.h"
#include "server/stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const double ON_LOAD_MOST = 60; /* more than the engine lets it take */

static struct rehearsal *the_rehearsal; /* there is one at a time */

/* ---- time */

void rehearsal_enter(struct rehearsal *r) {
    must(!r->busy);
    r->busy = true;
    clock_pretend(&r->pretence);
    log_capture(notes_on_line, r);
}

void rehearsal_leave(struct rehearsal *r) {
    r->busy = false;
    clock_pretend(NULL);
    log_capture(NULL, NULL);
}

double rehearsal_clock(const struct rehearsal *r) { return r->pretence.monotonic; }
double rehearsal_now(const struct rehearsal *r) { return r->pretence.wall; }
bool rehearsal_is_restless(const struct rehearsal *r) { return r->stage.restless; }

bool rehearsal_wait(struct rehearsal *r, double limit) {
    double next = stage_next(&r->stage);
    if (next == 0 || next > limit) return false;
    stage_move(&r->stage, next);
    return true;
}

/* All that happens until then, in order. */
static void pass_until(struct rehearsal *r, double until) {
    while (stage_settle(&r->stage, &r->worker.loop) && rehearsal_wait(r, until)) {}
    stage_move(&r->stage, until);
    stage_settle(&r->stage, &r->worker.loop);
}

void rehearsal_advance(struct rehearsal *r, double seconds) {
    rehearsal_enter(r);
    pass_until(r, rehearsal_clock(r) + seconds);
    rehearsal_leave(r);
}

/* ---- one load */

struct load {
    struct rehearsal *rehearsal;
    struct errors *errors;
    struct sources *sources;
    struct state *config_state;
    struct config config;
    bool has_config;
    struct listener **listeners; /* parallel to config.listeners */
    struct state **states;
    struct generation *generation;
    bool started, done;
};

/* The text that is read in the place of a file. sources_create's opener knows nothing but a path. */
static struct {
    const char *file;
    struct slice text;
} script;

static int open_source(const char *path) {
    if (!script.text.p || strcmp(path, script.file) != 0) return ask_read(path);
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0) return -1;
    for (size_t at = 0; at < script.text.n;) {
        ssize_t n = write(fd, script.text.p + at, script.text.n - at);
        must(n > 0);
        at += (size_t)n;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Time is the caller's: checks would be made whenever it moves, and be in the way of what is tested. */
static void forget_checks(struct config *config) {
    for (unsigned i = 0; i < config->site_count; i++) {
        for (unsigned j = 0; j < config->sites[i].backend_count; j++) {
            struct backend_settings *s = &config->sites[i].backends[j].settings;
            free(s->health.path);
            s->health.path = NULL;
        }
    }
}

static bool read_config(struct load *l, const char *file, struct slice text) {
    struct state_limits limits = { .coverage = l->rehearsal->coverage };
    script.file = file;
    script.text = text;
    l->sources = sources_create(file, open_source);
    l->config_state = state_create(l->sources, -1, &limits, l->errors);
    if (!l->config_state) return false;
    l->has_config = true;
    if (!config_read(&l->config, state_config(l->config_state), l->sources, l->errors)) return false;
    l->config.limits.coverage = l->rehearsal->coverage;
    forget_checks(&l->config);
    return config_hooks(&l->config, l->config_state, l->errors) && !errors_any(l->errors);
}

static struct listener *take_listener(struct rehearsal *r, const struct config_listener *wanted) {
    list_each(node, &r->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        if (addr_equal(&l->addr, &wanted->addr)) return l;
    }
    struct listener *l = must_calloc(1, sizeof *l);
    *l = (struct listener){ .id = r->listener_count++, .addr = wanted->addr, .name = must_strdup(wanted->name) };
    list_push(&r->listeners, &l->node);
    return l;
}

static void on_release(struct generation *g) { the_rehearsal->gone = g; }

static bool build(struct load *l) {
    struct rehearsal *r = l->rehearsal;
    static uint32_t numbers;
    l->states = must_calloc(1, sizeof *l->states);
    l->states[0] = config_worker_state(&l->config, l->sources, 0, l->config_state, l->errors);
    if (!l->states[0]) return false;
    l->listeners = must_calloc(l->config.listener_count + 1, sizeof *l->listeners);
    for (unsigned i = 0; i < l->config.listener_count; i++) l->listeners[i] = take_listener(r, &l->config.listeners[i]);
    struct generation_parts parts = {
        .workers = 1, .listeners = l->listeners, .states = l->states, .release = on_release
    };
    l->generation = generation_build(&l->config, &parts, ++numbers, l->errors);
    if (l->generation) l->states = NULL;
    return l->generation != NULL;
}

static void load_on_started(void *with, const struct errors *errors) {
    struct load *l = with;
    l->done = true;
    for (size_t i = 0; errors && i < errors->count; i++) {
        const struct error_line *e = &errors->list[i];
        errors_add(l->errors, e->file, e->line, e->path, "%s", e->text);
    }
}

/* on_load runs, and waits if it likes. */
static bool start(struct load *l) {
    struct worker *w = &l->rehearsal->worker;
    const struct generation *old = w->generation;
    struct value snapshot = { 0 };
    if (old) snapshot = state_unload(old->states[0]);
    worker_views_open(w, l->generation);
    l->started = true;
    state_start(l->generation->states[0], w, l->generation, &snapshot, load_on_started, l);
    double limit = rehearsal_clock(l->rehearsal) + ON_LOAD_MOST;
    while (stage_settle(&l->rehearsal->stage, &w->loop) && !l->done) must(rehearsal_wait(l->rehearsal, limit));
    if (!l->done) errors_add(l->errors, NULL, 0, "on_load", "it goes on for ever while no time passes");
    value_fini(&snapshot);
    return !errors_any(l->errors);
}

/* Its policy ends, its last reference goes, its memory follows. */
static void end_generation(struct rehearsal *r, struct generation *g) {
    worker_let_go(&r->worker, g);
    state_stop(g->states[0]);
    generation_unref(g); /* the caller's */
    stage_settle(&r->stage, &r->worker.loop);
    must(r->gone == g);
    r->gone = NULL;
    worker_views_close(&r->worker, g);
    state_destroy(g->states[0]);
    generation_destroy(g);
}

static void swap(struct load *l) {
    struct rehearsal *r = l->rehearsal;
    struct generation *old = r->worker.generation;
    if (old) {
        generation_ref(old);
        state_retire(old->states[0]);
    }
    worker_adopt(&r->worker, l->generation);
    state_become_current(l->generation->states[0]);
    if (old) end_generation(r, old);
    sources_destroy(r->sources);
    r->sources = l->sources;
    l->sources = NULL;
    l->generation = NULL;
}

/* What the load has not given away. */
static void end_load(struct load *l) {
    if (l->generation && l->started) {
        end_generation(l->rehearsal, l->generation);
    } else if (l->generation) {
        state_destroy(l->generation->states[0]);
        generation_destroy(l->generation);
    }
    if (l->states) state_destroy(l->states[0]);
    free(l->states);
    free(l->listeners);
    if (l->has_config) config_fini(&l->config);
    state_destroy(l->config_state);
    sources_destroy(l->sources);
}

static bool load(struct rehearsal *r, const char *file, struct slice text, struct errors *errors) {
    struct load l = { .rehearsal = r, .errors = errors };
    bool ok = read_config(&l, file, text) && build(&l) && start(&l);
    if (ok) swap(&l);
    end_load(&l);
    return ok;
}

/* ---- its life */

static struct rehearsal *create(const struct rehearsal_options *o) {
    static bool opened;
    struct rehearsal *r = must_calloc(1, sizeof *r);
    must(!the_rehearsal);
    if (!opened) metrics_open(1); /* workers keep pointers to theirs for good */
    opened = true;
    the_rehearsal = r;
    r->stubs = o->stubs;
    r->with = o->with;
    r->coverage = o->coverage;
    list_init(&r->listeners);
    notes_open(r);
    pretence_init(&r->pretence, o->now, o->seed);
    return r;
}

struct rehearsal *rehearsal_open(const struct rehearsal_options *o, struct errors *errors) {
    struct rehearsal *r = create(o);
    rehearsal_enter(r);
    worker_init(&r->worker, 0, 1);
    stage_open(&r->stage, &r->worker.loop, &r->pretence);
    stubs_open(r);
    r->worker.observer = &r->observer;
    bool ok = load(r, o->file, o->text, errors);
    rehearsal_leave(r);
    if (ok) return r;
    rehearsal_close(r);
    return NULL;
}

bool rehearsal_reload(struct rehearsal *r, const char *file, struct slice text, struct errors *errors) {
    rehearsal_enter(r);
    bool ok = load(r, file, text, errors);
    rehearsal_leave(r);
    return ok;
}

static void close_worker(struct rehearsal *r) {
    struct worker *w = &r->worker;
    struct generation *g = w->generation;
    worker_close_all(w);
    if (g) {
        generation_ref(g);
        worker_adopt(w, NULL);
        end_generation(r, g);
    }
    worker_close_pools(w);
    stubs_close(r);
    stage_settle(&r->stage, &w->loop);
    tls_trust_unref(r->trust);
    tls_thread_fini(&w->loop);
    worker_fini(w);
    stage_close(&r->stage);
}

void rehearsal_close(struct rehearsal *r) {
    if (!r) return;
    rehearsal_enter(r);
    close_worker(r);
    stores_close();
    rehearsal_leave(r);
    for (struct list *node; (node = list_pop(&r->listeners));) {
        struct listener *l = container_of(node, struct listener, node);
        free(l->name);
        free(l);
    }
    sources_destroy(r->sources);
    notes_close(r);
    free(r);
    the_rehearsal = NULL;
}

/* ---- questions */

const struct generation *rehearsal_generation(const struct rehearsal *r) { return r->worker.generation; }
const char *rehearsal_source(const struct rehearsal *r, size_t i) { return sources_path(r->sources, i); }

static bool serves(const struct generation *g, uint32_t id, const struct site *site) {
    if (id >= g->table_count || !g->tables[id]) return false;
    if (!site) return true;
    const struct host_table *t = g->tables[id];
    return t->fallback == site || (*site->hosts && host_table_find(t, slice_of(*site->hosts)) == site);
}

int rehearsal_listener(const struct rehearsal *r, const char *name, const struct site *site) {
    list_each(node, &r->listeners) {
        const struct listener *l = container_of(node, struct listener, node);
        if (name && strcmp(l->name, name) != 0) continue;
        if (serves(r->worker.generation, l->id, site)) return (int)l->id;
    }
    return -1;
}

struct health_wish {
    const char *backend, *server;
    bool well, found;
};

static void set_health(void *with, const struct server *s) {
    struct health_wish *wish = with;
    if (strcmp(s->name, wish->server) != 0 || (wish->backend && strcmp(s->backend, wish->backend) != 0)) return;
    wish->found = true;
    atomic_store((_Atomic int *)(uintptr_t)&s->healthy, wish->well);
}

bool rehearsal_set_health(struct rehearsal *r, const char *backend, const char *server, bool well) {
    (void)r;
    struct health_wish wish = { .backend = backend, .server = server, .well = well };
    servers_each(set_health, &wish);
    return wish.found;
}
