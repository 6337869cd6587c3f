/* HTTP dates (RFC 9110 5.6.7). */
#pragma once

#include "base/slice.h"

#include <time.h>

/* "Sun, 06 Nov 1994 08:49:37 GMT" for this second, made once a second per thread. Valid until the next call
 * in this thread: copy it. 29 bytes. */
struct slice date_now(void);
void date_write(char to[30], time_t when);
/* All three forms; false if it is none. */
bool date_read(struct slice, int64_t *when);
/* The same for who only asks whether it has passed: what is before 1970 is 1970, -1 if it is none. */
time_t date_parse(struct slice);
