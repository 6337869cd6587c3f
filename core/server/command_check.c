/* `moongate check FILE`: all of a load that needs no running instance. The file is run twice, once for its settings
 * and once as a worker would, since both must come to the same; nothing is bound, no on_load runs. */
#include "base/must.h"
#include "lua/state.h"
#include "server/as_user.h"
#include "server/ask.h"
#include "server/cli.h"
#include "server/config.h"
#include "store/metrics.h"

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

/* `file` as it was said, so that `file:line` leads there from where the caller stands. */
static int check(const char *file) {
    struct errors errors;
    struct config config = { 0 };
    struct state_limits limits = { 0 };
    errors_init(&errors);
    metrics_open(1);
    struct sources *sources = sources_create(file, ask_read);
    struct state *state = state_create(sources, -1, &limits, &errors);
    if (state) {
        if (config_read(&config, state_config(state), sources, &errors)) config_hooks(&config, state, &errors);
        if (!errors_any(&errors)) state_destroy(config_worker_state(&config, sources, 0, state, &errors));
    }
    print_errors(&errors);
    bool ok = !errors_any(&errors);
    if (ok) print_summary(file, &config);
    if (state) config_fini(&config);
    state_destroy(state);
    sources_destroy(sources);
    errors_fini(&errors);
    metrics_close();
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int check_file(const void *file) { return check(file); }

int command_check(const struct cli_args *args) { return as_user(args, check_file, args->file); }
