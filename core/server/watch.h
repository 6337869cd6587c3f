/* `--watch`: tells when one of the files of the last load was saved. In the supervisor, which can see directories that
 * the serving process cannot. Editors write in place, or write another file and rename it: so the directories are
 * watched, and of what happens in them what concerns our files' names. */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>

struct watched_file;

struct watch {
    struct ev_loop *ev; /* NULL: closed */
    ev_io io;
    ev_timer quiet; /* runs from the last change on: a save is many events */
    struct watched_file *files;
    size_t count;
    void (*on_change)(struct watch *);
};

/* False with errno: no inotify. */
bool watch_open(struct watch *, struct ev_loop *, void (*on_change)(struct watch *));
/* The files from now on: absolute paths, a NUL behind each. */
void watch_set(struct watch *, const char *paths, size_t size);
void watch_close(struct watch *); /* safe if it was never opened */
