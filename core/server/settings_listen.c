/* Addresses that sites and the admin listen on: every form in which they are written, and that sites which share
 * one agree in its options. */
#include "server/settings.h"

#include "base/must.h"
#include "net/tls.h"

#include <stdio.h>
#include <stdlib.h>

#define ADDRESS_FORMS "an address such as \"127.0.0.1:8080\", 8080, \"unix:/run/m.sock\""

/* The supervisor makes the file, opens it to all, and removes it: none that would lie wherever it was started. */
static bool is_relative(struct slice address) {
    return slice_starts_with(address, SLICE("unix:")) && address.p[5] != '/' && address.p[5] != '@';
}

/* A port alone is all addresses of both families, as "8080" is. Port 0, "127.0.0.1:0", is a free one that the system
 * picks; the ready line tells which. */
static bool parse_address(const struct value *v, struct addr *addr) {
    char text[32];
    int64_t port;
    if (v->kind == VALUE_STRING) return addr_parse(addr, v->string) && !is_relative(v->string);
    if (!value_whole(v, &port) || port < 1 || port > 65535) return false;
    snprintf(text, sizeof text, "%d", (int)port);
    return addr_parse(addr, slice_of(text));
}

static void explain_address(struct reader *r, const struct spot *at, const struct value *v) {
    struct slice host;
    uint16_t port;
    char shown[SHOWN_TEXT];
    if (v->kind == VALUE_STRING && addr_split(v->string, &host, &port))
        reader_error(r, at, "expected an address, got the host name %s", value_shown(v, shown));
    else reader_expected(r, at, ADDRESS_FORMS, v);
}

/* A table with an address as its only entry, and options beside it. */
static const struct value *address_of(struct reader *r, const struct spot *at, const struct value *v) {
    if (v->kind != VALUE_TABLE) return v;
    const struct value *address = value_at(v, 1);
    if (!address) reader_error(r, at, "expected " ADDRESS_FORMS " as the first entry");
    settings_check_names(r, at, v, 1u << PLACE_LISTENER, 1);
    return address;
}

/* true, or the ranges of those who are believed. */
void read_proxy_protocol(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_listener *l = base;
    l->proxy_protocol = v->kind == VALUE_BOOLEAN ? v->boolean : true;
    if (v->kind == VALUE_BOOLEAN) return;
    if (v->kind == VALUE_TABLE && list_size(v) == 0) reader_error(r, at, "expected at least one address or range");
    read_ranges(r, at, v, &l->proxies, &l->proxies_count);
}

static void fini_options(struct config_listener *l) {
    free(l->proxies);
    tls_service_unref(l->tls);
    tls_certificates_unref(l->certificates);
}

static bool read_listener(struct reader *r, const struct spot *at, const struct value *v, struct config_listener *to) {
    char text[ADDR_TEXT];
    *to = (struct config_listener){ .line = 0 };
    if (v->kind == VALUE_TABLE) settings_read(r, at, PLACE_LISTENER, v, to);
    const struct value *address = address_of(r, at, v);
    if (!address || !parse_address(address, &to->addr)) {
        if (address) explain_address(r, at, address);
        fini_options(to);
        return false;
    }
    addr_text(&to->addr, text);
    to->name = must_strdup(text);
    return true;
}

/* ---- the listeners of the sites */

static void check_options(struct reader *r, const struct spot *at, const struct config_listener *former,
                          const struct config_listener *l) {
    bool same_proxies =
        former->proxy_protocol == l->proxy_protocol && former->proxies_count == l->proxies_count &&
        (!l->proxies_count || memcmp(former->proxies, l->proxies, l->proxies_count * sizeof *l->proxies) == 0);
    bool same_tls = former->tls == l->tls && tls_certificates_equal(former->certificates, l->certificates);
    const char *differs = !same_tls ? "tls" : former->h2c != l->h2c ? "h2c" : !same_proxies ? "proxy_protocol" : NULL;
    if (differs)
        reader_error(r, at, "%s has another `%s` at %s: sites on one address agree in its options", l->name, differs,
                     former->path);
}

/* The index in config->listeners; `l` is taken over. */
static unsigned share_listener(struct reader *r, const struct spot *at, struct config_listener *l) {
    struct config *config = r->config;
    char path[SPOT_TEXT];
    for (unsigned i = 0; i < config->listener_count; i++) {
        if (!addr_equal(&config->listeners[i].addr, &l->addr)) continue;
        check_options(r, at, &config->listeners[i], l);
        fini_options(l);
        free(l->name);
        return i;
    }
    l->path = must_strdup(spot_text(at, path));
    l->line = spot_line(r, at);
    config->listeners = must_realloc(config->listeners, (config->listener_count + 1) * sizeof *config->listeners);
    config->listeners[config->listener_count] = *l;
    return config->listener_count++;
}

static void add_listener(struct reader *r, const struct spot *at, const struct value *v, struct config_site *site) {
    struct config_listener l;
    if (!read_listener(r, at, v, &l)) return;
    unsigned index = share_listener(r, at, &l);
    for (unsigned i = 0; i < site->listener_count; i++) {
        if (site->listeners[i] != index) continue;
        reader_error(r, at, "%s stands in the list twice", r->config->listeners[index].name);
        return;
    }
    site->listeners = must_realloc(site->listeners, (site->listener_count + 1) * sizeof *site->listeners);
    site->listeners[site->listener_count++] = index;
}

void read_listen(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    /* One address with options need not be wrapped in a list of one. */
    bool single = v->kind != VALUE_TABLE || v->table.count > v->table.sequence;
    if (single) {
        add_listener(r, at, v, site);
        return;
    }
    if (v->table.sequence == 0) reader_error(r, at, "expected at least one address");
    for (size_t i = 1; i <= v->table.sequence; i++) {
        struct spot here = { .up = at, .index = i };
        add_listener(r, &here, value_at(v, i), site);
    }
}

/* ---- the admin's */

static bool is_local(const struct addr *addr) {
    struct cidr local[3];
    cidr_parse(&local[0], SLICE("127.0.0.0/8"));
    cidr_parse(&local[1], SLICE("::1"));
    cidr_parse(&local[2], SLICE("unix"));
    return cidr_match(local, 3, addr);
}

void read_admin(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config *config = base;
    struct config_listener *admin = &config->admin;
    char path[SPOT_TEXT];
    /* A bare port would be open to everybody: too easily written for a page that tells so much. */
    if (v->kind != VALUE_STRING && v->kind != VALUE_TABLE) {
        reader_expected(r, at, "an address such as \"127.0.0.1:9901\"", v);
        return;
    }
    if (!read_listener(r, at, v, admin)) return;
    if (admin->tls) reader_error(r, at, "the admin speaks no TLS: keep it local");
    if (admin->proxy_protocol) reader_error(r, at, "the admin takes no PROXY header: keep it local");
    admin->path = must_strdup(spot_text(at, path));
    admin->line = spot_line(r, at);
    if (!is_local(&admin->addr))
        reader_warn(r, at, "everybody who reaches %s can read the figures: better a local address", admin->name);
}
