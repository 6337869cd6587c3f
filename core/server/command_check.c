/* `moongate check FILE`: all of a load that needs no running instance. The file is run twice, once for its settings
 * and once as a worker would, since both must come to the same; nothing is bound, no on_load runs. What its scripts say
 * is looked through as well (lua/inspect.h). */
#include "base/must.h"
#include "lua/state.h"
#include "server/as_user.h"
#include "server/ask.h"
#include "server/cli.h"
#include "server/config.h"
#include "store/metrics.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the check */

static void print_summary(const char *file, const struct config *config) {
    unsigned backends = 0;
    for (unsigned i = 0; i < config->site_count; i++) backends += config->sites[i].backend_count;
    printf("%s: ok (%u site%s, %u backend%s, %u listener%s)\n", file, config->site_count,
           config->site_count == 1 ? "" : "s", backends, backends == 1 ? "" : "s", config->listener_count,
           config->listener_count == 1 ? "" : "s");
}

static void print_errors(const struct errors *errors) {
    char *text = errors_text(errors);
    fputs(text, stderr);
    free(text);
}

static json_t *maybe(const char *text) { return text ? json_string(text) : json_null(); }

/* A line for each finding, for editors. */
static void print_json(const struct errors *errors) {
    for (size_t i = 0; i < errors->count; i++) {
        const struct error_line *l = &errors->list[i];
        json_t *line = json_pack("{so, si, ss, so, so}", "file", maybe(l->file), "line", l->line, "severity",
                                 l->warning ? "warning" : "error", "path", maybe(l->path), "message", maybe(l->text));
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(line);
    }
}

/* The file as it was said, so that `file:line` leads there from where the caller stands. */
static int check(const struct cli_args *args) {
    struct errors errors;
    struct config config = { 0 };
    struct state_limits limits = { 0 };
    errors_init(&errors);
    metrics_open(1);
    struct sources *sources = sources_create(args->file, ask_read);
    struct state *state = state_create(sources, -1, &limits, &errors);
    bool read = state && config_check(&config, state, sources, &errors);
    if (read && ask_is_open() && !args->values[OPTION_USER]) config_check_user(&config, &errors);
    if (read) state_destroy(config_worker_state(&config, sources, 0, state, &errors));
    bool json = args->values[OPTION_JSON], ok = !errors_any(&errors);
    if (args->values[OPTION_STRICT] && errors.count) ok = false;
    if (json) print_json(&errors);
    else print_errors(&errors);
    if (ok && !json) print_summary(args->file, &config);
    if (state) config_fini(&config);
    state_destroy(state);
    sources_destroy(sources);
    errors_fini(&errors);
    metrics_close();
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int check_file(const void *args) { return check(args); }

int command_check(const struct cli_args *args) { return as_user(args, check_file, args); }
