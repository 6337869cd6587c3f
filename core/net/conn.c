/* The conn: bytes in, bytes out, as few system calls as an exchange can do with.
 *
 * Reading. An event is answered by one read into what room a chunk has; most requests fit and nothing is asked twice
 * (epoll is level-triggered: whatever is left announces itself). Only when a read has filled its room are more vectors
 * offered, up to 64 KiB a turn. Writing happens in the flush phase, one call for each conn that gained bytes, and only
 * what the socket refuses makes us ask for writability. So an ordinary request changes no registration;
 * compute_interest is the one place that says which events a state calls for.
 *
 * What we cannot see: a conn that watches nothing (its `in` is full or paused, or the other side has sent its FIN, and
 * nothing waits to be written) is not told of a reset, because libev knows no EPOLLRDHUP and reports errors to watchers
 * only. It is found by the next read or write, hence as soon as somebody consumes or answers; deadlines bound the rest.
 *
 * A write that fails is not the end of what we can read: a server that answers 413 and closes resets our upload, with
 * its answer in our receive queue. So the queue is read once more before the owner hears of the failure.
 *
 * A layer (TLS, tls.c) may stand between the buffers and the socket: pull_bytes and push_bytes are the only places that
 * read and write it. It reads ahead, and what it has read already no event announces; so a conn that would read, and
 * whose layer has more, is fed an event in the flush phase (want_rest). */
#include "net/conn.h"

#include "base/must.h"
#include "net/stage.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { READ_VECTORS = 6, WRITE_VECTORS = 64 };
static const double LINGER_SECONDS = 2, LINGER_WRITE_SECONDS = 30;

/* ---- the socket */

static ssize_t pull_bytes(struct conn *c, struct iovec *v, int count) {
    if (c->tls) return tls_pull(c->tls, v, count);
    if (count == 1) return recv(c->io.fd, v->iov_base, v->iov_len, 0);
    return readv(c->io.fd, v, count);
}

static ssize_t push_bytes(struct conn *c, struct iovec *v, int count) {
    if (c->tls) return tls_push(c->tls, v, count);
    if (count == 1) return send(c->io.fd, v->iov_base, v->iov_len, MSG_NOSIGNAL);
    struct msghdr message = { .msg_iov = v, .msg_iovlen = (size_t)count };
    return sendmsg(c->io.fd, &message, MSG_NOSIGNAL);
}

static bool is_passing(int error) { return error == EAGAIN || error == EINTR; }

#ifdef MOONGATE_HARD
/* The hard build lets every border fall everywhere: single bytes at first, where heads are, then a few, each told
 * alone. */
enum { READ_ON = false, LINGER_BYTES = 4096 };
static size_t cut_share(uint64_t done, size_t n) {
    size_t share = done < 4096 ? 1 : 1 + done % 7;
    return n < share ? n : share;
}
#else
enum { READ_ON = true, LINGER_BYTES = 256 * 1024 };
static size_t cut_share(uint64_t done, size_t n) { return n; }
#endif

/* Cuts the vectors to `most` bytes; returns what they hold together. */
static size_t clip_vectors(struct iovec *v, int *count, size_t most) {
    size_t sum = 0;
    for (int i = 0; i < *count; i++) {
        if (v[i].iov_len >= most - sum) {
            v[i].iov_len = most - sum;
            *count = i + 1;
            return most;
        }
        sum += v[i].iov_len;
    }
    return sum;
}

/* ---- which events a conn watches */

static bool layer_owes(const struct conn *c) { return c->tls && tls_owes(c->tls); }

static int compute_interest(const struct conn *c) {
    if (c->state == CONN_CONNECTING) return EV_WRITE;
    if (c->state == CONN_SHAKING)
        return c->shake == TLS_SHAKE_WRITE ? EV_WRITE : c->shake == TLS_SHAKE_READ ? EV_READ : 0;
    if (c->state != CONN_OPEN) return 0;
    int events = 0;
    if (!c->ended && !c->paused && c->in.size < c->in_limit) events |= EV_READ;
    if (c->blocked || layer_owes(c)) events |= EV_WRITE;
    return events;
}

static void mark_dirty(struct conn *c) {
    if (list_empty(&c->dirty)) list_push(&c->loop->dirty, &c->dirty);
}

static bool has_rest(const struct conn *c) {
    return c->tls && c->state == CONN_OPEN && tls_has_more(c->tls) && (compute_interest(c) & EV_READ);
}

/* In the next turn: a fed event would be served in this one, again and again. */
static void want_rest(struct conn *c) {
    if (has_rest(c)) mark_dirty(c);
}

/* ev_io_modify and not ev_io_set: only then does libev see that stop and start within a turn changed nothing. */
static void update_interest(struct conn *c) {
    if (c->failed) return; /* stopping the watcher would take back the event that tells it */
    ev_io *io = &c->io;
    int wanted = compute_interest(c), watched = ev_is_active(io) ? io->events & (EV_READ | EV_WRITE) : 0;
    if (wanted == watched) return;
    ev_io_stop(c->loop->ev, io);
    if (!wanted) return;
    ev_io_modify(io, wanted);
    ev_io_start(c->loop->ev, io);
    want_rest(c); /* stopping has taken back what was fed */
}

/* ---- ends */

static void break_conn(struct conn *c, enum failure why) {
    c->state = CONN_BROKEN;
    ev_io_stop(c->loop->ev, &c->io);
    deadline_clear(&c->deadline);
    list_remove(&c->dirty);
    if (c->lingering) why = FAIL_CANCELLED;
    c->lingering = false;
    c->handlers->on_broken(c, why);
}

/* For what must be told, but not from inside the call that found it. */
static void break_later(struct conn *c, enum failure why) {
    c->failed = (uint8_t)why;
    ev_feed_event(c->loop->ev, &c->io, EV_CUSTOM);
}

/* ---- reading */

static void tell_bytes(struct conn *c, size_t got) {
    if (!c->lingering) {
        c->handlers->on_bytes(c);
        return;
    }
    buffer_drop(&c->in, c->in.size);
    if (got >= c->linger_left) break_conn(c, FAIL_CANCELLED);
    else c->linger_left -= (uint32_t)got;
}

static void tell_end(struct conn *c) {
    c->ended = true;
    if (!c->lingering) c->handlers->on_end(c);
    else if (c->fin_sent) break_conn(c, FAIL_CANCELLED);
}

/* What the next read may take: 0 when `in` is full or the turn's share is used up. */
static size_t read_share(const struct conn *c, size_t got) {
    size_t share = c->in.size < c->in_limit ? c->in_limit - c->in.size : 0;
    size_t ask = c->read_filled ? CONN_TURN_BYTES : CHUNK_BYTES;
    if (share > ask) share = ask;
    if (share > CONN_TURN_BYTES - got) share = CONN_TURN_BYTES - got;
    return cut_share(c->received, share);
}

/* One read of at most `share` bytes into `in`; returns what it returned, errno kept. */
static ssize_t fill_in(struct conn *c, size_t share) {
    struct iovec v[READ_VECTORS];
    int count = buffer_room_vectors(&c->in, v, READ_VECTORS, share);
    size_t room = clip_vectors(v, &count, share);
    ssize_t n = pull_bytes(c, v, count);
    int error = errno;
    buffer_commit(&c->in, n > 0 ? (size_t)n : 0);
    c->read_filled = n == (ssize_t)room;
    if (n > 0) c->received += (uint64_t)n;
    errno = error;
    return n;
}

/* A FIN may have waited for it. */
static void tell_secured(struct conn *c) {
    if (c->shut) mark_dirty(c);
    if (!c->lingering) c->handlers->on_secured(c);
}

static void conn_on_readable(struct conn *c) {
    size_t got = 0, share;
    bool early = conn_tls_early(c);
    ssize_t n = 1;
    int error = 0;
    while ((share = read_share(c, got)) > 0) {
        n = fill_in(c, share);
        error = errno;
        if (n <= 0) break;
        got += (size_t)n;
        if (!c->read_filled || !READ_ON) break;
    }
    if (early && !conn_tls_early(c)) tell_secured(c);
    if (got && c->state == CONN_OPEN) tell_bytes(c, got);
    if (c->state != CONN_OPEN) return;
    if (n == 0) tell_end(c);
    else if (n < 0 && !is_passing(error)) break_conn(c, FAIL_RESET);
    update_interest(c);
    want_rest(c);
}

/* ---- writing */

/* One write. False if the conn can take no more, ever. */
static bool write_out(struct conn *c) {
    struct iovec v[WRITE_VECTORS];
    int count = buffer_vectors(&c->out, v, WRITE_VECTORS);
    size_t room = clip_vectors(v, &count, cut_share(c->sent, SIZE_MAX));
    ssize_t n = push_bytes(c, v, count);
    if (n < 0) {
        c->blocked = is_passing(errno);
        return c->blocked;
    }
    buffer_drop(&c->out, (size_t)n);
    c->sent += (uint64_t)n;
    c->blocked = (size_t)n < room || layer_owes(c);
    c->drained = c->out.size == 0;
    if (!c->blocked && !c->drained) mark_dirty(c); /* more segments than vectors */
    return true;
}

static void send_fin(struct conn *c) {
    if (conn_tls_early(c)) { /* its close_notify cannot be said yet: tell_secured */
        if (c->lingering) deadline_set(&c->deadline, LINGER_SECONDS);
        return;
    }
    if (c->tls && tls_say_end(c->tls) && tls_owes(c->tls)) {
        update_interest(c); /* settle_written comes here again */
        return;
    }
    c->fin_sent = true;
    shutdown(c->io.fd, SHUT_WR);
    if (!c->lingering) return;
    if (c->ended) break_later(c, FAIL_CANCELLED);
    else deadline_set(&c->deadline, LINGER_SECONDS);
}

/* What the layer has to say at the end it says before, not while the socket closes. */
static void end_brief(struct conn *c) {
    if (c->tls) tls_say_end(c->tls);
    if (!layer_owes(c)) break_conn(c, FAIL_CANCELLED);
}

/* Tells what a write changed. */
static void settle_written(struct conn *c) {
    if (c->brief && c->out.size == 0) {
        end_brief(c);
        return;
    }
    if (c->out.size == 0 && c->shut && !c->fin_sent && !layer_owes(c)) send_fin(c);
    else if (c->lingering && !c->fin_sent) deadline_set(&c->deadline, LINGER_WRITE_SECONDS);
    bool drained = c->drained && c->out.size == 0;
    c->drained = false;
    if (c->lingering) return;
    if (c->was_full && c->out.size < (c->out_limit + 1) / 2) {
        c->was_full = false;
        if (c->handlers->on_room) c->handlers->on_room(c);
    }
    if (drained && c->state == CONN_OPEN && c->handlers->on_flushed) c->handlers->on_flushed(c);
}

/* Reads what the other side sent before it refused our write, then tells of the failure. */
static void fail_write(struct conn *c) {
    buffer_drop(&c->out, c->out.size);
    size_t got = 0, share;
    while (c->state == CONN_OPEN && !c->ended && !c->paused && (share = read_share(c, got)) > 0) {
        ssize_t n = fill_in(c, share);
        if (n <= 0) break;
        got += (size_t)n;
        tell_bytes(c, (size_t)n);
    }
    if (c->state == CONN_OPEN) break_conn(c, FAIL_RESET);
}

static void flush_conn(struct conn *c) {
    if (c->state != CONN_OPEN || c->failed) return;
    if (has_rest(c)) ev_feed_event(c->loop->ev, &c->io, EV_READ);
    if ((c->out.size || layer_owes(c)) && !c->blocked && !write_out(c)) {
        fail_write(c);
        return;
    }
    settle_written(c);
    update_interest(c);
}

static void conn_on_writable(struct conn *c) {
    c->blocked = false;
    flush_conn(c);
}

void conn_flush_all(struct loop *l) {
    struct list due;
    list_init(&due);
    list_splice(&due, &l->dirty);
    for (struct list *node; (node = list_pop(&due));) flush_conn(container_of(node, struct conn, dirty));
}

/* ---- connecting */

static enum failure name_connect_error(int error) {
    if (error == ECONNREFUSED) return FAIL_CONNECT_REFUSED;
    return error == ETIMEDOUT ? FAIL_CONNECT_TIMEOUT : FAIL_CONNECT_FAILED;
}

static void open_conn(struct conn *c) {
    c->state = CONN_OPEN;
    if (c->out.size || c->shut) mark_dirty(c);
    if (c->handlers->on_connected) c->handlers->on_connected(c);
    update_interest(c);
    want_rest(c);
}

static void open_plainly(struct conn *c) {
    tls_destroy(c->tls);
    c->tls = NULL;
    c->state = CONN_OPEN;
    c->handlers->on_plain(c);
    update_interest(c);
}

static void shake_hands(struct conn *c) {
    enum failure why;
    enum tls_shake shake = tls_shake(c->tls, c->io.fd, &why);
    c->shake = shake;
    if (shake == TLS_SHAKE_FAILED) break_conn(c, why);
    else if (shake == TLS_SHAKE_DONE) open_conn(c);
    else if (shake == TLS_SHAKE_PLAIN) open_plainly(c);
    else update_interest(c);
}

static void conn_on_connect(struct conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error) {
        break_conn(c, name_connect_error(error));
        return;
    }
    if (c->tls) {
        c->state = CONN_SHAKING;
        shake_hands(c);
    } else open_conn(c);
}

void conn_tls_connect(struct conn *c, struct tls_trust *trust, struct slice name, enum tls_alpn alpn) {
    must(!c->tls && (c->state == CONN_CONNECTING || c->state == CONN_OPEN));
    c->tls = tls_connect(c->loop, trust, name, alpn);
    if (c->failed || c->state == CONN_CONNECTING) return;
    c->state = CONN_SHAKING;
    c->shake = TLS_SHAKE_WRITE; /* the socket's next event begins it */
    if (c->in.size || c->out.size || c->ended) break_later(c, FAIL_TLS_FAILED);
    else update_interest(c);
}

void conn_tls_pretend(struct conn *c) {
    must(c->loop->stage && !c->tls);
    if (c->state != CONN_OPEN) return;
    c->state = CONN_CONNECTING; /* it stands as soon as the socket takes bytes, which it does */
    update_interest(c);
}

void conn_tls_accept(struct conn *c, struct tls_service *service) {
    must(!c->tls && c->state == CONN_OPEN);
    bool begun = c->in.size > 0;
    c->tls = tls_accept(c, c->loop, c->io.fd, service);
    c->state = CONN_SHAKING;
    c->shake = TLS_SHAKE_READ;
    if (begun) ev_feed_event(c->loop->ev, &c->io, EV_READ); /* the socket may have no more to tell */
}

void conn_tls_present(struct conn *c, struct tls_certificates *certificates, struct slice name) {
    if (!c->tls) return;
    tls_present(c->tls, certificates, name);
    if (c->state == CONN_SHAKING && c->shake == TLS_SHAKE_WAIT) ev_feed_event(c->loop->ev, &c->io, EV_CUSTOM);
}

const char *conn_tls_reason(const struct conn *c) { return c->tls ? tls_reason(c->tls) : NULL; }
bool conn_tls_early(const struct conn *c) { return c->tls && tls_is_early(c->tls); }
enum tls_alpn conn_tls_alpn(const struct conn *c) { return c->tls ? tls_agreed(c->tls) : TLS_ALPN_NONE; }

/* ---- what libev calls */

static void conn_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct conn *c = container_of(io, struct conn, io);
    if (c->failed) {
        if (c->failed == FAIL_RESET) fail_write(c);
        else break_conn(c, c->failed);
        return;
    }
    if (c->state == CONN_CONNECTING) {
        conn_on_connect(c);
        return;
    }
    if (c->state == CONN_SHAKING) {
        shake_hands(c);
        return;
    }
    if (events & EV_READ && c->state == CONN_OPEN) conn_on_readable(c);
    if (events & EV_WRITE && c->state == CONN_OPEN) conn_on_writable(c);
}

/* Does it still take what it lingers for? */
static bool has_progressed(struct conn *c) {
    uint64_t before = c->progress;
    c->progress = conn_progress(c);
    return c->out.size > 0 && c->progress != before;
}

static void conn_on_time(struct deadline *d) {
    struct conn *c = container_of(d, struct conn, deadline);
    if (c->lingering && has_progressed(c)) deadline_set(d, LINGER_WRITE_SECONDS);
    else if (c->lingering) break_conn(c, FAIL_CANCELLED);
    else if (c->handlers->on_deadline) c->handlers->on_deadline(c);
}

/* ---- opening and closing */

static void init_conn(struct conn *c, struct loop *loop, int fd, const struct conn_handlers *handlers) {
    *c = (struct conn){ .handlers = handlers, .loop = loop, .in_limit = CONN_IN_LIMIT, .out_limit = CONN_OUT_LIMIT };
    buffer_init(&c->in);
    buffer_init(&c->out);
    list_init(&c->dirty);
    deadline_init(&c->deadline, loop, conn_on_time);
    ev_io *io = &c->io;
    ev_io_init(io, conn_on_io, fd, 0);
}

void conn_open(struct conn *c, struct loop *loop, int fd, const struct conn_handlers *handlers) {
    init_conn(c, loop, fd, handlers);
    c->state = CONN_OPEN;
    update_interest(c);
}

/* -1: there is no socket. `*error`: it has failed already. */
static int begin_connect(const struct addr *to, int *error) {
    int fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *error = fd < 0 ? errno : 0;
    if (fd < 0) return fd;
    conn_tune(fd, to);
    if (connect(fd, &to->u.sa, to->size) != 0 && errno != EINPROGRESS && errno != EINTR) *error = errno;
    return fd;
}

static int connect_on_stage(struct stage *stage, const struct addr *to, int *error) {
    int fd = stage->connect(stage, to, stage->called);
    *error = fd < 0 ? -fd : 0;
    return fd < 0 ? -1 : fd;
}

void conn_connect(struct conn *c, struct loop *loop, const struct addr *to, const struct conn_handlers *handlers) {
    int error, fd = loop->stage ? connect_on_stage(loop->stage, to, &error) : begin_connect(to, &error);
    init_conn(c, loop, fd, handlers);
    c->state = CONN_CONNECTING;
    if (error) break_later(c, name_connect_error(error));
    else update_interest(c);
}

void conn_close(struct conn *c) {
    if (c->state == CONN_NEW || c->state == CONN_CLOSED) {
        c->state = CONN_CLOSED;
        return;
    }
    c->state = CONN_CLOSED;
    ev_io_stop(c->loop->ev, &c->io);
    deadline_fini(&c->deadline);
    list_remove(&c->dirty);
    if (c->tls) tls_say_end(c->tls);
    tls_destroy(c->tls);
    c->tls = NULL;
    if (c->io.fd >= 0) close(c->io.fd);
    c->io.fd = -1;
    buffer_fini(&c->in);
    buffer_fini(&c->out);
}

/* False if there is nothing to wait for: then on_broken follows. */
static bool begin_linger(struct conn *c) {
    if (c->state == CONN_NEW || c->state == CONN_CLOSED || c->lingering) return false;
    c->lingering = true;
    c->linger_left = LINGER_BYTES;
    c->paused = false;
    buffer_drop(&c->in, c->in.size);
    bool open = c->state == CONN_OPEN && !c->failed;
    if (open && c->blocked) c->progress = conn_progress(c);
    if (open) deadline_set(&c->deadline, LINGER_WRITE_SECONDS);
    else break_later(c, FAIL_CANCELLED);
    return open;
}

void conn_finish(struct conn *c) {
    if (conn_tls_early(c)) { /* the end of its handshake is still to be read, or our close would reset what we wrote */
        conn_linger(c);
        return;
    }
    if (!begin_linger(c)) return;
    c->brief = c->shut = true;
    if (c->out.size == 0 && c->tls) mark_dirty(c);
    else if (c->out.size == 0) break_later(c, FAIL_CANCELLED);
}

void conn_linger(struct conn *c) {
    if (!begin_linger(c)) return;
    if (c->fin_sent) send_fin(c);
    else conn_shut(c);
    update_interest(c);
}

void conn_reset(struct conn *c) {
    struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
    if (c->state == CONN_OPEN) setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    if (c->state == CONN_OPEN && c->tls) tls_mute(c->tls);
    conn_close(c);
}

void conn_shut(struct conn *c) {
    c->shut = true;
    if (c->state == CONN_OPEN && c->out.size == 0 && !c->fin_sent) send_fin(c);
}

/* ---- for the owner */

void conn_wrote(struct conn *c) {
    if (c->out.size >= c->out_limit) c->was_full = true;
    if (c->state == CONN_OPEN && !c->blocked) mark_dirty(c);
}

void conn_flush(struct conn *c) {
    if (c->state != CONN_OPEN || c->failed || c->blocked || c->out.size == 0) return;
    if (!write_out(c)) {
        break_later(c, FAIL_RESET);
        return;
    }
    mark_dirty(c);
    update_interest(c);
}

void conn_consumed(struct conn *c) {
    if (c->state != CONN_OPEN) return;
    update_interest(c);
    want_rest(c);
}

void conn_pause(struct conn *c, bool paused) {
    c->paused = paused;
    conn_consumed(c);
}

/* What is sent counts twice, so that it is not balanced by what waits in the socket. */
uint64_t conn_progress(const struct conn *c) {
    int waiting = 0;
    if (ioctl(c->io.fd, SIOCOUTQ, &waiting) != 0) waiting = 0;
    return 2 * c->sent - (uint64_t)waiting;
}

size_t conn_room(const struct conn *c) { return c->out.size < c->out_limit ? c->out_limit - c->out.size : 0; }

void conn_deadline(struct conn *c, double seconds) {
    bool alive = c->state >= CONN_CONNECTING && c->state <= CONN_OPEN;
    if (alive && !c->lingering) deadline_set(&c->deadline, seconds);
}

bool conn_reusable(const struct conn *c) {
    return c->state == CONN_OPEN && !c->ended && !c->shut && !c->failed && !c->lingering && c->in.size == 0 &&
           c->out.size == 0 && !(c->tls && tls_has_more(c->tls));
}

bool conn_truncated(const struct conn *c) { return c->tls && tls_truncated(c->tls); }

void conn_tune(int fd, const struct addr *a) {
    if (a->u.sa.sa_family != AF_INET && a->u.sa.sa_family != AF_INET6) return;
    int on = 1, idle = 60;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
}
