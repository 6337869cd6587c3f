/* The command line: commands, their options, their help. One table of each (cli.c); a command's own work is in
 * command_*.c. */
#pragma once

#include <stdbool.h>

enum cli_option {
    OPTION_ALL,
    OPTION_BACKEND,
    OPTION_BODY,
    OPTION_CLIENT,
    OPTION_CONCURRENCY,
    OPTION_CONTROL,
    OPTION_COUNT_OF,
    OPTION_COVERAGE,
    OPTION_DAEMON,
    OPTION_ENV,
    OPTION_HEADER,
    OPTION_HELP,
    OPTION_HZ,
    OPTION_JSON,
    OPTION_KEYS,
    OPTION_LCOV,
    OPTION_NOW,
    OPTION_PIDFILE,
    OPTION_PREFIX,
    OPTION_SECONDS,
    OPTION_SECRETS,
    OPTION_SITE,
    OPTION_SOFT,
    OPTION_STRICT,
    OPTION_STUB,
    OPTION_TAG,
    OPTION_URL,
    OPTION_USER,
    OPTION_VERSION,
    OPTION_WATCH,
    OPTION_WORKERS,
    OPTION_COUNT
};

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct cli_said {
    enum cli_option option;
    const char *value; /* "" for an option without one */
};

/* What was said, after its form was checked. */
struct cli_args {
    const char *file;                 /* the first operand; NULL: none */
    const char *values[OPTION_COUNT]; /* NULL: not given; an option without a value: ""; the last of several */
    const char **operands;            /* all that are no options, in order */
    unsigned operand_count;
    struct cli_said *said; /* the options in order, for those that may be repeated */
    unsigned said_count;
    char *const *argv; /* the whole, as main got it */
};

/* "--header", for a command that hands its options on. */
const char *cli_option_name(enum cli_option);

/* The exit status. */
int cli_main(int argc, char **argv);
/* "moongate: " and the text and a line break, to stderr; returns `status`. */
int cli_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The absolute path, so that it means the same after -D and in an upgrade. Links in it stay: a reload follows where
 * they lead then. malloc'd. */
char *cli_absolute(const char *path);
/* The same of a file or directory that must exist; NULL: said why. */
char *cli_find_path(const char *path);

/* The control socket of the running one that --control or the config's file names, or of the only one. malloc'd; NULL:
 * said why there is none. */
char *cli_find_socket(const struct cli_args *, const char *file);
/* A whole number from 0 on that an option gives, or `preset`; -1: said that it is none. */
long cli_count(const struct cli_args *, enum cli_option, long preset);

/* core/kit's */
int command_explain(const struct cli_args *);
int command_test(const struct cli_args *);

int command_cache_purge(const struct cli_args *);
int command_cache_status(const struct cli_args *);
int command_cache_warm(const struct cli_args *);
int command_cache_why(const struct cli_args *);
int command_run(const struct cli_args *);
int command_check(const struct cli_args *);
int command_reload(const struct cli_args *);
int command_stop(const struct cli_args *);
int command_status(const struct cli_args *);
int command_profile(const struct cli_args *);
int command_trace(const struct cli_args *);
