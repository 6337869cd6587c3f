/* What the answer to a request that was not for the cache does to what is stored: an unsafe one makes it invalid (RFC
 * 9111 4.4), a HEAD's tells of what a GET would get (4.3.5).
 *
 * Where a disk has what became invalid, the answer's head waits for the disk's journal: who has been told that his
 * change is made must not see what was before, though the process be killed at that moment. That costs a millisecond or
 * some for writes to resources that are stored on disk, and nothing for others. */
#include "http/uri.h"
#include "proxy/exchange.h"
#include "store/disk.h"

static const double SETTLE_SECONDS = 1; /* a disk that hangs costs that, and no request */

static struct worker *worker_of_exchange(const struct exchange *x) { return x->subject.worker; }

/* ---- HEAD */

/* What a GET with these fields would not have been stored with is not stored from a HEAD, either. Nor what varies by
 * other fields than the stored one: whom that fits is not known. */
static bool head_is_for_all(const struct caching *c, const struct exchange *x, const struct headers *stored,
                            const struct cache_control *told) {
    enum cache_rule why;
    const struct headers *heard = &x->response.headers;
    struct slice vary = headers_joined(heard, SLICE("Vary"));
    if (vary.n && !slice_equal(vary, headers_joined(stored, SLICE("Vary")))) return false;
    return !cache_update_forbidden(&why, &x->request, &c->asked, heard, told);
}

/* The stored head, with the fields of this one. */
static void update(struct exchange *x, const struct headers *stored) {
    struct caching *c = x->caching;
    struct cache_control told;
    struct headers kept;
    int64_t now = caching_now();
    cache_control_of_response(&told, &x->response.headers, true);
    if (!head_is_for_all(c, x, stored, &told)) return;
    headers_init(&kept, &x->arena);
    headers_copy(&kept, stored);
    cache_update(&kept, &x->response.headers, &told);
    cache_control_of_response(&told, &kept, true);
    struct cache_draft draft = { .status = c->found->status,
                                 .version = c->found->version,
                                 .reason = c->found->reason,
                                 .headers = &kept,
                                 .url = caching_url(x),
                                 .vary = c->found->vary };
    struct freshness *fresh = &draft.freshness;
    draft.rule = freshness_measure(fresh, draft.status, &kept, &told, now, now);
    draft.rule = storing_adjust(&x->site->cache, draft.rule, draft.status, &kept, &told, fresh);
    caching_tags(x, &kept, &draft);
    struct cache_fill *place = cache_fill_alone(c->cache, &c->key, &x->request.headers);
    cached_unref(cache_fill_freshen(place, c->found, &draft));
}

/* A HEAD's answer tells of what a GET would get (RFC 9111 4.3.5). */
static void heed_head(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c->found || c->found->pass || c->found->partial) return;
    struct headers stored = cached_headers(c->found);
    enum head_effect effect =
        cache_head_effect(&stored, cache_body_expected(c->found->body), x->response.status, &x->response.headers);
    if (effect == HEAD_INVALIDATES) cache_purge_key(c->cache, &c->key, true);
    bool policy = x->site->hooks & 1u << HOOK_ON_STORE; /* what it said of the stored one would be lost */
    if (effect == HEAD_UPDATES && !policy) update(x, &stored);
}

/* ---- unsafe methods */

/* True: the disk may have it. */
static bool invalidate(struct exchange *x, const struct target *t) {
    struct slice url = target_url(&x->arena, t);
    cache_purge_url(x->caching->cache, url, false);
    return disk_has_url(x->caching->cache, url);
}

static bool invalidate_named(struct exchange *x, struct slice field) {
    struct target t = caching_target(x), other;
    const struct header *h = headers_find(&x->response.headers, field);
    return h && cache_invalidated_uri(&x->arena, &t, h->value, &other) && invalidate(x, &other);
}

/* ---- until it is safe on disk */

struct settling {
    struct exchange *exchange;
    struct purge_wait wait;
    struct deadline deadline;
};

static void give_up_settling(struct deadline *d) {
    struct settling *s = container_of(d, struct settling, deadline);
    purge_wait_end(&s->wait);
    exchange_wake(s->exchange);
}

static void settle(struct exchange *x) {
    struct worker *w = worker_of_exchange(x);
    struct settling *s = arena_alloc_zeroed(&x->arena, sizeof *s);
    s->exchange = x;
    if (!purge_wait_begin(&s->wait, x->caching->cache, &w->loop, &w->mailbox, &x->task)) return;
    deadline_init(&s->deadline, &w->loop, give_up_settling);
    deadline_set(&s->deadline, SETTLE_SECONDS);
    x->caching->settling = s;
}

bool caching_is_settled(const struct caching *c) { return !c || !c->settling || purge_wait_over(&c->settling->wait); }

void caching_stop_settling(struct caching *c) {
    if (!c->settling) return;
    purge_wait_end(&c->settling->wait);
    deadline_fini(&c->settling->deadline);
    c->settling = NULL;
}

/* ---- both */

void caching_heard(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c) return;
    c->status.fwd_status = x->response.status;
    if (x->request.method == METHOD_HEAD) heed_head(x);
    bool again = c->fill.exchange; /* it was adopted, and given back */
    if (again || !cache_invalidates(x->request.method, x->response.status)) return;
    struct target own = caching_target(x);
    bool there = invalidate(x, &own);
    there |= invalidate_named(x, SLICE("Location"));
    there |= invalidate_named(x, SLICE("Content-Location"));
    if (there) settle(x);
}
