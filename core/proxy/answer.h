/* What no backend answers: one plain page for every failure, with the request's id, and the replies of scripts. */
#pragma once

#include "proxy/exchange.h"

/* Makes `failure` the exchange's answer. */
void answer_failure(struct exchange *, enum failure, int status);
/* Makes a script's reply the exchange's answer. */
void answer_reply(struct exchange *, const struct reply *, enum response_source);
/* Right before its head is sent: to a gRPC request it becomes what such clients understand, whatever status it has: 200
 * with grpc-status, the text as grpc-message, and no body. Left as it is if it succeeds, or has a grpc-status
 * already. */
void answer_suit_client(struct exchange *);
/* Replaces its body: length as given, no ETag, no ranges, no content coding (they told of the former body). */
void answer_set_body(const struct answer *, struct slice body);
/* No body at all; the fields stay. */
void answer_empty(struct exchange *);
