/* HTTP/2 over nghttp2.
 *
 * Windows. Each stream's is opened as its content is taken. The connection's is opened as content arrives. From a
 * client only as long as not too much lies here untaken over all its streams, lest many fill our memory; a server's
 * serves many clients, of whom one that does not read must not stop the others, so there the number of streams is the
 * bound.
 *
 * Sending content. nghttp2 asks how much of a stream it may send, and then for the bytes, which are moved from `out`
 * into the connection's buffer behind their frame header: no copy. Heads and trailers are copied, since they are coded
 * only when their turn comes, when the exchange's memory may be gone.
 *
 * Abuse. What costs us more than it costs the other side is counted, and who goes on with it is sent away with
 * ENHANCE_YOUR_CALM: streams that end badly by the client's doing, whether it resets them (CVE-2023-44487) or makes us
 * do it (CVE-2025-8671); frames that bring nothing on, of whatever kind; heads far beyond their limit. nghttp2 itself
 * sees to CONTINUATION floods and to peers that do not read the answers to their PINGs and SETTINGS. What nghttp2 only
 * ignores is an error here: fields that it finds invalid (RFC 9113 8.2.1), and what h2_watch.c finds. */
#include "http/h2.h"

#include "base/clock.h"
#include "base/must.h"
#include "http/h2_heads.h"
#include "http/h2_watch.h"

#include <nghttp2/nghttp2.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLIENTS_WINDOW = 262144, /* of each stream */
    SERVERS_WINDOW = 131072,
    CONNECTION_WINDOW = 1 << 20,
    PENDING_MAX = 1 << 20, /* a client's untaken bytes, beyond which its connection's window stays shut */
    STREAM_OUT = 65536,    /* what a stream may have in `out` */
    STREAM_OUT_LEAST = 16384,
    QUEUED_MAX = 1 << 20, /* of all `out` together, beyond which a stream may have STREAM_OUT_LEAST */
    NV_ON_STACK = 64
};

/* So many within so many seconds are too many. A stream that is reset counts 2, one that ends well takes 1 back; a
 * frame with content, or that makes a stream, takes back some that brought nothing. */
enum { RESETS_MAX = 800, RESETS_SECONDS = 8, IDLE_MAX = 10000, IDLE_SECONDS = 10 };
enum { RESET_COUNTS = 2, STREAM_ALLOWS = 10, CONTENT_ALLOWS = 2 };

struct excess {
    unsigned count;
    double since; /* monotonic seconds */
};

struct h2 {
    nghttp2_session *session;
    const struct h2_handlers *handlers;
    void *owner;
    enum h2_role role;
    struct h2_limits limits;
    struct h2_watch watch; /* server */
    unsigned begun, most;  /* during h2_feed */
    size_t watched;        /* bytes at the front of what is fed that were watched already */
    size_t pending, owed;  /* untaken bytes; those of them that the connection's window was not opened by */
    size_t queued;         /* bytes in all `out` */
    struct excess resets, idle;
    struct buffer *sink; /* during h2_write */
    size_t sink_limit;
    bool abused; /* the peer is to be sent away */
    bool broken;
};

/* Copied for nghttp2 to take when the content before them has left. */
struct h2_trailers {
    size_t count;
    nghttp2_nv list[];
};

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id) {
    return nghttp2_session_get_stream_user_data(session, id);
}

/* ---- excess */

static void count_excess(struct h2 *h, struct excess *e, unsigned n, unsigned most, double seconds) {
    e->count += n;
    if (e->count <= most) return;
    double now = clock_monotonic();
    if (now - e->since < seconds) h->abused = true;
    *e = (struct excess){ .since = now };
}

static void allow(struct excess *e, unsigned n) { e->count -= n < e->count ? n : e->count; }

/* Whoever resets streams that we reset or finished before only keeps order. */
static void judge_end(struct h2 *h, const struct h2_stream *s, uint32_t error) {
    if (h->role != H2_SERVER || (s && s->deaf)) return;
    if (error == NGHTTP2_NO_ERROR) allow(&h->resets, 1);
    else count_excess(h, &h->resets, RESET_COUNTS, RESETS_MAX, RESETS_SECONDS);
}

/* ---- heads */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
    (void)flags;
    struct h2 *h = user;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* no more fields of it */
    struct slice n = slice_make((const char *)name, name_n), v = slice_make((const char *)value, value_n);
    if (!h2_take_field(s, h->role, &h->limits, n, v)) h->abused = true;
    /* Enough streams for this turn: what follows waits. */
    return h->abused || h->begun >= h->most ? NGHTTP2_ERR_PAUSE : 0;
}

/* A field that nghttp2 would leave out: the message is malformed (RFC 9113 8.2.1), nghttp2 resets its stream. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                             const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
    (void)session, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)user;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void take_end(struct h2_stream *s) {
    s->ended = true;
    if (!s->deaf) s->h2->handlers->on_end(s);
}

static void take_head(struct h2_stream *s, bool end) {
    if (end) s->ended = true;
    if (s->deaf) return;
    bool server = s->h2->role == H2_SERVER;
    if (server) h2_finish_request(s, end);
    else h2_finish_response(s, end);
    bool interim = !server && s->message.response->status < 200 && !s->failed;
    enum failure why = s->failed;
    s->head_bytes = s->fields = s->failed = 0;
    s->body_next = !interim;
    s->h2->handlers->on_head(s, why, end);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h = user;
    if (h->role != H2_SERVER || frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct h2_stream *s = h->handlers->on_begin(h);
    if (!s) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return 0;
    }
    s->h2 = h;
    s->id = frame->hd.stream_id;
    h->begun++;
    allow(&h->idle, STREAM_ALLOWS);
    nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

/* ---- content */

static bool may_open(const struct h2 *h) { return h->role == H2_CLIENT || h->pending <= PENDING_MAX; }

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                         void *user) {
    (void)flags;
    struct h2 *h = user;
    struct h2_stream *s = stream_of(session, id);
    allow(&h->idle, CONTENT_ALLOWS);
    if (!s || s->deaf) {
        nghttp2_session_consume_connection(session, n);
        return 0;
    }
    buffer_append(&s->in, data, n);
    h->pending += n;
    if (may_open(h)) nghttp2_session_consume_connection(session, n);
    else h->owed += n;
    return 0;
}

/* `n` bytes lie here no longer. */
static void settle_pending(struct h2 *h, size_t n) {
    h->pending -= n;
    if (!may_open(h) || h->owed == 0) return;
    nghttp2_session_consume_connection(h->session, h->owed);
    h->owed = 0;
}

/* ---- frames */

static void take_frame(struct h2 *h, struct h2_stream *s, const nghttp2_frame *frame) {
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_HEADERS && !s->body_next) {
        take_head(s, end);
        return;
    }
    if (frame->hd.type == NGHTTP2_DATA && s->in.size) h->handlers->on_body(s);
    if (s->failed) h2_reset(s, H2_PROTOCOL_ERROR); /* trailers that are too large */
    else if (end) take_end(s);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && h->handlers->on_goaway) h->handlers->on_goaway(h);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s) take_frame(h, s, frame);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user) {
    struct h2 *h = user;
    struct h2_stream *s = stream_of(session, id);
    judge_end(h, s, error);
    if (!s) return 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    h->queued -= s->out.size;
    s->id = 0;
    buffer_fini(&s->out);
    h->handlers->on_close(s, error);
    return 0;
}

/* ---- sending */

/* nghttp2 sends heads before content, so trailers are its only when the last content is. */
static void give_trailers(struct h2_stream *s) {
    nghttp2_submit_trailer(s->h2->session, s->id, s->out_trailers->list, s->out_trailers->count);
    free(s->out_trailers);
    s->out_trailers = NULL;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is nghttp2's */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t most, uint32_t *flags,
                       nghttp2_data_source *source, void *user) {
    (void)session, (void)id, (void)to, (void)user;
    struct h2_stream *s = source->ptr;
    size_t n = s->out.size < most ? s->out.size : most;
    if (n == 0 && !s->end_out) {
        s->deferred = true;
        if (s->aborting) h2_reset(s, s->aborting);
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!s->end_out || n < s->out.size) return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->out_trailers) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        give_trailers(s);
    }
    return (ssize_t)n;
}

static size_t out_limit(const struct h2 *h) { return h->queued < QUEUED_MAX ? STREAM_OUT : STREAM_OUT_LEAST; }

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source, void *user) {
    (void)session, (void)frame; /* never padded: there is no select_padding callback */
    struct h2 *h = user;
    struct h2_stream *s = source->ptr;
    buffer_append(h->sink, head, 9);
    buffer_move(h->sink, &s->out, n);
    s->sent += n;
    h->queued -= n;
    allow(&h->idle, CONTENT_ALLOWS);
    if (s->was_full && s->out.size < out_limit(h) / 2) {
        s->was_full = false;
        h->handlers->on_room(s);
    }
    return h->sink->size >= h->sink_limit ? NGHTTP2_ERR_PAUSE : 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s) return 0;
    s->sent_end = true;
    if (s->deaf && !s->ended) nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    return 0;
}

static nghttp2_nv nv_of(struct slice name, struct slice value) {
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name.p,
                         .value = (uint8_t *)(uintptr_t)value.p,
                         .namelen = name.n,
                         .valuelen = value.n };
}

/* A list of fields under way to nghttp2. */
struct nv_list {
    nghttp2_nv *list, stack[NV_ON_STACK];
    size_t count;
};

static void nv_init(struct nv_list *l, size_t most) {
    l->list = most > NV_ON_STACK ? must_malloc(most * sizeof *l->list) : l->stack;
    l->count = 0;
}

static void nv_fini(struct nv_list *l) {
    if (l->list != l->stack) free(l->list);
}

static void nv_add(struct nv_list *l, struct slice name, struct slice value) {
    l->list[l->count++] = nv_of(name, value);
}

/* Fields of one hop, and Host, which is :authority here, are left out; TE may say "trailers" (RFC 9113 8.2.2). */
static void nv_add_fields(struct nv_list *l, const struct headers *headers) {
    headers_each(h, headers) {
        if (h->hop || h->id == HEADER_HOST) continue;
        nv_add(l, h->name, slice_trim(h->value));
    }
}

void h2_send_response(struct h2_stream *s, const struct response *r, const struct headers *extra, bool end) {
    char digits[4] = { (char)('0' + r->status / 100 % 10), (char)('0' + r->status / 10 % 10),
                       (char)('0' + r->status % 10) };
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };
    struct nv_list l;
    nv_init(&l, r->headers.count + (extra ? extra->count : 0) + 1);
    nv_add(&l, SLICE(":status"), slice_make(digits, 3));
    nv_add_fields(&l, &r->headers);
    if (extra) nv_add_fields(&l, extra);
    if (r->status < 200) nghttp2_submit_headers(s->h2->session, NGHTTP2_FLAG_NONE, s->id, NULL, l.list, l.count, NULL);
    else nghttp2_submit_response(s->h2->session, s->id, l.list, l.count, end ? NULL : &provider);
    nv_fini(&l);
}

static struct slice write_number(char *to, size_t size, uint64_t n) {
    return slice_make(to, (size_t)snprintf(to, size, "%llu", (unsigned long long)n));
}

static void add_request_pseudo(struct nv_list *l, const struct h2_request *o) {
    const struct request *r = o->request;
    struct slice host = headers_get_id(&r->headers, HEADER_HOST);
    nv_add(l, SLICE(":method"), r->method_name);
    nv_add(l, SLICE(":scheme"), o->scheme);
    nv_add(l, SLICE(":path"), o->target);
    if (host.n) nv_add(l, SLICE(":authority"), host);
}

bool h2_send_request(struct h2 *h, struct h2_stream *s, const struct h2_request *o) {
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };
    const struct request *r = o->request;
    struct nv_list l;
    char digits[24];
    if (!nghttp2_session_check_request_allowed(h->session)) return false;
    s->h2 = h;
    s->method = r->method;
    nv_init(&l, r->headers.count + 6);
    add_request_pseudo(&l, o);
    nv_add_fields(&l, &r->headers);
    if (!o->end && r->framing.kind == FRAMING_LENGTH)
        nv_add(&l, SLICE("content-length"), write_number(digits, sizeof digits, r->framing.length));
    if (headers_list_has(&r->headers, HEADER_TE, SLICE("trailers"))) nv_add(&l, SLICE("te"), SLICE("trailers"));
    int32_t id = nghttp2_submit_request(h->session, NULL, l.list, l.count, o->end ? NULL : &provider, s);
    nv_fini(&l);
    if (id < 0) return false;
    s->id = id;
    return true;
}

static void go_on_sending(struct h2_stream *s) {
    if (!s->deferred) return;
    s->deferred = false;
    nghttp2_session_resume_data(s->h2->session, s->id);
}

/* Who is told that there is none waits for on_room; it may be others who have filled it. */
size_t h2_room(struct h2_stream *s) {
    size_t limit = s->id && !s->aborting ? out_limit(s->h2) : 0;
    if (s->out.size < limit) return limit - s->out.size;
    s->was_full = true;
    return 0;
}

void h2_send(struct h2_stream *s, struct buffer *bytes) {
    if (!s->id || s->aborting) {
        buffer_drop(bytes, bytes->size);
        return;
    }
    s->h2->queued += bytes->size;
    buffer_move(&s->out, bytes, bytes->size);
    go_on_sending(s);
}

/* ---- trailers to send */

static size_t copied_size(const struct headers *trailers, size_t *count) {
    size_t n = 0;
    *count = 0;
    headers_each(h, trailers) {
        if (h->hop) continue;
        n += h->name.n + slice_trim(h->value).n;
        ++*count;
    }
    return n;
}

static struct slice copy_behind(char **at, struct slice s) {
    struct slice copy = slice_make(*at, s.n);
    if (s.n) memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

/* NULL: there is none to send. */
static struct h2_trailers *copy_trailers(const struct headers *trailers) {
    size_t count, bytes = copied_size(trailers, &count);
    if (count == 0) return NULL;
    struct h2_trailers *t = must_malloc(sizeof *t + count * sizeof *t->list + bytes);
    char *at = (char *)(t->list + count);
    t->count = 0;
    headers_each(h, trailers) {
        if (h->hop) continue;
        struct slice name = copy_behind(&at, h->name), value = copy_behind(&at, slice_trim(h->value));
        t->list[t->count++] = nv_of(name, value);
    }
    return t;
}

void h2_end(struct h2_stream *s, const struct headers *trailers) {
    if (!s->id || s->aborting) return;
    s->end_out = true;
    if (trailers) s->out_trailers = copy_trailers(trailers);
    go_on_sending(s);
}

/* ---- the rest of a stream */

size_t h2_take(struct h2_stream *s, struct buffer *to, size_t most) {
    size_t n = s->in.size < most ? s->in.size : most;
    if (n == 0) return 0;
    buffer_move(to, &s->in, n);
    if (s->id) nghttp2_session_consume_stream(s->h2->session, s->id, n);
    if (s->h2) settle_pending(s->h2, n);
    return n;
}

static void drop_content(struct h2_stream *s) {
    if (s->h2) settle_pending(s->h2, s->in.size);
    buffer_fini(&s->in);
}

void h2_dismiss(struct h2_stream *s) {
    s->deaf = true;
    s->message.request = NULL;
    s->trailers = NULL;
    drop_content(s);
}

void h2_reset(struct h2_stream *s, enum h2_error error) {
    h2_dismiss(s);
    if (s->id) nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, error);
}

void h2_abort(struct h2_stream *s, enum h2_error error) {
    if (s->out.size == 0) {
        h2_reset(s, error);
        return;
    }
    h2_dismiss(s);
    s->aborting = (uint8_t)error;
}

void h2_stream_fini(struct h2_stream *s) {
    drop_content(s);
    buffer_fini(&s->out);
    free(s->out_trailers);
    s->out_trailers = NULL;
}

/* ---- the connection */

static nghttp2_session_callbacks *make_callbacks(void) {
    nghttp2_session_callbacks *c;
    must(nghttp2_session_callbacks_new(&c) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(c, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(c, on_send_data);
    return c;
}

static nghttp2_option *make_options(const struct h2_limits *limits) {
    nghttp2_option *o;
    must(nghttp2_option_new(&o) == 0);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_stream_reset_rate_limit(o, UINT64_MAX, UINT64_MAX); /* count_excess knows better whom to blame */
    nghttp2_option_set_builtin_recv_extension_type(o, NGHTTP2_PRIORITY_UPDATE);
    nghttp2_option_set_peer_max_concurrent_streams(o, limits->streams); /* client: until its SETTINGS tell */
    return o;
}

static void greet(struct h2 *h) {
    bool server = h->role == H2_SERVER;
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, server ? CLIENTS_WINDOW : SERVERS_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->limits.head },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
        { server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
          server ? h->limits.streams : 0 },
        { NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
    };
    size_t count = sizeof settings / sizeof *settings - (server ? 0 : 1);
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, count);
    nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
}

struct h2 *h2_open(enum h2_role role, const struct h2_limits *limits, const struct h2_handlers *handlers, void *owner) {
    struct h2 *h = must_calloc(1, sizeof *h);
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *options = make_options(limits);
    *h = (struct h2){ .role = role, .limits = *limits, .handlers = handlers, .owner = owner };
    h->resets.since = h->idle.since = clock_monotonic();
    if (role == H2_SERVER) must(nghttp2_session_server_new2(&h->session, callbacks, h, options) == 0);
    else must(nghttp2_session_client_new2(&h->session, callbacks, h, options) == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    greet(h);
    return h;
}

void h2_close(struct h2 *h) {
    if (!h) return;
    nghttp2_session_del(h->session);
    free(h);
}

void *h2_owner(const struct h2 *h) { return h->owner; }

/* Bytes are watched once, though nghttp2 may take them in several calls. */
static void watch(struct h2 *h, struct slice run) {
    if (h->role != H2_SERVER || run.n <= h->watched) return;
    unsigned frames = h->watch.frames;
    unsigned error = h2_watch_bytes(&h->watch, slice_skip(run, h->watched));
    h->watched = run.n;
    count_excess(h, &h->idle, h->watch.frames - frames, IDLE_MAX, IDLE_SECONDS);
    if (error) nghttp2_session_terminate_session(h->session, error);
}

bool h2_feed(struct h2 *h, struct buffer *in, unsigned most) {
    h->begun = 0;
    h->most = most;
    while (in->size && h->begun < most) {
        struct slice run = buffer_front(in);
        watch(h, run);
        ssize_t n = nghttp2_session_mem_recv(h->session, (const uint8_t *)run.p, run.n);
        if (n < 0) return false;
        buffer_drop(in, (size_t)n);
        h->watched -= (size_t)n < h->watched ? (size_t)n : h->watched;
        if (h->abused) nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return true;
}

void h2_write(struct h2 *h, struct buffer *out, size_t limit) {
    h->sink = out;
    h->sink_limit = limit;
    while (out->size < limit) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(h->session, &bytes);
        if (n < 0) h->broken = true;
        if (n <= 0) break;
        buffer_append(out, bytes, (size_t)n);
    }
    h->sink = NULL;
}

bool h2_over(const struct h2 *h) {
    return h->broken || (!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session));
}

void h2_shut_gently(struct h2 *h) { nghttp2_submit_shutdown_notice(h->session); }

void h2_shut(struct h2 *h, enum h2_error error) {
    int32_t last = nghttp2_session_get_last_proc_stream_id(h->session);
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, last, error, NULL, 0);
}

uint32_t h2_most_streams(const struct h2 *h) {
    uint32_t told = nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (!nghttp2_session_check_request_allowed(h->session)) return 0;
    return told < h->limits.streams ? told : h->limits.streams;
}

const char *h2_library_version(void) { return nghttp2_version(0)->version_str; }
