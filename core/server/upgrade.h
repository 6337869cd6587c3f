/* SIGUSR2: the binary was replaced, and takes over without a refused connection. In the supervisor. */
#pragma once

#include <stdbool.h>

struct supervisor;

/* Runs the new binary's `check`; if it is content, replaces this process by it (same pid). On any failure all goes on
 * as it was. */
void upgrade_begin(struct supervisor *);
/* In the new image: takes over sockets and the serving process from `options->resume_fd`, and starts a new serving
 * process beside the old one, which drains when the new one is ready. False: what was passed makes no sense. */
bool upgrade_resume(struct supervisor *);
/* The environment variable that holds the descriptor's number. */
#define UPGRADE_VARIABLE "MOONGATE_UPGRADE"
