/* The settings of the top and of a site that are more than one value. Listeners and backends have files of their own.
 * */
#include "server/settings.h"

#include "base/must.h"

#include <ctype.h>
#include <stdlib.h>

/* ---- the top */

void read_sites(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    (void)base;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a list of sites", v);
        return;
    }
    if (v->table.sequence == 0 && v->table.count == 0) reader_error(r, at, "expected at least one site");
    for (size_t i = 1; i <= v->table.sequence; i++) {
        struct spot here = { .up = at, .index = i };
        read_site(r, &here, value_at(v, i), (unsigned)i);
    }
    for (size_t i = v->table.sequence; i < v->table.count; i++) {
        const struct value *key = &v->table.list[i].key;
        char shown[SHOWN_TEXT];
        reader_error(r, at, "expected a list of sites, got an entry under %s", value_shown(key, shown));
    }
}

void read_user(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config *config = base;
    bool named = v->kind == VALUE_STRING && v->string.n > 0 && strlen(v->string.p) == v->string.n &&
                 !strpbrk(v->string.p, ":/ \t\r\n");
    if (named) config->user = must_strdup(v->string.p);
    else reader_expected(r, at, "the name of a user", v);
}

static bool is_unsafe_word(const struct value *v) {
    static const char *const words[] = { "io", "os", "debug", "package", "bytecode" };
    for (size_t i = 0; v->kind == VALUE_STRING && i < sizeof words / sizeof *words; i++)
        if (slice_equal(v->string, slice_of(words[i]))) return true;
    return false;
}

/* core/lua has acted on it already, while the file ran; it leaves to us to say what it did not know. */
void read_unsafe(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config *config = base;
    if (v->kind != VALUE_TABLE && v->kind != VALUE_STRING) {
        reader_expected(r, at, "a list such as { \"io\", \"os\" }", v);
        return;
    }
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *word = list_entry(v, i);
        if (is_unsafe_word(word)) reader_warn(r, &here, "scripts may leave the sandbox, and block a worker");
        else reader_expected(r, &here, "\"io\", \"os\", \"debug\", \"package\" or \"bytecode\"", word);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
    config->unsafe = value_copy(v);
}

/* ---- hosts */

/* A label or more of a host name, in lower case. */
static bool is_host_name(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.");
    return n > 0 && n <= 253 && name[n] == '\0' && name[0] != '.' && !strstr(name, "..");
}

static bool is_bracketed_ip(const char *name) {
    struct addr addr;
    size_t n = strlen(name);
    return n > 2 && name[0] == '[' && name[n - 1] == ']' && addr_from_ip(&addr, slice_make(name + 1, n - 2), 0);
}

static char *lower_copy(struct slice text) {
    char *copy = must_strndup(text.p, text.n);
    for (char *p = copy; *p; p++) *p = (char)tolower((unsigned char)*p);
    size_t n = strlen(copy);
    if (n > 1 && copy[n - 1] == '.') copy[n - 1] = '\0'; /* "example.com." is the same name */
    return copy;
}

static const char *host_problem(const char *host) {
    if (strcmp(host, "*") == 0) return "a site for all hosts is one without `hosts`";
    for (const char *p = host; *p; p++)
        if ((unsigned char)*p >= 0x80) return "names beyond ASCII are written in their xn-- form";
    if (is_bracketed_ip(host)) return NULL;
    if (strchr(host, ':')) return "a host has no port here; an IPv6 address stands in brackets";
    if (strncmp(host, "*.", 2) == 0) host += 2;
    if (strchr(host, '*')) return "a wildcard stands for the first labels only: \"*.example.com\"";
    return is_host_name(host) ? NULL : "not a host name";
}

static void add_host(struct reader *r, const struct spot *at, const struct value *v, struct config_site *site) {
    if (v->kind != VALUE_STRING || v->string.n == 0) {
        reader_expected(r, at, "a host name such as \"example.com\" or \"*.example.com\"", v);
        return;
    }
    char shown[SHOWN_TEXT];
    char *host = lower_copy(v->string);
    const char *problem = strlen(host) < v->string.n - 1 ? "not a host name" : host_problem(host);
    size_t n = 0;
    for (; site->hosts[n]; n++)
        if (!problem && strcmp(site->hosts[n], host) == 0) problem = "this host stands in the list twice";
    if (problem) reader_error(r, at, "%s: %s", value_shown(v, shown), problem);
    if (problem) free(host);
    else site->hosts[n] = host;
}

void read_hosts(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    if (v->kind != VALUE_TABLE && v->kind != VALUE_STRING) {
        reader_expected(r, at, "a list of host names", v);
        return;
    }
    /* An empty list would quietly make this the default site. */
    if (list_size(v) == 0)
        reader_error(r, at, "expected at least one host name; leave `hosts` out for the default site");
    free(site->hosts);
    site->hosts = must_calloc(list_size(v) + 1, sizeof *site->hosts);
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        add_host(r, &here, list_entry(v, i), site);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

/* ---- trusted_proxies */

void read_trusted_proxies(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    read_ranges(r, at, v, &site->trusted, &site->trusted_count);
    for (size_t i = 0; i < site->trusted_count; i++) {
        const struct cidr *range = &site->trusted[i];
        bool everybody = !range->unix_socket && (range->bits == 0 || (range->bits == 96 && range->bytes[10] == 0xff));
        struct spot here = list_spot(at, v, i + 1);
        if (everybody) reader_warn(r, &here, "every client is believed when it says where a request comes from");
    }
}

/* ---- use and fail */

/* What stands in the policies is judged by state_hooks; this is for the shape of the list. */
void read_use(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    (void)base;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a list of policies", v);
        return;
    }
    for (size_t i = 1; i <= v->table.sequence; i++) {
        struct spot here = { .up = at, .index = i };
        const struct value *policy = value_at(v, i);
        if (policy->kind != VALUE_TABLE) reader_expected(r, &here, "a policy (a table of hooks)", policy);
    }
    if (v->table.count > v->table.sequence)
        reader_error(r, at, "expected a list of policies; a single one is written use = { policy }");
}

void read_fail(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a table such as { on_request = \"continue\" }", v);
        return;
    }
    for (const struct setting *row = settings_table; row->name; row++) {
        const struct value *choice = row->place == PLACE_FAIL ? value_get(v, row->name) : NULL;
        if (!choice) continue;
        struct spot here = { .up = at, .name = row->name };
        site->fail_open[row->field] = choice->kind == VALUE_STRING && slice_equal(choice->string, SLICE("continue"));
        if (site->fail_open[row->field])
            reader_warn(r, &here, "when %s fails, requests go on as if it had said nothing", row->name);
        else reader_expected(r, &here, "\"continue\"", choice);
    }
    settings_check_names(r, at, v, 1u << PLACE_FAIL, 0);
}

/* ---- a site */

static const struct config_backend *find_backend(const struct config_site *site, struct slice name) {
    for (unsigned i = 0; i < site->backend_count; i++)
        if (slice_equal(name, slice_of(site->backends[i].name))) return &site->backends[i];
    return NULL;
}

/* A host name may resolve to addresses that are not known here. */
static bool may_have_server(const struct config_backend *backend, struct slice name) {
    for (unsigned i = 0; i < backend->spec_count; i++)
        if (backend->specs[i].host || slice_equal(name, slice_of(backend->specs[i].name))) return true;
    return false;
}

/* "backend" or "backend/server". */
static void check_picked(struct reader *r, const struct spot *at, const struct value *v,
                         const struct config_site *site) {
    if (v->kind != VALUE_STRING) return;
    struct slice rest = v->string, name = slice_cut(&rest, '/');
    const struct config_backend *backend = find_backend(site, name);
    if (!backend) reader_error(r, at, "this site has no backend \"%.*s\"", FMT(name));
    else if (rest.p && !may_have_server(backend, rest))
        reader_error(r, at, "the backend \"%.*s\" has no server \"%.*s\"", FMT(name), FMT(rest));
}

/* A constant pick_backend is known now: a wrong one must not wait for its first request. */
static void check_pick(struct reader *r, const struct spot *policy, const struct value *v,
                       const struct config_site *site) {
    const struct value *pick = value_get(v, "pick_backend");
    struct spot at = { .up = policy, .name = "pick_backend" };
    if (!pick) return;
    check_picked(r, &at, pick, site);
    for (size_t i = 1; pick->kind == VALUE_TABLE && i <= pick->table.sequence; i++) {
        struct spot here = { .up = &at, .index = i };
        check_picked(r, &here, value_at(pick, i), site);
    }
}

/* Of a policy and those it uses. What holds itself is no plain data, and never comes here. */
static void check_picks(struct reader *r, const struct spot *at, const struct value *v,
                        const struct config_site *site) {
    const struct value *use = value_get(v, "use");
    struct spot list = { .up = at, .name = "use" };
    check_pick(r, at, v, site);
    for (size_t i = 1; use && use->kind == VALUE_TABLE && i <= use->table.sequence; i++) {
        struct spot here = { .up = &list, .index = i };
        if (value_at(use, i)->kind == VALUE_TABLE) check_picks(r, &here, value_at(use, i), site);
    }
}

static void check_site(struct reader *r, const struct spot *at, const struct value *v, struct config_site *site) {
    struct spot listen = { .up = at, .name = "listen" }, target = { .up = at, .name = "max_target" };
    struct spot raw = { .up = at, .name = "raw_target" };
    if (!value_get(v, "listen"))
        reader_error(r, &listen, "a site needs an address to listen on, such as \"127.0.0.1:8080\"");
    if (site->limits.target > site->limits.head)
        reader_error(r, &target, "a target longer than `max_headers` (%u bytes) can never come", site->limits.head);
    if (site->raw_target)
        reader_warn(r, &raw,
                    "paths are forwarded as they came: a check of req.path for \"/admin\" does not see \"/%%61dmin\"");
    check_cache(r, at, value_get(v, "cache"), &site->cache);
    check_picks(r, at, v, site);
}

static void name_site(struct reader *r, const struct spot *at, struct config_site *site) {
    char path[SPOT_TEXT];
    const char *name = site->hosts[0];
    if (!name && site->listener_count) name = r->config->listeners[site->listeners[0]].name;
    site->name = must_strdup(name ? name : "?"); /* without both there were errors, and nobody will see it */
    site->path = must_strdup(spot_text(at, path));
    site->line = spot_line(r, at);
}

void read_site(struct reader *r, const struct spot *at, const struct value *v, unsigned index) {
    struct config *config = r->config;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a site (a table)", v);
        return;
    }
    config->sites = must_realloc(config->sites, (config->site_count + 1) * sizeof *config->sites);
    unsigned n = config->site_count++;
    struct config_site *site = &config->sites[n];
    *site = (struct config_site){ .index = index, .hosts = must_calloc(1, sizeof *site->hosts) };
    settings_preset(PLACE_SITE, site);
    site->limits.fields = 100;
    settings_read(r, at, PLACE_SITE, v, site);
    settings_check_names(r, at, v, index ? 1u << PLACE_SITE : 1u << PLACE_SITE | 1u << PLACE_TOP, 0);
    check_site(r, at, v, site);
    name_site(r, at, site);
}
