/* How a message is delimited, whether the connection lasts, and which fields end at this hop, decided once
 * from the headers (RFC 9112 6 and 9, RFC 9110 7.6). What is ambiguous is refused, on both sides: no other
 * reading of a message that we forward can exist. http-parser's own opinion is never asked. */
#pragma once

#include "http/message.h"

/* Fills request->framing and marks hop fields. Refuses: Content-Length beside Transfer-Encoding, lengths that differ
 * or are no digits, Transfer-Encoding other than exactly "chunked" (BAD_CODING 501; if anything stands behind
 * "chunked", 400) or in HTTP/1.0, more than one Host
 * or none in 1.1 (BAD_HOST), an Expect other than 100-continue (EXPECTATION), Connection-nominated fields that would
 * strip what framing and routing need (Host, Content-Length, …: kept, not stripped). */
enum failure framing_of_request(struct request *);

/* The same for a response to `method`. 1xx, 204, 304 and HEAD: none, whatever the fields say; 2xx to CONNECT likewise.
 * FAIL_BAD_RESPONSE. */
enum failure framing_of_response(struct response *, enum method);
/* Before the head of an answer to `method` is written. Policy may have changed its status: a Content-Length that told
 * of content which was not there does not go beside one that frames what is, nor into a 204 (RFC 9110 8.6). */
void framing_settle(struct response *, enum method);

/* The seconds for which the sender keeps an idle connection, if it says so: "Keep-Alive: timeout=5" (RFC 2068 19.7.1). */
bool framing_idle_timeout(const struct headers *, uint64_t *seconds);

enum { UPGRADE_MAX = 512 };

/* Connection's "upgrade" beside an Upgrade field: the value to pass on, at most UPGRADE_MAX bytes; p NULL if there is
 * none. */
struct slice framing_upgrade(const struct headers *);
