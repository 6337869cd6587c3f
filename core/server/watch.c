/* One inotify descriptor; the kernel gives the same number for the same directory, which is all the bookkeeping.
 * Numbers of directories that no file is in any more stay until the end: they cost nothing and their events match
 * nothing. */
#include "server/watch.h"

#include "base/must.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

static const double QUIET_SECONDS = 0.05;

struct watched_file {
    char *name;
    int directory;
};

static bool concerns_us(const struct watch *w, const struct inotify_event *e) {
    for (size_t i = 0; i < w->count; i++)
        if (w->files[i].directory == e->wd && e->len && strcmp(w->files[i].name, e->name) == 0) return true;
    return false;
}

static void watch_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct watch *w = io->data;
    char bytes[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool changed = false;
    for (ssize_t n; (n = read(io->fd, bytes, sizeof bytes)) > 0;) {
        for (char *at = bytes; at < bytes + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)at;
            if (concerns_us(w, e) || (e->mask & IN_Q_OVERFLOW)) changed = true;
            at += sizeof *e + e->len;
        }
    }
    if (!changed) return;
    ev_timer *quiet = &w->quiet;
    ev_timer_stop(ev, quiet);
    ev_timer_set(quiet, QUIET_SECONDS, 0.);
    ev_timer_start(ev, quiet);
}

static void watch_on_quiet(struct ev_loop *ev, ev_timer *timer, int events) {
    struct watch *w = timer->data;
    w->on_change(w);
}

bool watch_open(struct watch *w, struct ev_loop *ev, void (*on_change)(struct watch *)) {
    *w = (struct watch){ .on_change = on_change };
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) return false;
    w->ev = ev;
    ev_io *io = &w->io;
    ev_io_init(io, watch_on_io, fd, EV_READ);
    ev_timer *quiet = &w->quiet;
    ev_timer_init(quiet, watch_on_quiet, QUIET_SECONDS, 0.);
    io->data = quiet->data = w;
    ev_io_start(ev, io);
    return true;
}

static void forget_files(struct watch *w) {
    for (size_t i = 0; i < w->count; i++) free(w->files[i].name);
    free(w->files);
    w->files = NULL;
    w->count = 0;
}

static void add_path(struct watch *w, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return;
    char *directory = must_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    int wd = inotify_add_watch(w->io.fd, directory, IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR);
    free(directory);
    if (wd < 0) return;
    w->files = must_realloc(w->files, (w->count + 1) * sizeof *w->files);
    w->files[w->count++] = (struct watched_file){ .name = must_strdup(slash + 1), .directory = wd };
}

/* A link that is moved to another file counts as a change, and so does a change of that file. */
static void add_file(struct watch *w, const char *path) {
    char real[PATH_MAX];
    add_path(w, path);
    if (realpath(path, real) && strcmp(path, real) != 0) add_path(w, real);
}

void watch_set(struct watch *w, const char *paths, size_t size) {
    if (!w->ev) return;
    forget_files(w);
    for (const char *at = paths; at < paths + size; at += strlen(at) + 1) add_file(w, at);
}

void watch_close(struct watch *w) {
    if (!w->ev) return;
    forget_files(w);
    ev_io_stop(w->ev, &w->io);
    ev_timer_stop(w->ev, &w->quiet);
    close(w->io.fd);
    w->ev = NULL;
}
