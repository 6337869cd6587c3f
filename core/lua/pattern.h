/* Lua's patterns (Lua manual 6.4.1), with a count of steps: a match that takes too long raises "over its CPU budget".
 */
#pragma once

#include "base/slice.h"

#include <lua.h>

enum { PATTERN_CAPTURES = 32, PATTERN_DEPTH = 200 };

struct pattern_capture {
    const char *p;
    ptrdiff_t n; /* CAPTURE_OPEN, CAPTURE_PLACE or its length */
};
enum { CAPTURE_OPEN = -1, CAPTURE_PLACE = -2 };

/* A pattern at work on a subject; both must stay where they are. */
struct matching {
    lua_State *L;
    struct slice subject;
    const char *subject_end, *pattern, *pattern_end; /* pattern: behind its anchor */
    bool anchored;
    int depth, captures;
    struct pattern_capture capture[PATTERN_CAPTURES];
};

/* `anchors`: whether a '^' at the front counts (not in gmatch). */
void matching_init(struct matching *, lua_State *L, struct slice subject, struct slice pattern, bool anchors);
/* The end of a match that begins exactly at `from`; NULL: none. Raises on a malformed pattern. */
const char *matching_at(struct matching *, const char *from);
/* Finds the first match at or behind `*from`, which becomes its beginning. */
const char *matching_search(struct matching *, const char **from);
/* Pushes one capture of the last match, the whole match for index 0 when there are none. */
void matching_push(struct matching *, int index, const char *from, const char *to);
/* Pushes all; the whole match if there are none and `whole`. Returns their number. */
int matching_push_all(struct matching *, bool whole, const char *from, const char *to);
/* True if the pattern has no special characters: then it is plain text. */
bool pattern_is_plain(struct slice);
