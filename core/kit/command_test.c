/* `moongate test`: busted, in a process of its own under lua5.4, with the kit where it finds it. What was executed
 * comes back in a file, whose path the child has from its environment. With --watch it is run again whenever a Lua
 * file below this directory is saved. */
#include "kit/host.h"

#include "base/datadir.h"
#include "base/must.h"
#include "base/slice.h"
#include "server/watch.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COVERAGE_VARIABLE "MOONGATE_COVERAGE"

enum { DEPTH_MOST = 8, FILES_MOST = 4096 };

/* ---- the environment */

static char *join_path(const char *ours, const char *variable, const char *plain) {
    const char *theirs = getenv(variable);
    if (!theirs) theirs = getenv(plain);
    return must_printf("%s;%s", ours, theirs && *theirs ? theirs : ";");
}

static char *lua_path(void) {
    char *ours = must_printf("%s/lua/?.lua", datadir()), *path = join_path(ours, "LUA_PATH_5_4", "LUA_PATH");
    free(ours);
    return path;
}

static char *lua_cpath(void) {
    char *ours = must_printf("%s/?.so", kitdir()), *path = join_path(ours, "LUA_CPATH_5_4", "LUA_CPATH");
    free(ours);
    return path;
}

/* In a shell's single quotes. */
static void print_variable(const char *name, char *value) {
    printf("export %s='", name);
    for (const char *c = value; *c; c++) {
        if (*c == '\'') fputs("'\\''", stdout);
        else putchar(*c);
    }
    puts("'");
    free(value);
}

static int print_env(void) {
    print_variable("LUA_PATH_5_4", lua_path());
    print_variable("LUA_CPATH_5_4", lua_cpath());
    return EXIT_OK;
}

static void set_env(const char *name, char *value) {
    setenv(name, value, 1);
    free(value);
}

/* ---- programs */

/* malloc'd; NULL: it is nowhere on the PATH. */
static char *find_program(const char *name) {
    char *all = must_strdup(getenv("PATH") ? getenv("PATH") : ""), *rest = all, *path = NULL;
    for (char *folder; !path && (folder = strsep(&rest, ":"));) {
        path = must_printf("%s/%s", *folder ? folder : ".", name);
        if (access(path, X_OK) == 0) continue;
        free(path);
        path = NULL;
    }
    free(all);
    return path;
}

/* Debian's is a Lua script, others' a shell script that starts one. */
static bool is_lua_script(const char *path) {
    char line[128] = "";
    FILE *file = fopen(path, "re");
    if (!file) return false;
    bool is = fgets(line, sizeof line, file) && strncmp(line, "#!", 2) == 0 && strstr(line, "lua");
    fclose(file);
    return is;
}

struct busted {
    char *lua, *script;
};

static bool find_busted(struct busted *b) {
    *b = (struct busted){ find_program("lua5.4"), find_program("busted") };
    if (!b->lua) cli_fail(EXIT_FAILED, "lua5.4 is not installed (on Debian: apt install lua5.4)");
    if (!b->script) cli_fail(EXIT_FAILED, "busted is not installed (on Debian: apt install lua-busted)");
    return b->lua && b->script;
}

static void forget_busted(struct busted *b) {
    free(b->lua);
    free(b->script);
}

/* ---- one run */

/* Where nothing is said: what a .busted file says, else spec/, else the specs beside. */
static void add_default(char **argv, unsigned *n) {
    struct stat about;
    if (access(".busted", F_OK) == 0) return;
    if (stat("spec", &about) == 0 && S_ISDIR(about.st_mode)) {
        argv[(*n)++] = must_strdup("spec");
        return;
    }
    argv[(*n)++] = must_strdup("--no-recursive");
    argv[(*n)++] = must_strdup(".");
}

static char **make_argv(const struct busted *b, const struct cli_args *args) {
    char **argv = must_calloc(args->operand_count + 8, sizeof *argv);
    unsigned n = 0;
    if (is_lua_script(b->script)) {
        argv[n++] = must_strdup(b->lua);
        argv[n++] = must_strdup(b->script);
        argv[n++] = must_strdup("--ignore-lua");
    } else {
        argv[n++] = must_strdup(b->script);
        argv[n++] = must_strdup("--lua=lua5.4");
    }
    for (unsigned i = 0; i < args->operand_count; i++) argv[n++] = must_strdup(args->operands[i]);
    if (args->operand_count == 0) add_default(argv, &n);
    return argv;
}

static void free_argv(char **argv) {
    for (char **at = argv; *at; at++) free(*at);
    free(argv);
}

/* Its exit status; killed by a signal: 128 and its number, as shells say. */
static int run_busted(char *const *argv) {
    pid_t pid = fork();
    if (pid < 0) return cli_fail(EXIT_FAILED, "%s", strerror(errno));
    if (pid == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

struct report {
    const char *counts, *lcov; /* lcov NULL: none */
};

static void push_report(lua_State *L, const void *with) {
    const struct report *r = with;
    lua_newtable(L);
    lua_pushstring(L, r->counts);
    lua_setfield(L, -2, "counts");
    lua_pushstring(L, r->lcov);
    lua_setfield(L, -2, "lcov");
    lua_pushstring(L, datadir());
    lua_setfield(L, -2, "own");
}

static int run_covered(char *const *argv, const char *lcov) {
    char path[] = "/tmp/moongate-coverage-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) return cli_fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    close(fd);
    setenv(COVERAGE_VARIABLE, path, 1);
    int status = run_busted(argv);
    struct report report = { .counts = path, .lcov = lcov };
    struct host *host = host_open("coverage");
    int told = host ? host_main(host, push_report, &report) : EXIT_FAILED;
    host_close(host);
    unlink(path);
    return status ? status : told;
}

static int run_once(const struct cli_args *args, char *const *argv) {
    const char *lcov = args->values[OPTION_LCOV];
    fflush(stdout);
    return lcov || args->values[OPTION_COVERAGE] ? run_covered(argv, lcov) : run_busted(argv);
}

/* ---- watching */

struct paths {
    char *text; /* absolute, a NUL behind each */
    size_t size;
    unsigned count;
};

static void add_path(struct paths *p, const char *folder, const char *name) {
    size_t n = strlen(folder) + strlen(name) + 2;
    p->text = must_realloc(p->text, p->size + n);
    sprintf(p->text + p->size, "%s/%s", folder, name);
    p->size += n;
    p->count++;
}

/* Lua files, not in hidden folders. */
static void collect(struct paths *p, const char *folder, int depth) {
    DIR *dir = depth < DEPTH_MOST ? opendir(folder) : NULL;
    for (struct dirent *e; dir && p->count < FILES_MOST && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        if (e->d_type == DT_DIR) {
            char *inner = must_printf("%s/%s", folder, e->d_name);
            collect(p, inner, depth + 1);
            free(inner);
        } else if (slice_ends_with(slice_of(e->d_name), SLICE(".lua"))) {
            add_path(p, folder, e->d_name);
        }
    }
    if (dir) closedir(dir);
}

static void watch_on_change(struct watch *w) { ev_break(w->ev, EVBREAK_ALL); }

/* Until it is interrupted. */
static int run_again_and_again(const struct cli_args *args, char *const *argv) {
    struct watch w;
    struct ev_loop *ev = ev_loop_new(EVFLAG_AUTO);
    if (!ev || !watch_open(&w, ev, watch_on_change)) return cli_fail(EXIT_FAILED, "inotify: %s", strerror(errno));
    char *folder = cli_absolute(".");
    for (;;) {
        struct paths paths = { 0 };
        collect(&paths, folder, 0);
        watch_set(&w, paths.text, paths.size); /* before the run: what is saved meanwhile counts */
        free(paths.text);
        run_once(args, argv);
        puts("waiting for a change");
        fflush(stdout);
        ev_run(ev, 0);
    }
}

int command_test(const struct cli_args *args) {
    struct busted b;
    if (args->values[OPTION_ENV]) return print_env();
    if (!find_busted(&b)) {
        forget_busted(&b);
        return EXIT_FAILED;
    }
    set_env("LUA_PATH_5_4", lua_path());
    set_env("LUA_CPATH_5_4", lua_cpath());
    char **argv = make_argv(&b, args);
    forget_busted(&b);
    int status = args->values[OPTION_WATCH] ? run_again_and_again(args, argv) : run_once(args, argv);
    free_argv(argv);
    return status;
}
