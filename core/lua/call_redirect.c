/* Redirects of gate.fetch (RFC 9110 15.4), for who asks for them: `redirects = 3`.
 *
 * What the server says is where to go, not what to take along: credentials stay with the origin they were meant for,
 * and a body is sent again only by the statuses that say so, and only if it is still there. A target that was a
 * backend's name stays that backend as long as the redirect stays within its host. */
#include "lua/call.h"

#include "http/uri.h"

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* 303 always, and 301 and 302 of a POST, as everybody does it (RFC 9110 15.4.2). */
static bool becomes_get(const struct call *c, int status) {
    return status == 303 || ((status == 301 || status == 302) && c->request.method == METHOD_POST);
}

/* A body that flowed is spent. */
static bool can_repeat_body(const struct call *c) {
    return !c->request_body || (c->request_body == &c->own_body && !c->source);
}

/* Location as an absolute URL (RFC 3986 5.2.2), dot segments not removed yet. p NULL: it is too long. */
static struct slice resolve(struct call *c, struct slice location) {
    const struct target *t = &c->request.target;
    struct slice scheme = t->scheme.n ? t->scheme : SLICE("http"), path = t->path;
    struct slice host = headers_get_id(&c->request.headers, HEADER_HOST), rest = location, head;
    if (location.n > 8192 || path.n > 65536) return slice_make(NULL, 0);
    head = slice_cut(&rest, ':');
    if (rest.p && !memchr(head.p, '/', head.n) && !memchr(head.p, '?', head.n)) return location;
    if (slice_starts_with(location, SLICE("//")))
        return arena_printf(&c->arena, "%.*s:%.*s", FMT(scheme), FMT(location));
    if (!slice_starts_with(location, SLICE("/")) && !slice_starts_with(location, SLICE("?")))
        while (path.n && path.p[path.n - 1] != '/') path.n--;
    if (slice_starts_with(location, SLICE("/"))) path.n = 0;
    return arena_printf(&c->arena, "%.*s://%.*s%.*s%.*s", FMT(scheme), FMT(host), FMT(path), FMT(location));
}

static void leave_credentials(struct headers *headers) {
    headers_remove_id(headers, HEADER_AUTHORIZATION);
    headers_remove_id(headers, HEADER_PROXY_AUTHORIZATION);
    headers_remove_id(headers, HEADER_COOKIE);
}

/* From now on a GET without content; a HEAD stays one. */
static void leave_body(struct call *c) {
    struct request *r = &c->request;
    if (r->method != METHOD_HEAD) {
        r->method = METHOD_GET;
        r->method_name = SLICE("GET");
    }
    r->framing = (struct framing){ .kind = FRAMING_NONE };
    c->request_body = NULL;
    headers_remove_id(&r->headers, HEADER_CONTENT_TYPE);
    headers_remove_id(&r->headers, HEADER_CONTENT_ENCODING);
    headers_remove(&r->headers, SLICE("Content-Language"));
    headers_remove(&r->headers, SLICE("Content-Location"));
}

/* The same string once more. */
static void repeat_body(struct call *c) {
    if (!c->request_body) return;
    void (*on_room)(struct pipe *) = c->own_body.on_room;
    pipe_fini(&c->own_body);
    pipe_init(&c->own_body, on_room, NULL);
    struct buffer again = { 0 };
    buffer_share(&again, &c->kept_body);
    pipe_write(&c->own_body, &again, again.size);
    pipe_end(&c->own_body, NULL);
}

static bool same_origin(const struct call *c, const struct target *to, struct slice authority) {
    struct slice scheme = c->request.target.scheme.n ? c->request.target.scheme : SLICE("http");
    return slice_equal(scheme, to->scheme) &&
           slice_equal_nocase(headers_get_id(&c->request.headers, HEADER_HOST), authority);
}

/* Whether one may go there at all: not from a safe scheme to one that is not. */
static bool may_go(const struct call *c, const struct target *to) {
    return slice_equal(to->scheme, SLICE("https")) || !slice_equal(c->request.target.scheme, SLICE("https"));
}

/* A name was said of the host that the script named, not of others. */
static struct backend *find_backend(struct call *c, const struct target *to) {
    bool https = slice_equal(to->scheme, SLICE("https")), same_host = slice_equal(to->host, c->request.target.host);
    struct slice none = { NULL, 0 };
    struct ad_hoc_way way = { .url = to,
                              .trust = https ? c->trust : NULL,
                              .name = https && same_host ? c->tls_name : none };
    enum failure why;
    return ad_hoc_backend(c->worker, &way, &why);
}

bool call_redirected(struct call *c) {
    const struct response *r = &c->fetch->response;
    const struct header *location = headers_find_id(&r->headers, HEADER_LOCATION);
    struct target to;
    if (!is_redirect(r->status) || !location || !location->value.n || headers_next(&r->headers, location)) return false;
    bool get = becomes_get(c, r->status);
    if (!get && !can_repeat_body(c)) return false;
    struct slice url = resolve(c, location->value);
    if (!url.p || !url_parse(&c->arena, arena_copy(&c->arena, url), &to) || !may_go(c, &to)) return false;
    to.path = path_normalise(&c->arena, to.path);
    if (!to.path.p) return false;
    struct slice authority = authority_write(&c->arena, &to);
    bool same = same_origin(c, &to, authority);
    struct backend *backend = same ? c->backend : find_backend(c, &to);
    if (!backend) return false;
    c->redirects--;
    c->backend = backend;
    c->request.target = to;
    c->target = target_write(&c->arena, &to);
    headers_set_id(&c->request.headers, HEADER_HOST, authority);
    if (!same) leave_credentials(&c->request.headers);
    if (get) leave_body(c);
    else repeat_body(c);
    return true;
}
