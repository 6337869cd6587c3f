/* What the serving process asks the supervisor for: sockets and files that take privilege. One question at a time, from
 * any thread but a worker's (the caller waits for the answer); there is one supervisor, so this keeps its own state. */
#pragma once

#include <stdbool.h>

/* `fd`: the end of the `asks` channel; taken over. -1: there is nobody to ask, everything is opened by ourselves. */
void ask_open(int fd);
void ask_close(void);
bool ask_is_open(void); /* is there somebody to ask? Then we are not who started it */

/* For sources_create: a descriptor to read from, or -1 with errno. Opens by itself and asks where that is refused. */
int ask_read(const char *path);
/* Around a load, whose files are asked for by many at a time as far as the former load wanted them, too. */
void ask_load_begin(void);
void ask_load_end(void);
/* A log file, opened for appending and made if need be; -1 with errno. */
int ask_append(const char *path, bool error_log);
/* The held sockets of an address, at least `wanted` of them where the family can have more than one. Returns 0 and a
 * malloc'd list of descriptors, which are the caller's, or an errno. */
int ask_bind(const char *address, unsigned wanted, int **fds, unsigned *count);
/* The supervisor may close its sockets of this address. */
void ask_release(const char *address);
