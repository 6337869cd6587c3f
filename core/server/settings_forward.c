/* Where connections may go: `forward` of a site, `egress` of the top, and the parents of both and of backends. */
#include "server/settings.h"

#include "base/must.h"

#include <stdlib.h>

/* ---- ranges of addresses */

void read_ranges(struct reader *r, const struct spot *at, const struct value *v, struct cidr **list, size_t *count) {
    if (v->kind != VALUE_TABLE && v->kind != VALUE_STRING) {
        reader_expected(r, at, "a list of addresses and ranges", v);
        return;
    }
    *list = must_calloc(list_size(v) + 1, sizeof **list);
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *range = list_entry(v, i);
        bool read = range->kind == VALUE_STRING && cidr_parse(&(*list)[*count], range->string);
        if (read) (*count)++;
        else reader_expected(r, &here, "an address or range such as \"10.0.0.0/8\", \"::1\", \"unix\"", range);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

void read_allow(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct egress *egress = base;
    read_ranges(r, at, v, &egress->allow, &egress->allow_count);
}

void read_deny(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct egress *egress = base;
    read_ranges(r, at, v, &egress->deny, &egress->deny_count);
}

/* Its mere presence makes rules of it. */
void read_egress(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config *config = base;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a table such as { allow = { \"10.1.0.0/16\" } }", v);
        return;
    }
    config->has_egress = true;
    settings_read(r, at, PLACE_EGRESS, v, &config->egress);
    settings_check_names(r, at, v, 1u << PLACE_EGRESS, 0);
}

/* ---- ports */

static bool read_port(const struct value *v, uint16_t *port) {
    int64_t n;
    if (!value_whole(v, &n) || n < 1 || n > UINT16_MAX) return false;
    *port = (uint16_t)n;
    return true;
}

static bool parse_port(struct slice text, uint16_t *port) {
    uint64_t n;
    if (!text.n || text.n > 5 || !slice_to_u64(text, &n) || n < 1 || n > UINT16_MAX) return false;
    *port = (uint16_t)n;
    return true;
}

/* 443, "8000-8999" */
static bool read_port_range(const struct value *v, struct port_range *range) {
    if (v->kind == VALUE_STRING) {
        struct slice high = v->string, low = slice_cut(&high, '-');
        return parse_port(low, &range->low) && parse_port(high, &range->high) && range->low <= range->high;
    }
    bool read = read_port(v, &range->low);
    range->high = range->low;
    return read;
}

void read_ports(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct forward *forward = base;
    if (list_size(v) == 0) reader_error(r, at, "expected at least one port");
    free(forward->ports);
    forward->ports = must_calloc(list_size(v) + 1, sizeof *forward->ports);
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *port = list_entry(v, i);
        if (read_port_range(port, &forward->ports[forward->port_count])) forward->port_count++;
        else reader_expected(r, &here, "a port such as 443, or a range such as \"8000-8999\"", port);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

/* ---- parents */

static struct slice text_or_none(const char *text) { return text ? slice_of(text) : slice_make(NULL, 0); }

static struct parent *read_parent(struct reader *r, const struct spot *at, const struct value *v) {
    struct parent_setting setting = { .url = NULL };
    struct parent *parent = NULL;
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_PARENT, v, &setting);
        settings_check_names(r, at, v, 1u << PLACE_PARENT, 0);
    } else if (v->kind == VALUE_STRING) {
        setting.url = must_strndup(v->string.p, v->string.n);
    }
    const char *wrong = NULL;
    if (setting.url) parent = parent_create(slice_of(setting.url), text_or_none(setting.auth), &wrong);
    else reader_expected(r, at, "\"http://host:port\" or { url =, auth = }", v);
    if (wrong) reader_error(r, at, "%s", wrong);
    if (parent && setting.auth && !parent->trust)
        reader_warn(r, at, "the password for %s is readable on the way there", parent->name);
    free(setting.url);
    free(setting.auth);
    return parent;
}

void read_forward_parent(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct forward *forward = base;
    parent_unref(forward->parent);
    forward->parent = read_parent(r, at, v);
}

void read_backend_parent(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_backend *backend = base;
    parent_unref(backend->settings.parent);
    backend->settings.parent = read_parent(r, at, v);
}

void check_backend_parent(struct reader *r, const struct spot *at, const struct config_backend *backend) {
    const struct parent *parent = backend->settings.parent;
    struct spot here = { .up = at, .name = "parent" };
    if (!parent) return;
    if (parent->trust && backend->settings.trust)
        reader_error(r, &here, "TLS to the servers cannot go inside of TLS to the parent: reach it by http://");
    if (backend->settings.proxy_protocol)
        reader_error(r, &here, "a PROXY header would go to the parent, not to the servers: one or the other");
    for (unsigned i = 0; i < backend->spec_count; i++) {
        struct spot server = { .up = at, .index = i + 1 };
        if (!backend->specs[i].host && backend->specs[i].addr.u.sa.sa_family == AF_UNIX)
            reader_error(r, &server, "no parent connects to a unix socket");
    }
}

/* ---- forward */

static bool is_everything(const struct egress *egress) { return egress->private && egress->deny_count == 0; }

void read_forward(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    struct forward *forward = &site->forward;
    if (v->kind != VALUE_BOOLEAN && v->kind != VALUE_TABLE) {
        reader_expected(r, at, "true, or a table such as { ports = { 443 } }", v);
        return;
    }
    forward->on = v->kind == VALUE_TABLE || v->boolean;
    if (v->kind != VALUE_TABLE) return;
    settings_read(r, at, PLACE_FORWARD, v, forward);
    settings_read(r, at, PLACE_EGRESS, v, &forward->egress);
    settings_check_names(r, at, v, 1u << PLACE_FORWARD | 1u << PLACE_EGRESS, 0);
    if (is_everything(&forward->egress))
        reader_warn(r, at,
                    "clients reach every address that this machine reaches, its own and its network's among them");
}
