/* Sockets of scripts. Connecting is a walk: name, addresses, one conn after the other in the same place, each with its
 * share of the time that is left, so that an address that swallows what is sent to it leaves some to the next one.
 *
 * TLS begins under the same roof, in place of the plain conn or on top of one that is open: on_connected comes after
 * its handshake. try_next is the one place where it is decided which address is connected to.
 *
 * Pools are found by a key that the caller makes of all in which two conns may differ. The newest is taken first, so
 * that the oldest expire. An idle conn that speaks, ends or breaks is closed at once: whatever it said, nobody asked.
 *
 * What a script wrote before it closed its socket must arrive, as it would from a kernel's buffer; so a conn whose
 * bytes the kernel did not take lingers (conn.h has the bounds), counted but nobody's. */
#include "net/socket.h"

#include "base/must.h"

#include <stdlib.h>

enum { HELD_MOST = 256 << 20 }; /* of a worker */

struct socket_pool {
    struct list idle; /* the newest first */
    unsigned count;
};

/* ---- ends */

static void socket_bury(struct grave *g) {
    struct socket *s = container_of(g, struct socket, grave);
    tls_trust_unref(s->trust);
    free(s->addrs);
    free(s->name);
    free(s->key);
    free(s);
}

static void leave_pool(struct socket *s) {
    if (s->state != SOCKET_IDLE) return;
    struct sockets *set = s->set;
    struct socket_pool *pool = map_get(&set->pools, slice_of(s->key));
    list_remove(&s->in_pool);
    list_remove(&s->by_age);
    set->idle_count--;
    if (--pool->count > 0) return;
    map_remove(&set->pools, slice_of(s->key));
    free(pool);
}

static void withdraw(struct socket *s) {
    if (s->question) question_withdraw(s->question);
    s->question = NULL;
}

static void end_socket(struct socket *s) {
    withdraw(s);
    leave_pool(s);
    s->on_news = NULL;
    s->set->held -= s->held;
    s->set->count--;
    list_remove(&s->node);
    conn_close(&s->conn);
    loop_bury(s->set->loop, &s->grave);
}

void socket_close(struct socket *s) {
    if (!s) return;
    s->on_news = NULL;
    if (s->state == SOCKET_OPEN) conn_flush(&s->conn);
    if (s->state != SOCKET_OPEN || s->conn.out.size == 0) {
        end_socket(s);
        return;
    }
    withdraw(s);
    s->state = SOCKET_CLOSING;
    conn_linger(&s->conn);
}

static void tell(struct socket *s) {
    if (s->on_news) s->on_news(s);
}

/* ---- connecting */

static const struct conn_handlers handlers;

static void fail_connect(struct socket *s, enum failure why) {
    conn_close(&s->conn);
    s->state = SOCKET_NEW;
    s->egress = NULL;
    s->why = why;
    tell(s);
}

static bool has_family(const struct socket *s, const struct addr *a) {
    return s->family == AF_UNSPEC || a->u.sa.sa_family == s->family;
}

static void begin_tls(struct socket *s) {
    struct slice name = slice_of(s->name);
    if (slice_starts_with(name, SLICE("unix:"))) name = slice_make("", 0);
    if (s->set->loop->stage) conn_tls_pretend(&s->conn);
    else conn_tls_connect(&s->conn, s->trust, name, TLS_ALPN_NONE);
}

static bool may_try(struct socket *s, const struct addr *a) {
    if (!has_family(s, a)) return false;
    bool allowed = egress_allows(s->egress, a);
    if (!allowed && s->why == FAIL_NONE) s->why = FAIL_DESTINATION_REFUSED;
    return allowed;
}

static void try_next(struct socket *s) {
    double now = loop_now(s->set->loop);
    while (s->next < s->count && !may_try(s, &s->addrs[s->next])) s->next++;
    if (s->next == s->count) {
        fail_connect(s, s->why == FAIL_NONE ? FAIL_NAME_NOT_FOUND : s->why);
        return;
    }
    struct addr *to = &s->addrs[s->next++];
    if (to->u.sa.sa_family != AF_UNIX) addr_set_port(to, s->port);
    conn_close(&s->conn);
    s->state = SOCKET_CONNECTING;
    s->peer = *to;
    conn_connect(&s->conn, s->set->loop, to, &handlers);
    if (s->trust) begin_tls(s);
    if (s->patience > 0) {
        double share = (s->patience - now) / (s->count - s->next + 1);
        conn_deadline(&s->conn, share > 0.001 ? share : 0.001);
    }
}

static void set_addrs(struct socket *s, const struct addr *addrs, unsigned count) {
    free(s->addrs);
    s->addrs = must_calloc(count, sizeof *s->addrs);
    memcpy(s->addrs, addrs, count * sizeof *addrs);
    s->count = count;
    s->next = 0;
}

static void socket_on_answer(struct question *q) {
    struct socket *s = q->with;
    s->question = NULL;
    if (q->count == 0) {
        fail_connect(s, q->why);
        return;
    }
    set_addrs(s, q->addrs, q->count);
    try_next(s);
}

static void set_trust(struct socket *s, struct tls_trust *trust, struct slice name) {
    tls_trust_unref(s->trust);
    s->trust = tls_trust_ref(trust);
    if (!name.p) return;
    free(s->name);
    s->name = must_strndup(name.p, name.n);
}

void socket_connect(struct socket *s, struct resolver *resolver, const struct socket_target *to) {
    struct addr addr = { 0 };
    must(s->state == SOCKET_NEW);
    s->why = FAIL_NONE;
    s->reason = NULL;
    s->port = to->port;
    s->family = to->family;
    s->egress = to->egress;
    s->patience = to->seconds > 0 ? loop_now(s->set->loop) + to->seconds : 0;
    set_trust(s, to->trust, to->name.p ? to->name : to->host);
    if (addr_from_ip(&addr, to->host, to->port) ||
        (slice_starts_with(to->host, SLICE("unix:")) && addr_parse(&addr, to->host))) {
        set_addrs(s, &addr, 1);
        try_next(s);
        return;
    }
    s->state = SOCKET_RESOLVING;
    s->question = question_create(to->host, s->set->mailbox, socket_on_answer);
    s->question->with = s;
    resolver_ask(resolver, s->question);
}

void socket_secure(struct socket *s, struct tls_trust *trust, struct slice name) {
    set_trust(s, trust, name);
    s->why = FAIL_NONE;
    s->reason = NULL;
    s->count = s->next = 0; /* no other address */
    s->state = SOCKET_CONNECTING;
    begin_tls(s);
}

void socket_stop_connecting(struct socket *s) {
    if (s->state != SOCKET_RESOLVING && s->state != SOCKET_CONNECTING) return;
    withdraw(s);
    conn_close(&s->conn);
    s->state = SOCKET_NEW;
    s->why = FAIL_TIMEOUT;
}

/* ---- events */

static struct socket *of_conn(struct conn *c) { return container_of(c, struct socket, conn); }

static void on_bytes(struct conn *c) {
    struct socket *s = of_conn(c);
    if (s->state == SOCKET_IDLE) end_socket(s);
    else tell(s);
}

static void on_broken(struct conn *c, enum failure why) {
    struct socket *s = of_conn(c);
    switch (s->state) {
    case SOCKET_IDLE:
    case SOCKET_CLOSING: end_socket(s); return;
    case SOCKET_CONNECTING:
        s->why = why;
        s->reason = conn_tls_reason(c);
        try_next(s);
        return;
    default:
        s->state = SOCKET_BROKEN;
        s->why = why;
        tell(s);
    }
}

static void on_connected(struct conn *c) {
    struct socket *s = of_conn(c);
    conn_deadline(c, 0);
    s->state = SOCKET_OPEN;
    s->why = FAIL_NONE;
    free(s->addrs);
    s->addrs = NULL;
    s->egress = NULL;
    tell(s);
}

static void on_room(struct conn *c) { tell(of_conn(c)); }

static void on_deadline(struct conn *c) {
    struct socket *s = of_conn(c);
    if (s->state == SOCKET_CONNECTING) on_broken(c, FAIL_CONNECT_TIMEOUT);
    else if (s->state == SOCKET_IDLE) end_socket(s);
}

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_bytes,
    .on_broken = on_broken,
    .on_connected = on_connected,
    .on_room = on_room,
    .on_flushed = on_room,
    .on_deadline = on_deadline,
};

/* ---- for the owner */

/* An idle one makes room for a new one. */
static bool make_room(struct sockets *set) {
    if (set->count < SOCKETS_MOST) return true;
    if (list_empty(&set->idle)) return false;
    end_socket(container_of(set->idle.next, struct socket, by_age));
    return true;
}

struct socket *socket_create(struct sockets *set) {
    if (!make_room(set)) return NULL;
    struct socket *s = must_calloc(1, sizeof *s);
    s->set = set;
    list_init(&s->by_age);
    list_init(&s->in_pool);
    list_init(&s->node);
    list_push(&set->all, &s->node);
    set->count++;
    grave_init(&s->grave, socket_bury);
    return s;
}

bool socket_hold(struct socket *s, size_t bytes) {
    struct sockets *set = s->set;
    size_t more = bytes > CONN_IN_LIMIT ? bytes - CONN_IN_LIMIT : 0;
    if (bytes > SOCKET_HOLD_MOST || set->held - s->held + more > HELD_MOST) return false;
    set->held += more - s->held;
    s->held = more;
    s->conn.in_limit = (uint32_t)(CONN_IN_LIMIT + more);
    conn_consumed(&s->conn);
    return true;
}

bool socket_at_end(const struct socket *s) { return s->state != SOCKET_OPEN || s->conn.ended; }

/* ---- pools */

struct socket *socket_reuse(struct sockets *set, struct slice key, const struct egress *egress) {
    struct socket_pool *pool;
    while ((pool = map_get(&set->pools, key))) {
        struct socket *s = container_of(pool->idle.next, struct socket, in_pool);
        if (!conn_reusable(&s->conn) || !egress_allows(egress, &s->peer)) {
            end_socket(s);
            continue;
        }
        leave_pool(s);
        s->state = SOCKET_OPEN;
        s->reused++;
        conn_deadline(&s->conn, 0);
        return s;
    }
    return NULL;
}

static struct socket_pool *find_pool(struct sockets *set, const char *key) {
    struct socket_pool *pool = map_get(&set->pools, slice_of(key));
    if (pool) return pool;
    pool = must_calloc(1, sizeof *pool);
    list_init(&pool->idle);
    map_set(&set->pools, slice_of(key), pool);
    return pool;
}

bool socket_keep(struct socket *s, double seconds, unsigned most) {
    struct sockets *set = s->set;
    conn_flush(&s->conn);
    if (s->state != SOCKET_OPEN || !s->key || most == 0 || !conn_reusable(&s->conn)) return false;
    struct socket_pool *pool = find_pool(set, s->key);
    s->on_news = NULL;
    socket_hold(s, 0);
    s->state = SOCKET_IDLE;
    list_push_front(&pool->idle, &s->in_pool);
    list_push(&set->idle, &s->by_age);
    pool->count++;
    set->idle_count++;
    conn_deadline(&s->conn, seconds);
    if (pool->count > most) end_socket(container_of(pool->idle.prev, struct socket, in_pool));
    if (set->idle_count > SOCKETS_IDLE_MOST) end_socket(container_of(set->idle.next, struct socket, by_age));
    return true;
}

/* ---- the set */

void sockets_init(struct sockets *set, struct loop *loop, struct mailbox *mailbox) {
    *set = (struct sockets){ .loop = loop, .mailbox = mailbox };
    list_init(&set->all);
    list_init(&set->idle);
}

void sockets_drop_idle(struct sockets *set) {
    list_each_safe(node, &set->all) {
        struct socket *s = container_of(node, struct socket, node);
        if (s->state == SOCKET_IDLE || s->state == SOCKET_CLOSING) end_socket(s);
    }
}

void sockets_fini(struct sockets *set) {
    sockets_drop_idle(set);
    must(set->count == 0);
    map_fini(&set->pools);
}
