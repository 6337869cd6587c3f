/* One file, $XDG_STATE_HOME/moongate/internal.pem (or below ~/.local/state, or /var/lib/moongate), mode 0600. A browser
 * that was told to accept it should not be asked again after every restart; so it is made anew only when it expires.
 * Where nothing can be kept the process has one for as long as it lives. */
#include "server/internal_certificate.h"

#include "base/clock.h"
#include "base/must.h"
#include "base/slice.h"
#include "net/tls.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 16384, RENEW_SECONDS = 30 * 86400 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *present; /* what this process has; NULL: nothing yet */
static bool present_kept;

static bool make_directories(char *path) {
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        mkdir(path, 0755);
        *p = '/';
    }
    return mkdir(path, 0700) == 0 || access(path, W_OK) == 0;
}

/* The directory, which exists then. */
static bool find_directory(char to[PATH_MAX]) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state == '/' && snprintf(to, PATH_MAX, "%s/moongate", state) < PATH_MAX && make_directories(to))
        return true;
    if (home && *home == '/' && snprintf(to, PATH_MAX, "%s/.local/state/moongate", home) < PATH_MAX &&
        make_directories(to))
        return true;
    snprintf(to, PATH_MAX, "/var/lib/moongate");
    return make_directories(to);
}

static bool is_good(const char *text) {
    char why[256];
    struct slice none = { NULL, 0 };
    struct tls_certificates *c = tls_certificates_create();
    bool good = tls_certificates_add(c, slice_of(text), none, none, why, sizeof why) &&
                tls_certificates_expire(c) > clock_wall() + RENEW_SECONDS;
    tls_certificates_unref(c);
    return good;
}

/* malloc'd; NULL: there is none, or not any more. */
static char *read_kept(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return NULL;
    char *text = must_calloc(1, TEXT_MAX + 1);
    ssize_t n = read(fd, text, TEXT_MAX);
    close(fd);
    if (n > 0 && is_good(text)) return text;
    free(text);
    return NULL;
}

/* Beside it first, then renamed: nobody reads half a file. */
static bool keep(const char *path, const char *text) {
    char temporary[PATH_MAX + 24];
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) return false;
    size_t n = strlen(text);
    bool ok = write(fd, text, n) == (ssize_t)n;
    ok = close(fd) == 0 && ok;
    ok = ok && rename(temporary, path) == 0;
    if (!ok) unlink(temporary);
    return ok;
}

static void find_or_make(void) {
    char directory[PATH_MAX], path[PATH_MAX + 16];
    bool found = find_directory(directory);
    snprintf(path, sizeof path, "%s/internal.pem", directory);
    present = found ? read_kept(path) : NULL;
    present_kept = present != NULL;
    if (present) return;
    present = tls_make_internal();
    present_kept = found && keep(path, present);
}

char *internal_certificate(bool *kept) {
    pthread_mutex_lock(&lock);
    if (present && !is_good(present)) {
        free(present);
        present = NULL;
    }
    if (!present) find_or_make();
    char *text = must_strdup(present);
    *kept = present_kept;
    pthread_mutex_unlock(&lock);
    return text;
}
