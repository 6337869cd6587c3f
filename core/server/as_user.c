/* The config is a program. So when root has one run, a child does it, as the user who would serve, and the parent
 * grants what a supervisor would. Nobody else needs a child. */
#include "server/as_user.h"

#include "server/ask.h"
#include "server/channel.h"
#include "server/privilege.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void grant_asks(int fd, const char *file, const char *keys) {
    struct message ask;
    struct grant_places places;
    grant_places_find(&places, file, keys);
    while (channel_receive(fd, true, &ask) == CHANNEL_MESSAGE) {
        struct message answer = { .kind = MESSAGE_GRANT };
        answer.fds[0] = ask.kind == MESSAGE_READ ? grant_read(ask.text, &places) : -1;
        answer.status = answer.fds[0] >= 0 ? 0 : EACCES;
        answer.fd_count = answer.fds[0] >= 0;
        channel_send(fd, &answer);
        message_fini(&answer);
        message_fini(&ask);
    }
}

static _Noreturn void work_in_child(int fd, const char *user, int (*work)(const void *), const void *with) {
    const char *why;
    ask_open(fd);
    if (!privilege_drop(user, &why)) exit(cli_fail(EXIT_FAILED, "cannot become user %s: %s", user, why));
    int status = work(with);
    ask_close();
    exit(status);
}

static int work_as(const char *user, const char *file, const char *keys, int (*work)(const void *), const void *with) {
    int ends[2];
    if (!channel_open(ends)) return cli_fail(EXIT_FAILED, "%s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) return cli_fail(EXIT_FAILED, "%s", strerror(errno));
    if (pid == 0) {
        close(ends[0]);
        work_in_child(ends[1], user, work, with);
    }
    close(ends[1]);
    grant_asks(ends[0], file, keys);
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) return EXIT_FAILED; /* nobody reads what it prints */
    if (WIFSIGNALED(status)) return cli_fail(EXIT_FAILED, "it was killed by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

int as_user(const struct cli_args *args, int (*work)(const void *with), const void *with) {
    char *file = cli_find_path(args->file), *keys = NULL; /* only to say that there is no such file */
    const char *user = args->values[OPTION_USER];
    free(file);
    if (!file) return EXIT_FAILED;
    if (args->values[OPTION_KEYS] && !(keys = cli_find_path(args->values[OPTION_KEYS]))) return EXIT_FAILED;
    if (!user) user = PRIVILEGE_DEFAULT_USER;
    int status = privilege_present() ? work_as(user, args->file, keys, work, with) : work(with);
    free(keys);
    return status;
}
