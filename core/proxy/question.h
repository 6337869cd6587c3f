/* A question about the cache, asked with a request that bears a secret (`moongate cache why`). Policy is run for it as
 * for any other request, for only policy knows the key; but instead of a look-up's outcome the exchange notes what the
 * cache has, and no backend is asked.
 *
 * While nobody asks it costs a request one load. */
#pragma once

#include "proxy/exchange.h"

#define QUESTION_FIELD "Moongate-Question"
enum { QUESTION_SECRET = 32 };

struct cache_question {
    struct list node;
    char secret[QUESTION_SECRET + 1]; /* the value of the field */
    char *answer;                     /* JSON, malloc'd; NULL: no exchange has come so far. Under a lock */
};

/* From any thread, as all of these. */
void question_open(struct cache_question *);
/* Nobody writes to it any more. The answer is the caller's to free. */
char *question_close(struct cache_question *);
/* In the place of the look-up: is this exchange such a question? Then its answer is noted. */
bool question_take(struct exchange *);
