/* Reading the command line. getopt_long was not used: it prints in its own words, knows no nearest name, and takes
 * abbreviations, which would make every new option a possible break. Options may stand before or behind FILE, as
 * `--name value` or `--name=value`; `--` ends them. */
#include "server/cli.h"

#include "base/must.h"
#include "server/instance.h"
#include "server/version.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct option_row {
    const char *name, *letter, *value, *help; /* letter: "-D" or NULL; value: what it is called, NULL: takes none */
};

static const struct option_row options[OPTION_COUNT] = {
    [OPTION_ALL] = { "--all", NULL, NULL, "all that is stored" },
    [OPTION_BACKEND] = { "--backend", NULL, "NAME=ANSWER",
                         "what a backend answers: 503, connect_refused, '200 some text' (default: 200)" },
    [OPTION_BODY] = { "--body", NULL, "TEXT", "the body of the request; @FILE: a file's" },
    [OPTION_CLIENT] = { "--client", NULL, "IP", "the client's address (default: 127.0.0.1)" },
    [OPTION_CONCURRENCY] = { "--concurrency", NULL, "N", "so many requests at a time (default: 8, at most 24)" },
    [OPTION_CONTROL] = { "--control", NULL, "PATH",
                         "the control socket (default: under /run/moongate or $XDG_RUNTIME_DIR)" },
    [OPTION_COUNT_OF] = { "--count", NULL, "N", "end after so many" },
    [OPTION_COVERAGE] = { "--coverage", NULL, NULL, "tell which lines of the policies were executed" },
    [OPTION_DAEMON] = { "--daemon", "-D", NULL, "serve in the background; returns when it is ready" },
    [OPTION_ENV] = { "--env", NULL, NULL, "print the variables under which a bare busted finds the kit" },
    [OPTION_HEADER] = { "--header", "-H", "LINE", "'Name: value', of the request; may be repeated" },
    [OPTION_HELP] = { "--help", "-h", NULL, "this" },
    [OPTION_HZ] = { "--hz", NULL, "N", "samples in a second of CPU time (default: 199)" },
    [OPTION_JSON] = { "--json", NULL, NULL, "print JSON" },
    [OPTION_KEYS] = { "--keys", NULL, "DIR", "files below it may be read with the privilege of who started it" },
    [OPTION_LCOV] = { "--lcov", NULL, "PATH", "write the coverage there, in lcov's format" },
    [OPTION_NOW] = { "--now", NULL, NULL, "do not wait for what is under way" },
    [OPTION_PIDFILE] = { "--pidfile", NULL, "PATH", "write the process id there" },
    [OPTION_PREFIX] = { "--prefix", NULL, "URL", "all URLs that begin so" },
    [OPTION_SECONDS] = { "--seconds", NULL, "S", "end after so many seconds (profile: 10)" },
    [OPTION_SECRETS] = { "--secrets", NULL, NULL,
                         "show the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie" },
    [OPTION_SITE] = { "--site", NULL, "NAME",
                      "the site that is meant (default: by the host; explain: else the first; cache purge: all)" },
    [OPTION_SOFT] = { "--soft", NULL, NULL, "it is stale from now on, not gone" },
    [OPTION_STRICT] = { "--strict", NULL, NULL, "warnings fail, too" },
    [OPTION_STUB] = { "--stub", NULL, "URL=ANSWER",
                      "what is answered to scripts that fetch it; * stands for anything" },
    [OPTION_TAG] = { "--tag", NULL, "NAME", "all that bears this tag (Surrogate-Key, Cache-Tag)" },
    [OPTION_URL] = { "--url", NULL, "URL", "this URL, in all its variants" },
    [OPTION_USER] = { "--user", NULL, "NAME",
                      "serve as this user (default: the config's, else nobody; only root can)" },
    [OPTION_VERSION] = { "--version", "-V", NULL, "version, commit, build flags and libraries" },
    [OPTION_WATCH] = { "--watch", NULL, NULL, "do it again when a file is saved" },
    [OPTION_WORKERS] = { "--workers", NULL, "N", "threads that serve (default: the config's, else one per CPU)" },
};

#define BIT(option) (1u << (option))

struct command_row {
    const char *name, *file, *help; /* file: how FILE stands in the usage */
    int (*run)(const struct cli_args *);
    unsigned options;
    bool needs_file;
    unsigned most; /* operands */
};

enum { ANY_NUMBER = 10000 };

static const struct command_row commands[] = {
    { "run", "FILE", "serve, in the foreground", command_run,
      BIT(OPTION_WATCH) | BIT(OPTION_WORKERS) | BIT(OPTION_DAEMON) | BIT(OPTION_PIDFILE) | BIT(OPTION_CONTROL) |
          BIT(OPTION_USER) | BIT(OPTION_KEYS),
      true, 1 },
    { "check", "FILE", "load the config and its policies, print all errors", command_check,
      BIT(OPTION_STRICT) | BIT(OPTION_JSON) | BIT(OPTION_KEYS) | BIT(OPTION_USER), true, 1 },
    { "test", "[SPEC...]", "run the specs of policies with busted and the test kit", command_test,
      BIT(OPTION_WATCH) | BIT(OPTION_COVERAGE) | BIT(OPTION_LCOV) | BIT(OPTION_ENV), false, ANY_NUMBER },
    { "explain", "FILE [METHOD] TARGET", "tell what a config does with a request, without traffic", command_explain,
      BIT(OPTION_HEADER) | BIT(OPTION_BODY) | BIT(OPTION_BACKEND) | BIT(OPTION_STUB) | BIT(OPTION_CLIENT) |
          BIT(OPTION_SITE) | BIT(OPTION_JSON) | BIT(OPTION_KEYS) | BIT(OPTION_USER),
      true, 3 },
    { "reload", "[FILE]", "make a running one load its config again; returns when it serves", command_reload,
      BIT(OPTION_CONTROL), false, 1 },
    { "stop", "[FILE]", "drain and end a running one; returns when it has ended", command_stop,
      BIT(OPTION_CONTROL) | BIT(OPTION_NOW), false, 1 },
    { "status", "[FILE]", "print the state of a running one", command_status, BIT(OPTION_CONTROL) | BIT(OPTION_JSON),
      false, 1 },
    { "profile", "[FILE]", "tell in which lines of its scripts a running one spends its time, as folded stacks",
      command_profile, BIT(OPTION_CONTROL) | BIT(OPTION_SECONDS) | BIT(OPTION_HZ), false, 1 },
    { "trace", "['FILTER'] [FILE]", "show what policy does with live requests of a running one", command_trace,
      BIT(OPTION_CONTROL) | BIT(OPTION_COUNT_OF) | BIT(OPTION_SECONDS) | BIT(OPTION_SECRETS) | BIT(OPTION_JSON), false,
      2 },
    { "cache status", "[FILE]", "print what the caches of a running one hold, and how they do", command_cache_status,
      BIT(OPTION_CONTROL) | BIT(OPTION_JSON), false, 1 },
    { "cache purge", "[FILE]", "take something out of the caches of a running one", command_cache_purge,
      BIT(OPTION_CONTROL) | BIT(OPTION_JSON) | BIT(OPTION_SITE) | BIT(OPTION_URL) | BIT(OPTION_TAG) |
          BIT(OPTION_PREFIX) | BIT(OPTION_ALL) | BIT(OPTION_SOFT),
      false, 1 },
    { "cache why", "URL [FILE]",
      "tell what a running one has stored for a URL, and what it would do with a request for it", command_cache_why,
      BIT(OPTION_CONTROL) | BIT(OPTION_JSON) | BIT(OPTION_SITE) | BIT(OPTION_HEADER), false, 2 },
    { "cache warm", "URLS [FILE]", "have a running one fetch each URL of a list (-: standard input), a line for each",
      command_cache_warm, BIT(OPTION_CONTROL) | BIT(OPTION_JSON) | BIT(OPTION_SITE) | BIT(OPTION_CONCURRENCY), false,
      2 },
};
enum { COMMANDS = sizeof commands / sizeof *commands };

int cli_fail(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("moongate: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

const char *cli_option_name(enum cli_option option) { return options[option].name; }

long cli_count(const struct cli_args *args, enum cli_option option, long preset) {
    const char *said = args->values[option];
    if (!said) return preset;
    char *end;
    errno = 0;
    long n = strtol(said, &end, 10);
    if (*said >= '0' && *said <= '9' && !*end && errno == 0 && n <= 1000000000) return n;
    cli_fail(EXIT_USAGE, "%s %s: expected a whole number", options[option].name, said);
    return -1;
}

char *cli_absolute(const char *path) {
    char *directory = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (!directory) return must_strdup(path);
    char *text = must_printf("%s/%s", directory, path);
    free(directory);
    return text;
}

char *cli_find_path(const char *path) {
    if (access(path, F_OK) == 0) return cli_absolute(path);
    cli_fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    return NULL;
}

/* ---- help */

static void print_options(FILE *out, unsigned which) {
    for (int i = 0; i < OPTION_COUNT; i++) {
        if (!(which & BIT(i))) continue;
        const struct option_row *o = &options[i];
        int n = fprintf(out, "  %s%s%s%s%s", o->letter ? o->letter : "", o->letter ? ", " : "", o->name,
                        o->value ? " " : "", o->value ? o->value : "");
        fprintf(out, "%*s%s\n", n < 22 ? 22 - n : 1, "", o->help);
    }
}

static void print_help(FILE *out) {
    fprintf(out, "usage: moongate COMMAND [OPTION…]\n\ncommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-12s %-21s %s\n", commands[i].name, commands[i].file, commands[i].help);
    fprintf(out, "\noptions:\n");
    print_options(out, BIT(OPTION_HELP) | BIT(OPTION_VERSION));
    fprintf(
        out,
        "\n`moongate COMMAND --help` tells the options of a command. Signals to a running one: HUP reloads, TERM and\n"
        "INT drain and end it, USR1 opens its logs anew, USR2 changes to a new binary.\n");
}

static int print_command_help(const struct command_row *c) {
    printf("usage: moongate %s %s [OPTION…]\n\n%s\n\noptions:\n", c->name, c->file, c->help);
    print_options(stdout, c->options | BIT(OPTION_HELP));
    if (c->run == command_cache_why)
        printf("\nThe request goes through the site's policy up to the look-up (on_request, cache_key), for only that "
               "knows\n"
               "the key; no backend is asked. -H adds fields to it, such as those that Vary names.\n");
    if (c->options & BIT(OPTION_CONTROL) && !c->needs_file)
        printf("\nFILE is the config of the running one; it names the control socket. Without it, the only one that "
               "runs.\n");
    return EXIT_OK;
}

/* ---- the nearest name */

enum { NAME_MOST = 16 };

static unsigned least(unsigned a, unsigned b, unsigned c) {
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's, of names up to NAME_MOST bytes; others are far. */
static unsigned name_distance(const char *a, const char *b) {
    unsigned row[NAME_MOST + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > NAME_MOST || m > NAME_MOST) return NAME_MOST;
    for (unsigned j = 0; j <= m; j++) row[j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned before = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            unsigned change = before + (a[i - 1] != b[j - 1]);
            before = row[j];
            row[j] = least(row[j] + 1, row[j - 1] + 1, change);
        }
    }
    return row[m];
}

/* Keeps the nearest known name so far, if it is near enough to have been meant. */
static void consider(const char *said, const char *known, const char **nearest, unsigned *distance) {
    unsigned d = name_distance(said, known);
    if (d >= *distance || d > 1 + strlen(said) / 3) return;
    *nearest = known;
    *distance = d;
}

static int fail_unknown(const char *kind, const char *said, const char *nearest) {
    if (nearest)
        return cli_fail(EXIT_USAGE, "unknown %s %s, did you mean %s? (`moongate --help` lists them)", kind, said,
                        nearest);
    return cli_fail(EXIT_USAGE, "unknown %s %s (`moongate --help` lists them)", kind, said);
}

/* The second word is the command's, too: "cache purge". */
static bool is_group(const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < COMMANDS; i++)
        if (strncmp(commands[i].name, name, n) == 0 && commands[i].name[n] == ' ') return true;
    return false;
}

static int print_group_help(const char *name, FILE *out) {
    size_t n = strlen(name);
    fprintf(out, "usage: moongate %s COMMAND [OPTION…]\n\n", name);
    for (int i = 0; i < COMMANDS; i++)
        if (strncmp(commands[i].name, name, n) == 0)
            fprintf(out, "  %-12s %-12s %s\n", commands[i].name, commands[i].file, commands[i].help);
    return out == stdout ? EXIT_OK : EXIT_USAGE;
}

static int fail_unknown_command(const char *said) {
    const char *nearest = NULL;
    unsigned distance = NAME_MOST;
    for (int i = 0; i < COMMANDS; i++) consider(said, commands[i].name, &nearest, &distance);
    return fail_unknown("command", said, nearest);
}

static int fail_unknown_option(const struct command_row *c, const char *said, size_t n) {
    char name[64];
    const char *nearest = NULL;
    unsigned distance = NAME_MOST;
    snprintf(name, sizeof name, "%.*s", (int)n, said);
    for (int i = 0; i < OPTION_COUNT; i++)
        if ((c->options | BIT(OPTION_HELP)) & BIT(i)) consider(name, options[i].name, &nearest, &distance);
    return fail_unknown("option", name, nearest);
}

/* ---- reading */

static const struct command_row *find_command(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

/* OPTION_COUNT: the command has none such. */
static int find_option(const struct command_row *c, const char *said, size_t n) {
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *o = &options[i];
        if (!((c->options | BIT(OPTION_HELP)) & BIT(i))) continue;
        if (strlen(o->name) == n && strncmp(o->name, said, n) == 0) return i;
        if (o->letter && strlen(o->letter) == n && strncmp(o->letter, said, n) == 0) return i;
    }
    return OPTION_COUNT;
}

/* Reads the option at *at and what follows it. */
static int read_option(const struct command_row *c, struct cli_args *args, int argc, int *at) {
    const char *said = args->argv[*at], *equals = strchr(said, '=');
    size_t n = equals ? (size_t)(equals - said) : strlen(said);
    int option = find_option(c, said, n);
    if (option == OPTION_COUNT) return fail_unknown_option(c, said, n);
    const struct option_row *o = &options[option];
    if (!o->value && equals) return cli_fail(EXIT_USAGE, "%s takes no value", o->name);
    if (!o->value) args->values[option] = "";
    else if (equals) args->values[option] = equals + 1;
    else if (*at + 1 < argc) args->values[option] = args->argv[++*at];
    else return cli_fail(EXIT_USAGE, "%s needs a value: %s %s", o->name, o->name, o->value);
    args->said[args->said_count++] = (struct cli_said){ (enum cli_option)option, args->values[option] };
    return EXIT_OK;
}

static int fail_surplus(const struct command_row *c, const char *said) {
    if (c->most == 1) return cli_fail(EXIT_USAGE, "%s takes one FILE; %s is another", c->name, said);
    return cli_fail(EXIT_USAGE, "%s takes %s; %s is too much", c->name, c->file, said);
}

static int read_args(const struct command_row *c, struct cli_args *args, int argc) {
    bool only_files = false;
    for (int at = strchr(c->name, ' ') ? 3 : 2; at < argc; at++) {
        const char *said = args->argv[at];
        int status = EXIT_OK;
        if (!only_files && strcmp(said, "--") == 0) only_files = true;
        else if (!only_files && said[0] == '-' && said[1]) status = read_option(c, args, argc, &at);
        else if (args->operand_count == c->most) status = fail_surplus(c, said);
        else args->operands[args->operand_count++] = said;
        if (status != EXIT_OK) return status;
    }
    if (args->operand_count) args->file = args->operands[0];
    if (c->needs_file && !args->file && !args->values[OPTION_HELP])
        return cli_fail(EXIT_USAGE, "%s needs a FILE: moongate %s FILE", c->name, c->name);
    return EXIT_OK;
}

/* The supervisor's own: `--serve ORDERS ASKS FILE`. FILE is for who looks at the process list. */
static int serve(int argc, char **argv) {
    if (argc < 4) return cli_fail(EXIT_USAGE, "--serve is for the supervisor alone");
    return instance_main((int)strtol(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10));
}

static bool is_help(const char *said) {
    return strcmp(said, "--help") == 0 || strcmp(said, "-h") == 0 || strcmp(said, "help") == 0;
}

/* "help", "help run", "help cache why". */
static int tell_help(int argc, char **argv) {
    char words[64];
    if (argc < 3) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (is_group(argv[2]) && argc < 4) return print_group_help(argv[2], stdout);
    snprintf(words, sizeof words, "%s%s%s", argv[2], argc > 3 ? " " : "", argc > 3 ? argv[3] : "");
    const struct command_row *c = find_command(words);
    return c ? print_command_help(c) : fail_unknown_command(words);
}

int cli_main(int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "--serve") == 0) return serve(argc, argv);
    if (is_help(first)) return tell_help(argc, argv);
    if (!*first) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        version_write(stdout);
        return EXIT_OK;
    }
    char both[64];
    bool group = is_group(first), group_help = argc < 3 || is_help(argv[2]);
    snprintf(both, sizeof both, "%s %s", first, group && argc > 2 ? argv[2] : "");
    if (group && group_help) return print_group_help(first, argc < 3 ? stderr : stdout);
    if (group) first = both;
    const struct command_row *c = find_command(first);
    if (!c && first[0] == '-') return fail_unknown("option", first, NULL);
    if (!c) return fail_unknown_command(first);
    struct cli_args args = { .argv = argv };
    args.operands = must_calloc((size_t)argc, sizeof *args.operands);
    args.said = must_calloc((size_t)argc, sizeof *args.said);
    int status = read_args(c, &args, argc);
    if (status == EXIT_OK) status = args.values[OPTION_HELP] ? print_command_help(c) : c->run(&args);
    free(args.operands);
    free(args.said);
    return status;
}
