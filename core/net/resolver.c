/* Names to addresses: c-ares does the asking, libev tells it when, and this file keeps what it found.
 *
 * All of it happens in the keeper's thread, whose channel it is. A question travels there as a letter and comes back as
 * one, so nothing here is locked; `withdrawn` is set and read by the asker's thread only. Questions for a name that is
 * being asked for wait with the first one. An answer is kept for its TTL, bounded at both ends: a TTL of 0 would ask
 * for every connection, one of a week would survive every move. Failures are kept for a second, so that a dead name
 * server is not asked a thousand times a second.
 *
 * Addresses are asked for by getaddrinfo's rules (/etc/hosts, search domains), records of other kinds by their exact
 * name; both are kept alike.
 *
 * c-ares sorts by RFC 6724 if it is let: that opens a socket per address and shuffles with the routes. We sort by
 * value, for balancers want a list that stays the same.
 *
 * c-ares 1.18 reads resolv.conf once in a channel's life. So the file's time is looked at now and then, while
 * nothing is under way, and the channel made anew when it has changed. */
#include "net/resolver.h"

#include "base/log.h"
#include "base/map.h"
#include "base/must.h"
#include "net/stage.h"

#include <ares.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { ADDRS_MOST = 16, ENTRIES_MOST = 4096, KEY_SIZE = 264, CLASS_IN = 1 };
static const double TTL_LEAST = 1, TTL_MOST = 3600, TTL_FAILED = 1, LOOK_EVERY = 5;
static const char RESOLV_CONF[] = "/etc/resolv.conf";

/* What is known of a name, or is being found out. */
struct entry {
    struct list by_age; /* in resolver->by_age, the latest asked for last */
    struct resolver *resolver;
    struct question *first, *last; /* who waits */
    bool asking;
    enum failure why;
    unsigned count;
    struct addr *addrs;
    struct records *records;
    double until; /* loop time */
    enum record_kind kind;
    char name[];
};

/* A socket of c-ares. */
struct watch {
    ev_io io;
    struct list node;
    struct resolver *resolver;
};

struct resolver {
    struct mailbox *keeper;
    struct loop *loop;
    ares_channel channel; /* NULL: could not be made */
    char *nameserver;
    struct map entries;
    struct list by_age, watches;
    ev_timer timer;
    unsigned asking; /* names under way */
    struct timespec conf_time;
    double looked;
    atomic_uint posted; /* questions on their way here */
    bool dead;
};

/* ---- c-ares and the loop */

static void arm_timer(struct resolver *r) {
    ev_timer *timer = &r->timer;
    struct timeval left;
    ev_timer_stop(r->loop->ev, timer);
    if (!r->channel || !ares_timeout(r->channel, NULL, &left)) return;
    ev_timer_set(timer, (double)left.tv_sec + (double)left.tv_usec / 1e6, 0.);
    ev_timer_start(r->loop->ev, timer);
}

static void resolver_on_timer(struct ev_loop *ev, ev_timer *timer, int events) {
    struct resolver *r = container_of(timer, struct resolver, timer);
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(r);
}

/* The watch may be freed by what it calls. */
static void watch_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct resolver *r = container_of(io, struct watch, io)->resolver;
    int fd = io->fd;
    ares_process_fd(r->channel, events & EV_READ ? fd : ARES_SOCKET_BAD, events & EV_WRITE ? fd : ARES_SOCKET_BAD);
    arm_timer(r);
}

static struct watch *find_watch(struct resolver *r, int fd) {
    list_each(node, &r->watches) {
        struct watch *w = container_of(node, struct watch, node);
        if (w->io.fd == fd) return w;
    }
    return NULL;
}

static struct watch *make_watch(struct resolver *r, int fd) {
    struct watch *w = must_calloc(1, sizeof *w);
    w->resolver = r;
    list_push(&r->watches, &w->node);
    ev_io *io = &w->io;
    ev_io_init(io, watch_on_io, fd, 0);
    return w;
}

/* c-ares says what it waits for on a socket; for nothing: the socket is about to be closed. */
static void resolver_on_socket(void *with, ares_socket_t fd, int readable, int writable) {
    struct resolver *r = with;
    struct watch *w = find_watch(r, fd);
    if (!w && (readable || writable)) w = make_watch(r, fd);
    if (!w) return;
    ev_io *io = &w->io;
    ev_io_stop(r->loop->ev, io);
    if (readable || writable) {
        ev_io_set(io, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
        ev_io_start(r->loop->ev, io);
        return;
    }
    list_remove(&w->node);
    free(w);
}

static void open_channel(struct resolver *r) {
    /* A server given by hand stands near by. The system's has as long as a backend's connect may take. */
    struct ares_options o = { .timeout = r->nameserver ? 300 : 1500, .tries = r->nameserver ? 2 : 3 };
    o.sock_state_cb = resolver_on_socket;
    o.sock_state_cb_data = r;
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    if (r->nameserver) mask |= ARES_OPT_DOMAINS; /* none */
    int status = ares_init_options(&r->channel, &o, mask);
    if (status == ARES_SUCCESS && r->nameserver) status = ares_set_servers_ports_csv(r->channel, r->nameserver);
    if (status == ARES_SUCCESS) return;
    log_error("cannot resolve names: %s", ares_strerror(status));
    if (r->channel) ares_destroy(r->channel);
    r->channel = NULL;
}

static void close_channel(struct resolver *r) {
    if (r->channel) ares_destroy(r->channel); /* answers who waits, closes its sockets */
    r->channel = NULL;
}

/* Has resolv.conf changed since the channel was made? */
static bool has_new_conf(struct resolver *r) {
    struct stat st;
    if (stat(RESOLV_CONF, &st) != 0) return false;
    struct timespec before = r->conf_time;
    r->conf_time = st.st_mtim;
    return before.tv_sec != st.st_mtim.tv_sec || before.tv_nsec != st.st_mtim.tv_nsec;
}

static void refresh_channel(struct resolver *r) {
    if (r->nameserver || r->asking || loop_now(r->loop) - r->looked < LOOK_EVERY) return;
    r->looked = loop_now(r->loop);
    if (!has_new_conf(r)) return;
    close_channel(r);
    open_channel(r);
}

/* ---- answers */

static void free_question(struct question *q) {
    records_unref(q->records);
    free(q);
}

static void question_on_return(struct letter *letter, struct loop *loop) {
    struct question *q = container_of(letter, struct question, letter);
    if (!q->withdrawn) q->on_answer(q);
    free_question(q);
}

static void send_back(struct question *q) {
    q->letter.deliver = question_on_return;
    if (!mailbox_post(q->asker, &q->letter)) free_question(q);
}

static void refuse(struct question *q, enum failure why) {
    q->why = why;
    q->count = 0;
    q->ttl = TTL_FAILED;
    send_back(q);
}

static void answer(const struct entry *e, struct question *q) {
    q->why = e->why;
    q->count = e->count;
    if (e->addrs) memcpy(q->addrs, e->addrs, e->count * sizeof *e->addrs);
    if (e->records) q->records = records_ref(e->records);
    q->ttl = e->until - loop_now(e->resolver->loop);
    send_back(q);
}

static void answer_all(struct entry *e) {
    struct question *q = e->first;
    e->first = e->last = NULL;
    while (q) {
        struct question *next = q->next;
        answer(e, q);
        q = next;
    }
}

static int compare_addrs(const void *a, const void *b) {
    const struct addr *x = a, *y = b;
    int families = (x->u.sa.sa_family == AF_INET6) - (y->u.sa.sa_family == AF_INET6);
    if (families) return families;
    if (x->u.sa.sa_family == AF_INET) return memcmp(&x->u.in.sin_addr, &y->u.in.sin_addr, sizeof x->u.in.sin_addr);
    return memcmp(&x->u.in6.sin6_addr, &y->u.in6.sin6_addr, sizeof x->u.in6.sin6_addr);
}

static bool take_addr(struct addr *a, const struct ares_addrinfo_node *node) {
    memset(a, 0, sizeof *a);
    if (node->ai_family != AF_INET && node->ai_family != AF_INET6) return false;
    a->size = node->ai_family == AF_INET ? sizeof a->u.in : sizeof a->u.in6;
    memcpy(&a->u, node->ai_addr, a->size);
    addr_set_port(a, 0);
    return true;
}

static bool has_addr(const struct entry *e, const struct addr *a) {
    for (unsigned i = 0; i < e->count; i++)
        if (addr_equal(&e->addrs[i], a)) return true;
    return false;
}

/* Takes the addresses over; returns the time they hold, bounded. */
static double take_addrs(struct entry *e, const struct ares_addrinfo *found) {
    double ttl = TTL_MOST;
    e->addrs = must_calloc(ADDRS_MOST, sizeof *e->addrs);
    for (const struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next) {
        if (node->ai_ttl < ttl) ttl = node->ai_ttl;
        struct addr a;
        if (e->count < ADDRS_MOST && take_addr(&a, node) && !has_addr(e, &a)) e->addrs[e->count++] = a;
    }
    for (const struct ares_addrinfo_cname *alias = found->cnames; alias; alias = alias->next)
        if (alias->ttl < ttl) ttl = alias->ttl;
    qsort(e->addrs, e->count, sizeof *e->addrs, compare_addrs);
    return ttl < TTL_LEAST ? TTL_LEAST : ttl;
}

static enum failure name_status(int status) {
    switch (status) {
    case ARES_SUCCESS: return FAIL_NONE;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_ENONAME:
    case ARES_EBADNAME: return FAIL_NAME_NOT_FOUND;
    default: return FAIL_NAME_FAILED;
    }
}

static void forget(struct entry *e) {
    free(e->addrs);
    records_unref(e->records);
    e->addrs = NULL;
    e->records = NULL;
    e->count = 0;
}

/* What there is to know is known, for `ttl` seconds if it is not a failure. */
static void settle_entry(struct entry *e, double ttl) {
    struct resolver *r = e->resolver;
    e->asking = false;
    r->asking--;
    if (e->count == 0 && e->why == FAIL_NONE) e->why = FAIL_NAME_NOT_FOUND;
    e->until = loop_now(r->loop) + (e->why == FAIL_NONE ? ttl : TTL_FAILED);
    answer_all(e);
}

static void entry_on_found(void *with, int status, int timeouts, struct ares_addrinfo *found) {
    struct entry *e = with;
    forget(e);
    e->why = name_status(status);
    double ttl = e->why == FAIL_NONE && found ? take_addrs(e, found) : TTL_FAILED;
    if (found) ares_freeaddrinfo(found);
    settle_entry(e, ttl);
}

static void entry_on_records(void *with, int status, int timeouts, unsigned char *message, int size) {
    struct entry *e = with;
    forget(e);
    e->why = name_status(status);
    if (e->why != FAIL_NONE) {
        settle_entry(e, TTL_FAILED);
        return;
    }
    e->records = dns_answer_read(message, (size_t)size, e->kind);
    if (!e->records) e->why = FAIL_NAME_FAILED;
    else e->count = e->records->count;
    double ttl = e->count ? e->records->ttl : TTL_FAILED;
    settle_entry(e, ttl < TTL_LEAST ? TTL_LEAST : ttl > TTL_MOST ? TTL_MOST : ttl);
}

/* ---- the entries */

static void free_entry(struct entry *e) {
    list_remove(&e->by_age);
    forget(e);
    free(e);
}

/* Addresses are found by their name, other records by "33 name", which no name looks like. */
static struct slice entry_key(char to[KEY_SIZE], const char *name, enum record_kind kind) {
    int n = kind == RECORD_ADDRESS ? snprintf(to, KEY_SIZE, "%s", name)
                                   : snprintf(to, KEY_SIZE, "%d %s", record_type(kind), name);
    return slice_make(to, (size_t)n);
}

/* Names can come from strangers (ad hoc backends): the oldest goes when there are too many. */
static void make_room(struct resolver *r) {
    if (r->entries.count < ENTRIES_MOST) return;
    char key[KEY_SIZE];
    list_each_safe(node, &r->by_age) {
        struct entry *e = container_of(node, struct entry, by_age);
        if (e->asking) continue;
        map_remove(&r->entries, entry_key(key, e->name, e->kind));
        free_entry(e);
        return;
    }
}

static struct entry *find_entry(struct resolver *r, const char *name, enum record_kind kind) {
    char text[KEY_SIZE];
    struct slice key = entry_key(text, name, kind);
    struct entry *e = map_get(&r->entries, key);
    if (e) return e;
    make_room(r);
    size_t size = strlen(name) + 1;
    e = must_calloc(1, sizeof *e + size);
    memcpy(e->name, name, size);
    e->resolver = r;
    e->kind = kind;
    list_push(&r->by_age, &e->by_age);
    map_set(&r->entries, key, e);
    return e;
}

/* The answer may come inside (from /etc/hosts). */
static void ask_servers(struct resolver *r, struct entry *e) {
    refresh_channel(r);
    list_remove(&e->by_age);
    list_push(&r->by_age, &e->by_age);
    e->asking = true;
    r->asking++;
    if (!r->channel) {
        entry_on_found(e, ARES_ENOTINITIALIZED, 0, NULL);
        return;
    }
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC,
                                         .ai_socktype = SOCK_STREAM,
                                         .ai_flags = ARES_AI_NOSORT };
    if (e->kind == RECORD_ADDRESS) ares_getaddrinfo(r->channel, e->name, NULL, &hints, entry_on_found, e);
    else ares_query(r->channel, e->name, CLASS_IN, record_type(e->kind), entry_on_records, e);
    arm_timer(r);
}

/* ---- questions */

static void free_resolver(struct resolver *r) {
    free(r->nameserver);
    free(r);
}

static void question_on_arrival(struct letter *letter, struct loop *loop) {
    struct question *q = container_of(letter, struct question, letter);
    struct resolver *r = q->resolver;
    unsigned left = atomic_fetch_sub_explicit(&r->posted, 1, memory_order_relaxed) - 1;
    if (r->dead) {
        refuse(q, FAIL_NAME_FAILED);
        if (left == 0) free_resolver(r);
        return;
    }
    struct entry *e = find_entry(r, q->name, q->kind);
    if (!e->asking && e->until > loop_now(r->loop)) {
        answer(e, q);
        return;
    }
    q->next = NULL;
    if (e->last) e->last->next = q;
    else e->first = q;
    e->last = q;
    if (!e->asking) ask_servers(r, e);
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == ':';
}

/* Lower case; empty for what is no name, colons being left for IPv6. */
static void copy_name(char to[256], struct slice name) {
    to[0] = 0;
    if (name.n == 0 || name.n > 255) return;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        to[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
        if (is_name_char(to[i])) continue;
        to[0] = 0;
        return;
    }
    to[name.n] = 0;
}

struct question *question_create(struct slice name, struct mailbox *asker, void (*on_answer)(struct question *)) {
    struct question *q = must_calloc(1, sizeof *q);
    q->asker = asker;
    q->on_answer = on_answer;
    copy_name(q->name, name);
    return q;
}

void question_withdraw(struct question *q) { q->withdrawn = true; }

void resolver_ask(struct resolver *r, struct question *q) {
    if (q->kind == RECORD_ADDRESS && addr_from_ip(&q->addrs[0], slice_of(q->name), 0)) {
        q->why = FAIL_NONE;
        q->count = 1;
        q->ttl = TTL_MOST;
        send_back(q);
        return;
    }
    if (!q->name[0] || strchr(q->name, ':')) {
        refuse(q, FAIL_NAME_NOT_FOUND);
        return;
    }
    struct stage *stage = q->asker->loop->stage;
    if (stage) {
        stage->resolve(stage, q);
        send_back(q);
        return;
    }
    q->resolver = r;
    q->letter.deliver = question_on_arrival;
    atomic_fetch_add_explicit(&r->posted, 1, memory_order_relaxed);
    if (mailbox_post(r->keeper, &q->letter)) return;
    atomic_fetch_sub_explicit(&r->posted, 1, memory_order_relaxed);
    refuse(q, FAIL_NAME_FAILED);
}

/* ---- the resolver */

struct resolver *resolver_create(struct mailbox *keeper, const char *nameserver) {
    struct resolver *r = must_calloc(1, sizeof *r);
    r->keeper = keeper;
    r->loop = keeper->loop;
    r->nameserver = nameserver ? must_strdup(nameserver) : NULL;
    list_init(&r->by_age);
    list_init(&r->watches);
    ev_timer *timer = &r->timer;
    ev_timer_init(timer, resolver_on_timer, 0., 0.);
    ares_library_init(ARES_LIB_INIT_ALL);
    has_new_conf(r);
    r->looked = loop_now(r->loop);
    open_channel(r);
    return r;
}

void resolver_destroy(struct resolver *r) {
    if (!r) return;
    close_channel(r);
    ares_library_cleanup();
    ev_timer_stop(r->loop->ev, &r->timer);
    list_each_safe(node, &r->by_age) free_entry(container_of(node, struct entry, by_age));
    map_fini(&r->entries);
    r->dead = true;
    if (atomic_load_explicit(&r->posted, memory_order_acquire) == 0) free_resolver(r);
}
