/* The far side of a rehearsal: every connection that the config opens is a socketpair, and a play sits at its other
 * end. It reads requests with the same code as a client of ours is read, hands them to the stub whole, and plays what
 * the stub answered: bytes, pauses, an end. Keep-alive is the play's: it goes on with the next request on the same
 * connection, as a server does.
 *
 * A connect that hangs is an eventfd that never becomes writable; the conn that waits for it cannot tell. */
#include "server/rehearsal_parts.h"

#include "base/must.h"
#include "http/framing.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum act_kind { ACT_BYTES, ACT_PAUSE, ACT_CLOSE, ACT_RESET };

struct act {
    struct list node;
    enum act_kind kind;
    double seconds;
    size_t n;
    char bytes[];
};

struct play {
    struct conn conn;
    struct list node; /* in rehearsal->plays */
    struct grave grave;
    struct task task; /* goes on with the acts */
    struct deadline pause;
    struct rehearsal *rehearsal;
    char *place, *server;
    struct h1_scan scan;
    struct h1_body decoder;
    struct arena arena; /* the present request */
    struct request request;
    struct buffer content;
    char *body; /* the content, once it is whole */
    size_t body_size;
    enum { PLAY_HEAD, PLAY_BODY, PLAY_ANSWERS, PLAY_RAW, PLAY_OVER } state; /* RAW: a socket's bytes, always */
    bool pausing, greeted;
    struct list acts;
};

static const struct h1_limits limits = { .head = 1 << 20, .target = 1 << 20, .fields = 1000 };

static struct play *of_conn(struct conn *c) { return container_of(c, struct play, conn); }

/* ---- the end of one */

static void play_bury(struct grave *g) {
    struct play *p = container_of(g, struct play, grave);
    free(p->place);
    free(p->server);
    free(p);
}

static void drop_acts(struct play *p) {
    for (struct list *node; (node = list_pop(&p->acts));) free(container_of(node, struct act, node));
}

static void forget_request(struct play *p) {
    arena_fini(&p->arena);
    buffer_fini(&p->content);
    free(p->body);
    p->body = NULL;
    p->body_size = 0;
}

static void play_end(struct play *p) {
    if (p->state == PLAY_OVER) return;
    p->state = PLAY_OVER;
    conn_close(&p->conn);
    deadline_fini(&p->pause);
    task_forget(&p->task);
    list_remove(&p->node);
    drop_acts(p);
    forget_request(p);
    loop_bury(p->conn.loop, &p->grave);
}

/* ---- reading a request */

static void play_read(struct play *);

static void begin_body(struct play *p) {
    struct request *r = &p->request;
    h1_body_start(&p->decoder, &r->framing, &r->trailers);
    p->state = PLAY_BODY;
    if (!r->framing.expect_continue || p->decoder.done) return;
    static const char proceed[] = "HTTP/1.1 100 Continue\r\n\r\n";
    buffer_append_static(&p->conn.out, proceed, sizeof proceed - 1);
    conn_wrote(&p->conn);
}

/* What we send is well-formed, or there is a bug in what is rehearsed: then the connection breaks, as a strict
 * server's would. */
static void read_head(struct play *p) {
    enum failure why = FAIL_NONE;
    struct request *r = &p->request;
    *r = (struct request){ 0 };
    headers_init(&r->headers, &p->arena);
    headers_init(&r->trailers, &p->arena);
    enum h1_result result = h1_read_request(&p->scan, &p->conn.in, &limits, &p->arena, r, &why);
    if (result == H1_MORE) return;
    p->scan = (struct h1_scan){ 0 };
    if (result == H1_DONE) why = framing_of_request(r);
    if (why == FAIL_BAD_HOST) why = FAIL_NONE; /* empty: an HTTP/1.0 client named none (RFC 9112 3.2) */
    if (why != FAIL_NONE) play_end(p);
    else begin_body(p);
}

static void take_body(struct play *p) {
    p->body_size = p->content.size;
    p->body = must_malloc(p->body_size + 1);
    buffer_peek(&p->content, p->body, p->body_size);
    buffer_fini(&p->content);
}

static void read_body(struct play *p) {
    enum h1_result result =
        p->decoder.done ? H1_DONE : h1_body_read(&p->decoder, &p->conn.in, &p->content, SIZE_MAX / 2);
    conn_consumed(&p->conn);
    if (result == H1_FAILED) play_end(p);
    if (result != H1_DONE) return;
    take_body(p);
    p->state = PLAY_ANSWERS;
    p->rehearsal->stubs->answer(p->rehearsal->with, p);
    task_wake(p->conn.loop, &p->task);
}

/* All that has come, at once. */
static void hand_bytes(struct play *p) {
    const struct rehearsal *r = p->rehearsal;
    size_t n = p->conn.in.size;
    r->stubs->bytes(r->with, p, buffer_gather(&p->conn.in, n), !p->greeted);
    p->greeted = true;
    buffer_drop(&p->conn.in, n);
    conn_consumed(&p->conn);
    task_wake(p->conn.loop, &p->task);
}

static void play_read(struct play *p) {
    if (p->state == PLAY_RAW) hand_bytes(p);
    if (p->state == PLAY_HEAD && p->conn.in.size) read_head(p);
    if (p->state == PLAY_BODY) read_body(p);
}

/* ---- playing the answer */

static void finish_answer(struct play *p) {
    forget_request(p);
    p->state = PLAY_HEAD;
    conn_consumed(&p->conn);
    if (p->conn.in.size) play_read(p);
    else if (p->conn.ended) play_end(p);
}

/* False: nothing more now. */
static bool perform(struct play *p, const struct act *a) {
    switch (a->kind) {
    case ACT_BYTES:
        buffer_append(&p->conn.out, a->bytes, a->n);
        conn_wrote(&p->conn);
        return true;
    case ACT_PAUSE:
        p->pausing = true;
        deadline_set(&p->pause, a->seconds);
        return false;
    case ACT_CLOSE: conn_shut(&p->conn); return true;
    case ACT_RESET:
        conn_flush(&p->conn);
        play_end(p);
        return false;
    }
    return false;
}

static void play_advance(struct task *t) {
    struct play *p = container_of(t, struct play, task);
    if (p->state == PLAY_RAW && !p->greeted) hand_bytes(p);
    bool more = (p->state == PLAY_ANSWERS || p->state == PLAY_RAW) && !p->pausing;
    while (more && !list_empty(&p->acts)) {
        struct act *a = container_of(list_pop(&p->acts), struct act, node);
        more = perform(p, a);
        free(a);
    }
    if (more && p->state == PLAY_ANSWERS) finish_answer(p);
}

static void play_on_pause_over(struct deadline *d) {
    struct play *p = container_of(d, struct play, pause);
    p->pausing = false;
    task_wake(p->conn.loop, &p->task);
}

static void play_on_bytes(struct conn *c) { play_read(of_conn(c)); }

/* An answer under way goes on: who sent its FIN may still be reading. */
static void play_on_end(struct conn *c) {
    struct play *p = of_conn(c);
    bool answering = p->state == PLAY_ANSWERS || (p->state == PLAY_RAW && !list_empty(&p->acts));
    if (!answering || p->conn.shut) play_end(p);
}

static void play_on_broken(struct conn *c, enum failure why) { play_end(of_conn(c)); }

static const struct conn_handlers handlers = {
    .on_bytes = play_on_bytes,
    .on_end = play_on_end,
    .on_broken = play_on_broken,
};

/* ---- connections */

static void play_create(struct rehearsal *r, int fd, const char *place, const char *server) {
    struct play *p = must_calloc(1, sizeof *p);
    struct loop *loop = &r->worker.loop;
    p->rehearsal = r;
    p->place = must_strdup(place ? place : "");
    p->server = must_strdup(server);
    list_init(&p->acts);
    arena_init(&p->arena);
    grave_init(&p->grave, play_bury);
    task_init(&p->task, play_advance);
    deadline_init(&p->pause, loop, play_on_pause_over);
    list_push(&r->plays, &p->node);
    conn_open(&p->conn, loop, fd, &handlers);
    if (place) return;
    p->state = PLAY_RAW;
    task_wake(loop, &p->task);
}

static int hang(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t full = UINT64_MAX - 1;
    must(fd >= 0 && write(fd, &full, sizeof full) == sizeof full);
    return fd;
}

static int stage_on_connect(struct stage *stage, const struct addr *to, const char *called) {
    struct rehearsal *r = container_of(stage, struct rehearsal, stage);
    char server[ADDR_TEXT];
    int ends[2];
    addr_text(to, server);
    int error = r->stubs->connect(r->with, called, server);
    if (error == ETIMEDOUT) return hang();
    if (error) return -error;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
    play_create(r, ends[1], called, server);
    return ends[0];
}

static void stage_on_question(struct stage *stage, struct question *q) {
    enum { MOST = sizeof q->addrs / sizeof *q->addrs };
    struct rehearsal *r = container_of(stage, struct rehearsal, stage);
    bool asks_address = q->kind == RECORD_ADDRESS; /* there are no records of other kinds */
    q->count = asks_address ? r->stubs->resolve(r->with, q->name, q->addrs, MOST) : 0;
    q->why = q->count ? FAIL_NONE : FAIL_NAME_NOT_FOUND;
    q->ttl = 60;
}

void stubs_open(struct rehearsal *r) {
    list_init(&r->plays);
    r->stage.connect = stage_on_connect;
    r->stage.resolve = stage_on_question;
}

void stubs_close(struct rehearsal *r) {
    list_each_safe(node, &r->plays) play_end(container_of(node, struct play, node));
}

void rehearsal_drop_idle(struct rehearsal *r) {
    list_each_safe(node, &r->plays) {
        struct play *p = container_of(node, struct play, node);
        if (p->state == PLAY_HEAD && !p->scan.started) play_end(p);
    }
}

/* ---- for the stub */

static void add_act(struct play *p, enum act_kind kind, double seconds, struct slice bytes) {
    struct act *a = must_calloc(1, sizeof *a + bytes.n);
    a->kind = kind;
    a->seconds = seconds;
    a->n = bytes.n;
    if (bytes.n) memcpy(a->bytes, bytes.p, bytes.n);
    list_init(&a->node);
    list_push(&p->acts, &a->node);
}

const char *rehearsal_play_place(const struct play *p) { return p->place; }
const char *rehearsal_play_server(const struct play *p) { return p->server; }
const struct request *rehearsal_play_request(const struct play *p) { return &p->request; }
struct slice rehearsal_play_body(const struct play *p) {
    return slice_make(p->body, p->body_size);
}
void rehearsal_play_bytes(struct play *p, struct slice s) { add_act(p, ACT_BYTES, 0, s); }
void rehearsal_play_pause(struct play *p, double seconds) {
    if (seconds > 0) add_act(p, ACT_PAUSE, seconds, SLICE(""));
}
void rehearsal_play_close(struct play *p) { add_act(p, ACT_CLOSE, 0, SLICE("")); }
void rehearsal_play_reset(struct play *p) { add_act(p, ACT_RESET, 0, SLICE("")); }
