/* Backends and their servers. */
#include "server/settings.h"

#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- servers */

static bool is_dotted_number(struct slice host) {
    for (size_t i = 0; i < host.n; i++)
        if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9')) return false;
    return true;
}

/* An address, or a name to be resolved. Not the forms that only a listener can have ("8080", "*:80"). */
static bool parse_server(struct slice text, struct server_spec *spec) {
    struct slice host;
    if (slice_starts_with(text, SLICE("unix:"))) return addr_parse(&spec->addr, text);
    if (!addr_split(text, &host, &spec->port)) return false;
    if (addr_parse(&spec->addr, text)) return true;
    memset(&spec->addr, 0, sizeof spec->addr);
    if (is_dotted_number(host)) return false;
    spec->host = must_strndup(host.p, host.n);
    return true;
}

static void read_server(struct reader *r, const struct spot *at, const struct value *v,
                        struct config_backend *backend) {
    struct server_spec spec = { .host = NULL };
    settings_preset(PLACE_SERVER, &spec);
    const struct value *address = v->kind == VALUE_TABLE ? value_at(v, 1) : v;
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_SERVER, v, &spec);
        settings_check_names(r, at, v, 1u << PLACE_SERVER, 1);
    }
    if (!address || address->kind != VALUE_STRING || !parse_server(address->string, &spec)) {
        reader_expected(r, at, "\"host:port\"", address ? address : v);
        free(spec.name);
        return;
    }
    if (!spec.name) spec.name = must_strndup(address->string.p, address->string.n);
    backend->specs[backend->spec_count++] = spec;
}

/* "backend/server" must lead to one server. */
static void check_server_name(struct reader *r, const struct spot *at, const struct config_backend *backend,
                              unsigned former) {
    const char *name = backend->specs[backend->spec_count - 1].name;
    for (unsigned i = former; i > 0; i--)
        if (strcmp(backend->specs[i - 1].name, name) == 0) {
            reader_error(r, at, "the backend has a server \"%s\" already; give one of them another name", name);
            return;
        }
}

static void read_servers(struct reader *r, const struct spot *at, const struct value *v,
                         struct config_backend *backend) {
    size_t count = v->table.sequence;
    backend->specs = must_calloc(count + 1, sizeof *backend->specs);
    for (size_t i = 1; i <= count; i++) {
        struct spot here = { .up = at, .index = i };
        unsigned former = backend->spec_count;
        read_server(r, &here, value_at(v, i), backend);
        if (backend->spec_count > former) check_server_name(r, &here, backend, former);
    }
    if (count == 0) reader_error(r, at, "a backend needs at least one server");
}

/* ---- settings beside the servers */

void read_keepalive(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_backend *backend = base;
    int64_t n;
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_KEEPALIVE, v, &backend->settings);
        settings_check_names(r, at, v, 1u << PLACE_KEEPALIVE, 0);
        return;
    }
    if (value_whole(v, &n) && n >= 0 && n <= 100000) backend->settings.keepalive = (unsigned)n;
    else reader_expected(r, at, "a whole number from 0 to 100000, or { max =, idle = }", v);
}

void read_queue(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_backend *backend = base;
    int64_t n;
    settings_preset(PLACE_QUEUE, &backend->settings);
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_QUEUE, v, &backend->settings);
        settings_check_names(r, at, v, 1u << PLACE_QUEUE, 0);
    } else if (value_whole(v, &n) && n >= 0 && n <= 1000000) {
        backend->settings.queue = (unsigned)n;
    } else {
        reader_expected(r, at, "a whole number from 0 to 1000000, or { max =, timeout = }", v);
    }
}

static bool add_retry_status(const struct value *v, struct backend_settings *settings) {
    int64_t status;
    if (!value_whole(v, &status) || status < 400 || status > 599) return false;
    status_set_add(&settings->retry_statuses, (int)status);
    return true;
}

static bool add_retry_word(const struct value *v, struct backend_settings *settings) {
    static const struct {
        const char *word;
        uint32_t bit;
    } words[] = { { "connect", 1u << RETRY_CONNECT },
                  { "reset", 1u << RETRY_RESET },
                  { "timeout", 1u << RETRY_TIMEOUT },
                  { "5xx", RETRY_ON_5XX } };
    for (size_t i = 0; v->kind == VALUE_STRING && i < sizeof words / sizeof *words; i++) {
        if (!slice_equal(v->string, slice_of(words[i].word))) continue;
        settings->retry_on |= words[i].bit;
        return true;
    }
    return false;
}

void read_retry_on(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct backend_settings *settings = base;
    settings->retry_on = 0; /* what is listed, not what is listed besides */
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *entry = list_entry(v, i);
        if (!add_retry_word(entry, settings) && !add_retry_status(entry, settings))
            reader_expected(r, &here, "\"connect\", \"reset\", \"timeout\", \"5xx\" or a status from 400 to 599",
                            entry);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

static bool is_status(const struct value *v, int *to) {
    int64_t n;
    if (!v || !value_whole(v, &n) || n < 200 || n > 599) return false;
    *to = (int)n;
    return true;
}

/* 200, "2xx", { 200, 399 } */
void read_health_status(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct backend_settings *settings = base;
    int low = 0, high = 0;
    bool read = false;
    if (v->kind == VALUE_TABLE) {
        read =
            v->table.count == 2 && is_status(value_at(v, 1), &low) && is_status(value_at(v, 2), &high) && low <= high;
    } else if (v->kind == VALUE_STRING) {
        read = v->string.n == 3 && v->string.p[0] >= '2' && v->string.p[0] <= '5' && strcmp(v->string.p + 1, "xx") == 0;
        low = read ? (v->string.p[0] - '0') * 100 : 0;
        high = low + 99;
    } else {
        read = is_status(v, &low);
        high = low;
    }
    if (!read) {
        reader_expected(r, at, "a status such as 200, \"2xx\", or a range { 200, 399 }", v);
        return;
    }
    settings->health.status_low = low;
    settings->health.status_high = high;
}

static void check_health(struct reader *r, const struct spot *at, const struct value *v,
                         const struct backend_settings *settings) {
    struct spot health = { .up = at, .name = "health" }, path = { .up = &health, .name = "path" };
    const struct value *table = value_get(v, "health");
    if (!table || table->kind != VALUE_TABLE) return;
    const char *given = settings->health.path;
    if (!value_get(table, "path")) reader_error(r, &health, "needs a path, such as health = { path = \"/healthz\" }");
    else if (given && (given[0] != '/' || strpbrk(given, " \t\r\n#")))
        reader_error(r, &path, "expected a path such as \"/healthz\", got \"%s\"", given);
    if (settings->health.host && strpbrk(settings->health.host, " \t\r\n/")) {
        struct spot host = { .up = &health, .name = "host" };
        reader_error(r, &host, "expected a host name, got \"%s\"", settings->health.host);
    }
}

static void check_queue(struct reader *r, const struct spot *at, const struct backend_settings *settings) {
    struct spot queue = { .up = at, .name = "queue" };
    if (settings->queue && !settings->max_connections)
        reader_error(
            r, &queue,
            "nobody would ever wait in it without `max_connections`, how many requests a server takes at once");
}

/* ---- backends */

static void preset_backend(struct backend_settings *settings) {
    settings_preset(PLACE_KEEPALIVE, settings);
    settings->retry_on = 1u << RETRY_CONNECT;
    settings->health.status_low = 200;
    settings->health.status_high = 399;
}

static void read_backend(struct reader *r, const struct spot *at, const struct value *v, struct config_site *site) {
    char path[SPOT_TEXT];
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a list of servers such as { \"127.0.0.1:9001\" }", v);
        return;
    }
    struct config_backend *backend = &site->backends[site->backend_count++];
    backend->name = must_strdup(at->name);
    backend->path = must_strdup(spot_text(at, path));
    settings_preset(PLACE_BACKEND, backend);
    preset_backend(&backend->settings);
    settings_read(r, at, PLACE_BACKEND, v, backend);
    check_health(r, at, v, &backend->settings);
    check_queue(r, at, &backend->settings);
    settings_check_names(r, at, v, 1u << PLACE_BACKEND, v->table.sequence);
    read_servers(r, at, v, backend);
    check_backend_tls(r, at, backend);
    check_backend_parent(r, at, backend);
}

/* A "/" parts backend and server where a hook picks one. */
static bool is_backend_name(struct slice name) {
    if (name.n == 0 || name.n > 128 || strlen(name.p) != name.n) return false;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || name.p[i] == '/' || name.p[i] == 0x7f) return false;
    return true;
}

void read_backends(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    char shown[SHOWN_TEXT];
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a table such as { app = { \"127.0.0.1:9001\" } }", v);
        return;
    }
    site->backends = must_calloc(v->table.count + 1, sizeof *site->backends);
    for (size_t i = 0; i < v->table.count; i++) {
        const struct value_pair *pair = &v->table.list[i];
        struct spot here = { .up = at, .name = pair->key.string.p };
        if (pair->key.kind != VALUE_STRING) {
            reader_error(r, at, "a backend needs a name, as in { app = { \"127.0.0.1:9001\" } }; got one under %s",
                         value_shown(&pair->key, shown));
        } else if (!is_backend_name(pair->key.string)) {
            reader_error(r, at, "%s is no name for a backend (no spaces, no \"/\")", value_shown(&pair->key, shown));
        } else read_backend(r, &here, &pair->value, site);
    }
}
