/* Listening sockets: binding them (the supervisor) and accepting from them (the workers).
 *
 * One SO_REUSEPORT socket per CPU lets the kernel spread connections without a lock and without waking everybody. It
 * also lets any process of the same user bind the same port beside us and silently take a share of the clients; so a
 * probe without the option is bound first, which finds whoever is there.
 *
 * Accepting starts with one connection per event and doubles while the queue keeps up: an accept that only says
 * EAGAIN costs as much as one that brings a client. When descriptors or memory run out there is nothing to accept
 * into, and the socket stays readable, so the ear rests 100 ms instead of spinning; the queue in the kernel holds
 * the clients meanwhile. */
#include "net/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ACCEPT_MOST = 16, QUEUE_LENGTH = 65535 /* the kernel cuts it to net.core.somaxconn */ };
static const double REST_SECONDS = 0.1, COMPLAIN_EVERY = 1;

/* ---- binding */

static bool set_option(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/* A bound socket, not listening; -errno if that fails. Both families are served by [::] only. */
static int bind_socket(const struct addr *a, bool shared) {
    int family = a->u.sa.sa_family, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    bool ok = family == AF_UNIX || set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (ok && shared && family != AF_UNIX) ok = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (ok && family == AF_INET6)
        ok = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr));
    if (ok && bind(fd, &a->u.sa, a->size) == 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

static int listen_on(int fd, const struct addr *a) {
    conn_tune(fd, a); /* accepted sockets inherit it */
    return listen(fd, QUEUE_LENGTH) == 0 ? 0 : errno;
}

/* Is the socket file left over from somebody who died? Only a refusal proves it. */
static bool is_stale(const struct addr *a) {
    struct stat st;
    if (lstat(a->u.un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool refused = connect(fd, &a->u.sa, a->size) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_unix(const struct addr *a, int *fds, unsigned count) {
    int fd = bind_socket(a, true);
    if (fd == -EADDRINUSE && a->u.un.sun_path[0] && is_stale(a)) {
        unlink(a->u.un.sun_path);
        fd = bind_socket(a, true);
    }
    if (fd < 0) return -fd;
    fds[0] = fd;
    int error = listen_on(fd, a);
    unsigned made = 1;
    for (; !error && made < count; made++) {
        fds[made] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (fds[made] < 0) error = errno;
    }
    if (error) {
        while (made--)
            if (fds[made] >= 0) close(fds[made]);
    }
    return error;
}

/* A kernel without IPv6 still has all addresses of one family. */
static void leave_ipv6(struct addr *a) {
    uint16_t port = addr_port(a);
    addr_from_ip(a, SLICE("0.0.0.0"), port);
}

/* Returns 0 or the errno of whoever has the address already. May turn [::] into 0.0.0.0. */
static int probe_address(struct addr *a) {
    int fd = bind_socket(a, false);
    bool no_ipv6 = fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL;
    if (no_ipv6 && a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr)) {
        leave_ipv6(a);
        fd = bind_socket(a, false);
    }
    if (fd < 0) return -fd;
    close(fd);
    return 0;
}

static int bind_inet(const struct addr *wanted, int *fds, unsigned count) {
    struct addr a = *wanted;
    int error = probe_address(&a);
    unsigned made = 0;
    while (!error && made < count) {
        int fd = bind_socket(&a, true);
        if (fd < 0) {
            error = -fd;
            break;
        }
        fds[made++] = fd;
        /* Port 0: the kernel chooses once, and all share it. */
        a.size = sizeof a.u;
        getsockname(fd, &a.u.sa, &a.size);
        error = listen_on(fd, &a);
    }
    if (error)
        while (made--) close(fds[made]);
    return error;
}

int listener_bind(const struct addr *a, int *fds, unsigned count) {
    if (count == 0 || a->size == 0) return EINVAL;
    return a->u.sa.sa_family == AF_UNIX ? bind_unix(a, fds, count) : bind_inet(a, fds, count);
}

/* ---- accepting */

/* The watchers of an ear: they die a turn later than it closes, since on_accept may close it. */
struct watchers {
    struct grave grave;
    ev_io list[];
};

static void watchers_bury(struct grave *g) { free(container_of(g, struct watchers, grave)); }

static void watch_all(struct ear *e, bool on) {
    for (unsigned i = 0; i < e->io_count; i++) {
        if (on) ev_io_start(e->loop->ev, &e->ios[i]);
        else ev_io_stop(e->loop->ev, &e->ios[i]);
    }
}

static void ear_on_retry(struct ev_loop *ev, ev_timer *timer, int events) {
    struct ear *e = container_of(timer, struct ear, retry);
    if (!e->paused) watch_all(e, true);
}

static void rest_ear(struct ear *e, int error) {
    static _Thread_local double complained;
    if (loop_now(e->loop) - complained >= COMPLAIN_EVERY) {
        complained = loop_now(e->loop);
        log_error("%s: cannot accept: %s; connections wait in the queue", e->listener->name, strerror(error));
    }
    watch_all(e, false);
    ev_timer *timer = &e->retry;
    ev_timer_stop(e->loop->ev, timer);
    ev_timer_set(timer, REST_SECONDS, 0.);
    ev_timer_start(e->loop->ev, timer);
}

static bool is_exhausted(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Takes one connection. False when there is none to take now. */
static bool accept_one(struct ear *e, int listening) {
    struct addr peer;
    peer.size = sizeof peer.u;
    int fd = accept4(listening, &peer.u.sa, &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (peer.size > sizeof peer.u) peer.size = sizeof peer.u;
        e->on_accept(e, fd, &peer);
        return true;
    }
    int error = errno;
    if (error == EAGAIN) return false;
    if (!is_exhausted(error)) return true; /* one connection that died in the queue (accept(2), "Error handling") */
    rest_ear(e, error);
    return false;
}

static void ear_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct ear *e = io->data;
    unsigned share = e->burst, taken = 0;
    /* on_accept may have paused or closed the ear. */
    while (taken < share && ev_is_active(io) && accept_one(e, io->fd)) taken++;
    e->burst = taken < share ? (taken ? taken : 1) : (share * 2 < ACCEPT_MOST ? share * 2 : ACCEPT_MOST);
}

void ear_open(struct ear *e, struct loop *loop, struct listener *listener, unsigned workers,
              void (*on_accept)(struct ear *e, int fd, const struct addr *peer)) {
    *e = (struct ear){ .listener = listener, .loop = loop, .on_accept = on_accept, .burst = 1 };
    list_init(&e->node);
    ev_timer *timer = &e->retry;
    ev_timer_init(timer, ear_on_retry, 0., 0.);
    unsigned first = (unsigned)loop->index;
    for (unsigned j = first; j < listener->fd_count; j += workers) e->io_count++;
    if (e->io_count == 0) return;
    struct watchers *watchers = must_calloc(1, sizeof *watchers + e->io_count * sizeof(ev_io));
    grave_init(&watchers->grave, watchers_bury);
    e->ios = watchers->list;
    for (unsigned i = 0; i < e->io_count; i++) {
        ev_io *io = &e->ios[i];
        ev_io_init(io, ear_on_io, listener->fds[first + i * workers], EV_READ);
        io->data = e;
    }
    watch_all(e, true);
}

void ear_pause(struct ear *e, bool paused) {
    if (e->paused == paused) return;
    e->paused = paused;
    if (paused || !ev_is_active(&e->retry)) watch_all(e, !paused);
}

void ear_close(struct ear *e) {
    if (!e->loop) return;
    watch_all(e, false);
    ev_timer_stop(e->loop->ev, &e->retry);
    list_remove(&e->node);
    if (e->ios) loop_bury(e->loop, &container_of(e->ios, struct watchers, list)->grave);
    e->ios = NULL;
    e->io_count = 0;
}
