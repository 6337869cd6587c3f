/* An installed tree may be moved, and a build tree must not reach into an installed one nor the other way round: so
 * it is the program's own place that decides. The dynamic linker knows it: the file that holds this very code. */
#include "base/datadir.h"

#include "base/slice.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char data[PATH_MAX], kit[PATH_MAX];

static bool is_in_source_tree(const char *file) {
    return slice_starts_with(slice_of(file), SLICE(MOONGATE_SOURCEDIR "/"));
}

/* `up` is the way from the file's directory to the root of the installed tree. */
static bool find_beside(const char *folder, const char *up, const char *wanted, char found[PATH_MAX]) {
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s/%s", folder, up, wanted);
    return realpath(path, found) && access(found, R_OK) == 0;
}

/* A module is told by its path, a program by the kernel, who knows it also when it was started by a bare name. */
static bool find_own_file(char own[PATH_MAX]) {
    Dl_info about;
    bool known = dladdr((void *)data, &about) != 0;
    bool module = known && slice_ends_with(slice_of(about.dli_fname), SLICE(".so"));
    if (module) return realpath(about.dli_fname, own) != NULL;
    ssize_t n = readlink("/proc/self/exe", own, PATH_MAX - 1);
    own[n > 0 ? n : 0] = 0;
    return false;
}

static void find(void) {
    char own[PATH_MAX];
    const char *up = find_own_file(own) ? "../.." : ".."; /* from lib/moongate, from bin */
    bool built = is_in_source_tree(own);
    char *slash = strrchr(own, '/');
    if (slash) *slash = 0;
    if (built) {
        snprintf(data, sizeof data, "%s", MOONGATE_SOURCEDIR);
        snprintf(kit, sizeof kit, "%s", own);
        return;
    }
    if (!find_beside(own, up, "share/moongate", data)) snprintf(data, sizeof data, "%s", MOONGATE_DATADIR);
    if (!find_beside(own, up, "lib/moongate", kit)) snprintf(kit, sizeof kit, "%s", MOONGATE_KITDIR);
}

static const char *answer(const char *found) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return found;
}

const char *datadir(void) { return answer(data); }
const char *kitdir(void) { return answer(kit); }
