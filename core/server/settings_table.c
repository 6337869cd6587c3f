/* Every setting of a config, once: where it stands, its type, its bounds, its default. The reader (settings.c) is
 * driven by it; so are "did you mean", and the spec that holds the manual against it.
 *
 * Defaults are for the open internet, where the other side may be slow, many, or ill-willed: every wait ends, every
 * head and body is bounded. Two that surprise people elsewhere:
 * - max_body is 64M: uploads of photos and office files pass, and a stranger cannot fill a backend's disk with one
 *   request. (1M, as is the custom elsewhere, is the first thing everybody has to change.) 0 or "none": no limit.
 * - timeouts.between also ends a client that takes nothing of its answer for so long. Tunnels (WebSocket, CONNECT) have
 *   a limit of their own, timeouts.tunnel, which is long: who wants to be idle for longer than an hour sends pings. */
#include "server/settings.h"

#include "store/metrics.h"

#define ROW(place_, name_, type_, struct_, field_, ...)                                                                \
    {                                                                                                                  \
        .place = PLACE_##place_, .name = name_, .type = SETTING_##type_, .field = offsetof(struct struct_, field_),    \
        __VA_ARGS__                                                                                                    \
    }

#define KIB 1024.0
#define MIB 1048576.0
#define GIB 1073741824.0
#define DAY 86400.0

static const char *const level_words[] = { "error", "warn", "info", "debug", NULL };
static const char *const format_words[] = { "combined", "json", NULL };
static const char *const profile_words[] = { "intermediate", "modern", NULL };
static const char *const client_verify_words[] = { "require", "request", NULL };
static const char *const balance_words[] = { "round_robin", "least_conn", NULL };

const char *const settings_places[PLACE_COUNT] = {
    [PLACE_TOP] = "the top table",
    [PLACE_LOG] = "`log`",
    [PLACE_LUA] = "`lua`",
    [PLACE_SITE] = "a site",
    [PLACE_LISTENER] = "a listener",
    [PLACE_TIMEOUTS] = "a site's `timeouts`",
    [PLACE_CACHE] = "`cache`",
    [PLACE_DISK] = "`cache.disk`",
    [PLACE_COMPRESS] = "`compress`",
    [PLACE_FAIL] = "`fail`",
    [PLACE_BACKEND] = "a backend",
    [PLACE_SERVER] = "a server",
    [PLACE_BACKEND_TIMEOUTS] = "a backend's `timeouts`",
    [PLACE_KEEPALIVE] = "`keepalive`",
    [PLACE_QUEUE] = "`queue`",
    [PLACE_RETRY] = "`retry`",
    [PLACE_HEALTH] = "`health`",
    [PLACE_BACKEND_TLS] = "a backend's `tls`",
    [PLACE_LISTENER_TLS] = "a listener's `tls`",
    [PLACE_CERTIFICATE] = "a certificate",
    [PLACE_FORWARD] = "`forward`",
    [PLACE_EGRESS] = "`egress`",
    [PLACE_PARENT] = "`parent`",
};

#define HOOK_ROW(place_, name_, hook_)                                                                                 \
    { .place = PLACE_##place_, .name = name_, .type = SETTING_HOOK, .field = (hook_) }

const struct setting settings_table[] = {
    ROW(TOP, "sites", OWN, config, sites, .read = read_sites),
    ROW(TOP, "workers", COUNT, config, workers, .low = 1, .high = METRIC_WORKERS),
    ROW(TOP, "admin", OWN, config, admin, .read = read_admin),
    ROW(TOP, "log", TABLE, config, log, .table = PLACE_LOG),
    ROW(TOP, "user", OWN, config, user, .read = read_user),
    ROW(TOP, "max_connections", COUNT, config, max_connections, .high = 10e6),
    ROW(TOP, "drain", SECONDS, config, drain, .high = DAY, .preset = 60),
    ROW(TOP, "unsafe", OWN, config, unsafe, .read = read_unsafe),
    ROW(TOP, "egress", OWN, config, egress, .read = read_egress),
    ROW(TOP, "lua", TABLE, config, limits, .table = PLACE_LUA),

    ROW(LOG, "access", TEXT, config_log, access),
    ROW(LOG, "access_format", WORD, config_log, access_format, .words = format_words),
    ROW(LOG, "error", TEXT, config_log, error),
    ROW(LOG, "level", WORD, config_log, level, .words = level_words, .preset = LOG_LEVEL_INFO),

    ROW(LUA, "memory", SIZE, state_limits, memory, .low = MIB, .high = 16 * GIB, .preset = 32 * MIB),
    ROW(LUA, "hook_memory", SIZE, state_limits, hook_memory, .low = 64 * KIB, .high = 16 * GIB),
    ROW(LUA, "hook_time", SECONDS, state_limits, hook_time, .low = 0, .high = 3600, .preset = 60),
    ROW(LUA, "hook_cpu", SECONDS, state_limits, hook_cpu, .low = 0.001, .high = 10, .preset = 0.010),
    ROW(LUA, "load_cpu", SECONDS, state_limits, load_cpu, .low = 0.1, .high = 60, .preset = 1),

    ROW(SITE, "listen", OWN, config_site, listeners, .read = read_listen),
    ROW(SITE, "hosts", OWN, config_site, hosts, .read = read_hosts),
    ROW(SITE, "tls", OWN, config_site, certificates, .read = read_site_tls),
    ROW(SITE, "backends", OWN, config_site, backends, .read = read_backends),
    ROW(SITE, "cache", TABLE, config_site, cache, .table = PLACE_CACHE),
    ROW(SITE, "use", OWN, config_site, index, .read = read_use),
    ROW(SITE, "compress", OWN, config_site, compress, .read = read_compress),
    ROW(SITE, "trusted_proxies", OWN, config_site, trusted, .read = read_trusted_proxies),
    ROW(SITE, "forward", OWN, config_site, forward, .read = read_forward),
    ROW(SITE, "max_body", SIZE, config_site, max_body, .low = 1, .high = 1024 * GIB, .preset = 64 * MIB,
        .or_none = true),
    /* A head is read from a conn's buffer, which is 64K. */
    ROW(SITE, "max_headers", SIZE32, config_site, limits.head, .low = KIB, .high = 64 * KIB, .preset = 32 * KIB),
    ROW(SITE, "max_target", SIZE32, config_site, limits.target, .low = 64, .high = 64 * KIB, .preset = 8 * KIB),
    ROW(SITE, "buffer_body", BOOLEAN, config_site, buffer_body),
    ROW(SITE, "raw_target", BOOLEAN, config_site, raw_target),
    ROW(SITE, "abort_on_fin", BOOLEAN, config_site, abort_on_fin),
    ROW(SITE, "timeouts", TABLE, config_site, timeouts, .table = PLACE_TIMEOUTS),
    ROW(SITE, "fail", OWN, config_site, fail_open, .read = read_fail),

    HOOK_ROW(SITE, "on_connect", HOOK_ON_CONNECT),
    HOOK_ROW(SITE, "on_request", HOOK_ON_REQUEST),
    HOOK_ROW(SITE, "cache_key", HOOK_CACHE_KEY),
    HOOK_ROW(SITE, "pick_backend", HOOK_PICK_BACKEND),
    HOOK_ROW(SITE, "on_store", HOOK_ON_STORE),
    HOOK_ROW(SITE, "on_response", HOOK_ON_RESPONSE),
    HOOK_ROW(SITE, "on_log", HOOK_ON_LOG),
    HOOK_ROW(SITE, "on_error", HOOK_ON_ERROR),
    HOOK_ROW(SITE, "on_certificate", HOOK_ON_CERTIFICATE),
    HOOK_ROW(SITE, "on_load", HOOK_COUNT),
    HOOK_ROW(SITE, "on_unload", HOOK_COUNT),

    HOOK_ROW(FAIL, "on_connect", HOOK_ON_CONNECT),
    HOOK_ROW(FAIL, "on_request", HOOK_ON_REQUEST),
    HOOK_ROW(FAIL, "cache_key", HOOK_CACHE_KEY),
    HOOK_ROW(FAIL, "pick_backend", HOOK_PICK_BACKEND),
    HOOK_ROW(FAIL, "on_store", HOOK_ON_STORE),
    HOOK_ROW(FAIL, "on_response", HOOK_ON_RESPONSE),
    HOOK_ROW(FAIL, "on_log", HOOK_ON_LOG),
    HOOK_ROW(FAIL, "on_error", HOOK_ON_ERROR),
    HOOK_ROW(FAIL, "on_certificate", HOOK_ON_CERTIFICATE),

    ROW(LISTENER, "tls", OWN, config_listener, tls, .read = read_listener_tls),
    ROW(LISTENER, "h2c", BOOLEAN, config_listener, h2c),
    ROW(LISTENER, "proxy_protocol", OWN, config_listener, proxy_protocol, .read = read_proxy_protocol),

    /* 0: no limit */
    ROW(TIMEOUTS, "head", SECONDS, timeouts, head, .high = DAY, .preset = 10),
    ROW(TIMEOUTS, "body", SECONDS, timeouts, body, .high = DAY, .preset = 30),
    ROW(TIMEOUTS, "idle", SECONDS, timeouts, idle, .high = DAY, .preset = 75),
    ROW(TIMEOUTS, "connect", SECONDS, timeouts, connect, .high = DAY, .preset = 5),
    ROW(TIMEOUTS, "first_byte", SECONDS, timeouts, first_byte, .high = DAY, .preset = 60),
    ROW(TIMEOUTS, "between", SECONDS, timeouts, between, .high = DAY, .preset = 60),
    ROW(TIMEOUTS, "tunnel", SECONDS, timeouts, tunnel, .high = DAY, .preset = 3600),
    ROW(TIMEOUTS, "total", SECONDS, timeouts, total, .high = DAY),

    ROW(COMPRESS, "types", OWN, compress, types, .read = read_compress_types),
    ROW(COMPRESS, "min", SIZE, compress, min, .high = GIB, .preset = KIB),
    ROW(COMPRESS, "codings", OWN, compress, codings, .read = read_compress_codings),
    ROW(COMPRESS, "level", COUNT, compress, level, .low = ENCODER_LEVEL_MIN, .high = ENCODER_LEVEL_MAX, .preset = 4),

    ROW(CACHE, "memory", SIZE, config_cache, memory, .low = MIB, .high = 1024 * GIB),
    ROW(CACHE, "max_object", SIZE, config_cache, max_object, .low = KIB, .high = 1024 * GIB),
    ROW(CACHE, "disk", TABLE, config_cache, disk, .table = PLACE_DISK),
    ROW(CACHE, "name", TEXT, config_cache, name),
    ROW(CACHE, "pass", SECONDS, config_cache, pass, .high = DAY, .preset = 120),
    ROW(CACHE, "negative", OWN, config_cache, negative, .read = read_negative),
    ROW(CACHE, "stale", SECONDS, config_cache, stale, .high = 365 * DAY, .preset = 0),
    ROW(CACHE, "stale_if_error", OWN, config_cache, stale_if_error, .read = read_stale_if_error),
    ROW(CACHE, "purge", OWN, config_cache, purgers, .read = read_purge),

    ROW(DISK, "path", TEXT, disk_settings, path),
    ROW(DISK, "size", SIZE, disk_settings, size, .low = DISK_LEAST, .high = 1024 * GIB),

    ROW(BACKEND, "balance", WORD, config_backend, settings.balance, .words = balance_words),
    ROW(BACKEND, "health", TABLE, config_backend, settings, .table = PLACE_HEALTH),
    ROW(BACKEND, "keepalive", OWN, config_backend, settings, .read = read_keepalive),
    ROW(BACKEND, "retry", TABLE, config_backend, settings, .table = PLACE_RETRY),
    ROW(BACKEND, "timeouts", TABLE, config_backend, settings, .table = PLACE_BACKEND_TIMEOUTS),
    ROW(BACKEND, "max_connections", COUNT, config_backend, settings.max_connections, .high = 10e6),
    ROW(BACKEND, "tls", OWN, config_backend, settings, .read = read_backend_tls),
    ROW(BACKEND, "h2", BOOLEAN, config_backend, settings.h2),
    ROW(BACKEND, "proxy_protocol", COUNT, config_backend, settings.proxy_protocol, .high = 2),
    ROW(BACKEND, "parent", OWN, config_backend, settings.parent, .read = read_backend_parent),
    ROW(BACKEND, "queue", OWN, config_backend, settings, .read = read_queue),

    ROW(SERVER, "name", TEXT, server_spec, name),
    ROW(SERVER, "weight", COUNT, server_spec, weight, .low = 1, .high = 1000, .preset = 1),

    /* Unset: the site's. */
    ROW(BACKEND_TIMEOUTS, "connect", SECONDS, backend_settings, connect, .low = 0.001, .high = DAY),
    ROW(BACKEND_TIMEOUTS, "first_byte", SECONDS, backend_settings, first_byte, .low = 0.001, .high = DAY),
    ROW(BACKEND_TIMEOUTS, "between", SECONDS, backend_settings, between, .low = 0.001, .high = DAY),

    ROW(KEEPALIVE, "max", COUNT, backend_settings, keepalive, .high = 100e3, .preset = 128),
    ROW(KEEPALIVE, "idle", SECONDS, backend_settings, keepalive_idle, .low = 0.1, .high = DAY, .preset = 60),

    ROW(QUEUE, "max", COUNT, backend_settings, queue, .high = 1e6, .preset = 1000),
    ROW(QUEUE, "timeout", SECONDS, backend_settings, queue_timeout, .low = 0.001, .high = DAY, .preset = 5),

    ROW(RETRY, "tries", COUNT, backend_settings, tries, .low = 1, .high = 16, .preset = 3),
    ROW(RETRY, "on", OWN, backend_settings, retry_on, .read = read_retry_on),

    ROW(HEALTH, "path", TEXT, backend_settings, health.path),
    ROW(HEALTH, "host", TEXT, backend_settings, health.host),
    ROW(HEALTH, "interval", SECONDS, backend_settings, health.interval, .low = 0.1, .high = DAY, .preset = 5),
    ROW(HEALTH, "timeout", SECONDS, backend_settings, health.timeout, .low = 0.001, .high = DAY, .preset = 2),
    ROW(HEALTH, "rise", COUNT, backend_settings, health.rise, .low = 1, .high = 100, .preset = 2),
    ROW(HEALTH, "fall", COUNT, backend_settings, health.fall, .low = 1, .high = 100, .preset = 3),
    ROW(HEALTH, "status", OWN, backend_settings, health, .read = read_health_status),

    ROW(LISTENER_TLS, "cert", TEXT, service_setting, certificate.cert),
    ROW(LISTENER_TLS, "key", TEXT, service_setting, certificate.key),
    ROW(LISTENER_TLS, "ocsp", TEXT, service_setting, certificate.ocsp),
    ROW(LISTENER_TLS, "profile", WORD, service_setting, profile, .words = profile_words),
    ROW(LISTENER_TLS, "client_ca", TEXT, service_setting, client_ca),
    ROW(LISTENER_TLS, "client_verify", WORD, service_setting, client_verify, .words = client_verify_words),
    ROW(LISTENER_TLS, "crl", TEXT, service_setting, crl),
    ROW(LISTENER_TLS, "early_data", BOOLEAN, service_setting, early_data),
    ROW(LISTENER_TLS, "ktls", BOOLEAN, service_setting, ktls),

    ROW(CERTIFICATE, "cert", TEXT, certificate_setting, cert),
    ROW(CERTIFICATE, "key", TEXT, certificate_setting, key),
    ROW(CERTIFICATE, "ocsp", TEXT, certificate_setting, ocsp),

    ROW(BACKEND_TLS, "verify", BOOLEAN, trust_setting, verify, .preset = true),
    ROW(BACKEND_TLS, "name", TEXT, trust_setting, name),
    ROW(BACKEND_TLS, "ca", TEXT, trust_setting, ca),
    ROW(BACKEND_TLS, "cert", TEXT, trust_setting, cert),
    ROW(BACKEND_TLS, "key", TEXT, trust_setting, key),
    ROW(BACKEND_TLS, "pins", OWN, trust_setting, pins, .read = read_pins),
    ROW(BACKEND_TLS, "versions", OWN, trust_setting, versions, .read = read_versions),

    ROW(FORWARD, "ports", OWN, forward, ports, .read = read_ports),
    ROW(FORWARD, "parent", OWN, forward, parent, .read = read_forward_parent),

    /* Of `forward`, too. */
    ROW(EGRESS, "private", BOOLEAN, egress, private),
    ROW(EGRESS, "allow", OWN, egress, allow, .read = read_allow),
    ROW(EGRESS, "deny", OWN, egress, deny, .read = read_deny),

    ROW(PARENT, "url", TEXT, parent_setting, url),
    ROW(PARENT, "auth", TEXT, parent_setting, auth),

    { .name = NULL },
};
