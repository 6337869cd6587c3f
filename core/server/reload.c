/* A load, step by step. What blocks or takes time runs on a helper; each step is entered in the main thread.
 *
 *   read      helper   the file and its modules, one run of them for the config, its settings, its hooks
 *   resolve   main     user, workers, which listeners
 *   build     helper   sockets, log files, a Lua state per worker, the generation
 *   start     workers  on_unload of the old generation, on_load of the new one; may wait
 *   swap      workers  the new generation is current, ears and logs follow
 *
 * Until the swap everything can be undone, and the old generation does not notice. From the swap on nothing can fail.
 * A load that has failed leaves by `fail`, from whatever step; a generation that has begun is then ended as any other
 * (tenure.h).
 *
 * Loads do not overlap. Who asks while one runs is answered by the next one, for only that is sure to have read his
 * file. */
#include "server/reload.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "lua/state.h"
#include "server/ask.h"
#include "server/config.h"
#include "server/config_lines.h"
#include "server/held.h"
#include "server/instance.h"
#include "server/listeners.h"
#include "server/logs.h"
#include "server/privilege.h"
#include "server/status.h"
#include "server/tenure.h"
#include "server/worker_thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GENERATIONS_MOST = 4 };

/* What one worker's on_load came to. */
struct start {
    struct reload *reload;
    struct worker_thread *thread;
    struct value snapshot;
    struct errors errors;
};

struct reload {
    struct instance *instance;
    struct askers askers;
    struct job job;
    struct round round;
    uint32_t number;
    struct errors errors;
    struct sources *sources; /* the instance's own if it renews */
    struct sources *stale;   /* of the former generation, to be freed */
    bool renews;
    struct state *config_state; /* whose tree `config` was read from */
    struct config config;
    bool has_config;
    struct listener **listeners; /* parallel to config.listeners, then the admin's if there is one */
    bool *fresh;                 /* parallel: it was not bound before this load */
    unsigned listener_count;     /* of the sites */
    struct listener *admin;      /* NULL: none */
    struct log_change logs;
    struct state **states; /* by worker, until the generation has them */
    struct generation *generation;
    struct tenure *tenure;
    struct start *starts; /* by worker */
};

static void fail(struct reload *);

static bool is_first(const struct reload *r) { return r->instance->current == NULL; }

static void free_reload(struct reload *r) {
    for (unsigned i = 0; r->starts && i < r->instance->worker_count; i++) {
        value_fini(&r->starts[i].snapshot);
        errors_fini(&r->starts[i].errors);
    }
    free(r->starts);
    free(r->listeners);
    free(r->fresh);
    free(r->states);
    logs_fini(&r->logs);
    if (r->has_config) config_fini(&r->config);
    errors_fini(&r->errors);
    free(r->askers.ids);
    free(r);
}

static void ask_helper(struct reload *r, void (*work)(struct job *), void (*done)(struct job *, struct loop *)) {
    r->job = (struct job){ .asker = &r->instance->mailbox, .work = work, .done = done };
    must(helpers_ask(r->instance->helpers, HELP_LOAD, &r->job)); /* there is one load at a time */
}

static struct reload *of_job(struct job *job) { return container_of(job, struct reload, job); }
static struct reload *of_round(struct round *round) { return container_of(round, struct reload, round); }

static bool is_going_on(const struct reload *r) {
    return r->instance->state == INSTANCE_STARTS || r->instance->state == INSTANCE_SERVES;
}

/* ---- the end of a load */

static void answer_askers(const struct reload *r, int status, const char *text) {
    for (unsigned i = 0; i < r->askers.count; i++)
        channel_say(r->instance->orders, MESSAGE_DONE, r->askers.ids[i], status, text);
}

static void end_load(struct reload *r) {
    struct instance *instance = r->instance;
    instance->reload = NULL;
    free_reload(r);
    instance_reload_ended(instance);
}

static void log_errors(const struct errors *errors) {
    for (size_t i = 0; i < errors->count; i++) {
        struct errors one = { .list = &errors->list[i], .count = 1 };
        char *text = errors_text(&one);
        log_write(errors->list[i].warning ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, "%s", text);
        free(text);
    }
}

/* ---- failing */

static void release_unused_listeners(struct reload *r) {
    unsigned count = r->listener_count + (r->admin != NULL);
    for (unsigned i = 0; r->listeners && i < count; i++)
        if (r->fresh[i]) listener_release(r->listeners[i]);
}

static void destroy_states(struct state **states, unsigned count) {
    for (unsigned i = 0; states && i < count; i++) state_destroy(states[i]);
}

static void undo_in_helper(struct job *job) {
    struct reload *r = of_job(job);
    unsigned workers = r->instance->worker_count;
    bool begun = r->tenure != NULL; /* then the tenure destroys it */
    if (r->generation && !begun) {
        destroy_states(r->generation->states, workers);
        generation_destroy(r->generation);
    }
    destroy_states(r->states, workers);
    state_destroy(r->config_state);
    if (!r->renews) sources_destroy(r->sources);
    ask_load_end();
    release_unused_listeners(r);
}

static void reload_on_undone(struct job *job, struct loop *loop) {
    struct reload *r = of_job(job);
    struct instance *instance = r->instance;
    char *text = errors_text(&r->errors);
    if (is_first(r)) {
        instance_failed(instance, text);
    } else {
        log_errors(&r->errors);
        log_error("the config was not loaded: generation %u goes on", instance->figures.generation);
        pthread_mutex_lock(&instance->figures.lock);
        instance->figures.reloads_failed++;
        pthread_mutex_unlock(&instance->figures.lock);
    }
    answer_askers(r, 1, text);
    free(text);
    end_load(r);
}

static void fail(struct reload *r) {
    if (r->tenure) {
        tenure_retire(r->tenure, 0);
        generation_unref(r->generation);
    }
    if (!is_going_on(r) && !errors_any(&r->errors)) errors_add(&r->errors, NULL, 0, NULL, "it is stopping");
    ask_helper(r, undo_in_helper, reload_on_undone);
}

/* ---- swap */

static bool is_wanted(const struct reload *r, const struct listener *l) {
    unsigned count = r->listener_count + (r->admin != NULL);
    for (unsigned i = 0; i < count; i++)
        if (r->listeners[i] == l) return true;
    return false;
}

/* Before the swap: whose sockets the workers shall close. One that changes between sites and admin stays. */
static void mark_leaving(struct reload *r) {
    list_each(node, &r->instance->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        l->leaving = !is_wanted(r, l);
    }
}

static void release_leaving(struct instance *instance) {
    list_each(node, &instance->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        if (l->leaving) listener_release(l);
    }
}

static void note_success(struct reload *r) {
    struct instance *instance = r->instance;
    unsigned live = tenures_limit(instance, GENERATIONS_MOST);
    pthread_mutex_lock(&instance->figures.lock);
    if (instance->state == INSTANCE_SERVES) instance->figures.reloads++;
    instance->figures.generation = r->number;
    instance->figures.generations = live;
    instance->figures.loaded = clock_wall();
    pthread_mutex_unlock(&instance->figures.lock);
}

static void answer_success(struct reload *r) {
    char *warnings = errors_text(&r->errors);
    char *text = must_printf("%sgeneration %u serves\n", warnings, r->number);
    answer_askers(r, 0, text);
    log_errors(&r->errors);
    free(warnings);
    free(text);
}

static void destroy_config_state(struct job *job) {
    struct reload *r = of_job(job);
    state_destroy(r->config_state);
    sources_destroy(r->stale);
    ask_load_end();
}

/* The bytes that serve now are kept: reload_renew runs them again. */
static void keep_sources(struct reload *r) {
    if (r->renews) return;
    r->stale = r->instance->sources;
    r->instance->sources = r->sources;
}

static void reload_on_config_gone(struct job *job, struct loop *loop) { end_load(of_job(job)); }

static void reload_on_swapped(struct round *round) {
    struct reload *r = of_round(round);
    struct instance *instance = r->instance;
    struct tenure *old = instance->current;
    instance->current = r->tenure;
    if (instance->state == INSTANCE_CLOSES) tenure_retire(r->tenure, 0);
    generation_unref(r->generation); /* the workers hold it now */
    if (old) tenure_retire(old, old->generation->drain);
    logs_commit(&r->logs, instance);
    if (is_going_on(r)) release_leaving(instance); /* else the drain does it, when nobody accepts any more */
    instance->admin_listener = r->admin;
    keep_sources(r);
    note_success(r);
    answer_success(r);
    if (instance->state == INSTANCE_STARTS) instance_ready(instance);
    else log_info("generation %u serves", r->number);
    ask_helper(r, destroy_config_state, reload_on_config_gone);
}

static void swap_admin(struct reload *r, struct worker_thread *t) {
    struct instance *instance = r->instance;
    if (r->admin == instance->admin_listener) return;
    admin_stop(instance->admin);
    if (instance->admin_listener && instance->admin_listener->leaving) listener_close(instance->admin_listener, 0, 1);
    instance->admin = r->admin ? admin_start(instance, &t->worker, r->admin) : NULL;
}

static void swap_in_worker(struct round *round, struct worker_thread *t) {
    struct reload *r = of_round(round);
    if (t->worker.generation) state_retire(t->worker.generation->states[t->worker.index]);
    ears_leave_others(t, r->listeners, r->listener_count); /* what it still accepts is met as it was before */
    worker_adopt(&t->worker, generation_ref(r->generation));
    state_become_current(r->generation->states[t->worker.index]);
    logs_swap(&r->logs, t);
    ears_add(t, r->listeners, r->listener_count);
    clients_limit(t, r->generation->max_connections);
    if (t->worker.index == 0) swap_admin(r, t);
    round_report(round, t);
}

static void begin_round(struct reload *r, void (*visit)(struct round *, struct worker_thread *),
                        void (*done)(struct round *)) {
    r->round = (struct round){ .visit = visit, .done = done };
    round_begin(&r->round, r->instance);
}

/* ---- start */

static bool has_error(const struct errors *errors, const struct error_line *line) {
    for (size_t i = 0; i < errors->count; i++)
        if (strcmp(errors->list[i].text, line->text) == 0 && errors->list[i].line == line->line) return true;
    return false;
}

/* Every worker's on_load fails in the same way, mostly: said once. */
static void add_errors(struct errors *to, const struct errors *from) {
    for (size_t i = 0; i < from->count; i++) {
        const struct error_line *l = &from->list[i];
        if (has_error(to, l)) continue;
        if (l->warning) errors_warn(to, l->file, l->line, l->path, "%s", l->text);
        else errors_add(to, l->file, l->line, l->path, "%s", l->text);
    }
}

static void reload_on_started(struct round *round) {
    struct reload *r = of_round(round);
    for (unsigned i = 0; i < r->instance->worker_count; i++) add_errors(&r->errors, &r->starts[i].errors);
    if (errors_any(&r->errors) || !is_going_on(r)) {
        fail(r);
        return;
    }
    mark_leaving(r);
    begin_round(r, swap_in_worker, reload_on_swapped);
}

static void start_on_done(void *with, const struct errors *errors) {
    struct start *s = with;
    if (errors) add_errors(&s->errors, errors);
    s->thread->starting = NULL;
    round_report(&s->reload->round, s->thread);
}

void reload_cancel(struct worker_thread *t) {
    struct start *s = t->starting;
    if (!s) return;
    t->starting = NULL;
    state_stop(s->reload->generation->states[t->worker.index]); /* start_on_done is not called any more */
    round_report(&s->reload->round, t);
}

static void start_in_worker(struct round *round, struct worker_thread *t) {
    struct reload *r = of_round(round);
    unsigned index = t->worker.index;
    const struct generation *old = t->worker.generation;
    struct start *s = &r->starts[index];
    t->starting = s;
    worker_views_open(&t->worker, r->generation);
    if (old) s->snapshot = state_unload(old->states[index]);
    state_start(r->generation->states[index], &t->worker, r->generation, &s->snapshot, start_on_done, s);
}

static void begin_start(struct reload *r) {
    unsigned workers = r->instance->worker_count;
    r->tenure = tenure_create(r->instance, r->generation);
    r->starts = must_calloc(workers, sizeof *r->starts);
    for (unsigned i = 0; i < workers; i++)
        r->starts[i] = (struct start){ .reload = r, .thread = &r->instance->threads[i] };
    begin_round(r, start_in_worker, reload_on_started);
}

/* ---- build */

static bool bind_listeners(struct reload *r) {
    bool ok = true;
    unsigned workers = r->instance->worker_count;
    for (unsigned i = 0; i < r->listener_count; i++)
        ok = listener_ask_bind(r->listeners[i], &r->config.listeners[i], workers, r->config.file, &r->errors) && ok;
    if (r->admin) ok = listener_ask_bind(r->admin, &r->config.admin, workers, r->config.file, &r->errors) && ok;
    return ok;
}

/* The config ran once for its settings and runs once more for each worker. */
static bool create_states(struct reload *r) {
    unsigned workers = r->instance->worker_count;
    r->states = must_calloc(workers, sizeof *r->states);
    for (unsigned i = 0; i < workers; i++) {
        struct errors errors;
        errors_init(&errors);
        r->states[i] = config_worker_state(&r->config, r->sources, i, r->config_state, &errors);
        add_errors(&r->errors, &errors);
        errors_fini(&errors);
        if (!r->states[i]) return false;
    }
    return true;
}

/* Here, not where generations are built: a rehearsal has no files. */
static void open_disks(const struct reload *r) {
    for (unsigned i = 0; i < r->config.site_count; i++) {
        struct cache *cache = r->generation->sites[i]->cache.cache;
        if (cache) disk_open(cache, &r->config.sites[i].cache.disk);
    }
}

static void build(struct job *job) {
    struct reload *r = of_job(job);
    struct instance *instance = r->instance;
    bool ok = bind_listeners(r);
    ok = logs_open(&r->logs, instance, &r->config, &r->errors) && ok;
    if (!create_states(r) || !ok) return;
    struct generation_parts parts = {
        .workers = instance->worker_count,
        .resolver = instance->resolver,
        .listeners = r->listeners,
        .states = r->states,
        .release = tenure_on_release,
    };
    r->generation = generation_build(&r->config, &parts, r->number, &r->errors);
    if (r->generation) r->states = NULL;
    if (r->generation) open_disks(r);
}

static void reload_on_built(struct job *job, struct loop *loop) {
    struct reload *r = of_job(job);
    if (r->generation && is_going_on(r) && !errors_any(&r->errors)) begin_start(r);
    else fail(r);
}

/* ---- resolve */

static void take_listener(struct reload *r, unsigned at, const struct config_listener *wanted) {
    r->listeners[at] = listener_find(r->instance, wanted);
    r->fresh[at] = r->listeners[at]->fd_count == 0;
}

static void take_listeners(struct reload *r) {
    const struct config *c = &r->config;
    unsigned count = r->listener_count = c->listener_count;
    r->listeners = must_calloc(count + 1, sizeof(struct listener *));
    r->fresh = must_calloc(count + 1, sizeof *r->fresh);
    for (unsigned i = 0; i < count; i++) take_listener(r, i, &c->listeners[i]);
    if (c->admin.addr.size == 0) return;
    take_listener(r, count, &c->admin);
    r->admin = r->listeners[count];
}

static unsigned choose_workers(const struct reload *r) {
    const struct setup *setup = &r->instance->setup;
    unsigned count = setup->workers ? setup->workers : r->config.workers ? r->config.workers : held_cpus();
    return count > METRIC_WORKERS ? METRIC_WORKERS : count;
}

static void check_workers(struct reload *r) {
    unsigned wanted = choose_workers(r), present = r->instance->worker_count;
    if (wanted != present && !r->instance->setup.workers && r->config.workers)
        errors_warn(&r->errors, r->config.file, config_lines_find(r->config.lines, "workers"), "workers",
                    "%u takes effect at a restart; it is %u now", wanted, present);
}

/* True: the process ends, to be started again as the user whom the config names. */
static bool changes_user(struct reload *r) {
    const struct setup *setup = &r->instance->setup;
    const char *wanted = r->config.user, *present = privilege_own_name();
    if (!wanted || setup->user_fixed || strcmp(wanted, present) == 0) return false;
    int line = config_lines_find(r->config.lines, "user");
    if (!setup->user) {
        errors_add(&r->errors, r->config.file, line, "user", "only root can become \"%s\"; this is \"%s\"", wanted,
                   present);
    } else if (is_first(r)) {
        if (!config_check_user(&r->config, &r->errors)) return false;
        channel_say(r->instance->orders, MESSAGE_USER, 0, 0, wanted);
        return true;
    } else {
        errors_warn(&r->errors, r->config.file, line, "user", "\"%s\" takes effect at a restart; it is \"%s\" now",
                    wanted, present);
    }
    return false;
}

static void tell_files(const struct reload *r) {
    struct message m = { .kind = MESSAGE_WATCH };
    const char *path;
    for (size_t i = 0; r->sources && (path = sources_path(r->sources, i)); i++) message_add_text(&m, path);
    if (m.text) channel_send(r->instance->orders, &m);
    free(m.text);
}

static void reload_on_read(struct job *job, struct loop *loop) {
    struct reload *r = of_job(job);
    struct instance *instance = r->instance;
    tell_files(r);
    bool ok = r->config_state && !errors_any(&r->errors) && is_going_on(r);
    if (!ok || changes_user(r) || errors_any(&r->errors)) {
        fail(r);
        return;
    }
    if (instance->worker_count == 0) {
        metrics_open(choose_workers(r));
        status_metrics(instance);
        worker_threads_start(instance, choose_workers(r));
    }
    check_workers(r);
    take_listeners(r);
    r->number = ++instance->generation_numbers;
    ask_helper(r, build, reload_on_built);
}

/* ---- read */

static void read_config(struct job *job) {
    struct reload *r = of_job(job);
    if (!r->renews) ask_load_begin();
    r->sources = r->renews ? r->instance->sources : sources_create(r->instance->setup.file, ask_read);
    struct state_limits limits = { 0 };
    r->config_state = state_create(r->sources, -1, &limits, &r->errors);
    if (!r->config_state) return;
    r->has_config = true;
    config_check(&r->config, r->config_state, r->sources, &r->errors);
}

static void begin_load(struct instance *instance, bool renews) {
    struct reload *r = must_calloc(1, sizeof *r);
    r->instance = instance;
    r->renews = renews;
    r->askers = instance->next_askers;
    instance->next_askers = (struct askers){ 0 };
    instance->reload_again = false;
    errors_init(&r->errors);
    instance->reload = r;
    ask_helper(r, read_config, reload_on_read);
}

void reload_ask(struct instance *instance, uint32_t id) {
    struct askers *askers = &instance->next_askers;
    if (id) {
        askers->ids = must_realloc(askers->ids, (askers->count + 1) * sizeof *askers->ids);
        askers->ids[askers->count++] = id;
    }
    if (instance->reload) instance->reload_again = true;
    else begin_load(instance, false);
}

void reload_renew(struct instance *instance) {
    if (!instance->reload && instance->state == INSTANCE_SERVES) begin_load(instance, true);
}
