/* The stages that C brings along. Each is made whole, belongs to the pipe it is added to, and frees itself with it. */
#pragma once

#include "http/coding.h"
#include "proxy/pipe.h"

/* Takes a content coding off. `most` bytes come out at most; `broken` and `bomb` are what it fails with. */
struct pipe_stage *stage_decode(enum coding, uint64_t most, enum failure broken, enum failure bomb);
/* Puts one on. What comes is not held back for the sake of a better ratio. */
struct pipe_stage *stage_encode(enum coding, int level);

struct replacement {
    struct slice from, to; /* `from` is not empty */
};

enum { REPLACEMENTS_MAX = 256, REPLACE_FROM_MAX = 4096 };
/* Puts `to` wherever `from` stands, in one pass: what was put in is not looked at again. Where several match, the
 * leftmost counts, and there the longest. Copies the list, which is sorted by the call. */
struct pipe_stage *stage_replace(struct replacement *list, unsigned count);
