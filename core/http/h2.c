/* HTTP/2 over nghttp2.
 *
 * Windows. Each stream's is opened as its content is taken. The connection's is opened as content arrives, as long as
 * not too much lies here untaken over all streams: else one stream that nobody reads would stop all others, or many
 * would fill our memory.
 *
 * Sending content. nghttp2 asks how much of a stream it may send, and then for the bytes, which are moved from `out` into
 * the connection's buffer behind their frame header: no copy. Heads are copied by it, since they are coded only when
 * their turn comes, when the exchange's memory may be gone.
 *
 * Floods. nghttp2 itself ends connections that send too many CONTINUATION frames, SETTINGS, or PINGs that must be
 * answered, and that reset streams too fast (CVE-2023-44487). Empty DATA frames are counted here. What nghttp2 only
 * ignores is an error here: fields that it finds invalid (RFC 9113 8.2.1), and what h2_watch.c finds. */
#include "http/h2.h"

#include "base/must.h"
#include "http/framing.h"
#include "http/grammar.h"
#include "http/h2_watch.h"

#include <nghttp2/nghttp2.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_WINDOW = 262144,
    CONNECTION_WINDOW = 1 << 20,
    PENDING_MAX = 1 << 20,   /* untaken bytes of all streams, beyond which the connection's window stays shut */
    EMPTY_FRAMES_MAX = 1000, /* DATA frames without a byte or an end */
    RESETS_BURST = 400,
    RESETS_PER_SECOND = 50,
    NV_ON_STACK = 64
};

enum phase { PHASE_HEAD, PHASE_BODY };

struct h2 {
    nghttp2_session *session;
    const struct h2_handlers *handlers;
    void *owner;
    enum h2_role role;
    struct h2_limits limits;
    struct h2_watch watch; /* server */
    unsigned streams;
    unsigned begun, most; /* during h2_feed */
    size_t watched;       /* bytes at the front of what is fed that were watched already */
    size_t pending, owed; /* untaken bytes; those of them that the connection's window was not opened by */
    unsigned empty_frames;
    struct buffer *sink; /* during h2_write */
    bool broken;
};

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id) {
    return nghttp2_session_get_stream_user_data(session, id);
}

/* ---- heads: field by field */

static struct arena *arena_of(const struct h2_stream *s) {
    return s->h2->role == H2_SERVER ? s->message.request->headers.arena : s->message.response->headers.arena;
}

static struct headers *fields_of(const struct h2_stream *s) {
    if (s->phase == PHASE_BODY) return s->trailers;
    return s->h2->role == H2_SERVER ? &s->message.request->headers : &s->message.response->headers;
}

static void fail_head(struct h2_stream *s, enum failure why) {
    if (!s->failed) s->failed = (uint8_t)why;
}

static bool is_target(struct slice text) {
    for (size_t i = 0; i < text.n; i++)
        if (!byte_is(text.p[i], BYTE_TARGET)) return false;
    return text.n > 0;
}

static void take_request_pseudo(struct h2_stream *s, struct slice name, struct slice value) {
    struct request *r = s->message.request;
    value = arena_copy(arena_of(s), value);
    if (slice_equal(name, SLICE(":method"))) {
        r->method_name = value;
        r->method = method_of(value);
    } else if (slice_equal(name, SLICE(":path"))) {
        r->target.raw = value;
        if (!is_target(value)) fail_head(s, FAIL_BAD_REQUEST);
        if (value.n > s->h2->limits.target) fail_head(s, FAIL_TARGET_TOO_LONG);
    } else if (slice_equal(name, SLICE(":authority"))) {
        s->authority = value;
    } else if (slice_equal(name, SLICE(":scheme"))) {
        r->target.scheme = value;
    } else if (slice_equal(name, SLICE(":protocol"))) {
        s->protocol = value;
    }
}

static void take_status(struct response *r, struct slice value) {
    uint64_t status = 0;
    if (value.n == 3 && slice_to_u64(value, &status)) r->status = (int)status;
}

/* Crumbs of a cookie are one field again for who reads it, and for a backend that speaks HTTP/1 (RFC 9113 8.2.3). */
static bool join_cookie(struct headers *headers, struct slice value) {
    struct header *h = headers_find_id(headers, HEADER_COOKIE);
    if (!h) return false;
    h->value = arena_concat(headers->arena, (struct slice[]){ h->value, SLICE("; "), value }, 3);
    return true;
}

static void take_field(struct h2_stream *s, struct slice name, struct slice value) {
    struct headers *headers = fields_of(s);
    enum header_id id = header_id_of(name);
    if (s->h2->role == H2_SERVER && s->phase == PHASE_HEAD) {
        if (id == HEADER_COOKIE && join_cookie(headers, value)) return;
        /* Beside :authority, Host may only say the same. */
        if (id == HEADER_HOST && s->authority.p) {
            if (!slice_equal_nocase(s->authority, value)) fail_head(s, FAIL_BAD_HOST);
            return;
        }
    }
    headers_add(headers, arena_copy(headers->arena, name), arena_copy(headers->arena, value));
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
    (void)flags;
    (void)user;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s || s->failed) return 0;
    const struct h2_limits *limits = &s->h2->limits;
    struct slice n = slice_make((const char *)name, name_n), v = slice_make((const char *)value, value_n);
    s->head_bytes += (uint32_t)(name_n + value_n);
    s->fields++;
    if (s->head_bytes > limits->head || s->fields > limits->fields + 4)
        fail_head(s, s->h2->role == H2_SERVER ? FAIL_HEADERS_TOO_LARGE : FAIL_RESPONSE_HEADERS_TOO_LARGE);
    else if (name_n && name[0] == ':' && s->h2->role == H2_SERVER) take_request_pseudo(s, n, v);
    else if (name_n && name[0] == ':') take_status(s->message.response, v);
    else take_field(s, n, v);
    /* Enough streams for this turn: what follows waits. */
    return s->h2->begun >= s->h2->most ? NGHTTP2_ERR_PAUSE : 0;
}

/* A field that nghttp2 would leave out: the message is malformed (RFC 9113 8.2.1). */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                             const uint8_t *value, size_t value_n, uint8_t flags, void *user) {
    (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)user;
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* ---- heads: whole */

/* An extended CONNECT (RFC 8441) is for everybody behind this file the upgrade it stands for. The key that HTTP/1 wants
 * proves nothing here; it is any. */
static void become_upgrade(struct h2_stream *s) {
    struct request *r = s->message.request;
    r->method = METHOD_GET;
    r->method_name = SLICE("GET");
    headers_add_id(&r->headers, HEADER_CONNECTION, SLICE("Upgrade"));
    headers_add_id(&r->headers, HEADER_UPGRADE, s->protocol);
    if (slice_equal_nocase(s->protocol, SLICE("websocket")) && !headers_find(&r->headers, SLICE("Sec-WebSocket-Key")))
        headers_add(&r->headers, SLICE("Sec-WebSocket-Key"), SLICE("bW9vbmdhdGUgaDIgd3MhIQ=="));
}

static void finish_request_head(struct h2_stream *s, bool end) {
    struct request *r = s->message.request;
    r->version = HTTP_2;
    if (s->authority.p) headers_add_id(&r->headers, HEADER_HOST, s->authority);
    if (s->protocol.p) become_upgrade(s);
    else if (r->method == METHOD_CONNECT) r->target.raw = s->authority;
    enum failure why = framing_of_request(r);
    if (why != FAIL_NONE) fail_head(s, why);
    if (!end && !s->protocol.p && r->method != METHOD_CONNECT && r->framing.kind == FRAMING_NONE)
        r->framing.kind = FRAMING_CHUNKED;
}

static void finish_response_head(struct h2_stream *s, bool end) {
    struct response *r = s->message.response;
    r->version = HTTP_2;
    r->reason = status_reason(r->status);
    if (framing_of_response(r, s->method) != FAIL_NONE) fail_head(s, FAIL_BAD_RESPONSE);
    if (end && r->framing.kind == FRAMING_UNTIL_CLOSE) r->framing = (struct framing){ .kind = FRAMING_NONE };
    if (r->framing.kind == FRAMING_UNTIL_CLOSE) r->framing.kind = FRAMING_CHUNKED; /* streams have ends of their own */
    r->framing.keep_alive = true;
}

static void take_end(struct h2_stream *s) {
    s->ended = true;
    s->h2->handlers->on_end(s);
}

static void take_head(struct h2_stream *s, bool end) {
    bool server = s->h2->role == H2_SERVER;
    if (server) finish_request_head(s, end);
    else finish_response_head(s, end);
    bool interim = !server && s->message.response->status < 200 && !s->failed;
    enum failure why = s->failed;
    s->head_bytes = s->fields = s->failed = 0;
    if (!interim) s->phase = PHASE_BODY;
    if (end) s->ended = true;
    s->h2->handlers->on_head(s, why, end);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h = user;
    if (h->role != H2_SERVER || frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct h2_stream *s = h->handlers->on_begin(h);
    if (!s) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    s->h2 = h;
    s->id = frame->hd.stream_id;
    h->streams++;
    h->begun++;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

/* ---- content */

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                         void *user) {
    (void)flags;
    struct h2 *h = user;
    struct h2_stream *s = stream_of(session, id);
    h->empty_frames = 0;
    if (!s) {
        nghttp2_session_consume(session, id, n);
        return 0;
    }
    buffer_append(&s->in, data, n);
    h->pending += n;
    if (h->pending <= PENDING_MAX) nghttp2_session_consume_connection(session, n);
    else h->owed += n;
    return 0;
}

/* `n` bytes lie here no longer. */
static void settle_pending(struct h2 *h, size_t n) {
    h->pending -= n;
    if (h->pending > PENDING_MAX || h->owed == 0) return;
    nghttp2_session_consume_connection(h->session, h->owed);
    h->owed = 0;
}

/* ---- frames */

static int count_empty_frame(struct h2 *h) {
    if (++h->empty_frames > EMPTY_FRAMES_MAX) nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    struct h2 *h = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && h->handlers->on_goaway) h->handlers->on_goaway(h);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_DATA && !end && frame->hd.length <= frame->data.padlen) return count_empty_frame(h);
    if (!s) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && s->phase == PHASE_HEAD) {
        take_head(s, end);
        return 0;
    }
    if (frame->hd.type == NGHTTP2_DATA && s->in.size) h->handlers->on_body(s);
    if (s->failed) h2_reset(s, H2_PROTOCOL_ERROR); /* trailers that are too large */
    else if (end) take_end(s);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user) {
    struct h2 *h = user;
    struct h2_stream *s = stream_of(session, id);
    if (!s) return 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    h->streams--;
    s->id = 0;
    buffer_fini(&s->out);
    h->handlers->on_close(s, error);
    return 0;
}

/* ---- sending */

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is nghttp2's */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t most, uint32_t *flags,
                       nghttp2_data_source *source, void *user) {
    (void)session, (void)id, (void)to, (void)user;
    struct h2_stream *s = source->ptr;
    size_t n = s->out.size < most ? s->out.size : most;
    if (n == 0 && !s->end_out) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->end_out && n == s->out.size) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->out_trailers) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    return (ssize_t)n;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source, void *user) {
    (void)session, (void)frame; /* never padded: there is no select_padding callback */
    struct h2 *h = user;
    struct h2_stream *s = source->ptr;
    buffer_append(h->sink, head, 9);
    buffer_move(h->sink, &s->out, n);
    if (!s->was_full || s->out.size >= H2_STREAM_OUT / 2) return 0;
    s->was_full = false;
    h->handlers->on_room(s);
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s && s->reset_unread && !s->ended)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
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

static void add_request_pseudo(struct nv_list *l, const struct request *r, struct slice target, struct slice protocol) {
    struct slice host = headers_get_id(&r->headers, HEADER_HOST);
    bool connect = r->method == METHOD_CONNECT;
    nv_add(l, SLICE(":method"), protocol.p ? SLICE("CONNECT") : r->method_name);
    if (protocol.p) nv_add(l, SLICE(":protocol"), protocol);
    if (!connect) nv_add(l, SLICE(":scheme"), r->target.scheme.n ? r->target.scheme : SLICE("http"));
    if (!connect) nv_add(l, SLICE(":path"), target);
    if (host.n) nv_add(l, SLICE(":authority"), host);
}

bool h2_send_request(struct h2 *h, struct h2_stream *s, const struct request *r, struct slice target,
                     struct slice protocol, bool end) {
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };
    struct nv_list l;
    char digits[24];
    s->h2 = h;
    s->method = protocol.p ? METHOD_CONNECT : r->method;
    nv_init(&l, r->headers.count + 8);
    add_request_pseudo(&l, r, target, protocol);
    nv_add_fields(&l, &r->headers);
    if (!end && r->framing.kind == FRAMING_LENGTH)
        nv_add(&l, SLICE("content-length"), write_number(digits, sizeof digits, r->framing.length));
    if (headers_list_has(&r->headers, HEADER_TE, SLICE("trailers"))) nv_add(&l, SLICE("te"), SLICE("trailers"));
    s->id = nghttp2_submit_request(h->session, NULL, l.list, l.count, end ? NULL : &provider, s);
    nv_fini(&l);
    if (s->id < 0) {
        s->id = 0;
        return false;
    }
    h->streams++;
    return true;
}

static void go_on_sending(struct h2_stream *s) {
    if (!s->deferred) return;
    s->deferred = false;
    nghttp2_session_resume_data(s->h2->session, s->id);
}

size_t h2_room(const struct h2_stream *s) { return s->out.size < H2_STREAM_OUT ? H2_STREAM_OUT - s->out.size : 0; }

void h2_send(struct h2_stream *s, struct buffer *bytes) {
    if (!s->id) {
        buffer_drop(bytes, bytes->size);
        return;
    }
    buffer_move(&s->out, bytes, bytes->size);
    if (s->out.size >= H2_STREAM_OUT) s->was_full = true;
    go_on_sending(s);
}

static void send_trailers(struct h2_stream *s, const struct headers *trailers) {
    struct nv_list l;
    nv_init(&l, trailers->count);
    nv_add_fields(&l, trailers);
    s->out_trailers = l.count > 0 && nghttp2_submit_trailer(s->h2->session, s->id, l.list, l.count) == 0;
    nv_fini(&l);
}

void h2_end(struct h2_stream *s, const struct headers *trailers) {
    if (!s->id) return;
    s->end_out = true;
    if (trailers) send_trailers(s, trailers);
    go_on_sending(s);
}

size_t h2_take(struct h2_stream *s, struct buffer *to, size_t most) {
    size_t n = s->in.size < most ? s->in.size : most;
    if (n == 0) return 0;
    buffer_move(to, &s->in, n);
    if (s->id) nghttp2_session_consume_stream(s->h2->session, s->id, n);
    if (s->h2) settle_pending(s->h2, n);
    return n;
}

void h2_reset(struct h2_stream *s, enum h2_error error) {
    if (s->id) nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, error);
}

static void drop_content(struct h2_stream *s) {
    if (s->h2) settle_pending(s->h2, s->in.size);
    buffer_fini(&s->in);
}

void h2_stream_fini(struct h2_stream *s) {
    drop_content(s);
    buffer_fini(&s->out);
}

void h2_dismiss(struct h2_stream *s) {
    s->reset_unread = true;
    drop_content(s);
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
    nghttp2_option_set_stream_reset_rate_limit(o, RESETS_BURST, RESETS_PER_SECOND);
    nghttp2_option_set_builtin_recv_extension_type(o, NGHTTP2_PRIORITY_UPDATE);
    nghttp2_option_set_peer_max_concurrent_streams(o, limits->streams); /* client: until its SETTINGS tell */
    return o;
}

static void greet(struct h2 *h) {
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->limits.head },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
        { h->role == H2_SERVER ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
          h->role == H2_SERVER ? h->limits.streams : 0 },
        { NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
    };
    size_t count = sizeof settings / sizeof *settings - (h->role == H2_CLIENT);
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, count);
    nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
}

struct h2 *h2_open(enum h2_role role, const struct h2_limits *limits, const struct h2_handlers *handlers, void *owner) {
    struct h2 *h = must_calloc(1, sizeof *h);
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *options = make_options(limits);
    *h = (struct h2){ .role = role, .limits = *limits, .handlers = handlers, .owner = owner };
    int failed = role == H2_SERVER ? nghttp2_session_server_new2(&h->session, callbacks, h, options)
                                   : nghttp2_session_client_new2(&h->session, callbacks, h, options);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    if (failed) {
        free(h);
        return NULL;
    }
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
    unsigned error = h2_watch_bytes(&h->watch, slice_skip(run, h->watched));
    h->watched = run.n;
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
    }
    return true;
}

void h2_write(struct h2 *h, struct buffer *out, size_t limit) {
    h->sink = out;
    while (out->size < limit) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(h->session, &bytes);
        if (n < 0) h->broken = true;
        if (n <= 0) break;
        buffer_append(out, bytes, (size_t)n);
    }
    h->sink = NULL;
}

bool h2_wants_write(const struct h2 *h) { return nghttp2_session_want_write(h->session); }

bool h2_over(const struct h2 *h) {
    return h->broken || (!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session));
}

unsigned h2_streams(const struct h2 *h) { return h->streams; }

void h2_shut_gently(struct h2 *h) { nghttp2_submit_shutdown_notice(h->session); }

void h2_shut(struct h2 *h, enum h2_error error) {
    int32_t last = nghttp2_session_get_last_proc_stream_id(h->session);
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, last, error, NULL, 0);
}

bool h2_has_room(const struct h2 *h) {
    return nghttp2_session_check_request_allowed(h->session) &&
           h->streams < nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool h2_knows_protocols(const struct h2 *h) {
    return nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}
