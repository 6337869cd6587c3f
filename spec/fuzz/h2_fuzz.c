/* HTTP/2, either role: whatever the other side sends, and whatever is done meanwhile to the streams it makes, nothing is
 * touched that is gone, and nothing grows beyond its bound.
 *
 * The first byte is the role. Then come steps: a byte below 128 feeds 8 times as many bytes of what follows, and one
 * more; another does something to one of the streams. */
#include "base/must.h"
#include "base/list.h"
#include "http/h2.h"

#include <limits.h>
#include <stdlib.h>

enum { STREAMS = 16, BODY = 5000, WRITE_LIMIT = 20000 };

static const struct h2_limits limits = { .head = 4096, .target = 1024, .fields = 32, .streams = STREAMS };

/* As clients and servers have them: the message dies when its exchange does, the stream when it is over. */
struct message {
    struct arena arena;
    struct request request;
    struct response response;
    struct headers trailers;
};

struct place {
    struct h2_stream h2;
    struct message *message; /* NULL: its exchange is over */
    bool used, over, headed, ended, answered;
};

struct side {
    struct h2 *h2;
    enum h2_role role;
    struct place places[STREAMS];
    struct buffer in, out;
};

static struct place *of_stream(struct h2_stream *s) { return container_of(s, struct place, h2); }

static struct message *message_create(void) {
    struct message *m = must_calloc(1, sizeof *m);
    arena_init(&m->arena);
    headers_init(&m->request.headers, &m->arena);
    headers_init(&m->response.headers, &m->arena);
    headers_init(&m->trailers, &m->arena);
    return m;
}

static void drop_message(struct place *p) {
    if (!p->message) return;
    arena_fini(&p->message->arena);
    free(p->message);
    p->message = NULL;
}

static struct place *free_place(struct side *s) {
    for (int i = 0; i < STREAMS; i++)
        if (!s->places[i].used) return &s->places[i];
    return NULL;
}

static void open_place(struct side *s, struct place *p) {
    *p = (struct place){ .used = true, .message = message_create() };
    p->h2.trailers = &p->message->trailers;
    if (s->role == H2_SERVER) p->h2.message.request = &p->message->request;
    else p->h2.message.response = &p->message->response;
}

/* ---- what it tells */

static struct h2_stream *on_begin(struct h2 *h2) {
    struct side *s = h2_owner(h2);
    struct place *p = free_place(s);
    if (!p) return NULL;
    open_place(s, p);
    return &p->h2;
}

static void on_head(struct h2_stream *hs, enum failure why, bool end) {
    struct place *p = of_stream(hs);
    must(p->message && !p->over && why < FAILURE_COUNT);
    p->headed = true;
    if (end) p->ended = true;
}

static void on_body(struct h2_stream *hs) { must(of_stream(hs)->message && of_stream(hs)->headed && hs->in.size > 0); }

static void on_end(struct h2_stream *hs) {
    must(of_stream(hs)->message && !of_stream(hs)->ended);
    of_stream(hs)->ended = true;
}

static void on_room(struct h2_stream *hs) { must(!of_stream(hs)->over); }

static void on_close(struct h2_stream *hs, uint32_t error) {
    (void)error;
    must(!of_stream(hs)->over && hs->id == 0);
    of_stream(hs)->over = true;
}

static const struct h2_handlers handlers = {
    .on_begin = on_begin,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_room = on_room,
    .on_close = on_close,
};

/* ---- what is done */

static void bury(struct place *p) {
    drop_message(p);
    h2_stream_fini(&p->h2);
    p->used = false;
}

/* What is over and gone, as at the end of a turn. */
static void bury_over(struct side *s) {
    for (int i = 0; i < STREAMS; i++)
        if (s->places[i].used && s->places[i].over) bury(&s->places[i]);
}

static void send_head(struct place *p, bool end) {
    struct response r = { .status = 200 };
    struct arena arena;
    arena_init(&arena);
    headers_init(&r.headers, &arena);
    headers_add(&r.headers, SLICE("X-One"), SLICE("1"));
    h2_send_response(&p->h2, &r, NULL, end);
    p->answered = true;
    arena_fini(&arena);
}

static void send_body(struct place *p) {
    struct buffer bytes = { 0 };
    static char zeros[BODY];
    size_t room = h2_room(&p->h2);
    buffer_append(&bytes, zeros, room < BODY ? room : BODY);
    h2_send(&p->h2, &bytes);
    must(bytes.size == 0);
}

static void end_body(struct place *p) {
    struct arena arena;
    struct headers trailers;
    arena_init(&arena);
    headers_init(&trailers, &arena);
    headers_add(&trailers, SLICE("X-Sum"), SLICE("7"));
    if (!p->h2.end_out) h2_end(&p->h2, &trailers);
    arena_fini(&arena);
}

static void begin_request(struct side *s) {
    struct place *p = free_place(s);
    if (s->role != H2_CLIENT || !p || h2_most_streams(s->h2) == 0) return;
    open_place(s, p);
    struct request *r = &p->message->request;
    r->method = METHOD_POST;
    r->method_name = SLICE("POST");
    headers_add_id(&r->headers, HEADER_HOST, SLICE("a"));
    struct h2_request sent = { .request = r, .target = SLICE("/"), .scheme = SLICE("http") };
    if (!h2_send_request(s->h2, &p->h2, &sent)) bury(p);
}

static void write_out(struct side *s) {
    h2_write(s->h2, &s->out, WRITE_LIMIT);
    must(s->out.size < WRITE_LIMIT + 65536);
    buffer_drop(&s->out, s->out.size);
}

static void take(struct place *p) {
    struct buffer bytes = { 0 };
    h2_take(&p->h2, &bytes, 1000);
    buffer_fini(&bytes);
}

static void let_go(struct place *p) {
    h2_dismiss(&p->h2);
    drop_message(p);
}

static void act(struct side *s, unsigned what, struct place *p) {
    bool fit = p->used && !p->over;
    bool sends = fit && (s->role == H2_CLIENT || p->answered);
    switch (what) {
    case 0: begin_request(s); break;
    case 1:
        if (s->role == H2_SERVER && fit && p->headed && !p->answered) send_head(p, p->ended);
        break;
    case 2:
        if (sends) send_body(p);
        break;
    case 3:
        if (sends) end_body(p);
        break;
    case 4:
        if (p->used) take(p);
        break;
    case 5:
        if (fit) let_go(p);
        break;
    case 6:
        if (!fit) break;
        let_go(p);
        if (s->role == H2_CLIENT) h2_reset(&p->h2, H2_CANCEL);
        else h2_abort(&p->h2, H2_INTERNAL_ERROR);
        break;
    default: write_out(s); break;
    }
}

static bool feed(struct side *s, struct slice *data, size_t n) {
    if (n > data->n) n = data->n;
    buffer_append(&s->in, data->p, n);
    *data = slice_skip(*data, n);
    for (int i = 0; i < 100 && s->in.size; i++) /* no more than it takes at once waits */
        if (!h2_feed(s->h2, &s->in, 4)) return false;
    return true;
}

static void run(struct side *s, struct slice data) {
    while (data.n) {
        unsigned step = (uint8_t)*data.p;
        data = slice_skip(data, 1);
        if (step < 128) {
            if (!feed(s, &data, step * 8 + 1)) return;
        } else {
            act(s, step >> 4 & 7, &s->places[step & 15]);
        }
        bury_over(s);
        if (h2_over(s->h2)) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < 1 || size > 65536) return 0;
    struct side s = { .role = bytes[0] & 1 ? H2_CLIENT : H2_SERVER };
    s.h2 = h2_open(s.role, &limits, &handlers, &s);
    if (s.role == H2_SERVER) buffer_append(&s.in, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    begin_request(&s);
    run(&s, slice_make((const char *)bytes + 1, size - 1));
    write_out(&s);
    h2_close(s.h2);
    for (int i = 0; i < STREAMS; i++) {
        s.places[i].h2.h2 = NULL;
        if (s.places[i].used) bury(&s.places[i]);
    }
    buffer_fini(&s.in);
    buffer_fini(&s.out);
    return 0;
}
