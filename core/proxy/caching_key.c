/* How a request is named in the cache: by its URL, which purges and people name it by, and by its key, which tells
 * apart what must not answer each other. The key is the URL, or what cache_key returned in place of its path and query;
 * a backend that is told of another host may write that into its links, so it is part of the key, too. */
#include "http/uri.h"
#include "proxy/exchange.h"

struct target caching_target(const struct exchange *x) {
    struct target t = x->request.target;
    if (!x->forward) t.scheme = x->forwarded_scheme;
    return t;
}

struct slice caching_url(struct exchange *x) {
    struct target t = caching_target(x);
    return target_url(&x->arena, &t);
}

struct slice caching_origin(struct exchange *x) {
    struct target t = caching_target(x);
    const struct slice parts[] = { t.scheme, SLICE("://"), authority_write(&x->arena, &t) };
    return arena_concat(&x->arena, parts, sizeof parts / sizeof *parts);
}

/* What forwarded_send will say of the host, where that is not the one in the key: backends write it into their
 * links. */
static struct slice other_host(const struct exchange *x, struct slice authority) {
    struct slice host = headers_joined_id(&x->request.headers, HEADER_X_FORWARDED_HOST);
    if (!host.p && x->target_changed) host = x->received_host;
    return x->forward || !host.p || slice_equal_nocase(host, authority) ? slice_make("", 0) : host;
}

struct cache_key caching_key(struct exchange *x) {
    struct target t = caching_target(x);
    bool own = x->cache_key.p != NULL;
    struct slice authority = authority_write(&x->arena, &t), other = other_host(x, authority);
    const struct slice parts[] = {
        t.scheme,
        SLICE("://"),
        authority,
        own ? SLICE("#") : t.path,
        own         ? x->cache_key
        : t.query.p ? SLICE("?")
                    : SLICE(""),
        own || !t.query.p ? SLICE("") : t.query,
        other.n ? SLICE("\n@")
                : SLICE(""), /* none of the others has a line's end but in own parts, whose lengths are told */
        other,
    };
    return cache_key_of(arena_concat(&x->arena, parts, sizeof parts / sizeof *parts));
}
