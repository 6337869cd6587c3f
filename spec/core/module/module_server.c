/* core/server for specs: reading a config and finding its lines, and the access log of core/proxy. A module beside
 * the others, found by `require "moongate_core.server"`. */
#include "module.h"

#include "base/must.h"
#include "proxy/access_log.h"
#include "server/config.h"
#include "server/config_lines.h"
#include "store/metrics.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int luaopen_moongate_core_server(lua_State *L);

/* ---- configs */

static void set_integer(lua_State *L, const char *field, lua_Integer n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, field);
}

static void set_number(lua_State *L, const char *field, double n) {
    lua_pushnumber(L, n);
    lua_setfield(L, -2, field);
}

static void set_string(lua_State *L, const char *field, const char *text) {
    lua_pushstring(L, text); /* NULL: nil */
    lua_setfield(L, -2, field);
}

static void set_boolean(lua_State *L, const char *field, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, field);
}

static void push_timeouts(lua_State *L, const struct timeouts *t) {
    lua_newtable(L);
    set_number(L, "head", t->head);
    set_number(L, "body", t->body);
    set_number(L, "idle", t->idle);
    set_number(L, "connect", t->connect);
    set_number(L, "first_byte", t->first_byte);
    set_number(L, "between", t->between);
    set_number(L, "total", t->total);
}

static void push_servers(lua_State *L, const struct config_backend *b) {
    char text[ADDR_TEXT];
    lua_newtable(L);
    for (unsigned i = 0; i < b->spec_count; i++) {
        const struct server_spec *spec = &b->specs[i];
        lua_newtable(L);
        set_string(L, "name", spec->name);
        set_string(L, "host", spec->host);
        set_integer(L, "port", spec->port);
        set_integer(L, "weight", spec->weight);
        addr_text(&spec->addr, text);
        set_string(L, "addr", text);
        lua_rawseti(L, -2, i + 1);
    }
}

static void push_statuses(lua_State *L, const struct status_set *set) {
    lua_newtable(L);
    for (int status = 0; status < 600; status++)
        if (status_set_has(set, status)) {
            lua_pushinteger(L, status);
            lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
        }
}

static void push_backend(lua_State *L, const struct config_backend *b) {
    const struct backend_settings *s = &b->settings;
    lua_newtable(L);
    set_string(L, "name", b->name);
    set_string(L, "path", b->path);
    push_servers(L, b);
    lua_setfield(L, -2, "servers");
    set_integer(L, "balance", s->balance);
    set_integer(L, "keepalive", s->keepalive);
    set_number(L, "keepalive_idle", s->keepalive_idle);
    set_integer(L, "max_connections", s->max_connections);
    set_integer(L, "queue", s->queue);
    set_number(L, "queue_timeout", s->queue_timeout);
    set_integer(L, "tries", s->tries);
    set_integer(L, "retry_on", s->retry_on);
    push_statuses(L, &s->retry_statuses);
    lua_setfield(L, -2, "retry_statuses");
    set_number(L, "connect", s->connect);
    set_number(L, "first_byte", s->first_byte);
    set_number(L, "between", s->between);
    lua_newtable(L);
    set_string(L, "path", s->health.path);
    set_string(L, "host", s->health.host);
    set_number(L, "interval", s->health.interval);
    set_number(L, "timeout", s->health.timeout);
    set_integer(L, "rise", s->health.rise);
    set_integer(L, "fall", s->health.fall);
    set_integer(L, "status_low", s->health.status_low);
    set_integer(L, "status_high", s->health.status_high);
    lua_setfield(L, -2, "health");
}

static void push_names(lua_State *L, const struct config *config, const struct config_site *site) {
    lua_newtable(L);
    for (lua_Integer i = 0; site->hosts[i]; i++) {
        lua_pushstring(L, site->hosts[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "hosts");
    lua_newtable(L);
    for (unsigned i = 0; i < site->listener_count; i++) {
        lua_pushstring(L, config->listeners[site->listeners[i]].name);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "listeners");
}

static void push_site(lua_State *L, const struct config *config, const struct config_site *site) {
    lua_newtable(L);
    set_integer(L, "index", site->index);
    set_integer(L, "line", site->line);
    set_string(L, "path", site->path);
    set_string(L, "name", site->name);
    push_names(L, config, site);
    lua_newtable(L);
    for (unsigned i = 0; i < site->backend_count; i++) {
        push_backend(L, &site->backends[i]);
        lua_setfield(L, -2, site->backends[i].name);
    }
    lua_setfield(L, -2, "backends");
    set_integer(L, "trusted", (lua_Integer)site->trusted_count);
    set_integer(L, "max_body", (lua_Integer)site->max_body);
    set_integer(L, "max_headers", site->limits.head);
    set_integer(L, "max_target", site->limits.target);
    set_boolean(L, "buffer_body", site->buffer_body);
    set_boolean(L, "raw_target", site->raw_target);
    set_boolean(L, "abort_on_fin", site->abort_on_fin);
    push_timeouts(L, &site->timeouts);
    lua_setfield(L, -2, "timeouts");
    set_boolean(L, "fail_on_request", site->fail_open[HOOK_ON_REQUEST]);
    set_boolean(L, "fail_on_response", site->fail_open[HOOK_ON_RESPONSE]);
    set_integer(L, "cache_memory", (lua_Integer)site->cache.memory);
}

static void push_log(lua_State *L, const struct config_log *log) {
    lua_newtable(L);
    set_string(L, "access", log->access);
    set_integer(L, "access_format", log->access_format);
    set_string(L, "error", log->error);
    set_integer(L, "level", log->level);
}

static void push_config(lua_State *L, const struct config *config) {
    lua_newtable(L);
    lua_newtable(L);
    for (unsigned i = 0; i < config->site_count; i++) {
        push_site(L, config, &config->sites[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "sites");
    lua_newtable(L);
    for (unsigned i = 0; i < config->listener_count; i++) {
        lua_pushstring(L, config->listeners[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "listeners");
    set_string(L, "admin", config->admin.name);
    push_log(L, &config->log);
    lua_setfield(L, -2, "log");
    set_integer(L, "workers", config->workers);
    set_string(L, "user", config->user);
    set_integer(L, "max_connections", config->max_connections);
    set_number(L, "drain", config->drain);
    set_integer(L, "memory", (lua_Integer)config->limits.memory);
    set_number(L, "hook_cpu", config->limits.hook_cpu);
}

/* server.read(tree, file, text) -> the config as read, all errors and warnings as text, whether it may be used */
static int server_read(lua_State *L) {
    struct config config;
    struct errors errors;
    luaL_checkany(L, 1);
    const char *file = luaL_optstring(L, 2, NULL);
    struct slice text = module_opt_slice(L, 3);
    struct value tree = module_read_value(L, 1);
    errors_init(&errors);
    bool good = config_read_text(&config, &tree, file, text, &errors);
    push_config(L, &config);
    char *written = errors_text(&errors);
    lua_pushstring(L, written);
    lua_pushboolean(L, good);
    free(written);
    errors_fini(&errors);
    config_fini(&config);
    value_fini(&tree);
    return 3;
}

static void push_route(lua_State *L, const struct host_table *table, struct slice host) {
    const struct site *site = host_table_find(table, host);
    lua_pushstring(L, site ? site->name : NULL);
    lua_pushstring(L, table->first->name);
    lua_pushstring(L, site && site->default_backend ? site->default_backend->name : NULL);
}

/* server.route(tree, listener, host): builds a generation of the config; returns which site the host leads to on that
 * listener (from 1), the listener's first site, and the default backend of the former. */
static int server_route(lua_State *L) {
    struct config config;
    struct errors errors;
    size_t index = (size_t)luaL_checkinteger(L, 2);
    struct slice host = module_check_slice(L, 3);
    struct value tree = module_read_value(L, 1);
    errors_init(&errors);
    bool good = config_read_text(&config, &tree, NULL, slice_make(NULL, 0), &errors);
    value_fini(&tree);
    must(good && index >= 1 && index <= config.listener_count);
    /* Ids as they are after some reloads: with gaps, in another order. */
    struct listener *made = must_calloc(config.listener_count, sizeof *made);
    struct listener **listeners = must_calloc(config.listener_count, sizeof *listeners);
    for (unsigned i = 0; i < config.listener_count; i++) {
        made[i].id = 3 * (config.listener_count - i);
        listeners[i] = &made[i];
    }
    struct generation_parts parts = { .workers = 2, .listeners = listeners };
    struct generation *g = generation_build(&config, &parts, 7, &errors);
    config_fini(&config);
    push_route(L, g->tables[made[index - 1].id], host);
    generation_destroy(g);
    free(listeners);
    free(made);
    errors_fini(&errors);
    return 3;
}

/* server.line(text, path) -> the line of a setting, 0 if it is not known */
static int server_line(lua_State *L) {
    struct slice text = module_check_slice(L, 1);
    struct config_lines *lines = config_lines_create(text);
    lua_pushinteger(L, config_lines_find(lines, luaL_checkstring(L, 2)));
    config_lines_destroy(lines);
    return 1;
}

/* ---- the access log */

static struct slice get_slice(lua_State *L, int at, const char *field) {
    lua_getfield(L, at, field);
    struct slice s = { NULL, 0 };
    if (lua_isstring(L, -1)) s.p = lua_tolstring(L, -1, &s.n);
    lua_pop(L, 1); /* the table keeps it */
    return s;
}

static double get_number(lua_State *L, int at, const char *field, double otherwise) {
    lua_getfield(L, at, field);
    double n = luaL_optnumber(L, -1, otherwise);
    lua_pop(L, 1);
    return n;
}

static struct access_record get_record(lua_State *L, int at) {
    return (struct access_record){
        .client_ip = get_slice(L, at, "client_ip"),
        .id = get_slice(L, at, "id"),
        .method = get_slice(L, at, "method"),
        .target = get_slice(L, at, "target"),
        .version = get_slice(L, at, "version"),
        .host = get_slice(L, at, "host"),
        .referer = get_slice(L, at, "referer"),
        .user_agent = get_slice(L, at, "user_agent"),
        .site = get_slice(L, at, "site"),
        .backend = get_slice(L, at, "backend"),
        .server = get_slice(L, at, "server"),
        .source = get_slice(L, at, "source"),
        .word = get_slice(L, at, "word"),
        .status = (int)get_number(L, at, "status", 0),
        .bytes_in = (uint64_t)get_number(L, at, "bytes_in", 0),
        .bytes_out = (uint64_t)get_number(L, at, "bytes_out", 0),
        .wall = get_number(L, at, "wall", 0),
        .seconds = get_number(L, at, "seconds", -1),
        .first_byte = get_number(L, at, "first_byte", -1),
        .tries = (unsigned)get_number(L, at, "tries", 0),
    };
}

#define ACCESS "moongate_core.access_log"

/* An access log with all it needs: a loop, helper threads, a sink. */
struct lua_access {
    struct loop loop;
    struct helpers *helpers;
    struct access_sink *sink;
    struct access_log *log; /* NULL: closed */
    ev_timer patience;
};

static struct lua_access *check_access(lua_State *L) {
    struct lua_access *a = luaL_checkudata(L, 1, ACCESS);
    luaL_argcheck(L, a->log, 1, "the log is closed");
    return a;
}

static int open_log_file(lua_State *L, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) luaL_error(L, "cannot open %s", path);
    return fd;
}

/* Syslog through a socket of the spec's own instead of the machine's daemon. */
static int connect_log_socket(lua_State *L, const char *path) {
    struct addr addr;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    lua_pushfstring(L, "unix:%s", path);
    bool good = fd >= 0 && addr_parse(&addr, module_check_slice(L, -1)) && connect(fd, &addr.u.sa, addr.size) == 0;
    if (!good) luaL_error(L, "cannot connect to %s", path);
    return fd;
}

/* server.access_log(path, format, syslog) */
static int server_access_log(lua_State *L) {
    static const char *const formats[] = { "combined", "json", NULL };
    const char *path = luaL_checkstring(L, 1);
    enum access_format format = (enum access_format)luaL_checkoption(L, 2, "combined", formats);
    bool syslog = lua_toboolean(L, 3);
    int fd = syslog ? connect_log_socket(L, path) : open_log_file(L, path);
    struct lua_access *a = lua_newuserdatauv(L, sizeof *a, 0);
    loop_init(&a->loop, 0);
    a->helpers = helpers_create();
    a->sink = access_sink_create(fd, syslog, format);
    a->log = access_log_create(a->sink, a->helpers, &a->loop);
    luaL_setmetatable(L, ACCESS);
    return 1;
}

static int access_write(lua_State *L) {
    struct lua_access *a = check_access(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct access_record record = get_record(L, 2);
    access_log_write(a->log, &record);
    return 0;
}

static int access_reopen(lua_State *L) {
    struct lua_access *a = check_access(L);
    access_sink_reopen(a->sink, open_log_file(L, luaL_checkstring(L, 2)));
    return 0;
}

static void stop_waiting(struct ev_loop *ev, ev_timer *timer, int events) {
    (void)ev;
    (void)events;
    loop_stop(timer->data);
}

/* log:run(seconds): lets the loop turn for that long. */
static int access_run(lua_State *L) {
    struct lua_access *a = check_access(L);
    ev_timer_init(&a->patience, stop_waiting, luaL_checknumber(L, 2), 0);
    a->patience.data = &a->loop;
    ev_now_update(a->loop.ev);
    ev_timer_start(a->loop.ev, &a->patience);
    loop_run(&a->loop);
    a->loop.stopping = false;
    return 0;
}

/* In the order of a serving process: the worker's log, the sink, the helpers, which finish what is queued. */
static int access_close(lua_State *L) {
    struct lua_access *a = luaL_checkudata(L, 1, ACCESS);
    if (!a->log) return 0;
    access_log_destroy(a->log);
    a->log = NULL;
    access_sink_destroy(a->sink);
    helpers_destroy(a->helpers);
    loop_fini(&a->loop);
    return 0;
}

static const luaL_Reg access_methods[] = {
    { "write", access_write }, { "reopen", access_reopen }, { "run", access_run },
    { "close", access_close }, { "__gc", access_close },    { NULL, NULL },
};

#define DATAGRAMS "moongate_core.datagrams"

/* server.datagram_socket(path): what a syslog daemon listens on (luv has no such sockets). */
static int server_datagram_socket(lua_State *L) {
    struct addr addr;
    lua_pushfstring(L, "unix:%s", luaL_checkstring(L, 1));
    int *fd = lua_newuserdatauv(L, sizeof *fd, 0);
    *fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    luaL_setmetatable(L, DATAGRAMS);
    if (!addr_parse(&addr, module_check_slice(L, -2)) || bind(*fd, &addr.u.sa, addr.size) != 0)
        return luaL_error(L, "cannot bind");
    return 1;
}

/* socket:receive() -> the next datagram, nil when there is none */
static int datagrams_receive(lua_State *L) {
    int *fd = luaL_checkudata(L, 1, DATAGRAMS);
    static char bytes[65536];
    ssize_t n = recv(*fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0) return 0;
    lua_pushlstring(L, bytes, (size_t)n);
    return 1;
}

static int datagrams_close(lua_State *L) {
    int *fd = luaL_checkudata(L, 1, DATAGRAMS);
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return 0;
}

static const luaL_Reg datagrams_methods[] = { { "receive", datagrams_receive },
                                              { "__gc", datagrams_close },
                                              { NULL, NULL } };

/* server.count_dropped(f): how many lines were dropped while f ran. No other metrics may be open. */
static int server_count_dropped(lua_State *L) {
    metrics_open(1);
    int failed = lua_pcall(L, 0, 0, 0);
    int64_t dropped = metric_value(metric_get(METRIC_COUNTER, "moongate_access_log_dropped_total", NULL, SLICE("")));
    metrics_close();
    if (failed) return lua_error(L);
    lua_pushinteger(L, dropped);
    return 1;
}

static const luaL_Reg functions[] = {
    { "read", server_read },
    { "route", server_route },
    { "line", server_line },
    { "access_log", server_access_log },
    { "count_dropped", server_count_dropped },
    { "datagram_socket", server_datagram_socket },
    { NULL, NULL },
};

/* What lives as long as the process (site figures) is reached from variables of this module, which Lua unloads before a
 * leak checker looks. So the module stays. */
static void stay_loaded(void) {
    Dl_info here;
    if (dladdr((void *)(uintptr_t)stay_loaded, &here)) dlopen(here.dli_fname, RTLD_NOW | RTLD_NODELETE);
}

__attribute__((visibility("default"))) int luaopen_moongate_core_server(lua_State *L) {
    stay_loaded();
    module_make_type(L, ACCESS, access_methods);
    module_make_type(L, DATAGRAMS, datagrams_methods);
    luaL_newlib(L, functions);
    return 1;
}
