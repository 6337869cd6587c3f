/* Heads and trailers of HTTP/2, field by field, into messages: between nghttp2, which h2.c knows, and what the house
 * knows of a message. */
#pragma once

#include "http/h2.h"

/* One field of the section under way, pseudo fields among them. The bytes are copied. False: the section is so far
 * beyond its limits that the connection is not worth going on with. */
bool h2_take_field(struct h2_stream *, enum h2_role, const struct h2_limits *, struct slice name, struct slice value);
/* The section is complete: framing, Host, and what an extended CONNECT stands for. `end`: no body follows. What is
 * wrong with it stands in s->failed. */
void h2_finish_request(struct h2_stream *, bool end);
void h2_finish_response(struct h2_stream *, bool end);
