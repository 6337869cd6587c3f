/* The believed client is the rightmost address in X-Forwarded-For (or Forwarded's for=) that is not itself one of
 * `trusted_proxies`: everything left of it could have been written by that client. A proxy that speaks the one passes
 * on what a client says in the other: where there is X-Forwarded-For, Forwarded is not asked.
 *
 * Nor does it go on: some backends would believe it first. What the proxy said in the one field is said in the other, too
 * (RFC 7239 7.4), so that both tell of the same hops, and whichever a backend reads it finds the client. What older
 * fields cannot tell of each hop (host, proto, by) is lost then. */
#include "proxy/forwarded.h"

static bool is_trusted(const struct site *site, const struct addr *addr) {
    return cidr_match(site->trusted, site->trusted_count, addr);
}

/* One hop as X-Forwarded-For or for= writes it: an address, perhaps quoted, bracketed, with a port. */
static bool parse_hop(struct slice text, struct addr *addr) {
    if (text.n >= 2 && text.p[0] == '"' && text.p[text.n - 1] == '"') text = slice_make(text.p + 1, text.n - 2);
    struct slice host;
    uint16_t port;
    if (addr_from_ip(addr, text, 0)) return true;
    if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
        return addr_from_ip(addr, slice_make(text.p + 1, text.n - 2), 0);
    return addr_split(text, &host, &port) && addr_from_ip(addr, host, 0);
}

/* The value of `name` in one Forwarded element, p NULL if it has none. */
static struct slice forwarded_parameter(struct slice element, struct slice name) {
    while (element.p) {
        struct slice pair = slice_trim(slice_cut(&element, ';'));
        struct slice value = pair, key = slice_trim(slice_cut(&value, '='));
        if (value.p && slice_equal_nocase(key, name)) return slice_trim(value);
    }
    return slice_make(NULL, 0);
}

static bool speaks_forwarded(const struct headers *headers) {
    return !headers_find_id(headers, HEADER_X_FORWARDED_FOR);
}

enum { HOPS_MAX = 32 };

/* The hops in the order they were written, at most HOPS_MAX of them: the last ones. */
static unsigned collect_hops(const struct headers *headers, struct slice hops[HOPS_MAX]) {
    bool forwarded = speaks_forwarded(headers);
    struct slice rest = headers_joined_id(headers, forwarded ? HEADER_FORWARDED : HEADER_X_FORWARDED_FOR), hop;
    unsigned n = 0;
    while (rest.p && header_list_next(&rest, &hop)) {
        if (n == HOPS_MAX) memmove(hops, hops + 1, --n * sizeof *hops);
        hops[n++] = forwarded ? forwarded_parameter(hop, SLICE("for")) : hop;
    }
    return n;
}

/* How many hops from the right are believed: the last of them is the client. */
static unsigned believe_hops(struct exchange *x) {
    struct slice hops[HOPS_MAX];
    unsigned n = collect_hops(&x->request.headers, hops), depth = 0;
    while (depth < n) {
        struct addr addr;
        if (!parse_hop(hops[n - 1 - depth], &addr)) return depth;
        depth++;
        x->client_addr = addr;
        if (!is_trusted(x->site, &addr)) return depth;
    }
    return depth;
}

/* The member `depth` from the right (1: the last); the first one of a shorter list, which was replaced on the way. */
static struct slice member_from_right(struct slice list, unsigned depth) {
    struct slice rest = list, member = { NULL, 0 };
    unsigned n = 0, skip;
    while (rest.p && header_list_next(&rest, &member)) n++;
    rest = list;
    for (skip = n > depth ? n - depth : 0; n > 0; skip--) {
        header_list_next(&rest, &member);
        if (skip == 0) return member;
    }
    return member;
}

/* What the believed hop says of its own connection: what stands further left, a stranger may have written. */
static struct slice believed_scheme(const struct exchange *x, unsigned depth) {
    struct slice list = headers_joined_id(&x->request.headers, HEADER_X_FORWARDED_PROTO);
    struct slice scheme = list.p ? member_from_right(list, depth) : slice_make(NULL, 0);
    if (!list.p && speaks_forwarded(&x->request.headers)) {
        list = headers_joined_id(&x->request.headers, HEADER_FORWARDED);
        if (list.p) scheme = forwarded_parameter(member_from_right(list, depth), SLICE("proto"));
    }
    if (slice_equal_nocase(scheme, SLICE("https"))) return SLICE("https");
    if (slice_equal_nocase(scheme, SLICE("http"))) return SLICE("http");
    return client_scheme(x->stream->client);
}

/* One walk for the four: nearly every request comes here, with none of them. What doubles them goes when we set
 * them. */
static void remove_claims(struct headers *headers) {
    headers_each(h, headers) {
        h->removed = h->id == HEADER_FORWARDED || h->id == HEADER_X_FORWARDED_FOR || h->id == HEADER_X_FORWARDED_HOST ||
                     h->id == HEADER_X_FORWARDED_PROTO;
    }
}

/* ---- the hops, told in both fields */

/* An IPv6 address stands in brackets and quotes (RFC 7239 6). */
static struct slice write_for(struct arena *arena, struct slice node) {
    bool v6 = node.n && memchr(node.p, ':', node.n);
    const struct slice parts[] = { SLICE("for="), v6 ? SLICE("\"[") : SLICE(""), node, v6 ? SLICE("]\"") : SLICE("") };
    return arena_concat(arena, parts, sizeof parts / sizeof *parts);
}

/* Its address, or that it is not known. */
static struct slice name_hop(struct arena *arena, struct slice hop) {
    char text[ADDR_TEXT];
    struct addr addr;
    return parse_hop(hop, &addr) ? arena_copy(arena, addr_ip_text(&addr, text)) : SLICE("unknown");
}

/* Sets the field that the proxy does not speak. */
static void translate_hops(struct exchange *x) {
    struct slice hops[HOPS_MAX], parts[2 * HOPS_MAX];
    struct headers *headers = &x->request.headers;
    bool forwarded = speaks_forwarded(headers);
    enum header_id other = forwarded ? HEADER_X_FORWARDED_FOR : HEADER_FORWARDED;
    unsigned n = collect_hops(headers, hops), count = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!hops[i].p) continue;
        struct slice node = name_hop(&x->arena, hops[i]);
        parts[count] = count ? SLICE(", ") : SLICE("");
        parts[count + 1] = forwarded ? node : write_for(&x->arena, node);
        count += 2;
    }
    if (count) headers_set_id(headers, other, arena_concat(&x->arena, parts, count));
    else headers_remove_id(headers, other);
}

/* What is added behind a quoted string that does not end would be read as a part of it. */
static bool is_closed(struct slice list) {
    bool quoted = false;
    for (size_t i = 0; i < list.n; i++) {
        if (quoted && list.p[i] == '\\') i++;
        else if (list.p[i] == '"') quoted = !quoted;
    }
    return !quoted;
}

void forwarded_receive(struct exchange *x) {
    x->client_addr = x->stream->client->addr;
    x->forwarded_scheme = client_scheme(x->stream->client); /* whatever an absolute target claims */
    x->client_trusted = x->site->trusted_count > 0 && is_trusted(x->site, &x->stream->client->addr);
    if (!x->client_trusted) {
        remove_claims(&x->request.headers);
        return;
    }
    if (!is_closed(headers_joined_id(&x->request.headers, HEADER_FORWARDED)))
        headers_remove_id(&x->request.headers, HEADER_FORWARDED);
    unsigned depth = believe_hops(x);
    x->forwarded_scheme = believed_scheme(x, depth ? depth : 1);
    if (x->forward) remove_claims(&x->request.headers); /* believed, but no affair of targets */
    else translate_hops(x);
}

/* Appends to a list field, or adds it. */
static void append_to_list(struct headers *headers, struct arena *arena, enum header_id id, struct slice value) {
    struct slice old = headers_joined_id(headers, id);
    if (old.p) headers_set_id(headers, id, arena_concat(arena, (struct slice[]){ old, SLICE(", "), value }, 3));
    else headers_add_id(headers, id, value);
    headers_remove_doubles(headers, header_name_of(id));
}

/* One element of Forwarded. */
static struct slice forwarded_element(struct exchange *x, struct slice ip, struct slice host) {
    bool unix_socket = x->stream->client->addr.u.sa.sa_family == AF_UNIX;
    const struct slice parts[] = {
        write_for(&x->arena, unix_socket ? SLICE("_unix") : ip),
        host.n ? SLICE(";host=\"") : SLICE(""),
        host,
        host.n ? SLICE("\"") : SLICE(""),
        SLICE(";proto="),
        x->forwarded_scheme,
    };
    return arena_concat(&x->arena, parts, sizeof parts / sizeof *parts);
}

void forwarded_send(struct exchange *x) {
    char text[ADDR_TEXT];
    struct headers *headers = &x->request.headers;
    struct slice ip = arena_copy(&x->arena, addr_ip_text(&x->stream->client->addr, text));
    append_to_list(headers, &x->arena, HEADER_FORWARDED, forwarded_element(x, ip, x->received_host));
    append_to_list(headers, &x->arena, HEADER_X_FORWARDED_FOR, ip);
    headers_set_id(headers, HEADER_X_FORWARDED_PROTO, x->forwarded_scheme);
    if (x->received_host.n && !headers_find_id(headers, HEADER_X_FORWARDED_HOST))
        headers_add_id(headers, HEADER_X_FORWARDED_HOST, x->received_host);
    headers_remove_doubles(headers, header_name_of(HEADER_X_FORWARDED_HOST));
}
