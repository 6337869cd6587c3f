/* A load: from the command to the swap of generations, or to the errors. The first load of a process is one like any
 * other. */
#pragma once

#include <stdint.h>

struct instance;
struct worker_thread;

/* Begins one, or, while one is under way, notes that another one must follow: its caller's file may be newer than
 * what is being read. `id`: a command that waits for the answer, 0: a signal, or the first load. Main thread. */
void reload_ask(struct instance *, uint32_t id);
/* The policy of a worker holds more memory than it may, even after a full collection: the bytes that serve (not what
 * lies on the disk by now) are loaded once more, and a new generation takes over, as after any reload. Main thread. */
void reload_renew(struct instance *);
/* In a worker's thread, at the end of the process: an on_load that is under way there is not waited for. */
void reload_cancel(struct worker_thread *);
