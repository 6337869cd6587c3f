/* What policy keeps by name for the whole process (store/): it outlives generations and ends with the instance, or with
 * a rehearsal. One more such thing: add it to stores.c. */
#pragma once

void stores_close(void); /* no state is left that could use them */
