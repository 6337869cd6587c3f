/* `moongate reload`, `stop` and `status`: a command over the control socket, and its answer printed. What went well
 * goes to stdout, what went wrong to stderr. */
#include "base/must.h"
#include "server/cli.h"
#include "server/control.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_same_file(const char *a, const char *b) {
    struct stat one, other;
    if (strcmp(a, b) == 0) return true;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* Sockets go by the config's name without its directory: is it this config that is served there? Where nobody answers,
 * or there is no such file, the command finds out. False: said so. */
static bool is_meant(const char *path, const char *file) {
    char *wanted = access(file, F_OK) == 0 ? cli_absolute(file) : NULL, *served = NULL, *why = NULL;
    int status = 1;
    bool answered = wanted && control_call(path, "config", &status, &served, &why) && status == 0;
    bool meant = !answered || is_same_file(wanted, served);
    if (!meant)
        cli_fail(EXIT_FAILED, "%s: who answers there runs %s, not %s (--control PATH says whom you mean)", path, served,
                 wanted);
    free(wanted);
    free(served);
    free(why);
    return meant;
}

char *cli_find_socket(const struct cli_args *args, const char *file) {
    const char *given = args->values[OPTION_CONTROL];
    char *why = NULL, *path = given || file ? control_path(given, file ? file : "") : control_path_only(&why);
    if (!path) cli_fail(EXIT_FAILED, "%s", why);
    free(why);
    if (given || !file || is_meant(path, file)) return path;
    free(path);
    return NULL;
}

/* Sends it and waits. False: said why; otherwise `*text` is the caller's. */
static bool ask(const struct cli_args *args, const char *command, int *status, char **text) {
    char *path = cli_find_socket(args, args->file), *why = NULL;
    if (!path) return false;
    bool answered = control_call(path, command, status, text, &why);
    if (!answered) cli_fail(EXIT_FAILED, "%s: %s", args->argv[1], why);
    free(why);
    free(path);
    return answered;
}

static int run_command(const struct cli_args *args, const char *command) {
    int status;
    char *text;
    if (!ask(args, command, &status, &text)) return EXIT_FAILED;
    fputs(text, status == 0 ? stdout : stderr);
    free(text);
    return status;
}

int command_reload(const struct cli_args *args) { return run_command(args, "reload"); }
int command_stop(const struct cli_args *args) {
    return run_command(args, args->values[OPTION_NOW] ? "stop now" : "stop");
}

/* ---- the status for people */

static long long get_integer(const json_t *object, const char *name) {
    return json_integer_value(json_object_get(object, name));
}

static const char *get_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void print_duration(double seconds) {
    long s = (long)seconds;
    if (s >= 86400) printf("%ldd ", s / 86400);
    if (s >= 3600) printf("%ldh ", s / 3600 % 24);
    if (s >= 60) printf("%ldm ", s / 60 % 60);
    printf("%lds\n", s % 60);
}

static void print_list(const char *title, const json_t *list) {
    size_t i;
    json_t *item;
    printf("%-12s", title);
    json_array_foreach((json_t *)(uintptr_t)list, i, item) printf("%s%s", i ? ", " : "", json_string_value(item));
    printf("%s\n", json_array_size(list) ? "" : "none");
}

static void print_backend(const json_t *backend) {
    size_t i;
    json_t *server;
    json_array_foreach(json_object_get(backend, "servers"), i, server) {
        printf("  %-16s %-24s %-6s active %lld, connections %lld, weight %lld\n", i ? "" : get_text(backend, "name"),
               get_text(server, "address"), json_is_true(json_object_get(server, "well")) ? "well" : "unwell",
               get_integer(server, "active"), get_integer(server, "connections"), get_integer(server, "weight"));
    }
    if (json_array_size(json_object_get(backend, "servers")) == 0)
        printf("  %-16s no server is known yet\n", get_text(backend, "name"));
    if (json_object_get(backend, "waiting"))
        printf("  %-16s %lld waiting for a place\n", "", get_integer(backend, "waiting"));
}

static void print_site(const json_t *site) {
    size_t i;
    json_t *backend;
    printf("site %s\n", get_text(site, "name"));
    json_array_foreach(json_object_get(site, "backends"), i, backend) print_backend(backend);
}

static void print_status(const json_t *status) {
    size_t i;
    json_t *site;
    printf("%-12s%s\n", "config", get_text(status, "config"));
    printf("%-12s%s\n", "version", get_text(status, "version"));
    printf("%-12s%lld, serving process %lld with %lld workers%s\n", "pid", get_integer(status, "supervisor"),
           get_integer(status, "pid"), get_integer(status, "workers"),
           json_is_true(json_object_get(status, "draining")) ? ", draining" : "");
    printf("%-12s", "up");
    print_duration(json_number_value(json_object_get(status, "uptime")));
    printf("%-12s%lld, %lld live, %lld reloads, %lld failed, %lld restarts\n", "generation",
           get_integer(status, "generation"), get_integer(status, "generations_live"), get_integer(status, "reloads"),
           get_integer(status, "reloads_failed"), get_integer(status, "restarts"));
    printf("%-12s%lld open, %lld in all, %lld tunnels\n", "clients", get_integer(status, "clients"),
           get_integer(status, "connections_total"), get_integer(status, "tunnels"));
    printf("%-12s%lld\n", "requests", get_integer(status, "requests_total"));
    print_list("listening", json_object_get(status, "listeners"));
    json_array_foreach(json_object_get(status, "sites"), i, site) print_site(site);
}

int command_status(const struct cli_args *args) {
    int status;
    char *text;
    if (!ask(args, "status", &status, &text)) return EXIT_FAILED;
    json_t *parsed = status == 0 && !args->values[OPTION_JSON] ? json_loads(text, 0, NULL) : NULL;
    if (parsed) print_status(parsed);
    else fputs(text, status == 0 ? stdout : stderr);
    json_decref(parsed);
    free(text);
    return status;
}
