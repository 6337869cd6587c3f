/* How failures of scripts are told to the operator. */
#pragma once

#include "lua/run.h"

/* Pushes on the state's main thread, and returns, the error that lies on top of the failed coroutine `co`, with its
 * traceback. */
const char *report_text(struct state *, lua_State *co);
/* Pushes on L what is told first of the error at `index` of `co`, whose stack still stands: its text, or that it is
 * none, with the place. It runs no __tostring, which would be one more script. May raise for want of memory. */
void report_headline_push(lua_State *L, lua_State *co, int index);
/* "on_request of example.com failed (request 0123…): text". `what` and `text` as they come; the subject may have no
 * site. */
void report_failure(const struct subject *, const char *what, const char *text);
/* "file:line: " of the function on top of L, which is popped: for failures that are found after it returned. In `to`;
 * "" for one of C's. */
void report_place(lua_State *L, char *to, size_t size);
