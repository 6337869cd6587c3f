/* From the tree that a config file returned to struct config: the order of reading, and the rules that hold between
 * settings. What a single setting may be is in settings_table.c.
 *
 * A file is `{ sites = { … }, workers = … }`, or itself a site. In the second form the top settings (workers, admin,
 * log, …) may stand beside the site's own: their names do not collide, and the smallest config stays one flat table.
 * A file with an admin address and no setting of a site is complete: no sites. */
#include "server/config.h"

#include "base/map.h"
#include "base/must.h"
#include "lua/inspect.h"
#include "net/tls.h"
#include "server/privilege.h"
#include "server/settings.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- rules between sites */

struct claims {
    struct map sites; /* "listener|host" -> struct config_site; an empty host: the default site */
    struct reader *reader;
};

static const char *site_called(const struct config_site *site) { return *site->path ? site->path : "the site"; }

/* The site that has this host on this listener already, or NULL: then it is `site`'s now. */
static const struct config_site *claim_host(struct claims *claims, unsigned listener, const char *host,
                                            struct config_site *site) {
    char key[300];
    int n = snprintf(key, sizeof key, "%u|%s", listener, host);
    const struct config_site *former = map_get(&claims->sites, slice_make(key, (size_t)n));
    if (!former) map_set(&claims->sites, slice_make(key, (size_t)n), site);
    return former == site ? NULL : former;
}

static void claim_default(struct claims *claims, struct config_site *site, const struct spot *at) {
    const struct config *config = claims->reader->config;
    for (unsigned i = 0; i < site->listener_count; i++) {
        const struct config_site *former = claim_host(claims, site->listeners[i], "", site);
        if (!former) continue;
        reader_error(claims->reader, at, "%s is the default site of %s already: give one of them `hosts`",
                     site_called(former), config->listeners[site->listeners[i]].name);
        return;
    }
}

static void claim_hosts(struct claims *claims, struct config_site *site, const struct spot *at) {
    const struct config *config = claims->reader->config;
    struct spot hosts = { .up = at, .name = "hosts" };
    for (size_t h = 0; site->hosts[h]; h++) {
        struct spot here = { .up = &hosts, .index = h + 1 };
        for (unsigned i = 0; i < site->listener_count; i++) {
            const struct config_site *former = claim_host(claims, site->listeners[i], site->hosts[h], site);
            if (!former) continue;
            reader_error(claims->reader, &here, "\"%s\" on %s is served by %s already", site->hosts[h],
                         config->listeners[site->listeners[i]].name, site_called(former));
            break;
        }
    }
}

static void check_sites(struct reader *r) {
    struct claims claims = { .reader = r };
    struct spot root = { .up = NULL }, sites = { .up = &root, .name = "sites" };
    for (unsigned i = 0; i < r->config->site_count; i++) {
        struct config_site *site = &r->config->sites[i];
        struct spot at = { .up = &sites, .index = site->index };
        const struct spot *here = site->index ? &at : &root;
        if (site->hosts[0]) claim_hosts(&claims, site, here);
        else claim_default(&claims, site, here);
    }
    map_fini(&claims.sites);
}

/* Which of two would a target belong to? */
static void check_forwards(struct reader *r) {
    struct claims claims = { .reader = r };
    struct spot root = { .up = NULL }, sites = { .up = &root, .name = "sites" };
    for (unsigned i = 0; i < r->config->site_count; i++) {
        struct config_site *site = &r->config->sites[i];
        struct spot at = { .up = &sites, .index = site->index }, here = { .up = &at, .name = "forward" };
        for (unsigned l = 0; site->forward.on && l < site->listener_count; l++) {
            const struct config_site *former = claim_host(&claims, site->listeners[l], "", site);
            if (former)
                reader_error(r, &here, "%s forwards what comes to %s already", site_called(former),
                             r->config->listeners[site->listeners[l]].name);
        }
    }
    map_fini(&claims.sites);
}

/* Two that write the same files? */
static void check_disks(struct reader *r) {
    struct claims claims = { .reader = r };
    struct spot root = { .up = NULL }, sites = { .up = &root, .name = "sites" };
    for (unsigned i = 0; i < r->config->site_count; i++) {
        struct config_site *site = &r->config->sites[i];
        struct spot entry = { .up = &sites, .index = site->index };
        struct spot cache = { .up = site->index ? &entry : &root, .name = "cache" };
        struct spot disk = { .up = &cache, .name = "disk" }, path = { .up = &disk, .name = "path" };
        struct disk_settings *d = &site->cache.disk;
        if (!d->path && !d->size) continue;
        for (size_t n = d->path ? strlen(d->path) : 0; n > 1 && d->path[n - 1] == '/'; n--) d->path[n - 1] = '\0';
        if (!d->path || d->path[0] != '/') reader_error(r, &path, "expected the absolute path of a directory");
        if (!d->size) reader_error(r, &disk, "a disk needs a size, such as size = \"10G\"");
        if (!site->cache.memory) reader_error(r, &cache, "what is loaded from disk needs `memory`, such as \"256M\"");
        if (!d->path) continue;
        struct config_site *former = map_set(&claims.sites, slice_of(d->path), site);
        if (former) reader_error(r, &path, "%s has its disk there already", site_called(former));
    }
    map_fini(&claims.sites);
}

static void check_admin(struct reader *r) {
    const struct config *config = r->config;
    struct spot root = { .up = NULL }, at = { .up = &root, .name = "admin" };
    for (unsigned i = 0; i < config->listener_count; i++)
        if (config->admin.addr.size && addr_equal(&config->admin.addr, &config->listeners[i].addr))
            reader_error(r, &at, "%s is the address of a site, too (%s)", config->admin.name,
                         config->listeners[i].path);
}

/* It would be a file of that name. */
static void check_log(struct reader *r) {
    const char *error = r->config->log.error;
    struct spot root = { .up = NULL }, log = { .up = &root, .name = "log" }, at = { .up = &log, .name = "error" };
    if (error && strcmp(error, "syslog") == 0)
        reader_error(r, &at, "expected a path or \"stderr\", got \"syslog\", where only the access log goes");
}

/* ---- reading */

static bool has_site_settings(const struct value *tree) {
    for (const struct setting *row = settings_table; row->name; row++)
        if (row->place == PLACE_SITE && value_get(tree, row->name)) return true;
    return false;
}

static void read_tree(struct reader *r, const struct value *tree) {
    struct spot root = { .up = NULL };
    if (tree->kind != VALUE_TABLE) {
        reader_error(r, &root, "the file must return a site or { sites = { … } }, not %s", value_kind_name(tree));
        return;
    }
    settings_read(r, &root, PLACE_TOP, tree, r->config);
    bool only_admin = value_get(tree, "admin") && !has_site_settings(tree);
    if (value_get(tree, "sites") || only_admin) settings_check_names(r, &root, tree, 1u << PLACE_TOP, 0);
    else read_site(r, &root, tree, 0);
    check_sites(r);
    check_forwards(r);
    check_disks(r);
    check_admin(r);
    check_log(r);
    settings_check_tls(r);
}

static size_t count_errors(const struct errors *errors) { return errors->count - errors->warnings; }

static bool read_with(struct config *config, const struct value *tree, struct sources *sources, const char *file,
                      struct slice text, struct errors *errors) {
    struct reader reader = { .config = config, .sources = sources, .errors = errors };
    size_t first = errors->count, before = count_errors(errors);
    *config = (struct config){ .file = file ? must_strdup(file) : NULL };
    settings_preset(PLACE_TOP, config);
    reader.lines = config->lines = file ? config_lines_create(text) : NULL;
    read_tree(&reader, tree);
    errors_sort(errors, first);
    return count_errors(errors) == before;
}

bool config_read(struct config *config, const struct value *tree, struct sources *sources, struct errors *errors) {
    size_t size = 0;
    const char *file = sources ? sources_path(sources, 0) : NULL;
    const char *text = file ? sources_text(sources, 0, &size) : NULL;
    return read_with(config, tree, sources, file, slice_make(text, size), errors);
}

bool config_read_text(struct config *config, const struct value *tree, const char *file, struct slice text,
                      struct errors *errors) {
    struct sources *sources = sources_create(file ? file : "", NULL);
    bool ok = read_with(config, tree, sources, file, text, errors);
    sources_destroy(sources);
    return ok;
}

/* ---- hooks */

static void warn_of_site(const struct config *config, const struct config_site *site, struct errors *errors,
                         const char *sentence) {
    errors_warn(errors, config->file, site->line, *site->path ? site->path : NULL, "%s", sentence);
}

/* Sites whose every request would be answered 502. */
static void check_reach(const struct config *config, const struct config_site *site, struct errors *errors) {
    bool picks = site->hooks >> HOOK_PICK_BACKEND & 1, replies = site->hooks >> HOOK_ON_REQUEST & 1;
    if (picks || replies || site->forward.on) return;
    bool named = site->backend_count == 1;
    for (unsigned i = 0; i < site->backend_count; i++) named = named || strcmp(site->backends[i].name, "default") == 0;
    if (site->backend_count == 0)
        warn_of_site(config, site, errors, "no backends and no on_request hook: every request is answered 502");
    else if (!named)
        warn_of_site(
            config, site, errors,
            "several backends, none named \"default\", and no pick_backend hook: every request is answered 502");
}

/* A rule about what is stored, where nothing is. (Ready-made policies have a cache_key for who caches.) */
static void check_on_store(const struct config *config, const struct config_site *site, struct errors *errors) {
    if (site->cache.memory == 0 && site->hooks >> HOOK_ON_STORE & 1)
        warn_of_site(config, site, errors, "no cache, and an on_store hook: it is never asked (cache = { memory = })");
}

static bool listens_on(const struct config_site *site, unsigned listener) {
    for (unsigned i = 0; i < site->listener_count; i++)
        if (site->listeners[i] == listener) return true;
    return false;
}

/* Its own, a site's, or a hook that has them. */
static bool has_certificate(const struct config *config, unsigned listener) {
    if (tls_certificates_count(config->listeners[listener].certificates)) return true;
    for (unsigned i = 0; i < config->site_count; i++) {
        const struct config_site *site = &config->sites[i];
        if (listens_on(site, listener) && (site->certificates || site->hooks >> HOOK_ON_CERTIFICATE & 1)) return true;
    }
    return false;
}

static void check_certificates(const struct config *config, struct errors *errors) {
    for (unsigned i = 0; i < config->listener_count; i++) {
        const struct config_listener *l = &config->listeners[i];
        if (l->tls && !has_certificate(config, i))
            errors_add(errors, config->file, l->line, l->path,
                       "TLS without a certificate: neither here nor in the `tls` of a site on it");
    }
}

/* What core/lua finds has a path only. */
static void place_errors(const struct config *config, struct errors *errors, size_t from) {
    for (size_t i = from; i < errors->count; i++) {
        struct error_line *line = &errors->list[i];
        if (line->file || !config->file) continue;
        line->file = must_strdup(config->file);
        line->line = config_lines_find(config->lines, line->path ? line->path : "");
    }
}

bool config_hooks(struct config *config, struct state *state, struct errors *errors) {
    size_t first = errors->count, before = count_errors(errors);
    for (unsigned i = 0; i < config->site_count; i++) {
        struct config_site *site = &config->sites[i];
        size_t errors_before = count_errors(errors);
        site->hooks = state_hooks(state, site->index, errors);
        if (count_errors(errors) > errors_before) continue;
        check_reach(config, site, errors);
        check_on_store(config, site, errors);
    }
    place_errors(config, errors, first);
    check_certificates(config, errors);
    return count_errors(errors) == before;
}

/* What is wrong with policies is told along with what is wrong with settings. */
static void check_policies(const struct config *config, struct state *state, struct errors *errors) {
    size_t first = errors->count;
    state_hooks(state, 0, errors);
    place_errors(config, errors, first);
}

/* ---- what scripts say */

static const char **list_backends(const struct config_site *site, struct arena *arena) {
    const char **names = arena_alloc_zeroed(arena, (site->backend_count + 1) * sizeof *names);
    for (unsigned i = 0; i < site->backend_count; i++) names[i] = site->backends[i].name;
    return names;
}

/* A host name may resolve to addresses that are not known here. */
static const char **list_servers(const struct config_site *site, struct arena *arena) {
    unsigned count = 0;
    for (unsigned i = 0; i < site->backend_count; i++) count += 2 * site->backends[i].spec_count;
    const char **names = arena_alloc_zeroed(arena, (count + 1) * sizeof *names), **next = names;
    for (unsigned i = 0; i < site->backend_count; i++) {
        const struct config_backend *b = &site->backends[i];
        for (unsigned j = 0; j < b->spec_count; j++) {
            *next++ = arena_printf(arena, "%s/%s%c", b->name, b->specs[j].name, 0).p;
            if (b->specs[j].host) *next++ = arena_printf(arena, "%s/%c", b->name, 0).p;
        }
    }
    return names;
}

static void name_servers(const struct config *config, struct inspect_site *sites, struct arena *arena) {
    for (unsigned i = 0; i < config->site_count; i++) {
        const struct config_site *site = &config->sites[i];
        sites[site->index ? site->index - 1 : 0] =
            (struct inspect_site){ list_backends(site, arena), list_servers(site, arena) };
    }
}

/* Backends are named only if all of the config could be read: else the one that is missed may stand there. */
static void inspect_scripts(const struct config *config, bool read, struct state *state, struct sources *sources,
                            struct errors *errors) {
    unsigned count = read ? config->site_count : 0;
    struct arena arena;
    arena_init(&arena);
    struct inspect_site *sites = arena_alloc_zeroed(&arena, (count + 1) * sizeof *sites);
    if (read) name_servers(config, sites, &arena);
    inspect(state, sources, sites, count, errors);
    arena_fini(&arena);
}

bool config_check_user(const struct config *config, struct errors *errors) {
    const char *wrong = config->user ? privilege_user_wrong(config->user) : NULL;
    if (!wrong) return true;
    errors_add(errors, config->file, config_lines_find(config->lines, "user"), "user", "\"%s\": %s", config->user,
               wrong);
    return false;
}

bool config_check(struct config *config, struct state *state, struct sources *sources, struct errors *errors) {
    size_t before = count_errors(errors);
    bool read = config_read(config, state_config(state), sources, errors);
    if (read) config_hooks(config, state, errors);
    else check_policies(config, state, errors);
    inspect_scripts(config, read, state, sources, errors);
    return count_errors(errors) == before;
}

/* ---- workers' states */

struct state *config_worker_state(const struct config *config, struct sources *sources, unsigned worker,
                                  const struct state *config_state, struct errors *errors) {
    struct state *state = state_create(sources, (int)worker, &config->limits, errors);
    if (!state || value_equal(state_config(state), state_config(config_state))) return state;
    char path[SPOT_TEXT];
    value_difference(state_config(state), state_config(config_state), path, sizeof path);
    errors_add(errors, config->file, config_lines_find(config->lines, path), *path ? path : NULL,
               "it is not the same each time the file runs; what `pairs` gives has no order");
    state_destroy(state);
    return NULL;
}

/* ---- the end */

static void fini_backend(struct config_backend *backend) {
    server_specs_free(backend->specs, backend->spec_count);
    backend_settings_fini(&backend->settings);
    free(backend->name);
    free(backend->path);
}

static void fini_site(struct config_site *site) {
    for (unsigned i = 0; i < site->backend_count; i++) fini_backend(&site->backends[i]);
    for (size_t i = 0; site->hosts[i]; i++) free(site->hosts[i]);
    tls_certificates_unref(site->certificates);
    free(site->backends);
    free(site->hosts);
    free(site->listeners);
    free(site->trusted);
    forward_fini(&site->forward);
    free(site->cache.name);
    free(site->cache.disk.path);
    free(site->cache.purgers);
    compress_fini(&site->compress);
    free(site->name);
    free(site->path);
}

static void fini_listener(struct config_listener *l) {
    tls_service_unref(l->tls);
    tls_certificates_unref(l->certificates);
    free(l->proxies);
    free(l->name);
    free(l->path);
}

void config_fini(struct config *config) {
    if (!config) return;
    for (unsigned i = 0; i < config->site_count; i++) fini_site(&config->sites[i]);
    for (unsigned i = 0; i < config->listener_count; i++) fini_listener(&config->listeners[i]);
    fini_listener(&config->admin);
    free(config->sites);
    free(config->listeners);
    free(config->log.access);
    free(config->log.error);
    free(config->user);
    free(config->file);
    config_lines_destroy(config->lines);
    egress_fini(&config->egress);
    value_fini(&config->unsafe);
    *config = (struct config){ .file = NULL };
}
