/* TLS: certificates, keys, roots, as a config names them. The files are read here, through the sources of the load, and
 * what they hold is parsed (or found, parsed before) at once: so every error has its place in the config, and nothing
 * is left to go wrong when the first connection comes. */
#include "server/settings.h"

#include "base/must.h"
#include "lua/state.h"
#include "net/tls.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- pieces */

/* The text of a file; p NULL after an error, or if `path` is NULL. */
static struct slice read_pem(struct reader *r, const struct spot *at, const char *path) {
    const char *why;
    size_t size = 0;
    if (!path) return slice_make(NULL, 0);
    const char *text = sources_file(r->sources, path, &size, &why);
    if (!text) reader_error(r, at, "%s: %s", path, why);
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

/* A sentence of the store begins with the name of the setting it is about. */
static void blame(struct reader *r, const struct spot *at, const char *why, const struct trust_setting *setting) {
    static const char *const names[] = { "ca", "cert", "pins" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(why, names[i], n) != 0 || strncmp(why + n, ": ", 2) != 0) continue;
        const char *file = i == 0 ? setting->ca : i == 1 ? setting->cert : NULL;
        struct spot here = { .up = at, .name = names[i] };
        reader_error(r, &here, "%s%s%s", file ? file : "", file ? ": " : "", why + n + 2);
        return;
    }
    reader_error(r, at, "%s", why);
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
    blame(r, at, why, setting);
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
