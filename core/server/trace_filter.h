/* Which exchanges a trace is about: `path ^/pay and method POST and status 5xx`. Terms, all of which must hold:
 *
 *   path PATTERN          host NAME or *.NAME      method NAME          status 502 or 5xx
 *   client CIDR           header NAME PATTERN      id ID
 *
 * Patterns are PCRE2's, found anywhere, of bounded effort. Nothing at all: every exchange. Read only once it is made,
 * so workers share it. */
#pragma once

#include "proxy/exchange.h"

struct trace_filter;

/* NULL: `why` (of `size` bytes) says what is wrong with it. */
struct trace_filter *trace_filter_create(struct slice expression, char *why, size_t size);
void trace_filter_destroy(struct trace_filter *); /* NULL is ignored */
/* All but the status, which is not known before the end. */
bool trace_filter_wants(const struct trace_filter *, const struct exchange *);
bool trace_filter_wants_status(const struct trace_filter *, int status);
