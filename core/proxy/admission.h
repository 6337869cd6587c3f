/* An admission: a client that policy is asked about before anything is spoken with it: on_connect, of every site of its
 * listener that has one, until one says no. It is a subject of its own, since there is no request yet; it may wait, and
 * meanwhile nothing is read. */
#pragma once

#include "proxy/client.h"

struct admission;

/* What a client's on_connect is told of it. */
struct arrival {
    const struct addr *addr; /* of the client, or as a PROXY header says */
    const char *listener;    /* its name: "127.0.0.1:8080" */
};

/* The client leaves. NULL is ignored. */
void admission_cancel(struct admission *);
/* The policy of that generation ends in this worker now: who waits for it is not let in. */
void admissions_let_go(struct worker *, const struct generation *);
