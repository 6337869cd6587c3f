/* What the cache's two files of the test module share. */
#pragma once

#include "module.h"
#include "store/cache.h"

/* How often a writer was told that there is room, in this process. */
void module_cache_count(void *counter);
void *module_cache_counter(void);
int64_t module_cache_now(void); /* Unix time in ms */
/* Adds what puts a cache under load to the table on the stack. */
void module_cache_load_open(lua_State *L);
