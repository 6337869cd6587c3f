/* Which line of the config says what. Lua tables carry no lines, so the config's source is read once more, not to run
 * it but to see where its table constructors and assignments stand. A guess, made to be right for configs as people
 * write them; what is computed is found at the place that computes it, or not at all. */
#pragma once

#include "base/slice.h"

struct config_lines;

/* `source` is read during the call only. Never NULL. */
struct config_lines *config_lines_create(struct slice source);
void config_lines_destroy(struct config_lines *); /* NULL is ignored */

/* The line where the setting of that path ("sites[1].backends.app[2]", "backends[\"my-app\"]", "" for the whole)
 * stands; if it does not stand there (it is missing, or computed), that of the nearest table around it. 0: not known.
 * */
int config_lines_find(const struct config_lines *, const char *path);
