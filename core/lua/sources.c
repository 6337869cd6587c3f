/* The files of one load. Each is read once and remembered, also that it is missing, so that the runs for the config
 * and for every worker see the same bytes while an editor writes. Used by one thread at a time: all runs of a load
 * take place on the helper thread.
 *
 * `require "a.b"` looks for a/b.lua and a/b/init.lua beside the config, then in the directories of MOONGATE_PATH, if
 * it is set, else in the program's own lua/ and its parent (for "scripts.cors"). */
#include "base/datadir.h"
#include "base/map.h"
#include "base/must.h"
#include "lua/state_rest.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 8 << 20 };

struct source {
    char *path;
    char *text; /* NULL: it could not be read */
    size_t size;
    const char *why;
    mode_t mode;
    uid_t owner;
};

struct sources {
    struct map by_path; /* -> index in `list`, plus 1 */
    struct source *list;
    size_t count, room;
    size_t *read; /* indices of those that could be read */
    size_t read_count;
    char *main;
    int (*open_file)(const char *path);
};

static int open_plainly(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }

struct sources *sources_create(const char *config_path, int (*open_file)(const char *path)) {
    struct sources *s = must_calloc(1, sizeof *s);
    s->main = must_strdup(config_path);
    s->open_file = open_file ? open_file : open_plainly;
    return s;
}

void sources_destroy(struct sources *s) {
    if (!s) return;
    for (size_t i = 0; i < s->count; i++) {
        free(s->list[i].path);
        free(s->list[i].text);
    }
    map_fini(&s->by_path);
    free(s->read);
    free(s->list);
    free(s->main);
    free(s);
}

const char *sources_main(const struct sources *s) { return s->main; }

static const struct source *nth_read(const struct sources *s, size_t i) {
    return i < s->read_count ? &s->list[s->read[i]] : NULL;
}

const char *sources_path(const struct sources *s, size_t i) {
    const struct source *found = nth_read(s, i);
    return found ? found->path : NULL;
}

const char *sources_text(const struct sources *s, size_t i, size_t *size) {
    const struct source *found = nth_read(s, i);
    *size = found ? found->size : 0;
    return found ? found->text : NULL;
}

/* Reads all of an open file, which it closes. */
static void read_all(struct source *to, int fd) {
    struct stat about;
    to->why = "not a regular file";
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) goto done;
    to->mode = about.st_mode;
    to->owner = about.st_uid;
    to->why = "too large";
    if (about.st_size > FILE_MAX) goto done;
    to->text = must_malloc((size_t)about.st_size + 1);
    for (ssize_t n; to->size < (size_t)about.st_size; to->size += (size_t)n) {
        n = read(fd, to->text + to->size, (size_t)about.st_size - to->size);
        if (n < 0 && errno == EINTR) n = 0;
        else if (n <= 0) break;
    }
    to->text[to->size] = '\0';
done:
    close(fd);
}

static struct source *add(struct sources *s, const char *path) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 8;
        s->list = must_realloc(s->list, s->room * sizeof *s->list);
        s->read = must_realloc(s->read, s->room * sizeof *s->read);
    }
    struct source *source = &s->list[s->count++];
    *source = (struct source){ .path = must_strdup(path) };
    map_set(&s->by_path, slice_of(path), (void *)(uintptr_t)s->count);
    int fd = s->open_file(path);
    if (fd < 0) source->why = errno == ENOENT || errno == ENOTDIR ? "no such file" : strerrordesc_np(errno);
    else read_all(source, fd);
    if (source->text) s->read[s->read_count++] = s->count - 1;
    return source;
}

static const struct source *known(const struct sources *s, const char *path) {
    uintptr_t place = (uintptr_t)map_get(&s->by_path, slice_of(path));
    return place ? &s->list[place - 1] : NULL;
}

const char *sources_read(struct sources *s, const char *path, size_t *size, const char **why) {
    const struct source *source = known(s, path);
    if (!source) source = add(s, path);
    *size = source->size;
    *why = source->why;
    return source->text;
}

static bool place_beside_config(const struct sources *s, const char *path, char full[PATH_MAX]) {
    const char *slash = *path == '/' ? NULL : strrchr(s->main, '/');
    int folder = slash ? (int)(slash - s->main + 1) : 0;
    return snprintf(full, PATH_MAX, "%.*s%s", folder, s->main, path) < PATH_MAX;
}

const char *sources_file(struct sources *s, const char *path, size_t *size, const char **why) {
    char full[PATH_MAX];
    *why = "too long a path";
    return place_beside_config(s, path, full) ? sources_read(s, full, size, why) : NULL;
}

bool sources_file_open_to_others(struct sources *s, const char *path) {
    char full[PATH_MAX];
    const struct source *source = place_beside_config(s, path, full) ? known(s, full) : NULL;
    if (!source || !source->text) return false;
    return source->mode & (source->owner == 0 ? S_IRWXO | S_IWGRP : S_IRWXO | S_IRWXG);
}

/* ---- Modules */

/* A search under way. */
struct search {
    struct sources *sources;
    char relative[256];  /* "a/b" */
    char path[PATH_MAX]; /* the last one tried */
    const char *text;
    size_t size;
    char *tried;
    size_t room;
};

static bool try_path(struct search *q, const char *directory, const char *ending) {
    const char *why;
    if (snprintf(q->path, sizeof q->path, "%s/%s%s", directory, q->relative, ending) >= (int)sizeof q->path)
        return false;
    q->text = sources_read(q->sources, q->path, &q->size, &why);
    if (q->text) return true;
    int n = snprintf(q->tried, q->room, "\n\t%s (%s)", q->path, why);
    if (n > 0 && (size_t)n < q->room) {
        q->tried += n;
        q->room -= (size_t)n;
    }
    return false;
}

static bool try_directory(struct search *q, const char *directory) {
    return try_path(q, directory, ".lua") || try_path(q, directory, "/init.lua");
}

static bool try_list(struct search *q, const char *directories) {
    char directory[PATH_MAX];
    struct slice rest = slice_of(directories);
    while (rest.p) {
        struct slice one = slice_cut(&rest, ':');
        if (one.n == 0 || one.n >= sizeof directory) continue;
        memcpy(directory, one.p, one.n);
        directory[one.n] = '\0';
        if (try_directory(q, directory)) return true;
    }
    return false;
}

static bool try_beside_config(struct search *q) {
    char directory[PATH_MAX];
    const char *slash = strrchr(q->sources->main, '/');
    size_t n = slash ? (size_t)(slash - q->sources->main) : 0;
    if (n >= sizeof directory) return false;
    memcpy(directory, q->sources->main, n);
    directory[n] = '\0';
    return try_directory(q, n ? directory : slash ? "" : ".");
}

/* "a.b" as "a/b": names of letters, digits, '_' and '-', with single dots between. */
static bool relative_path(char *to, size_t size, const char *module) {
    size_t n = strlen(module);
    if (n == 0 || n >= size || module[0] == '.' || module[n - 1] == '.' || strstr(module, "..")) return false;
    for (size_t i = 0; i <= n; i++) {
        char c = module[i];
        if (c && c != '.' && c != '_' && c != '-' && !isalnum((unsigned char)c)) return false;
        to[i] = c == '.' ? '/' : c;
    }
    return true;
}

static bool try_installed(struct search *q) {
    const char *path = getenv("MOONGATE_PATH");
    if (path && *path) return try_list(q, path);
    char directory[PATH_MAX + sizeof "/lua"];
    snprintf(directory, sizeof directory, "%s/lua", datadir());
    if (try_directory(q, directory) || try_directory(q, datadir())) return true;
    return false;
}

const char *sources_find(struct sources *s, const char *module, const char **text, size_t *size, char *tried,
                         size_t room) {
    struct search q = { .sources = s, .tried = tried, .room = room };
    *tried = '\0';
    if (!relative_path(q.relative, sizeof q.relative, module)) {
        snprintf(tried, room, "\n\t(a module's name is words with dots between)");
        return NULL;
    }
    if (!try_beside_config(&q) && !try_installed(&q)) return NULL;
    *text = q.text;
    *size = q.size;
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].text == q.text) return s->list[i].path;
    return NULL;
}

const char *sources_full_path(const struct sources *s, const char *shown) {
    if (strncmp(shown, "...", 3) != 0) return shown;
    for (size_t i = 0; s && i < s->count; i++)
        if (slice_ends_with(slice_of(s->list[i].path), slice_of(shown + 3))) return s->list[i].path;
    return shown;
}
