/* `moongate profile`: prints what the proxy has put together (profile.c), and how much of it was scripts. */
#include "server/cli.h"
#include "server/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECONDS = 10, HZ = 199 };

struct totals {
    unsigned long long scripts, core;
};

static void count_line(struct totals *t, const char *line) {
    const char *number = strrchr(line, ' ');
    unsigned long long n = number ? strtoull(number, NULL, 10) : 0;
    if (strncmp(line, "(core) ", 7) == 0) t->core += n;
    else t->scripts += n;
}

static int print_stacks(FILE *answer) {
    char *line = NULL;
    size_t room = 0;
    struct totals t = { 0, 0 };
    while (getline(&line, &room, answer) > 0) {
        fputs(line, stdout);
        count_line(&t, line);
    }
    free(line);
    unsigned long long all = t.scripts + t.core;
    fprintf(stderr, "moongate: %llu samples, %llu in scripts (%.1f %%)\n", all, t.scripts,
            all ? 100. * (double)t.scripts / (double)all : 0.);
    return EXIT_OK;
}

static int print_refusal(FILE *answer, int status) {
    char text[512];
    while (fgets(text, sizeof text, answer)) fprintf(stderr, "moongate: %s", text);
    return status;
}

int command_profile(const struct cli_args *args) {
    long seconds = cli_count(args, OPTION_SECONDS, SECONDS), hz = cli_count(args, OPTION_HZ, HZ);
    char command[64], *why = NULL;
    int status;
    if (seconds < 0 || hz < 0) return EXIT_USAGE;
    char *path = cli_find_socket(args, args->file);
    if (!path) return EXIT_FAILED;
    snprintf(command, sizeof command, "profile %ld %ld", seconds, hz);
    FILE *answer = control_follow(path, command, &status, &why);
    free(path);
    if (!answer) cli_fail(EXIT_FAILED, "profile: %s", why);
    free(why);
    if (!answer) return EXIT_FAILED;
    status = status == 0 ? print_stacks(answer) : print_refusal(answer, status);
    fclose(answer);
    return status;
}
