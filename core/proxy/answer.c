/* Answers that no backend made. Their bodies are in memory, and still go through a pipe, so that a slow client costs no
 * more than its window. */
#include "proxy/answer.h"

static void no_room(struct pipe *p) { (void)p; }

static void forget_content(struct exchange *x) {
    pipe_remove_watch(&x->content_watch);
    x->response_content = (struct content){ 0 };
}

static void fill_body(struct exchange *x, struct slice body) {
    struct pipe *p = x->reply_body;
    if (p) pipe_fini(p);
    else p = x->reply_body = arena_alloc(&x->arena, sizeof *p);
    pipe_init(p, no_room, NULL);
    p->hold = SIZE_MAX;
    struct buffer bytes = { 0 };
    buffer_append(&bytes, body.p, body.n);
    pipe_write(p, &bytes, bytes.size);
    pipe_end(p, NULL);
    x->body = p;
    x->response.framing = (struct framing){ .kind = FRAMING_LENGTH, .length = body.n };
}

void answer_reply(struct exchange *x, const struct reply *reply, enum response_source source) {
    x->response = (struct response){ .status = reply->status, .version = HTTP_1_1, .headers = reply->headers };
    x->response.reason = status_reason(reply->status);
    x->source = source;
    headers_init(&x->response.trailers, &x->arena);
    if (!x->response.headers.arena) headers_init(&x->response.headers, &x->arena);
    forget_content(x);
    if (!reply->flow) {
        fill_body(x, reply->body);
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

void answer_failure(struct exchange *x, enum failure failure, int status) {
    struct reply page = { .status = status };
    headers_init(&page.headers, &x->arena);
    headers_add_id(&page.headers, HEADER_CONTENT_TYPE, SLICE("text/plain; charset=utf-8"));
    headers_add_id(&page.headers, HEADER_CACHE_CONTROL, SLICE("no-store"));
    if (status == 503) headers_add_id(&page.headers, HEADER_RETRY_AFTER, SLICE("5"));
    page.body = arena_printf(&x->arena, "%d %.*s\n%s\nrequest %s\n", status, FMT(status_reason(status)),
                             failure_sentence(failure), x->id);
    answer_reply(x, &page, SOURCE_ERROR);
}

void answer_set_body(struct exchange *x, struct slice body) {
    headers_remove_id(&x->response.headers, HEADER_ETAG);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_LENGTH);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_ENCODING);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_RANGE);
    headers_remove(&x->response.headers, SLICE("Accept-Ranges"));
    headers_remove(&x->response.headers, SLICE("Content-MD5"));
    headers_remove(&x->response.headers, SLICE("Digest"));
    forget_content(x);
    fill_body(x, body);
}
