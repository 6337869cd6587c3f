/* An installed tree may be moved, and a build tree must not reach into an installed one nor the other way round: so
 * it is the program's own place that decides. */
#include "base/datadir.h"

#include "base/slice.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char found[PATH_MAX];

static bool is_in_source_tree(const char *program) {
    return slice_starts_with(slice_of(program), SLICE(MOONGATE_SOURCEDIR "/"));
}

static bool is_beside(const char *program) {
    char path[2 * PATH_MAX];
    const char *slash = strrchr(program, '/');
    if (!slash) return false;
    snprintf(path, sizeof path, "%.*s/../share/moongate", (int)(slash - program), program);
    return realpath(path, found) && access(found, R_OK) == 0;
}

static void find(void) {
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = 0;
    if (is_in_source_tree(program)) snprintf(found, sizeof found, "%s", MOONGATE_SOURCEDIR);
    else if (!is_beside(program)) snprintf(found, sizeof found, "%s", MOONGATE_DATADIR);
}

const char *datadir(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return found;
}
