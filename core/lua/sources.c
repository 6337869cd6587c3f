/* The files of one load. Each is read once and remembered, also that it is missing, so that the runs for the config
 * and for every worker see the same bytes while an editor writes. Used by one thread at a time: all runs of a load
 * take place on the helper thread.
 *
 * What is made of a file of data (gate.map, gate.cidr, gate.mmdb) is kept in place of its text, for all runs to come.
 *
 * `require "a.b"` looks for a/b.lua and a/b/init.lua beside the config, then in the directories of MOONGATE_PATH, if
 * it is set, else in the program's own lua/, its parent (for "scripts.cors") and lua/compat/, which gives the names of
 * other people's modules ("socket") to what Moongate has; they stand apart so that a Lua that is not ours, with lua/ on
 * its path, still finds the originals. */
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
    char *text; /* NULL: it could not be read, or something was made of it */
    size_t size;
    const char *why;
    mode_t mode;
    uid_t owner;
    /* A data file: */
    const void *kind;
    void *made;
    void (*release)(void *made);
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
        if (s->list[i].made) s->list[i].release(s->list[i].made);
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

/* Reads all of an open file, which it closes. malloc'd. */
static char *read_all(int fd, size_t most, struct stat *about, size_t *size, const char **why) {
    char *text = NULL;
    *size = 0;
    *why = "not a regular file";
    if (fstat(fd, about) != 0 || !S_ISREG(about->st_mode)) goto done;
    *why = "too large";
    if ((size_t)about->st_size > most) goto done;
    *why = "there is no memory for it";
    text = malloc((size_t)about->st_size + 1);
    if (!text) goto done;
    for (ssize_t n; *size < (size_t)about->st_size; *size += (size_t)n) {
        n = read(fd, text + *size, (size_t)about->st_size - *size);
        if (n < 0 && errno == EINTR) n = 0;
        else if (n <= 0) break;
    }
    text[*size] = '\0';
done:
    close(fd);
    return text;
}

static struct source *add_source(struct sources *s, const char *path) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 8;
        s->list = must_realloc(s->list, s->room * sizeof *s->list);
        s->read = must_realloc(s->read, s->room * sizeof *s->read);
    }
    struct source *source = &s->list[s->count++];
    *source = (struct source){ .path = must_strdup(path) };
    return source;
}

int sources_open(const struct sources *s, const char *path, const char **why) {
    int fd = s->open_file(path);
    if (fd < 0) *why = errno == ENOENT || errno == ENOTDIR ? "no such file" : strerrordesc_np(errno);
    return fd;
}

static char *open_and_read(const struct sources *s, const char *path, size_t most, struct stat *about, size_t *size,
                           const char **why) {
    int fd = sources_open(s, path, why);
    return fd < 0 ? NULL : read_all(fd, most, about, size, why);
}

char *sources_slurp(const struct sources *s, const char *path, size_t most, size_t *size, const char **why) {
    struct stat about;
    return open_and_read(s, path, most, &about, size, why);
}

/* The last one was read. */
static void note_read(struct sources *s) { s->read[s->read_count++] = s->count - 1; }

/* Of texts there may be thousands (certificates). */
static struct source *find_text(const struct sources *s, const char *path) {
    uintptr_t place = (uintptr_t)map_get(&s->by_path, slice_of(path));
    return place ? &s->list[place - 1] : NULL;
}

static struct source *add_text(struct sources *s, const char *path) {
    struct stat about = { 0 };
    struct source *source = add_source(s, path);
    map_set(&s->by_path, slice_of(path), (void *)(uintptr_t)s->count);
    source->text = open_and_read(s, path, FILE_MAX, &about, &source->size, &source->why);
    source->mode = about.st_mode;
    source->owner = about.st_uid;
    if (source->text) note_read(s);
    return source;
}

const char *sources_read(struct sources *s, const char *path, size_t *size, const char **why) {
    const struct source *source = find_text(s, path);
    if (!source) source = add_text(s, path);
    *size = source->size;
    *why = source->why;
    return source->text;
}

/* ---- Files beside the config */

bool sources_resolve(const struct sources *s, const char *name, char *path, size_t room) {
    const char *slash = *name == '/' ? NULL : strrchr(s->main, '/');
    int n = snprintf(path, room, "%.*s%s", slash ? (int)(slash + 1 - s->main) : 0, s->main, name);
    return n >= 0 && (size_t)n < room;
}

const char *sources_file(struct sources *s, const char *name, size_t *size, const char **why) {
    char path[PATH_MAX];
    *why = "too long a path";
    return sources_resolve(s, name, path, sizeof path) ? sources_read(s, path, size, why) : NULL;
}

bool sources_file_open_to_others(struct sources *s, const char *name) {
    char path[PATH_MAX];
    const struct source *source = sources_resolve(s, name, path, sizeof path) ? find_text(s, path) : NULL;
    if (!source || !source->text) return false;
    return source->mode & (source->owner == 0 ? S_IRWXO | S_IWGRP : S_IRWXO | S_IRWXG);
}

void *sources_made(const struct sources *s, const char *path, const void *kind) {
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].kind == kind && strcmp(s->list[i].path, path) == 0) return s->list[i].made;
    return NULL;
}

void sources_keep(struct sources *s, const char *path, const void *kind, void *made, void (*release)(void *made)) {
    struct source *source = add_source(s, path);
    source->kind = kind;
    source->made = made;
    source->release = release;
    note_read(s);
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
    char directory[PATH_MAX + sizeof "/lua/compat"];
    snprintf(directory, sizeof directory, "%s/lua", datadir());
    if (try_directory(q, directory) || try_directory(q, datadir())) return true;
    snprintf(directory, sizeof directory, "%s/lua/compat", datadir());
    return try_directory(q, directory);
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
