/* What can be told of scripts without running them, beyond what loading them shows: misspelt globals, fields that
 * objects of hooks do not have, returned constants that a hook may not return, backends that are not there, waits where
 * nothing can wait.
 *
 * What is an error here would surely fail if it were reached; what is only likely is a warning; what is not known is
 * not told. */
#pragma once

#include "lua/state.h"

/* What scripts may name. By index as state_hooks counts, from 0. */
struct inspect_site {
    const char *const *backends; /* ends with NULL */
    const char *const *servers;  /* "backend/server"; "backend/": others may be there, too. Ends with NULL */
};

/* Looks through all files of the load. Any thread, as state_create; after state_hooks. Adds errors and warnings with
 * file and line. */
void inspect(struct state *, struct sources *, const struct inspect_site *, unsigned count, struct errors *);
