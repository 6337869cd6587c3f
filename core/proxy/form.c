/* A form is stored like a response, under a key of its own: that of its origin, the coding, and the serial of the very
 * body it was made of. So it is evicted for itself, and a form of a body that was replaced, purged or validated away is
 * simply not found any more. */
#include "proxy/form.h"

#include "proxy/exchange.h"
#include "proxy/stages.h"

static struct cache_key form_key(struct exchange *x, const struct cached *of, enum coding coding) {
    return cache_key_of(arena_printf(&x->arena, "%.*s\n%.*s\n%llu", FMT(of->key), FMT(coding_name(coding)),
                                     (unsigned long long)cache_body_serial(of->body)));
}

static void over(struct sink *s) {
    struct form *f = container_of(s, struct form, sink);
    f->over = true;
    exchange_wake(f->exchange);
}

static struct cached *begin(struct form *f, struct exchange *x, struct cache_fill *place, struct cached *of,
                            enum coding coding, int level) {
    struct worker *w = x->subject.worker;
    struct headers none;
    headers_init(&none, &x->arena);
    struct cache_draft draft = { .status = of->status,
                                 .version = of->version,
                                 .headers = &none,
                                 .rule = of->rule,
                                 .freshness = of->freshness,
                                 .length = UINT64_MAX };
    struct cached *stored = cache_fill_store(place, &draft);
    if (!stored) return NULL;
    f->exchange = x;
    f->stored = stored;
    hit_open(&f->from, of->body, &w->loop, &w->mailbox); /* whole: it is all there */
    pipe_add_stage(&f->from.pipe, stage_encode(coding, level));
    sink_open(&f->sink, stored->body, &w->loop, &w->mailbox, over);
    return cached_ref(stored);
}

static void tell_nobody(struct cache_follower *f) { (void)f; }

struct cached *form_of(struct form *f, struct exchange *x, struct cached *of, enum coding coding, int level) {
    struct cache_key key = form_key(x, of, coding);
    struct headers nothing = { 0 };
    enum cache_miss miss;
    bool stale;
    struct cached *kept = cache_look_up(of->cache, &key, &nothing, &stale, &miss);
    if (kept && !kept->pass) return kept;
    struct cache_follower nobody = { .tell = tell_nobody }; /* it may be told before it lets go */
    struct cache_fill *place;
    switch (cache_join(of->cache, &key, &nothing, kept, &nobody, &place)) {
    case CACHE_LEAD: break;
    case CACHE_FOLLOW: cache_unfollow(&nobody); /* fall through */
    case CACHE_CHANGED: cached_unref(kept); return NULL;
    }
    cached_unref(kept);
    return begin(f, x, place, of, coding, level);
}

bool form_length(struct exchange *x, const struct cached *of, enum coding coding, uint64_t *length) {
    struct cache_key key = form_key(x, of, coding);
    struct headers nothing = { 0 };
    enum cache_miss miss;
    bool stale;
    struct cached *kept = cache_look_up(of->cache, &key, &nothing, &stale, &miss);
    bool whole = kept && !kept->pass && cache_body_state(kept->body) == CACHE_BODY_WHOLE;
    if (whole) *length = cache_body_length(kept->body);
    cached_unref(kept);
    return whole;
}

void form_start(struct form *f) {
    if (f->exchange && !f->sink.reader.pipe && !f->over) pipe_add_reader(&f->from.pipe, &f->sink.reader);
}

void form_end(struct form *f) {
    if (!f->exchange) return;
    f->over = true;
    sink_close(&f->sink);
    hit_close(&f->from);
    cached_unref(f->stored);
    f->stored = NULL;
}
