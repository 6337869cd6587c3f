/* The tenure of a generation: from its load to the last of its memory. It serves, is retired by the next one, is
 * drained, its states end, and when the last exchange has let go of it, its backends and tables go too. The main
 * thread's. */
#pragma once

#include "net/helpers.h"
#include "proxy/site.h"
#include "server/round.h"

enum tenure_stage {
    TENURE_SERVES,   /* or is being started */
    TENURE_RETIRED,  /* exchanges may still run its hooks */
    TENURE_STOPPING, /* its states are being stopped */
    TENURE_STOPPED,  /* no Lua of it is left; bodies may still flow */
    TENURE_FREEING
};

struct tenure {
    struct list node; /* in instance->tenures */
    struct instance *instance;
    struct generation *generation; /* NULL: it is being freed */
    struct generation *dying;
    uint32_t number;
    enum tenure_stage stage;
    bool released; /* nobody holds a reference any more */
    bool hurried;  /* its drain time is over, or is cut short */
    bool looking;  /* a round asks whether its states are idle */
    ev_timer drain, look;
    struct round round;
    struct job job;
    _Atomic unsigned busy; /* runs that the look found */
};

/* Once, before the first one. */
void tenures_open(struct instance *);
/* `generation->release` must be tenure_on_release. Its one reference stays the caller's. */
struct tenure *tenure_create(struct instance *, struct generation *);
void tenure_on_release(struct generation *); /* any thread */
/* It does not serve any more; `drain` seconds are left to its exchanges, 0: none. */
void tenure_retire(struct tenure *, double drain);
/* Its time is over now. */
void tenure_hurry(struct tenure *);
/* How many may still run Lua; hurries the oldest ones if there are more than `most`. */
unsigned tenures_limit(struct instance *, unsigned most);
