/* What the core answers by itself: one plain page for every failure, with the request's id. */
#pragma once

#include "proxy/exchange.h"

/* Makes `failure` the exchange's answer. */
void answer_failure(struct exchange *, enum failure, int status);
/* Makes a script's reply the exchange's answer. */
void answer_reply(struct exchange *, const struct reply *, enum response_source);
/* Replaces the answer's body: length as given, no ETag, no ranges, no content coding (they told of the former body). */
void answer_set_body(struct exchange *, struct slice body);
