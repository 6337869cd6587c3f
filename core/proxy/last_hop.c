#include "proxy/last_hop.h"

#include "http/uri.h"

static void reflect_field(struct exchange *x, struct slice *text, struct slice name) {
    struct slice value = headers_joined(&x->request.headers, name);
    if (!value.p) return;
    struct slice parts[] = { *text, name, SLICE(": "), value, SLICE("\r\n") };
    *text = arena_concat(&x->arena, parts, sizeof parts / sizeof *parts);
}

/* Cookies, credentials and whatever else a browser may have been made to send are not for the page that made it. */
static struct slice reflect(struct exchange *x) {
    const struct request *r = &x->request;
    struct slice version = r->version == HTTP_1_0 ? SLICE(" HTTP/1.0\r\n") : SLICE(" HTTP/1.1\r\n");
    struct slice parts[] = { r->method_name, SLICE(" "), target_write(&x->arena, &r->target), version };
    struct slice text = arena_concat(&x->arena, parts, sizeof parts / sizeof *parts);
    reflect_field(x, &text, SLICE("Host"));
    reflect_field(x, &text, SLICE("Max-Forwards"));
    reflect_field(x, &text, SLICE("Via"));
    return arena_concat(&x->arena, (struct slice[]){ text, SLICE("\r\n") }, 2);
}

static void answer(struct exchange *x, struct reply *reply) {
    *reply = (struct reply){ .status = 204 };
    headers_init(&reply->headers, &x->arena);
    if (x->request.method == METHOD_OPTIONS) return;
    reply->status = 200;
    reply->body = reflect(x);
    headers_add_id(&reply->headers, HEADER_CONTENT_TYPE, SLICE("message/http"));
    headers_add_id(&reply->headers, HEADER_CACHE_CONTROL, SLICE("no-store"));
}

bool last_hop_answers(struct exchange *x, struct reply *reply) {
    if (x->request.method != METHOD_OPTIONS && x->request.method != METHOD_TRACE) return false;
    struct header *field = headers_find(&x->request.headers, SLICE("Max-Forwards"));
    uint64_t left;
    if (!field || !slice_to_u64(field->value, &left)) return false;
    if (left > 0)
        headers_replace(&x->request.headers, field, arena_printf(&x->arena, "%llu", (unsigned long long)left - 1));
    else answer(x, reply);
    return left == 0;
}
