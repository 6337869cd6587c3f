/* What a site's policy and those it uses come to: for every hook one flat list, in the order in which they are asked.
 */
#pragma once

#include "lua/engine.h"

enum entry_kind {
    ENTRY_FUNCTION,
    ENTRY_VALUE, /* a constant: decided in C */
    ENTRY_PICK   /* a constant pick, resolved when the state was bound to its sites */
};

struct policy_entry {
    enum entry_kind kind;
    int ref; /* registry reference: the function or the constant */
    struct pick *pick;
    const char *path; /* "sites[1].use[2].pick_backend": for errors about constants */
};

struct policy_chain {
    struct policy_entry *entries;
    unsigned count;
};

/* on_load or on_unload of one policy; `part` is the policy's place among those of its site, under which its snapshot
 * is kept. */
struct lifetime_hook {
    int ref;
    unsigned part;
};

/* All that a site asks; behind site->policies[worker]. */
struct site_policy {
    struct state *state;
    struct site *site; /* NULL until the state is bound */
    struct policy_chain chains[HOOK_COUNT];
    struct lifetime_hook *on_load, *on_unload;
    unsigned on_load_count, on_unload_count;
    uint32_t hooks; /* bits 1 << enum hook */
};

/* Binds it to its site: constant picks are resolved. False: errors were added. */
bool policy_bind(struct site_policy *, struct site *, struct errors *);
