/* TLS: certificates, keys, roots, as a config names them. The files are read here, through the sources of the load, and
 * what they hold is parsed (or found, parsed before) at once: so every error has its place in the config, and nothing
 * is left to go wrong when the first connection comes. */
#include "server/settings.h"

#include "base/clock.h"
#include "base/must.h"
#include "lua/state.h"
#include "net/tls.h"
#include "server/ask.h"
#include "server/internal_certificate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pieces */

/* Keys are for root alone, and mostly lie elsewhere than configs. */
static const char *hint(const char *why) {
    return ask_is_open() && strcmp(why, strerrordesc_np(EACCES)) == 0
               ? " for the user it serves as (--keys DIR has the supervisor read what lies there)"
               : "";
}

/* The text of a file; p NULL after an error, or if `path` is NULL. */
static struct slice read_pem(struct reader *r, const struct spot *at, const char *path) {
    const char *why;
    size_t size = 0;
    if (!path) return slice_make(NULL, 0);
    const char *text = sources_file(r->sources, path, &size, &why);
    if (!text) reader_error(r, at, "%s: %s%s", path, why, hint(why));
    return slice_make(text, size);
}

void read_pins(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct trust_setting *setting = base;
    setting->pins = must_calloc(list_size(v) + 1, sizeof *setting->pins);
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *pin = list_entry(v, i);
        if (pin->kind == VALUE_STRING && tls_pin_valid(pin->string)) setting->pins[setting->pin_count++] = pin->string;
        else reader_expected(r, &here, "\"sha256/\" and the base64 of a public key's SHA-256", pin);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

void read_versions(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    unsigned *versions = &((struct trust_setting *)base)->versions;
    *versions = 0;
    for (size_t i = 1; i <= list_size(v); i++) {
        struct spot here = list_spot(at, v, i);
        const struct value *version = list_entry(v, i);
        if (version->kind == VALUE_STRING && slice_equal(version->string, SLICE("1.2"))) *versions |= TLS_1_2;
        else if (version->kind == VALUE_STRING && slice_equal(version->string, SLICE("1.3"))) *versions |= TLS_1_3;
        else reader_expected(r, &here, "\"1.2\" or \"1.3\"", version);
    }
    if (v->kind == VALUE_TABLE && v->table.count == 0) reader_error(r, at, "expected at least one version");
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, list_size(v));
}

/* ---- to servers */

struct blamed {
    const char *setting, *file;
};

/* A sentence of the store begins with the setting it is about, which stands in `list` (ended by NULL) with its file. */
static void blame(struct reader *r, const struct spot *at, const char *why, const struct blamed *list) {
    for (; list->setting; list++) {
        size_t n = strlen(list->setting);
        if (strncmp(why, list->setting, n) != 0 || strncmp(why + n, ": ", 2) != 0) continue;
        struct spot here = { .up = at, .name = list->setting };
        reader_error(r, &here, "%s%s%s", list->file ? list->file : "", list->file ? ": " : "", why + n + 2);
        return;
    }
    reader_error(r, at, "%s", why);
}

/* A key that others can read is no secret. `path` NULL: fine. */
static void check_secret(struct reader *r, const struct spot *at, const char *path) {
    if (path && sources_file_open_to_others(r->sources, path))
        reader_error(r, at, "%s: others can read it: chmod 600 (or, owned by root, 640)", path);
}

static bool check_trust(struct reader *r, const struct spot *at, const struct trust_setting *setting) {
    struct spot key = { .up = at, .name = "key" }, ca = { .up = at, .name = "ca" },
                verify = { .up = at, .name = "verify" };
    if (setting->key && !setting->cert) reader_error(r, &key, "a key without `cert`");
    if (setting->ca && !setting->verify) reader_error(r, &ca, "with verify = false nothing is held against it");
    if (!setting->verify && !setting->pin_count)
        reader_warn(r, &verify, "anybody on the way to the servers can pose as one of them");
    return !(setting->key && !setting->cert) && !(setting->ca && !setting->verify);
}

static struct tls_trust *make_trust(struct reader *r, const struct spot *at, const struct trust_setting *setting) {
    struct spot ca = { .up = at, .name = "ca" }, cert = { .up = at, .name = "cert" }, key = { .up = at, .name = "key" };
    char why[256];
    struct tls_trust_settings settings = {
        .ca = read_pem(r, &ca, setting->ca),
        .cert = read_pem(r, &cert, setting->cert),
        .key = read_pem(r, &key, setting->key),
        .pins = setting->pins,
        .pin_count = setting->pin_count,
        .unverified = !setting->verify,
        .versions = setting->versions,
    };
    bool read =
        (settings.ca.p || !setting->ca) && (settings.cert.p || !setting->cert) && (settings.key.p || !setting->key);
    if (!read) return NULL;
    struct tls_trust *trust = tls_trust_get(&settings, why, sizeof why);
    if (trust && tls_trust_prepare(trust, why, sizeof why)) return trust;
    const char *key_file = setting->key ? setting->key : setting->cert;
    blame(
        r, at, why,
        (struct blamed[]){
            { "ca", setting->ca }, { "cert", setting->cert }, { "key", key_file }, { "pins", NULL }, { NULL, NULL } });
    tls_trust_unref(trust);
    return NULL;
}

static void fini_trust(struct trust_setting *setting) {
    free(setting->name);
    free(setting->ca);
    free(setting->cert);
    free(setting->key);
    free(setting->pins);
}

void read_backend_tls(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_backend *backend = base;
    struct trust_setting setting = { 0 };
    settings_preset(PLACE_BACKEND_TLS, &setting);
    if (v->kind == VALUE_BOOLEAN && !v->boolean) return;
    if (v->kind != VALUE_TABLE && v->kind != VALUE_BOOLEAN) {
        reader_expected(r, at, "true, false or a table such as { ca = \"internal.pem\" }", v);
        return;
    }
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_BACKEND_TLS, v, &setting);
        settings_check_names(r, at, v, 1u << PLACE_BACKEND_TLS, 0);
    }
    if (check_trust(r, at, &setting)) backend->settings.trust = make_trust(r, at, &setting);
    backend->settings.tls_name = setting.name;
    setting.name = NULL;
    fini_trust(&setting);
}

void check_backend_tls(struct reader *r, const struct spot *at, const struct config_backend *backend) {
    const struct backend_settings *s = &backend->settings;
    if (!s->trust || s->tls_name || !tls_trust_verifies(s->trust)) return;
    struct spot tls = { .up = at, .name = "tls" };
    for (unsigned i = 0; i < backend->spec_count; i++) {
        const struct server_spec *spec = &backend->specs[i];
        if (spec->host || spec->addr.u.sa.sa_family != AF_UNIX) continue;
        reader_error(r, &tls, "the server %s has no host name: say which one its certificate bears, name = \"…\"",
                     spec->name);
    }
}

/* ---- to clients: certificates */

static void fini_certificate(struct certificate_setting *c) {
    free(c->cert);
    free(c->key);
    free(c->ocsp);
}

static void add_certificate(struct reader *r, const struct spot *at, const struct certificate_setting *c,
                            struct tls_certificates *to) {
    struct spot cert = { .up = at, .name = "cert" }, key = { .up = at, .name = "key" },
                ocsp = { .up = at, .name = "ocsp" };
    char why[256];
    if (!c->cert) {
        reader_error(r, at, "needs a certificate, such as { cert = \"site.pem\", key = \"site.key\" }");
        return;
    }
    struct slice cert_text = read_pem(r, &cert, c->cert), key_text = read_pem(r, &key, c->key);
    struct slice ocsp_text = read_pem(r, &ocsp, c->ocsp);
    check_secret(r, c->key ? &key : &cert, c->key ? c->key : c->cert);
    if (!cert_text.p || (c->key && !key_text.p) || (c->ocsp && !ocsp_text.p)) return;
    if (tls_certificates_add(to, cert_text, key_text, ocsp_text, why, sizeof why)) return;
    const char *key_file = c->key ? c->key : c->cert;
    blame(r, at, why,
          (struct blamed[]){ { "cert", c->cert }, { "key", key_file }, { "ocsp", c->ocsp }, { NULL, NULL } });
}

static void read_certificate(struct reader *r, const struct spot *at, const struct value *v,
                             struct tls_certificates *to) {
    struct certificate_setting c = { NULL, NULL, NULL };
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a certificate such as { cert = \"site.pem\", key = \"site.key\" }", v);
        return;
    }
    settings_read(r, at, PLACE_CERTIFICATE, v, &c);
    settings_check_names(r, at, v, 1u << PLACE_CERTIFICATE, 0);
    add_certificate(r, at, &c, to);
    fini_certificate(&c);
}

static void read_certificates(struct reader *r, const struct spot *at, const struct value *list,
                              struct tls_certificates *to) {
    for (size_t i = 1; i <= list->table.sequence; i++) {
        struct spot here = { .up = at, .index = i };
        read_certificate(r, &here, value_at(list, i), to);
    }
}

static void warn_of_expiry(struct reader *r, const struct spot *at, const struct tls_certificates *c) {
    double left = tls_certificates_expire(c) - clock_wall();
    if (tls_certificates_count(c) == 0) return;
    if (left <= 0) reader_warn(r, at, "a certificate has expired");
    else if (left < 7 * 86400) reader_warn(r, at, "a certificate expires in %d days", (int)(left / 86400));
    if (tls_certificates_unstapled(c, clock_wall()))
        reader_warn(r, at, "an OCSP answer has expired: it is not stapled");
}

void read_site_tls(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_site *site = base;
    if (v->kind == VALUE_BOOLEAN && !v->boolean) return;
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a table such as { cert = \"site.pem\", key = \"site.key\" }, or a list of them", v);
        return;
    }
    site->certificates = tls_certificates_create();
    if (v->table.sequence == 0) read_certificate(r, at, v, site->certificates);
    else read_certificates(r, at, v, site->certificates);
    if (v->table.sequence > 0) settings_check_names(r, at, v, 0, v->table.sequence);
    warn_of_expiry(r, at, site->certificates);
}

/* ---- to clients: listeners */

static void fini_service(struct service_setting *s) {
    fini_certificate(&s->certificate);
    free(s->client_ca);
    free(s->crl);
}

static enum tls_ask choose_ask(const struct service_setting *s) {
    if (!s->client_ca) return TLS_ASK_NOT;
    return s->client_verify ? TLS_ASK_REQUEST : TLS_ASK_REQUIRE;
}

static void make_service(struct reader *r, const struct spot *at, const struct service_setting *s,
                         struct config_listener *l) {
    struct spot ca = { .up = at, .name = "client_ca" }, crl = { .up = at, .name = "crl" };
    char why[256];
    struct tls_service_settings settings = {
        .alpn = TLS_ALPN_H2,
        .versions = s->profile ? TLS_1_3 : TLS_1_2 | TLS_1_3,
        .ask = choose_ask(s),
        .early = s->early_data,
        .kernel = s->ktls,
        .client_ca = read_pem(r, &ca, s->client_ca),
        .crl = read_pem(r, &crl, s->crl),
    };
    if ((s->client_ca && !settings.client_ca.p) || (s->crl && !settings.crl.p)) return;
    l->tls = tls_service_get(&settings, why, sizeof why);
    if (!l->tls)
        blame(r, at, why, (struct blamed[]){ { "client_ca", s->client_ca }, { "crl", s->crl }, { NULL, NULL } });
}

static void check_service(struct reader *r, const struct spot *at, const struct value *v,
                          const struct service_setting *s) {
    struct spot verify = { .up = at, .name = "client_verify" }, crl = { .up = at, .name = "crl" };
    struct spot ktls = { .up = at, .name = "ktls" };
    if (value_get(v, "client_verify") && !s->client_ca)
        reader_error(r, &verify, "needs `client_ca`: who may have signed them");
    if (s->crl && !s->client_ca) reader_error(r, &crl, "needs `client_ca`: who may have signed them");
    if (s->ktls && s->early_data) reader_error(r, &ktls, "does not go with `early_data`");
    else if (s->ktls && !tls_kernel_there()) reader_warn(r, &ktls, "this kernel has no TLS (modprobe tls): not used");
}

static void read_service(struct reader *r, const struct spot *at, const struct value *v, struct config_listener *l) {
    struct service_setting setting = { .profile = 0 };
    settings_read(r, at, PLACE_LISTENER_TLS, v, &setting);
    settings_check_names(r, at, v, 1u << PLACE_LISTENER_TLS, v->table.sequence);
    check_service(r, at, v, &setting);
    if (setting.certificate.cert || setting.certificate.key || setting.certificate.ocsp)
        add_certificate(r, at, &setting.certificate, l->certificates);
    read_certificates(r, at, v, l->certificates);
    make_service(r, at, &setting, l);
    fini_service(&setting);
}

static void add_internal(struct reader *r, const struct spot *at, struct tls_certificates *to) {
    char why[256];
    bool kept;
    char *text = internal_certificate(&kept);
    if (!kept) reader_warn(r, at, "the internal certificate could not be kept: the next start makes another one");
    if (!tls_certificates_add(to, slice_of(text), slice_make(NULL, 0), slice_make(NULL, 0), why, sizeof why))
        reader_error(r, at, "the internal certificate: %s", why);
    free(text);
}

void read_listener_tls(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_listener *l = base;
    static const struct value none = { .kind = VALUE_TABLE };
    bool internal = v->kind == VALUE_STRING && slice_equal(v->string, SLICE("internal"));
    if (v->kind == VALUE_BOOLEAN && !v->boolean) return;
    if (v->kind != VALUE_TABLE && v->kind != VALUE_BOOLEAN && !internal) {
        reader_expected(r, at, "true, \"internal\" or a table such as { cert = \"site.pem\", key = \"site.key\" }", v);
        return;
    }
    l->certificates = tls_certificates_create();
    read_service(r, at, v->kind == VALUE_TABLE ? v : &none, l);
    if (internal) add_internal(r, at, l->certificates);
    warn_of_expiry(r, at, l->certificates);
}

/* ---- between listeners and sites */

static bool meets_tls(const struct config *config, const struct config_site *site) {
    for (unsigned i = 0; i < site->listener_count; i++)
        if (config->listeners[site->listeners[i]].tls) return true;
    return false;
}

/* A name that no certificate bears is refused by every client; but a hook may have one. */
static void check_names(struct reader *r, const struct config_site *site) {
    for (size_t i = 0; site->hosts[i]; i++) {
        struct slice host = slice_of(site->hosts[i]);
        struct addr addr;
        if (*host.p == '[' || addr_from_ip(&addr, host, 0) || tls_certificates_bear(site->certificates, host)) continue;
        errors_warn(r->errors, r->config->file, site->line, *site->path ? site->path : NULL,
                    "no certificate of its `tls` bears the name \"%s\"", site->hosts[i]);
    }
}

void settings_check_tls(struct reader *r) {
    const struct config *config = r->config;
    for (unsigned i = 0; i < config->site_count; i++) {
        const struct config_site *site = &config->sites[i];
        if (!site->certificates) continue;
        if (!meets_tls(config, site))
            errors_add(r->errors, config->file, site->line, *site->path ? site->path : NULL,
                       "has `tls`, but none of its listeners: listen = { { \"0.0.0.0:443\", tls = true } }");
        check_names(r, site);
    }
}
