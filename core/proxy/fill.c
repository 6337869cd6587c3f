/* The story of a fill. Its engine is small: the fetch is asked for a head (`hear`); policy says what it wants of it
 * (`on_store`); it is stored, freshens what is there, or is not for others; then bytes go from the fetch's body,
 * through what policy makes of them, into the store until the end of either.
 *
 * What of an answer may be stored is judged in storing.c; how it is joined to a part that is there stands in
 * fill_part.c.
 *
 * What is not for others is no loss: the exchange takes over the fetch, as if it had made it for itself, and those who
 * waited are told to ask for themselves, all at once. */
#include "proxy/fill.h"

#include "http/date.h"
#include "http/ranges.h"
#include "http/uri.h"
#include "http/vary.h"
#include "proxy/caching.h"
#include "proxy/exchange.h"
#include "store/disk.h"

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
    f->completes = false;
    if (f->part && !as_it_is) fill_ask_for_rest(f);
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

/* What came is of no use for what is stored: that is forgotten, and all is asked for. */
static void ask_anew(struct fill *f) {
    storing_stop(f->storing);
    storing_fini(f->storing);
    f->storing = NULL;
    fetch_close(f->fetch);
    cached_unref(f->old);
    cached_unref(f->part);
    f->old = f->part = NULL;
    f->joined = false;
    f->state = FILL_ASKING;
    make_request(f, false);
    ask(f);
}

/* ---- the answer is not stored */

/* What it came from, unless the exchange is answered without it. */
static void note_fetch(struct fill *f) {
    if (!f->behind) exchange_note_fetch(f->exchange, f->fetch);
}

/* What it brings is the rest of a part, and cannot be joined to that: nobody asked for the rest alone. */
static bool has_rest_only(const struct fill *f) {
    return f->completes && f->fetch->state != FETCH_REPLY && f->fetch->response.status == 206;
}

/* The exchange takes the fetch, if it still waits for an answer. */
static void hand_over(struct fill *f) {
    struct exchange *x = f->exchange;
    if (has_rest_only(f)) {
        f->place = cache_fill_alone(x->caching->cache, &x->caching->key, &x->caching->asked_headers);
        ask_anew(f);
        return;
    }
    fetch_waiter_forget(&f->waiter);
    if (f->behind || !exchange_takes_fetch(x, f->fetch)) fetch_close(f->fetch);
    f->fetch = NULL;
    settle(f, FILL_PASSED);
    over(f);
}

static void pass(struct fill *f, double seconds) {
    cache_fill_pass(f->place, f->rule, caching_url(f->exchange), seconds);
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
    note_fetch(f);
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

void fill_date(const struct fill *f, struct headers *headers) {
    if (headers_find_id(headers, HEADER_DATE)) return;
    char text[30];
    date_write(text, (time_t)(f->heard_at / 1000));
    headers_add_id(headers, HEADER_DATE, arena_copy(&f->exchange->arena, slice_of(text)));
}

static uint64_t length_of(const struct framing *f) {
    if (f->kind == FRAMING_NONE) return 0;
    return f->kind == FRAMING_LENGTH ? f->length : UINT64_MAX;
}

static void stored_whole(struct sink *sink) {
    struct fill *f = container_of(sink, struct fill, sink);
    disk_offer(f->stored);
    over(f);
}

static bool describe_part(struct cache_draft *d, const struct response *r) {
    struct byte_range range;
    if (r->status != 206) return true;
    if (!content_range_of(&r->headers, &range, &d->total) || d->total == LENGTH_UNKNOWN) return false;
    d->partial = true;
    d->first = range.first;
    return true;
}

static void store(struct fill *f) {
    struct exchange *x = f->exchange;
    struct storing *s = f->storing;
    const struct response *r = s->answer.response;
    struct headers kept;
    choose_fields(f, &kept, &r->headers);
    fill_date(f, &kept);
    struct cache_draft draft = {
        .status = r->status,
        .version = r->version,
        .reason = r->reason,
        .headers = &kept,
        .rule = f->rule,
        .freshness = s->fresh,
        .url = caching_url(x),
        .vary = vary_key(&x->arena, &r->headers, &x->caching->asked_headers),
        .length = length_of(&r->framing),
    };
    caching_tags(x, &r->headers, &draft);
    bool known = describe_part(&draft, r);
    uint64_t begins = draft.first;
    if (known && fill_may_join(f, r)) fill_join(f, &draft, &kept, r);
    if (known) f->stored = cache_fill_store(f->place, &draft);
    else cache_fill_fail(f->place);
    f->place = NULL;
    if (!f->stored) {
        hand_over(f);
        return;
    }
    note_fetch(f);
    struct worker *w = worker_of_fill(f);
    sink_open(&f->sink, f->stored->body, &w->loop, &w->mailbox, stored_whole);
    settle(f, FILL_STORED);
    caching_take_filled(x);
    if (f->joined) fill_write_part(f, begins - f->part->first);
    pipe_add_reader(s->body, &f->sink.reader);
}

/* ---- it was validated (RFC 9111 4.3.4) */

/* What is stored answers all the same. */
static void keep_old(struct fill *f) {
    note_fetch(f);
    if (!f->stored) f->stored = cached_ref(f->old);
    fetch_stop(f->fetch);
    settle(f, FILL_STORED);
    caching_take_filled(f->exchange);
    over(f);
}

static void freshen(struct fill *f) {
    struct exchange *x = f->exchange;
    struct headers *kept = &f->storing->merged.headers;
    struct cache_draft draft = {
        .status = f->storing->merged.status,
        .version = f->old->version,
        .reason = f->storing->merged.reason,
        .headers = kept,
        .rule = f->rule,
        .freshness = f->storing->fresh,
        .url = caching_url(x),
        .vary = vary_key(&x->arena, kept, &x->caching->asked_headers),
        .partial = f->old->partial,
        .first = f->old->first,
        .total = f->old->total,
    };
    caching_tags(x, kept, &draft);
    f->stored = cache_fill_freshen(f->place, f->old, &draft);
    f->place = NULL;
    keep_old(f);
}

/* ---- policy changes the body: what fails before its first bytes is no answer that others should get */

static void make(struct fill *f) {
    f->state = FILL_MAKING;
    content_settle_stored(&f->storing->answer, f->exchange);
    switch (content_await(&f->storing->answer)) {
    case CONTENT_READY: store(f); return;
    case CONTENT_FAILED: fail(f); return;
    case CONTENT_WAITS: storing_await(f->storing); return;
    }
}

static void refuse(struct fill *f, double seconds) {
    if (!f->validated) {
        pass(f, seconds);
        return;
    }
    cache_fill_pass(f->place, f->rule, caching_url(f->exchange), seconds);
    f->place = NULL;
    keep_old(f);
}

/* Even if it can be neither fresh nor validated again: it is what it was. Else the 304 is for its client alone. */
static bool may_freshen(enum cache_rule rule) {
    return cache_rule_stores(rule) || rule == CACHE_RULE_NO_FRESHNESS || rule == CACHE_RULE_NO_VALIDATOR;
}

static void on_store(struct fill *f) {
    const struct store_wish *wish = &f->storing->wish;
    enum verdict verdict = storing_ask(f->storing);
    if (verdict == VERDICT_WAIT) return;
    bool failed = verdict == VERDICT_FAILED;
    if (wish->pass >= 0 && !failed) refuse(f, wish->pass);
    else if (failed || (f->validated && !may_freshen(f->rule))) refuse(f, 0);
    else if (f->validated) freshen(f);
    else if (cache_rule_stores(f->rule)) make(f);
    else pass(f, caching_pass_seconds(f->exchange, f->rule, f->status));
}

/* ---- the head has come */

static bool may_use_stale(const struct fill *f) {
    const struct fetch *fetch = f->fetch;
    const struct caching *c = f->exchange->caching;
    if (!f->old) return false;
    if (fetch->state == FETCH_FAILED) return c->reuse.stale_on_error || c->reuse.stale_if_cut_off;
    return c->reuse.stale_on_error && cache_status_is_error(fetch->response.status);
}

static void hear(struct fill *f) {
    const struct response *r = &f->fetch->response;
    f->heard_at = caching_now();
    f->status = r->status;
    if (may_use_stale(f)) {
        use_stale(f);
        return;
    }
    cache_control_of_response(&f->told, &r->headers, true);
    if (r->status == 304 && f->old) {
        struct headers stored = cached_headers(f->old);
        f->validated = cache_304_selects(&stored, &r->headers, true);
        if (!f->validated) {
            ask_anew(f);
            return;
        }
    }
    if (f->completes && !fill_is_rest(f, r) && (r->status == 206 || r->status == 416)) {
        ask_anew(f);
        return;
    }
    f->storing = storing_begin(f);
    f->state = FILL_ON_STORE;
    on_store(f);
}

static void await_head(struct fill *f) {
    switch (f->fetch->state) {
    case FETCH_TRYING: return;
    case FETCH_HEAD: hear(f); return;
    case FETCH_REPLY: fail(f); return;
    case FETCH_FAILED:
        if (may_use_stale(f)) use_stale(f);
        else fail(f);
        return;
    }
}

static void fill_advance(struct task *t) {
    struct fill *f = container_of(t, struct fill, task);
    if (f->over) return;
    switch (f->state) {
    case FILL_ASKING: await_head(f); return;
    case FILL_ON_STORE: on_store(f); return;
    case FILL_MAKING: make(f); return;
    case FILL_STORED: /* the sink does the rest */
    case FILL_PASSED:
    case FILL_STALE: return;
    }
}

/* ---- its life */

void fill_begin(struct fill *f, struct exchange *x, const struct fill_options *o) {
    *f = (struct fill){ .exchange = x, .place = o->place, .old = o->old, .part = o->part, .behind = o->behind };
    task_init(&f->task, fill_advance);
    list_init(&f->waiter.node);
    make_request(f, o->as_it_is);
    ask(f);
}

void fill_adopt(struct fill *f, struct exchange *x, struct fetch *fetch, struct cache_fill *place) {
    *f = (struct fill){ .exchange = x, .place = place, .fetch = fetch, .request = x->request };
    task_init(&f->task, fill_advance);
    list_init(&f->waiter.node);
    f->request.method = METHOD_GET;
    double seconds = loop_now(&worker_of_fill(f)->loop) - x->fetch_began;
    f->asked_at = caching_now() - (int64_t)(seconds * 1000);
    hear(f);
}

void fill_let_go(struct fill *f) {
    if (!f->exchange) return;
    if (f->fetch) fetch_let_go(f->fetch);
    if (f->storing) storing_let_go(f->storing);
}

static void stop(struct fill *f) {
    f->over = true;
    if (f->place) cache_fill_fail(f->place);
    f->place = NULL;
    storing_stop(f->storing);
    exchange_wake(f->exchange);
}

void fill_end(struct fill *f) {
    if (!f->exchange) return;
    if (!f->over) stop(f);
    sink_close(&f->sink);
    if (f->fetch) {
        fetch_waiter_forget(&f->waiter);
        fetch_close(f->fetch);
        f->fetch = NULL;
    }
    storing_fini(f->storing);
    cached_unref(f->old);
    cached_unref(f->part);
    cached_unref(f->stored);
    f->old = f->part = f->stored = NULL;
    task_forget(&f->task);
}
