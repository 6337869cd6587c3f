/* The control socket: how `moongate reload | stop | status` reach the supervisor of a running one. A unix stream
 * socket of mode 0600. The client writes one line, a command; the answer is a line with the exit status, then the
 * text to print, until the end of the stream. An answer without its first line means that the supervisor went away. */
#pragma once

#include "base/list.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Where it is: `given` if not NULL, else /run/moongate/NAME.sock for root, $XDG_RUNTIME_DIR/moongate/NAME.sock or
 * /tmp/moongate-UID/NAME.sock for others; NAME is the config's file name without ".lua". malloc'd. */
char *control_path(const char *given, const char *config);
/* The only socket in that directory on which somebody answers, when no config is named. NULL with `*why` (malloc'd):
 * none, or more than one. */
char *control_path_only(char **why);

/* ---- in the supervisor */
struct control {
    struct ev_loop *ev;
    ev_io io;
    char *path;
    struct list conns;
    uint32_t last_id;
    void (*on_command)(struct control *, uint32_t id, const char *command); /* to be answered once, now or later */
};

/* Binds and listens, makes the directory. False: `*why` (malloc'd) says why, "in use" by another one among them. */
bool control_open(struct control *, struct ev_loop *, const char *path,
                  void (*on_command)(struct control *, uint32_t id, const char *command), char **why);
/* Answers; an id that is gone is ignored. */
void control_answer(struct control *, uint32_t id, int status, const char *text);
/* Takes the connection away, to be answered by somebody else; the descriptor, or -1: it is gone. The text of its
 * command ends with it. */
int control_take(struct control *, uint32_t id);
/* Answers everybody who waits for the answer to a command that begins so (NULL: to any). */
void control_answer_all(struct control *, const char *command, int status, const char *text);
/* No more clients: closes and removes the socket. Who was accepted stays. Safe if it was never opened, and twice. */
void control_shut(struct control *);
/* The same, then writes what is left for at most a second, and closes everything. */
void control_close(struct control *);

/* ---- in the command line: one command, waiting for its answer. False with `*why` (malloc'd) when nobody answers. */
bool control_call(const char *path, const char *command, int *status, char **text, char **why);
/* The same for an answer that goes on: what stands behind its first line is to be read from the stream, which the
 * caller closes. NULL with `*why`. */
FILE *control_follow(const char *path, const char *command, int *status, char **why);
