/* The story of a fill. Its engine is small: the fetch is asked for a head (`judge`), which is stored, freshens what is
 * there, or is not for others; then bytes go from the fetch's body into the store until the end of either.
 *
 * What is not for others is no loss: the exchange takes over the fetch, as if it had made it for itself, and those who
 * waited are told to ask for themselves, all at once. */
#include "proxy/fill.h"

#include "base/clock.h"
#include "base/log.h"
#include "http/conditions.h"
#include "http/date.h"
#include "http/ranges.h"
#include "http/uri.h"
#include "http/vary.h"
#include "proxy/caching.h"
#include "proxy/exchange.h"

static struct worker *worker_of_fill(const struct fill *f) { return f->exchange->subject.worker; }

static void settle(struct fill *f, enum fill_state state) {
    f->state = state;
    exchange_wake(f->exchange);
}

static void over(struct fill *f) {
    f->over = true;
    exchange_wake(f->exchange);
}

/* ---- what is asked */

static void remove_conditions(struct headers *h) {
    headers_remove(h, SLICE("If-None-Match"));
    headers_remove(h, SLICE("If-Modified-Since"));
    headers_remove(h, SLICE("If-Range"));
    headers_remove(h, SLICE("Range"));
}

/* RFC 9111 4.3.1: every validator there is. */
static void add_conditions(struct headers *h, const struct headers *stored) {
    struct slice etag = headers_get_id(stored, HEADER_ETAG);
    const struct header *modified = headers_find(stored, SLICE("Last-Modified"));
    if (etag.p) headers_add(h, SLICE("If-None-Match"), etag);
    if (modified) headers_add(h, SLICE("If-Modified-Since"), modified->value);
}

static void make_request(struct fill *f, bool as_it_is) {
    struct exchange *x = f->exchange;
    f->request = x->request;
    headers_init(&f->request.headers, &x->arena);
    headers_copy(&f->request.headers, &x->request.headers);
    if (!as_it_is) remove_conditions(&f->request.headers);
    if (!f->old) return;
    struct headers stored = cached_headers(f->old);
    add_conditions(&f->request.headers, &stored);
}

static void on_informational(struct fetch_waiter *w, const struct response *r) {
    struct fill *f = container_of(w, struct fill, waiter);
    if (!f->behind) exchange_pass_informational(f->exchange, r);
}

static void ask(struct fill *f) {
    struct exchange *x = f->exchange;
    struct fetch_options options = {
        .worker = worker_of_fill(f),
        .site = x->site,
        .exchange = x,
        .request = &f->request,
        .target = target_write(&x->arena, &x->request.target),
        .timeouts = &x->site->timeouts,
    };
    f->asked_at = caching_now();
    f->fetch = fetch_create(&options);
    f->waiter.task = &f->task;
    f->waiter.on_informational = on_informational;
    fetch_await(f->fetch, &f->waiter);
    fetch_start(f->fetch);
}

/* ---- the answer is not stored */

/* The exchange takes the fetch, if it still waits for an answer. */
static void hand_over(struct fill *f) {
    struct exchange *x = f->exchange;
    fetch_waiter_forget(&f->waiter);
    if (f->behind || !exchange_takes_fetch(x, f->fetch)) fetch_close(f->fetch);
    f->fetch = NULL;
    settle(f, FILL_PASSED);
    over(f);
}

static void pass(struct fill *f, enum cache_rule rule) {
    f->rule = rule;
    cache_fill_pass(f->place, rule, caching_url(f->exchange), caching_pass_seconds(f->exchange, f->status));
    f->place = NULL;
    hand_over(f);
}

static void fail(struct fill *f) {
    cache_fill_fail(f->place);
    f->place = NULL;
    hand_over(f);
}

/* RFC 5861 4, RFC 9111 4.2.4 */
static void use_stale(struct fill *f) {
    cache_fill_fail(f->place);
    f->place = NULL;
    fetch_stop(f->fetch);
    settle(f, FILL_STALE);
    over(f);
}

/* ---- it is stored */

/* What of the answer is kept: a list of its own, for the exchange may send the other fields, too. */
static void choose_fields(struct fill *f, struct headers *kept, const struct headers *from) {
    headers_init(kept, &f->exchange->arena);
    headers_copy(kept, from);
    headers_each(h, kept) if (h->id == HEADER_CONTENT_LENGTH || !cache_stores_field(h, from, &f->told)) h->removed =
        true;
}

/* RFC 9110 6.6.1 */
static void date_it(struct fill *f, struct headers *headers, int64_t now) {
    if (headers_find_id(headers, HEADER_DATE)) return;
    char text[30];
    date_write(text, (time_t)(now / 1000));
    headers_add_id(headers, HEADER_DATE, arena_copy(&f->exchange->arena, slice_of(text)));
}

static uint64_t length_of(const struct framing *f) {
    if (f->kind == FRAMING_NONE) return 0;
    return f->kind == FRAMING_LENGTH ? f->length : UINT64_MAX;
}

/* Bytes go into the store as they come; when it wants none of them any more, nobody does. */
static size_t store_room(struct pipe_reader *r) {
    struct fill *f = container_of(r, struct fill, reader);
    return cache_body_room(f->stored->body, (void (*)(void *))news_tell, f->news);
}

static void store_take(struct pipe_reader *r, struct buffer *bytes) {
    struct fill *f = container_of(r, struct fill, reader);
    cache_body_write(f->stored->body, bytes);
    if (cache_body_abandoned(f->stored->body)) task_wake(&worker_of_fill(f)->loop, &f->task);
}

static void store_end(struct pipe_reader *r, const struct headers *trailers) {
    (void)trailers;
    struct fill *f = container_of(r, struct fill, reader);
    cache_body_end(f->stored->body);
    over(f);
}

static void store_fail(struct pipe_reader *r, enum failure why) {
    struct fill *f = container_of(r, struct fill, reader);
    log_debug("%s: a body broke on its way into the cache: %s", f->exchange->site_name.p, failure_word(why));
    cache_body_break(f->stored->body);
    over(f);
}

static const struct pipe_reader_ops store_ops = { store_room, store_take, store_end, store_fail };

static bool describe_part(struct cache_draft *d, const struct response *r) {
    struct byte_range range;
    if (r->status != 206) return true;
    if (!content_range_of(&r->headers, &range, &d->total) || d->total == LENGTH_UNKNOWN) return false;
    d->partial = true;
    d->first = range.first;
    return true;
}

static void store(struct fill *f, const struct freshness *fresh, int64_t now) {
    struct exchange *x = f->exchange;
    const struct response *r = &f->fetch->response;
    struct headers kept;
    choose_fields(f, &kept, &r->headers);
    date_it(f, &kept, now);
    struct cache_draft draft = {
        .status = r->status,
        .version = r->version,
        .reason = r->reason,
        .headers = &kept,
        .freshness = *fresh,
        .url = caching_url(x),
        .vary = vary_key(&x->arena, &r->headers, &x->caching->asked_headers),
        .length = length_of(&r->framing),
    };
    caching_tags(x, &r->headers, &draft);
    if (describe_part(&draft, r)) f->stored = cache_fill_store(f->place, &draft);
    else cache_fill_fail(f->place);
    f->place = NULL;
    if (!f->stored) {
        hand_over(f);
        return;
    }
    exchange_note_fetch(x, f->fetch);
    f->news = news_open(&worker_of_fill(f)->loop, &worker_of_fill(f)->mailbox, &f->task);
    f->reader.ops = &store_ops;
    settle(f, FILL_STORED);
    caching_take_filled(x);
    pipe_add_reader(&f->fetch->body, &f->reader);
}

/* ---- it was validated (RFC 9111 4.3.4) */

static void freshen(struct fill *f, int64_t now) {
    struct exchange *x = f->exchange;
    const struct headers *fields = &f->fetch->response.headers;
    struct headers kept;
    headers_init(&kept, &x->arena);
    struct headers stored = cached_headers(f->old);
    headers_copy(&kept, &stored);
    cache_update(&kept, fields, &f->told);
    date_it(f, &kept, now);
    struct cache_control told;
    cache_control_of_response(&told, &kept, true);
    struct cache_draft draft = {
        .status = f->old->status,
        .version = f->old->version,
        .reason = f->old->reason,
        .headers = &kept,
        .url = caching_url(x),
        .vary = vary_key(&x->arena, &kept, &x->caching->asked_headers),
        .partial = f->old->partial,
        .first = f->old->first,
        .total = f->old->total,
    };
    f->rule = freshness_measure(&draft.freshness, f->old->status, &kept, &told, f->asked_at, now);
    f->rule = caching_adjust(x, f->rule, f->old->status, &told, &draft.freshness);
    caching_tags(x, &kept, &draft);
    f->stored = cache_fill_freshen(f->place, f->old, &draft);
    f->place = NULL;
    f->validated = true;
    exchange_note_fetch(x, f->fetch);
    if (!f->stored) f->stored = cached_ref(f->old);
    fetch_stop(f->fetch);
    settle(f, FILL_STORED);
    caching_take_filled(x);
    over(f);
}

/* It speaks of something else: what is stored is not to be used, and is asked for anew. */
static void ask_anew(struct fill *f) {
    fetch_close(f->fetch);
    cached_unref(f->old);
    f->old = NULL;
    make_request(f, false);
    ask(f);
}

/* ---- the head has come */

static bool may_use_stale(const struct fill *f) {
    const struct fetch *fetch = f->fetch;
    const struct caching *c = f->exchange->caching;
    if (!f->old) return false;
    if (fetch->state == FETCH_FAILED) return c->reuse.stale_on_error || c->reuse.stale_if_cut_off;
    return c->reuse.stale_on_error && cache_status_is_error(fetch->response.status);
}

static void judge(struct fill *f) {
    struct exchange *x = f->exchange;
    const struct response *r = &f->fetch->response;
    int64_t now = caching_now();
    f->status = r->status;
    if (may_use_stale(f)) {
        use_stale(f);
        return;
    }
    cache_control_of_response(&f->told, &r->headers, true);
    if (r->status == 304 && f->old) {
        struct headers stored = cached_headers(f->old);
        if (cache_304_selects(&stored, &r->headers, true)) freshen(f, now);
        else ask_anew(f);
        return;
    }
    struct freshness fresh;
    f->rule = freshness_of(&fresh, &x->request, &x->caching->asked, r, &f->told, f->asked_at, now);
    f->rule = caching_adjust(x, f->rule, r->status, &f->told, &fresh);
    if (cache_rule_stores(f->rule)) store(f, &fresh, now);
    else pass(f, f->rule);
}

static void fill_advance(struct task *t) {
    struct fill *f = container_of(t, struct fill, task);
    if (f->over) return;
    if (f->state == FILL_STORED) {
        if (cache_body_abandoned(f->stored->body)) fill_end(f);
        else pipe_reader_has_room(&f->reader);
        return;
    }
    switch (f->fetch->state) {
    case FETCH_TRYING: return;
    case FETCH_HEAD: judge(f); return;
    case FETCH_REPLY: fail(f); return;
    case FETCH_FAILED:
        if (may_use_stale(f)) use_stale(f);
        else fail(f);
        return;
    }
}

/* ---- its life */

void fill_begin(struct fill *f, struct exchange *x, struct cache_fill *place, struct cached *old, bool behind,
                bool as_it_is) {
    *f = (struct fill){ .exchange = x, .place = place, .old = old, .behind = behind };
    task_init(&f->task, fill_advance);
    list_init(&f->waiter.node);
    make_request(f, as_it_is);
    ask(f);
}

void fill_let_go(struct fill *f) {
    if (f->exchange && f->fetch) fetch_let_go(f->fetch);
}

static void stop(struct fill *f) {
    f->over = true;
    if (f->place) cache_fill_fail(f->place);
    f->place = NULL;
    pipe_remove_reader(&f->reader);
    if (f->stored && f->news && cache_body_state(f->stored->body) == CACHE_BODY_ARRIVING)
        cache_body_break(f->stored->body);
    exchange_wake(f->exchange);
}

void fill_end(struct fill *f) {
    if (!f->exchange) return;
    if (!f->over) stop(f);
    if (f->fetch) {
        fetch_waiter_forget(&f->waiter);
        fetch_close(f->fetch);
        f->fetch = NULL;
    }
    cached_unref(f->old);
    cached_unref(f->stored);
    f->old = f->stored = NULL;
    news_close(f->news);
    f->news = NULL;
    task_forget(&f->task);
}
