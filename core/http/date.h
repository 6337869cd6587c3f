/* HTTP dates (RFC 9110 5.6.7). */
#pragma once

#include "base/slice.h"

#include <time.h>

/* "Sun, 06 Nov 1994 08:49:37 GMT" for this second, made once a second per thread. Valid until the next call
 * in this thread: copy it. 29 bytes. */
struct slice date_now(void);
void date_write(char to[30], time_t when);
/* All three forms; -1 if it is none. */
time_t date_parse(struct slice);
