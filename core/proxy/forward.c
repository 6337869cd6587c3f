/* Over HTTP/1 the form of the target tells a forward request. HTTP/2 has one form only, whose scheme tells: one that is
 * not how the client speaks to us is for somebody else's server; and to a site without backends of its own everything
 * is.
 *
 * Forward requests get no Forwarded and no X-Forwarded-* (who sits behind a proxy is not the internet's business), only
 * Via, whose pseudonym ends in an id of this process: seen again, the request goes round in circles.
 *
 * A host that ends in a number is an IPv4 address in four decimal parts, or it is refused: for some readers
 * "0177.0.0.1" is 177.0.0.1 and for others 127.0.0.1, and a resolver or a parent may be one of the others.
 *
 * Through a parent, http: URLs are asked for in absolute form, and everything else through a CONNECT that is a step of
 * opening the connection (backend/server_parent.c). The parent resolves names, so only targets that are addresses can
 * be judged here; it has rules of its own. It cannot be one of our listeners. That two proxies are not each other's
 * parents, which Via shows for requests and nothing for a CONNECT, is left to those who configure them. */
#include "proxy/forward.h"

#include "base/clock.h"
#include "http/uri.h"

#include <pthread.h>

enum { HTTP_PORT = 80, HTTPS_PORT = 443 };

/* ---- what comes */

bool forward_names_target(const struct exchange *x, const struct site *forward) {
    const struct request *r = &x->request;
    if (r->method == METHOD_CONNECT || r->target.absolute) return true;
    if (r->version < HTTP_2 || !x->named_scheme.n) return false;
    return forward->backend_count == 0 || !slice_equal(x->named_scheme, client_scheme(x->stream->client));
}

static char pseudonym[] = "moongate-0123456789abcdef";

static void make_pseudonym(void) {
    static const char digits[] = "0123456789abcdef";
    uint64_t id;
    random_bytes(&id, sizeof id);
    for (size_t i = sizeof "moongate-" - 1; pseudonym[i]; i++, id >>= 4) pseudonym[i] = digits[id & 15];
}

static struct slice own_pseudonym(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_pseudonym);
    return slice_of(pseudonym);
}

struct slice forward_via(struct arena *arena, uint8_t version) {
    struct slice name = http_version_name(version);
    struct slice number = slice_skip(name, sizeof "HTTP/" - 1);
    return arena_concat(arena, (struct slice[]){ number, SLICE(" "), own_pseudonym() }, 3);
}

/* An element is a protocol, a name, and perhaps a comment (RFC 9110 7.6.3). */
static bool came_here_before(const struct headers *headers) {
    struct slice rest = headers_joined_id(headers, HEADER_VIA), element;
    while (rest.p && header_list_next(&rest, &element)) {
        slice_cut(&element, ' ');
        if (!element.p) continue;
        struct slice by = slice_trim(element);
        if (slice_equal_nocase(slice_cut(&by, ' '), own_pseudonym())) return true;
    }
    return false;
}

enum failure forward_receive(struct exchange *x) {
    struct target *target = &x->request.target;
    if (x->request.method == METHOD_CONNECT) {
        x->received_host = target->raw;
        return FAIL_NONE; /* nothing but bytes goes on */
    }
    if (x->named_scheme.n) {
        target->scheme = x->named_scheme;
        target->absolute = true;
    }
    bool known = slice_equal(target->scheme, SLICE("http")) || slice_equal(target->scheme, SLICE("https"));
    if (!known) return FAIL_BAD_REQUEST;
    if (!target->host.n) return FAIL_BAD_HOST;
    x->forwarded_scheme = target->scheme;
    return came_here_before(&x->request.headers) ? FAIL_LOOP : FAIL_NONE;
}

/* ---- where it goes */

static uint16_t port_of(const struct target *target) {
    if (target->port) return target->port;
    return slice_equal(target->scheme, SLICE("https")) ? HTTPS_PORT : HTTP_PORT;
}

static bool allows_port(const struct forward *rules, uint16_t port, bool connect) {
    if (!rules->ports) return port == HTTPS_PORT || (port == HTTP_PORT && !connect);
    for (size_t i = 0; i < rules->port_count; i++)
        if (port >= rules->ports[i].low && port <= rules->ports[i].high) return true;
    return false;
}

static bool ends_in_number(struct slice host) {
    if (host.n && host.p[host.n - 1] == '.') host.n--;
    size_t start = host.n;
    while (start && host.p[start - 1] != '.') start--;
    struct slice last = slice_skip(host, start);
    bool hex = last.n >= 2 && last.p[0] == '0' && last.p[1] == 'x', digits = true;
    for (size_t i = 0; i < last.n; i++) digits = digits && last.p[i] >= '0' && last.p[i] <= '9';
    return hex || (last.n && digits);
}

static enum failure check_host(const struct forward *rules, struct slice host) {
    struct addr addr;
    bool brackets = host.n > 2 && host.p[0] == '[';
    if (brackets) host = slice_make(host.p + 1, host.n - 2);
    if (addr_from_ip(&addr, host, 0))
        return egress_allows(&rules->egress, &addr) ? FAIL_NONE : FAIL_DESTINATION_REFUSED;
    return ends_in_number(host) ? FAIL_BAD_HOST : FAIL_NONE;
}

/* The parent as the server of an http: URL. */
static struct target parent_target(const struct parent *parent) {
    struct slice port = slice_of(parent->name), host = { port.p, port.n };
    for (size_t i = 0; i < port.n; i++)
        if (port.p[i] == ':') host.n = i; /* the last one: an IPv6 address stands in brackets */
    return (
        struct target){ .scheme = parent->trust ? SLICE("https") : SLICE("http"), .host = host, .port = parent->port };
}

static struct slice authorization_of(const struct parent *parent) {
    return parent->authorization ? slice_of(parent->authorization) : slice_make(NULL, 0);
}

enum failure forward_choose(struct exchange *x, struct forward_choice *choice) {
    const struct forward *rules = &x->site->forward;
    struct target target = x->request.target;
    bool connect = x->request.method == METHOD_CONNECT, plain = !connect && slice_equal(target.scheme, SLICE("http"));
    enum failure why = FAIL_NONE;
    *choice = (struct forward_choice){ .egress = rules->parent ? NULL : &rules->egress };
    if (!allows_port(rules, port_of(&target), connect)) return FAIL_PORT_REFUSED;
    why = check_host(rules, target.host);
    if (why == FAIL_DESTINATION_REFUSED) worker_count_refused(x->subject.worker);
    if (why != FAIL_NONE) return why;
    struct ad_hoc_way way = { .url = &target, .parent = rules->parent };
    if (connect) target.scheme = SLICE("connect");
    if (plain && rules->parent) {
        choice->target = target_url(&x->arena, &target);
        choice->authorization = authorization_of(rules->parent);
        target = parent_target(rules->parent);
        way.parent = NULL;
    }
    choice->backend = ad_hoc_backend(x->subject.worker, &way, &why);
    return why;
}
