/* Objects that are made of a file beside the config, while it is loaded: gate.cidr and gate.mmdb. A file is read once
 * in a load, with the supervisor's help where it takes privilege; all workers share what was made of it. */
#pragma once

#include "lua/bind.h"

#include <limits.h>

struct sources;

struct data_file {
    struct sources *sources;
    char path[PATH_MAX];
    const char *name; /* as the script wrote it */
};

/* The file named by the string at `arg`; raises when no file is being loaded. `what`: "gate.cidr". */
void data_file_check(lua_State *L, int arg, const char *what, struct data_file *);
/* Raises "WHAT: NAME: WHY". */
int data_file_fail(lua_State *L, const char *what, const struct data_file *, const char *why);

/* What is done in between is charged to the operator's patience, not to the budget of the script that is loaded. */
uint64_t data_file_begin(void);
void data_file_end(lua_State *L, uint64_t began);
