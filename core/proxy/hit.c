/* The pipe asks for bytes; they are peeked at in the cache, and what is large enough goes on as a reference that holds
 * the body. When the reader has all that has arrived it asks to be told of more, once; that wakes the task, which goes
 * on here. So each client reads at its own pace, and the fill at the backend's. */
#include "proxy/hit.h"

enum { HIT_AT_ONCE = 262144 };

static void unref_body(void *body) { cache_body_unref(body); }

static void append(struct buffer *to, struct slice bytes, struct cache_body *body, bool passing) {
    if (passing || bytes.n < COPY_BELOW) buffer_append(to, bytes.p, bytes.n);
    else buffer_append_held(to, bytes.p, bytes.n, unref_body, cache_body_ref(body));
}

static bool skip_some(struct hit *h, size_t there) {
    size_t n = there < h->skip ? there : (size_t)h->skip;
    cache_reader_skip(&h->reader, n);
    h->skip -= n;
    return true;
}

/* Takes up to `room` bytes of what has arrived. False: nothing is there now. */
static bool take_some(struct hit *h, struct buffer *to, size_t room) {
    bool passing;
    struct slice bytes = cache_reader_peek(&h->reader, &passing);
    if (bytes.n && h->skip) return skip_some(h, bytes.n);
    if (bytes.n > room) bytes.n = room;
    if (bytes.n > h->left) bytes.n = (size_t)h->left;
    if (bytes.n == 0) return false;
    append(to, bytes, h->body, passing);
    cache_reader_skip(&h->reader, bytes.n);
    h->left -= bytes.n;
    return true;
}

static bool open_reader(struct hit *h, uint64_t position);

/* The next piece, if the present one is done. False: there is none. */
static bool next_piece(struct hit *h, struct buffer *to) {
    while (h->left == 0) {
        if (++h->piece >= h->piece_count) return false;
        const struct hit_piece *piece = &h->pieces[h->piece];
        buffer_append(to, piece->text.p, piece->text.n);
        h->left = piece->length;
        if (h->left == 0) continue;
        cache_reader_close(&h->reader);
        if (!open_reader(h, piece->first - h->offset)) h->lost = true;
    }
    return true;
}

enum progress { PROGRESS_MORE, PROGRESS_WAIT, PROGRESS_END, PROGRESS_BROKEN };

/* No more will come. What came just before it broke is there to be taken first. */
static bool is_broken(struct hit *h) {
    bool passing;
    return cache_body_state(h->body) == CACHE_BODY_BROKEN && cache_reader_peek(&h->reader, &passing).n == 0;
}

/* What is referenced costs a client nothing to have waiting, so that it gets more at a time than it has room for: most
 * bodies in one write. A window's bytes are copied, and keep to the room. */
static size_t most_at_once(struct hit *h, size_t room) {
    bool passing;
    cache_reader_peek(&h->reader, &passing);
    return passing || room > HIT_AT_ONCE ? room : HIT_AT_ONCE;
}

/* One buffer of what is there. */
static enum progress gather(struct hit *h, struct buffer *to, size_t room) {
    while (to->size < room) {
        if (!next_piece(h, to)) return PROGRESS_END;
        if (h->lost) return PROGRESS_BROKEN;
        if (take_some(h, to, room - to->size)) continue;
        if (cache_reader_at_end(&h->reader)) return h->pieces == &h->whole ? PROGRESS_END : PROGRESS_BROKEN;
        if (is_broken(h)) return PROGRESS_BROKEN;
        if (cache_reader_await(&h->reader)) return PROGRESS_WAIT;
    }
    return PROGRESS_MORE;
}

static void flow(struct hit *h) {
    if (h->flowing || !h->open) return;
    h->flowing = true;
    enum progress progress = PROGRESS_MORE;
    size_t room;
    while (progress == PROGRESS_MORE && (room = pipe_room(&h->pipe)) > 0) {
        struct buffer bytes = { 0 };
        progress = gather(h, &bytes, most_at_once(h, room));
        if (bytes.size) pipe_write(&h->pipe, &bytes, bytes.size);
        buffer_fini(&bytes);
        if (!h->open) break; /* a reader ended the exchange */
    }
    h->flowing = false;
    if (!h->open) return;
    if (progress == PROGRESS_END) pipe_end(&h->pipe, NULL);
    if (progress == PROGRESS_BROKEN) pipe_fail(&h->pipe, FAIL_TRUNCATED);
}

static void pipe_has_room(struct pipe *p) {
    struct hit *h = container_of(p, struct hit, pipe);
    if (!h->polite) flow(h);
}

static void advance(struct task *t) { flow(container_of(t, struct hit, task)); }

static void on_next_turn(struct turn_hook *hook) {
    struct hit *h = container_of(hook, struct hit, next_turn);
    turn_hook_remove(hook);
    h->polite = false;
    task_wake(h->loop, &h->task);
}

static void reader_tell(struct cache_reader *r) { news_tell(container_of(r, struct hit, reader)->news); }

/* Only a body that is still arriving will ever tell. */
static bool open_reader(struct hit *h, uint64_t position) {
    if (!h->news && cache_body_state(h->body) == CACHE_BODY_ARRIVING)
        h->news = news_open(h->loop, h->mailbox, &h->task);
    uint64_t arrived = cache_body_length(h->body), from = position < arrived ? position : arrived;
    h->skip = position - from;
    return cache_reader_open(&h->reader, h->body, from, reader_tell);
}

bool hit_open(struct hit *h, struct cache_body *body, struct loop *loop, struct mailbox *mailbox) {
    *h = (struct hit){ .body = cache_body_ref(body), .loop = loop, .mailbox = mailbox, .open = true };
    pipe_init(&h->pipe, pipe_has_room, NULL);
    task_init(&h->task, advance);
    list_init(&h->next_turn.node);
    h->next_turn.run = on_next_turn;
    h->whole.length = h->left = UINT64_MAX;
    h->pieces = &h->whole;
    h->piece_count = 1;
    if (!open_reader(h, 0)) hit_close(h);
    return h->open;
}

/* A herd's bodies would fill the turn that writes the first heads, 64 KiB for each, and the last would wait for
 * them. */
void hit_be_polite(struct hit *h) {
    h->polite = true;
    turn_hook_add(h->loop, &h->next_turn);
}

void hit_cut(struct hit *h, const struct hit_piece *pieces, unsigned count, uint64_t offset) {
    h->pieces = pieces;
    h->piece_count = count;
    h->offset = offset;
    h->piece = UINT32_MAX; /* the first is the next */
    h->left = 0;
}

void hit_close(struct hit *h) {
    if (!h->open) return;
    h->open = false;
    pipe_fini(&h->pipe);
    cache_reader_close(&h->reader);
    news_close(h->news);
    task_forget(&h->task);
    turn_hook_remove(&h->next_turn);
    cache_body_unref(h->body);
}
