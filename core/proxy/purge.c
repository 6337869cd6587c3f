/* A PURGE is obeyed after on_request, so that policy may refuse it, or say of which host it is, as with any request.
 * One from an address that may not is refused, and not sent on: a backend would think that it comes from us. */
#include "proxy/purge.h"

#include "http/uri.h"
#include "proxy/purge_wait.h"

uint64_t purge_run(struct cache *cache, const struct purge_order *o) {
    switch (o->kind) {
    case PURGE_URL: return cache_purge_url(cache, o->text, o->soft);
    case PURGE_TAG: return cache_purge_tag(cache, o->text, o->soft);
    case PURGE_PREFIX: return cache_purge_prefix(cache, o->text, o->soft);
    case PURGE_ALL: break;
    }
    return cache_purge_all(cache, o->soft);
}

/* ---- the method */

static bool wants_soft(const struct headers *h) {
    struct slice word = headers_joined(h, SLICE("Cache-Purge")), fastly = headers_joined(h, SLICE("Fastly-Soft-Purge"));
    return slice_equal_nocase(slice_trim(word), SLICE("soft")) || slice_equal(slice_trim(fastly), SLICE("1"));
}

/* Words with spaces or commas between them. False: there is no such field. */
static bool purge_tags(struct exchange *x, struct slice field, bool soft, uint64_t *count) {
    struct slice list = headers_joined(&x->request.headers, field), rest, word;
    if (!list.p) return false;
    while (header_list_next(&list, &word)) {
        for (rest = word; rest.p;) {
            struct purge_order o = { PURGE_TAG, slice_trim(slice_cut(&rest, ' ')), soft };
            if (o.text.n) *count += purge_run(x->site->cache.cache, &o);
        }
    }
    return true;
}

static void purge_target(struct exchange *x, bool soft, uint64_t *count) {
    static const struct slice schemes[] = { { "http", 4 }, { "https", 5 } };
    struct target t = x->request.target;
    for (int i = 0; i < 2; i++) {
        t.scheme = schemes[i];
        struct purge_order o = { PURGE_URL, target_url(&x->arena, &t), soft };
        if (!t.query.p && slice_ends_with(o.text, SLICE("*"))) {
            o.kind = PURGE_PREFIX;
            o.text.n--;
        }
        *count += purge_run(x->site->cache.cache, &o);
    }
}

static void make_reply(struct exchange *x, struct reply *r, bool soft, uint64_t count) {
    struct cache_status status = { .cache = slice_of(x->site->cache.name),
                                   .fwd = CACHE_OWN,
                                   .detail = SLICE("purged") };
    *r = (struct reply){ .status = 200 };
    headers_init(&r->headers, &x->arena);
    headers_add_id(&r->headers, HEADER_CONTENT_TYPE, SLICE("application/json"));
    headers_add_id(&r->headers, HEADER_CACHE_CONTROL, SLICE("no-store"));
    cache_status_add(&r->headers, &status);
    r->body =
        arena_printf(&x->arena, "{\"purged\":%llu,\"soft\":%s}\n", (unsigned long long)count, soft ? "true" : "false");
}

/* ---- until it is safe on disk */

struct purging {
    struct reply reply;
    struct purge_wait wait;
};

static enum purge_answer await(struct exchange *x, const struct reply *r) {
    struct worker *w = x->subject.worker;
    struct purging *p = arena_alloc_zeroed(&x->arena, sizeof *p);
    p->reply = *r;
    x->purging = p;
    bool waits = purge_wait_begin(&p->wait, x->site->cache.cache, &w->loop, &w->mailbox, &x->task);
    return waits ? PURGE_WAITS : PURGE_DONE;
}

static enum purge_answer go_on(const struct purging *p, struct reply *r) {
    if (!purge_wait_over(&p->wait)) return PURGE_WAITS;
    *r = p->reply;
    return PURGE_DONE;
}

void purge_end(struct exchange *x) {
    if (!x->purging) return;
    purge_wait_end(&x->purging->wait);
    x->purging = NULL;
}

enum purge_answer purge_receive(struct exchange *x, struct reply *r) {
    if (x->purging) return go_on(x->purging, r);
    const struct cache_policy *p = &x->site->cache;
    const struct request *request = &x->request;
    uint64_t count = 0;
    if (!p->cache || !p->purgers) return PURGE_NOT_OURS;
    if (request->method != METHOD_OTHER || !slice_equal(request->method_name, SLICE("PURGE"))) return PURGE_NOT_OURS;
    if (!cidr_match(p->purgers, p->purger_count, &x->client_addr)) return PURGE_REFUSED;
    bool soft = wants_soft(&request->headers), tags = false;
    tags |= purge_tags(x, SLICE("Surrogate-Key"), soft, &count);
    tags |= purge_tags(x, SLICE("Xkey"), soft, &count);
    tags |= purge_tags(x, SLICE("Cache-Tag"), soft, &count);
    if (!tags) purge_target(x, soft, &count);
    make_reply(x, r, soft, count);
    return await(x, r);
}
