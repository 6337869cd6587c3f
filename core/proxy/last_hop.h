/* Max-Forwards (RFC 9110 7.6.2): how many more times an OPTIONS or TRACE may be sent on. Of other methods the field is
 * passed as it is, and so is one that is no number. */
#pragma once

#include "proxy/exchange.h"

/* True: it may go no further, and `reply` is our answer to it: 204 to OPTIONS; to TRACE what came (RFC 9110 9.3.8), but
 * of its fields only those that tell of the way it took. False: it may be sent on, as one hop less. */
bool last_hop_answers(struct exchange *, struct reply *);
