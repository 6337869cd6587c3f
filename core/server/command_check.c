/* `moongate check FILE`: all of a load that needs no running instance. The file is run twice, once for its settings
 * and once as a worker would, since both must come to the same; nothing is bound, no on_load runs.
 *
 * The config is a program. So when root checks it, a child does, as the user who would serve, and the parent grants
 * what a supervisor would. Nobody else needs a child. */
#include "base/must.h"
#include "lua/state.h"
#include "server/ask.h"
#include "server/channel.h"
#include "server/cli.h"
#include "server/config.h"
#include "server/privilege.h"
#include "store/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* ---- root's way */

static void grant_asks(int fd, const char *file, const char *keys) {
    struct message ask;
    while (channel_receive(fd, true, &ask) == CHANNEL_MESSAGE) {
        struct message answer = { .kind = MESSAGE_GRANT };
        answer.fds[0] = ask.kind == MESSAGE_READ ? grant_read(ask.text, file, keys) : -1;
        answer.status = answer.fds[0] >= 0 ? 0 : EACCES;
        answer.fd_count = answer.fds[0] >= 0;
        channel_send(fd, &answer);
        message_fini(&answer);
        message_fini(&ask);
    }
}

static _Noreturn void check_in_child(int fd, const char *user, const char *file) {
    const char *why;
    ask_open(fd);
    if (!privilege_drop(user, &why)) exit(cli_fail(EXIT_FAILED, "cannot become user %s: %s", user, why));
    int status = check(file);
    ask_close();
    exit(status);
}

static int check_as_user(const char *user, const char *file, const char *keys) {
    int ends[2];
    if (!channel_open(ends)) return cli_fail(EXIT_FAILED, "%s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) return cli_fail(EXIT_FAILED, "%s", strerror(errno));
    if (pid == 0) {
        close(ends[0]);
        check_in_child(ends[1], user, file);
    }
    close(ends[1]);
    grant_asks(ends[0], file, keys);
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) return cli_fail(EXIT_FAILED, "the check was killed by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

int command_check(const struct cli_args *args) {
    char *file = cli_find_path(args->file), *keys = NULL; /* only to say that there is no such file */
    const char *user = args->values[OPTION_USER];
    free(file);
    if (!file) return EXIT_FAILED;
    if (args->values[OPTION_KEYS] && !(keys = cli_find_path(args->values[OPTION_KEYS]))) return EXIT_FAILED;
    int status =
        privilege_present() ? check_as_user(user ? user : PRIVILEGE_DEFAULT_USER, args->file, keys) : check(args->file);
    free(keys);
    return status;
}
