/* Answers that no backend made. Their bodies are in memory, and still go through a pipe, so that a slow client costs no
 * more than its window. */
#include "proxy/answer.h"

static void no_room(struct pipe *p) { (void)p; }

static void forget_content(const struct answer *a) {
    pipe_remove_watch(a->watch);
    *a->content = (struct content){ 0 };
}

static void fill_body(const struct answer *a, struct slice body) {
    struct pipe *p = *a->made;
    if (p) pipe_fini(p);
    else p = *a->made = arena_alloc(a->arena, sizeof *p);
    pipe_init(p, no_room, NULL);
    p->hold = SIZE_MAX;
    struct buffer bytes = { 0 };
    buffer_append(&bytes, body.p, body.n);
    pipe_write(p, &bytes, bytes.size);
    pipe_end(p, NULL);
    *a->body = p;
    a->response->framing = (struct framing){ .kind = FRAMING_LENGTH, .length = body.n };
}

void answer_reply(struct exchange *x, const struct reply *reply, enum response_source source) {
    x->response = (struct response){ .status = reply->status, .version = HTTP_1_1, .headers = reply->headers };
    x->response.reason = status_reason(reply->status);
    x->source = source;
    headers_init(&x->response.trailers, &x->arena);
    if (!x->response.headers.arena) headers_init(&x->response.headers, &x->arena);
    struct answer a = answer_of(x);
    forget_content(&a);
    if (!reply->flow) {
        fill_body(&a, reply->body);
        return;
    }
    x->body = reply->flow;
    x->response.framing = reply->framing;
    x->response_content = reply->content;
    if (reply->content.changed) {
        x->response_content.changed = false;
        content_change(&x->response_content, &x->response.headers, &x->response.framing);
    }
    if (reply->content.coding != CODING_IDENTITY)
        headers_set_id(&x->response.headers, HEADER_CONTENT_ENCODING, coding_name(reply->content.coding));
}

/* "application/grpc", "application/grpc+proto", "application/grpc-web", … */
static bool is_grpc(const struct exchange *x) {
    struct slice type = headers_get_id(&x->request.headers, HEADER_CONTENT_TYPE), grpc = SLICE("application/grpc");
    return type.n >= grpc.n && slice_equal_nocase(slice_make(type.p, grpc.n), grpc);
}

void answer_failure(struct exchange *x, enum failure failure, int status) {
    struct reply page = { .status = status };
    headers_init(&page.headers, &x->arena);
    headers_add_id(&page.headers, HEADER_CONTENT_TYPE, SLICE("text/plain; charset=utf-8"));
    headers_add_id(&page.headers, HEADER_CACHE_CONTROL, SLICE("no-store"));
    if (status == 503) headers_add_id(&page.headers, HEADER_RETRY_AFTER, SLICE("5"));
    if (is_grpc(x)) page.body = arena_printf(&x->arena, "%s (request %s)", failure_sentence(failure), x->id);
    else
        page.body = arena_printf(&x->arena, "%d %.*s\n%s\nrequest %s\n", status, FMT(status_reason(status)),
                                 failure_sentence(failure), x->id);
    answer_reply(x, &page, SOURCE_ERROR);
}

/* ---- gRPC: its clients look at trailers, which may stand in the head when there is nothing else */

enum { GRPC_MESSAGE_MAX = 512 };

/* The canonical codes. Where the gRPC specification has clients take several for "unavailable", we know more. */
static int grpc_status(int status) {
    switch (status) {
    case 400:
    case 500: return 13; /* internal */
    case 401: return 16; /* unauthenticated */
    case 403: return 7;  /* permission denied */
    case 404:
    case 405:
    case 501: return 12; /* unimplemented */
    case 408:
    case 504: return 4;  /* deadline exceeded */
    case 409: return 10; /* aborted */
    case 412: return 9;  /* failed precondition */
    case 413:
    case 414:
    case 429:
    case 431: return 8; /* resource exhausted */
    case 502:
    case 503: return 14; /* unavailable */
    default: return 2;   /* unknown */
    }
}

/* As the gRPC specification has it: visible ASCII and spaces but "%" as they are. */
static struct slice grpc_message(struct arena *arena, struct slice text) {
    static const char digits[] = "0123456789ABCDEF";
    text = slice_trim(text);
    char *out = arena_bytes(arena, 3 * text.n + 1), *at = out;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= ' ' && c <= '~' && c != '%') {
            *at++ = (char)c;
            continue;
        }
        *at++ = '%';
        *at++ = digits[c >> 4];
        *at++ = digits[c & 15];
    }
    return slice_make(out, (size_t)(at - out));
}

static struct slice body_text(struct exchange *x) {
    struct buffer *body = &x->reply_body->pending;
    size_t n = body->size < GRPC_MESSAGE_MAX ? body->size : GRPC_MESSAGE_MAX;
    char *text = arena_bytes(&x->arena, n + 1);
    buffer_peek(body, text, n);
    while (n && text[n - 1] == '\n') n--;
    return slice_make(text, n);
}

void answer_suit_client(struct exchange *x) {
    struct headers *headers = &x->response.headers;
    bool fine = x->response.status >= 200 && x->response.status <= 299;
    if (fine || !is_grpc(x) || headers_find(headers, SLICE("Grpc-Status"))) return;
    struct slice message = grpc_message(&x->arena, body_text(x));
    struct slice status = arena_printf(&x->arena, "%d", grpc_status(x->response.status));
    x->response.status = 200;
    x->response.reason = status_reason(200);
    headers_set_id(headers, HEADER_CONTENT_TYPE, headers_get_id(&x->request.headers, HEADER_CONTENT_TYPE));
    headers_set(headers, SLICE("Grpc-Status"), status);
    if (message.n) headers_set(headers, SLICE("Grpc-Message"), message);
    struct answer a = answer_of(x);
    answer_set_body(&a, SLICE(""));
}

void answer_set_body(const struct answer *a, struct slice body) {
    struct headers *headers = &a->response->headers;
    headers_remove_id(headers, HEADER_ETAG);
    headers_remove_id(headers, HEADER_CONTENT_LENGTH);
    headers_remove_id(headers, HEADER_CONTENT_ENCODING);
    headers_remove_id(headers, HEADER_CONTENT_RANGE);
    headers_remove(headers, SLICE("Accept-Ranges"));
    headers_remove(headers, SLICE("Content-MD5"));
    headers_remove(headers, SLICE("Digest"));
    forget_content(a);
    fill_body(a, body);
}

void answer_empty(struct exchange *x) {
    struct answer a = answer_of(x);
    forget_content(&a);
    fill_body(&a, SLICE(""));
}
