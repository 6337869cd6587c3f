/* Giving up root, and the little that is granted back.
 *
 * The serving process is executed as root and drops in its first statements, before it has read anything but its
 * setup. Dropping before the exec would be tidier, but then a binary or a library in a directory closed to `nobody`
 * could not be run.
 *
 * What is granted is narrow, because who asks may be a stranger who broke into the serving process: a config in /etc
 * must not be a way to /etc/shadow, nor a log file one to /etc/cron.d. Paths are judged by what the descriptor is,
 * after it was opened with O_PATH, so that links and renames in between gain nothing. */
#include "server/privilege.h"

#include "base/datadir.h"
#include "base/must.h"
#include "base/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

bool privilege_present(void) { return geteuid() == 0; }
bool privilege_user_exists(const char *name) { return getpwnam(name) != NULL; }

const char *privilege_user_wrong(const char *name) {
    struct passwd *user = getpwnam(name);
    if (!user) return "there is no such user";
    return user->pw_uid == 0 ? "root must be named by --user root" : NULL;
}

const char *privilege_own_name(void) {
    static char number[24];
    struct passwd *user = getpwuid(geteuid());
    if (user) return user->pw_name;
    snprintf(number, sizeof number, "%u", (unsigned)geteuid());
    return number;
}

bool privilege_drop(const char *name, const char **why) {
    struct passwd *user = getpwnam(name);
    *why = "there is no such user";
    if (!user) return false;
    uid_t uid = user->pw_uid;
    gid_t gid = user->pw_gid;
    *why = strerror(EPERM);
    if (initgroups(name, gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) return false;
    if (uid != 0 && setuid(0) == 0) return false; /* it must not be possible to come back */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* core dumps of the serving process hold nothing of root's */
    return true;
}

/* ---- grants */

/* The real path of an open descriptor. False if it has none (deleted). */
static bool find_path(int fd, char to[PATH_MAX]) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, to, PATH_MAX - 1);
    if (n <= 0 || to[0] != '/') return false;
    to[n] = 0;
    return true;
}

/* Both real; nothing is below an empty one. */
static bool is_within(const char *path, const char *directory) {
    size_t n = strlen(directory);
    return n && strncmp(path, directory, n) == 0 && (path[n] == '/' || directory[n - 1] == '/');
}

static bool is_below(const char *path, const char *directory) {
    char real[PATH_MAX];
    return realpath(directory, real) && is_within(path, real);
}

static bool ends_with(const char *path, const char *suffix) {
    return slice_ends_with(slice_of(path), slice_of(suffix));
}

static void find_real(const char *path, char to[PATH_MAX]) {
    if (!path || !realpath(path, to)) *to = 0;
}

void grant_places_find(struct grant_places *p, const char *config, const char *keys) {
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%s", config);
    char *slash = strrchr(directory, '/');
    if (slash) slash[slash == directory] = 0;
    find_real(slash ? directory : ".", p->directory);
    find_real(config, p->config);
    find_real(keys, p->keys);
}

/* Where `require` looks besides the config's directory: MOONGATE_PATH, or what came with this binary. */
static bool is_below_modules(const char *path) {
    char directory[PATH_MAX];
    struct slice rest = slice_of(getenv("MOONGATE_PATH"));
    while (rest.p) {
        struct slice one = slice_cut(&rest, ':');
        snprintf(directory, sizeof directory, "%.*s", FMT(one));
        if (one.n && is_below(path, directory)) return true;
    }
    return is_below(path, datadir());
}

/* Certificates and keys beside the config; those below its folder, or elsewhere, only with --keys: a config in /etc
 * must not lay open all that lies below. */
static bool is_key_beside_config(const char *path, const char *config) {
    const char *slash = strrchr(path, '/'), *config_slash = strrchr(config, '/');
    if (!ends_with(path, ".pem") && !ends_with(path, ".key") && !ends_with(path, ".crt")) return false;
    size_t n = (size_t)(slash - path);
    return config_slash && n == (size_t)(config_slash - config) && strncmp(path, config, n) == 0;
}

static bool may_read(const char *path, const struct grant_places *p) {
    if (is_within(path, p->keys) || strcmp(path, p->config) == 0 || is_key_beside_config(path, p->config)) return true;
    return ends_with(path, ".lua") && (is_within(path, p->directory) || is_below_modules(path));
}

static int reopen(int fd, int flags) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return open(link, flags | O_CLOEXEC | O_NOCTTY);
}

static int refuse(int fd, int error) {
    if (fd >= 0) close(fd);
    errno = error;
    return -1;
}

int grant_read(const char *path, const struct grant_places *places) {
    char real[PATH_MAX];
    struct stat st;
    int at = open(path, O_PATH | O_CLOEXEC);
    if (at < 0) return -1;
    if (fstat(at, &st) != 0 || !S_ISREG(st.st_mode) || !find_path(at, real)) return refuse(at, EACCES);
    if (!may_read(real, places)) return refuse(at, EACCES);
    int fd = reopen(at, O_RDONLY), error = errno;
    close(at);
    errno = error;
    return fd;
}

/* The directory is judged before anything is made in it. */
static int open_directory(const char *path, const char *name, char real[PATH_MAX]) {
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%.*s", (int)(name - path), path);
    int at = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0 || find_path(at, real)) return at;
    return refuse(at, EACCES);
}

static bool is_below_log(const char *directory) {
    return strcmp(directory, "/var/log") == 0 || is_below(directory, "/var/log");
}

int grant_append(const char *path) {
    char real[PATH_MAX];
    struct stat st;
    if (path[0] != '/') return refuse(-1, EACCES);
    const char *name = strrchr(path, '/') + 1;
    int at = open_directory(path, name, real);
    if (at < 0) return -1;
    if (!ends_with(name, ".log") && !is_below_log(real)) return refuse(at, EACCES);
    int fd = openat(at, name, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640),
        error = errno;
    close(at);
    if (fd < 0) return refuse(-1, error);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return refuse(fd, EACCES);
    return fd;
}
