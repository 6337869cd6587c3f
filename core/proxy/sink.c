/* Bytes go into the store as they come. A stored body takes all; one that is stored no more (cache.h) is a window,
 * whose room the slowest of its readers makes, in whatever thread. */
#include "proxy/sink.h"

static struct sink *of_reader(struct pipe_reader *r) { return container_of(r, struct sink, reader); }

static void end(struct sink *s) {
    if (s->ended) return;
    s->ended = true;
    s->over(s);
}

static void tell_room(void *news) { news_tell(news); }

static size_t room(struct pipe_reader *r) { return cache_body_room(of_reader(r)->body, tell_room, of_reader(r)->news); }

static void take(struct pipe_reader *r, struct buffer *bytes) {
    struct sink *s = of_reader(r);
    cache_body_write(s->body, bytes);
    if (cache_body_abandoned(s->body)) news_tell(s->news);
}

static void take_end(struct pipe_reader *r, const struct headers *trailers) {
    (void)trailers;
    cache_body_end(of_reader(r)->body);
    end(of_reader(r));
}

static void take_failure(struct pipe_reader *r, enum failure why) {
    (void)why;
    cache_body_break(of_reader(r)->body);
    end(of_reader(r));
}

static const struct pipe_reader_ops ops = { room, take, take_end, take_failure };

static void advance(struct task *t) {
    struct sink *s = container_of(t, struct sink, task);
    if (s->ended) return;
    if (cache_body_abandoned(s->body)) end(s);
    else pipe_reader_has_room(&s->reader);
}

void sink_open(struct sink *s, struct cache_body *body, struct loop *loop, struct mailbox *mailbox,
               void (*over)(struct sink *)) {
    *s = (struct sink){ .body = cache_body_ref(body), .over = over, .reader.ops = &ops };
    task_init(&s->task, advance);
    s->news = news_open(loop, mailbox, &s->task);
}

void sink_close(struct sink *s) {
    if (!s->body) return;
    s->ended = true;
    pipe_remove_reader(&s->reader);
    if (cache_body_state(s->body) == CACHE_BODY_ARRIVING) cache_body_break(s->body);
    cache_body_unref(s->body);
    s->body = NULL;
    news_close(s->news);
    task_forget(&s->task);
}
