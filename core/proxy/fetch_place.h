/* A place at a server, for the present try of a fetch (fetch.c). */
#pragma once

#include "proxy/fetch.h"

/* A server of the backend, with a reference and a place at it that are the caller's; fetch->spec is its entry. NULL with
 * `*why`: NONE (names are being resolved, or, with fetch->waits, it stands in the queue and its task is woken), or why
 * there is none: backend_choose's, DESTINATION_REFUSED, QUEUE_TIMEOUT. */
struct server *fetch_find_place(struct fetch *, struct backend *, enum failure *why);
/* Stands in no queue any more; a place it has got meanwhile goes to the next. Safe when it does not wait. */
void fetch_drop_wait(struct fetch *);
