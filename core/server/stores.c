/* The end of what is named and shared. */
#include "server/stores.h"

#include "store/shared.h"

void stores_close(void) { shared_close_all(); }
