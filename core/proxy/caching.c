/* The order of things, for a GET or HEAD on a site that caches: is the request one that a stored response may answer at
 * all (`may_ask`)? What is stored for its key, and may it be reused (reuse_of, http/freshness.h)? If not: somebody asks
 * the backend, and it is us, or we wait for him (`join`). Who waited once and still has nothing asks for himself: a
 * response that is good for one use only would otherwise serve its waiters one after the other.
 *
 * Vary is matched on the fields as on_request left them, not as forwarded: what we add to a request on its way is
 * either part of the key already (scheme, host) or different for each client; a response that varies by such a field is
 * stored for nobody (storing.c). */
#include "proxy/caching.h"

#include "base/clock.h"
#include "base/must.h"
#include "http/conditions.h"
#include "http/ranges.h"
#include "proxy/exchange.h"
#include "store/disk.h"

int64_t caching_now(void) { return (int64_t)(clock_wall() * 1000); }

struct headers cached_headers(const struct cached *c) {
    return (struct headers){ .list = c->headers, .count = c->header_count, .room = c->header_count };
}

static struct worker *worker_of_exchange(const struct exchange *x) { return x->subject.worker; }

static const struct cache_policy *policy_of(const struct exchange *x) { return &x->site->cache; }

/* ---- is it for the cache? */

static bool may_ask(const struct exchange *x) {
    const struct request *r = &x->request;
    if (x->cache_bypass || r->framing.kind != FRAMING_NONE || r->framing.upgrade) return false;
    return !condition_is_for_origin(&r->headers);
}

static struct caching *begin(struct exchange *x) {
    struct caching *c = arena_alloc_zeroed(&x->arena, sizeof *c);
    x->caching = c;
    c->cache = policy_of(x)->cache;
    c->status.cache = slice_of(policy_of(x)->name);
    list_init(&c->follower.node);
    bool reads = x->request.method == METHOD_GET || x->request.method == METHOD_HEAD;
    c->asks = reads && may_ask(x);
    if (!c->asks) {
        c->status.fwd = reads ? CACHE_FWD_BYPASS : CACHE_FWD_METHOD;
        return c;
    }
    cache_control_of_request(&c->asked, &x->request.headers);
    c->key = caching_key(x);
    return c;
}

/* ---- an answer from what is stored */

static struct framing framing_of_body(const struct cache_body *body) {
    uint64_t length = cache_body_expected(body);
    if (length == UINT64_MAX) return (struct framing){ .kind = FRAMING_CHUNKED };
    return (struct framing){ .kind = FRAMING_LENGTH, .length = length };
}

static void make_response(struct exchange *x, const struct cached *found) {
    struct response *r = &x->response;
    *r = (struct response){ .status = found->status, .version = found->version, .reason = found->reason };
    headers_init(&r->headers, &x->arena);
    headers_init(&r->trailers, &x->arena);
    headers_reserve(&r->headers, found->header_count + 4);
    memcpy(r->headers.list, found->headers, found->header_count * sizeof *found->headers);
    r->headers.count = found->header_count;
    r->framing = framing_of_body(found->body);
}

static void add_age(struct exchange *x, uint32_t seconds) {
    char *text = arena_bytes(&x->arena, 11);
    size_t n = 11;
    do text[--n] = (char)('0' + seconds % 10);
    while ((seconds /= 10) > 0);
    headers_add_id(&x->response.headers, HEADER_AGE, slice_make(text + n, 11 - n));
}

/* False: its bytes are gone already. */
static bool serve(struct exchange *x, enum response_source source) {
    struct caching *c = x->caching;
    struct worker *w = worker_of_exchange(x);
    if (!hit_open(&c->hit, c->found->body, &w->loop, &w->mailbox)) return false;
    if (c->followed && cache_body_state(c->found->body) == CACHE_BODY_ARRIVING) hit_be_polite(&c->hit);
    make_response(x, c->found);
    x->source = source;
    x->first_byte = loop_now(&w->loop);
    if (x->fetch_began == 0) x->fetch_began = x->first_byte;
    c->served = true;
    x->body = &c->hit.pipe;
    return true;
}

static bool serve_found(struct exchange *x) {
    struct caching *c = x->caching;
    c->status.has_ttl = true;
    c->status.ttl = c->reuse.left;
    if (!serve(x, SOURCE_CACHE)) return false;
    add_age(x, c->reuse.age_seconds);
    return true;
}

/* ---- looking up */

static void look(struct exchange *x) {
    struct caching *c = x->caching;
    enum cache_miss miss = CACHE_URI_MISS;
    cached_unref(c->found);
    c->found = cache_look_up(c->cache, &c->key, &x->request.headers, &c->stale_found, &miss);
    c->status.fwd = miss == CACHE_VARY_MISS ? CACHE_FWD_VARY_MISS : CACHE_FWD_URI_MISS;
}

/* A stored part answers only what lies in it. */
static bool covers(const struct exchange *x, const struct cached *found) {
    struct byte_ranges ranges;
    if (!found->partial) return true;
    struct headers stored = cached_headers(found);
    if (x->request.method != METHOD_GET || !condition_allows_range(&x->request.headers, &stored)) return false;
    if (ranges_of(&ranges, &x->request.headers, found->total) != RANGES_SOME) return false;
    uint64_t end = found->first + cache_body_expected(found->body);
    if (cache_body_expected(found->body) == UINT64_MAX) return false;
    for (unsigned i = 0; i < ranges.count; i++)
        if (ranges.list[i].first < found->first || ranges.list[i].last >= end) return false;
    return true;
}

/* Purged softly: its time is over now, and what may be done with a stale one on an error may be done from now on. */
static void allow_purged(struct reuse *r, const struct freshness *f) {
    r->stale_on_error = f->stale_if_error > 0;
    r->stale_if_cut_off = !(f->flags & (FRESHNESS_NEVER_STALE | FRESHNESS_VALIDATE));
}

enum { CUT_OFF_SECONDS = 3600 };

/* RFC 9111 4.2.4 sets no bound to what a cache may do that is cut off; the site does. */
static void limit_stale(const struct cache_policy *p, struct reuse *r) {
    double most = p->has_stale_if_error ? p->stale_if_error : CUT_OFF_SECONDS;
    if ((double)-r->left >= most * 1000) r->stale_if_cut_off = false;
}

static enum reuse_verdict judge(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c->found || c->found->pass || !covers(x, c->found)) return reuse_of_nothing(&c->asked);
    c->reuse = reuse_of(&c->found->freshness, &c->asked, caching_now());
    limit_stale(policy_of(x), &c->reuse);
    enum reuse_verdict verdict = c->reuse.verdict;
    if (x->cache_stale && !x->cache_refresh && verdict != REUSE_BYPASS) return REUSE_STALE;
    bool serves = verdict == REUSE_FRESH || verdict == REUSE_STALE || verdict == REUSE_STALE_WHILE_REVALIDATE;
    if (!serves || !(c->stale_found || x->cache_refresh)) return verdict;
    if (c->stale_found) allow_purged(&c->reuse, &c->found->freshness);
    return REUSE_VALIDATE;
}

static bool asks_range(const struct exchange *x) {
    return x->request.method == METHOD_GET && headers_find(&x->request.headers, SLICE("Range"));
}

/* The found one is of no use for a request that it does not cover. Nor is one that still arrives: before an answer
 * about it is there it may have broken, or gone on as a window. */
static struct cached *take_known(struct exchange *x) {
    struct caching *c = x->caching;
    struct cached *known = c->found;
    if (!known || known->pass || !covers(x, known) || cache_body_state(known->body) != CACHE_BODY_WHOLE) return NULL;
    c->found = NULL;
    return known;
}

static void finish_request(struct exchange *x) {
    headers_init(&x->caching->asked_headers, &x->arena);
    headers_copy(&x->caching->asked_headers, &x->request.headers);
    exchange_finish_request(x);
}

static void tell_follower(struct cache_follower *f) { news_tell(container_of(f, struct caching, follower)->news); }

static enum caching_answer follow(struct exchange *x) {
    struct caching *c = x->caching;
    c->followed = c->status.collapsed = true;
    c->waited_for = c->status.fwd;
    return CACHING_WAIT;
}

static void prepare_follower(struct exchange *x) {
    struct caching *c = x->caching;
    struct worker *w = worker_of_exchange(x);
    if (!c->news) c->news = news_open(&w->loop, &w->mailbox, &x->task);
    c->follower.tell = tell_follower;
}

/* ---- what memory does not have may lie on disk (store/disk.h): a fill that the exchange gives away, and follows */

static bool may_load(const struct exchange *x) {
    const struct caching *c = x->caching;
    if (c->found || c->loads || x->cache_refresh || c->asked.present & CC_NO_STORE) return false;
    return disk_has(c->cache, &c->key);
}

/* CACHING_NONE: look again. */
static enum caching_answer load(struct exchange *x) {
    struct caching *c = x->caching;
    struct cache_fill *place;
    prepare_follower(x);
    switch (cache_join(c->cache, &c->key, &x->request.headers, NULL, &c->follower, &place)) {
    case CACHE_LEAD:
        c->loads = true;
        disk_load(c->cache, &c->key, place, &x->request.headers, &c->follower);
        return CACHING_WAIT;
    case CACHE_FOLLOW: return follow(x);
    case CACHE_CHANGED: break;
    }
    return CACHING_NONE;
}

/* What came of the fill that was followed. */
static void heed_outcome(struct caching *c, enum cache_outcome outcome) {
    if (outcome == CACHE_LOADED) c->status.detail = SLICE("disk");
    if (outcome == CACHE_NOT_LOADED) c->loads = true;
    c->released = outcome == CACHE_LATE;
    if (outcome == CACHE_LOADED || outcome == CACHE_NOT_LOADED) c->followed = c->status.collapsed = false;
    cache_unfollow(&c->follower);
}

/* The last answer for this key was not for others. The next one may be: it is asked for as the request has it, and
 * nobody waits, but what comes is stored if it can be. */
static bool is_passed(const struct exchange *x) {
    const struct caching *c = x->caching;
    return c->found && c->found->pass && !x->cache_refresh;
}

/* Somebody asks the backend: who? CACHING_NONE here: look again. */
static enum caching_answer join(struct exchange *x) {
    struct caching *c = x->caching;
    bool alone = is_passed(x) || c->followed || (asks_range(x) && !(c->found && covers(x, c->found)));
    /* Most likely its answer is its own. Nobody is to wait for that. */
    alone |= !c->found && headers_find_id(&x->request.headers, HEADER_AUTHORIZATION);
    if (alone) {
        c->fill.place = cache_fill_alone(c->cache, &c->key, &x->request.headers);
        return CACHING_FILLS;
    }
    prepare_follower(x);
    switch (cache_join(c->cache, &c->key, &x->request.headers, c->found, &c->follower, &c->fill.place)) {
    case CACHE_LEAD: return CACHING_FILLS;
    case CACHE_FOLLOW: return follow(x);
    case CACHE_CHANGED: break;
    }
    return CACHING_NONE;
}

/* A stale answer goes out, and the first one that sees it has it refreshed behind (RFC 5861 3). */
static void refresh_behind(struct exchange *x) {
    struct caching *c = x->caching;
    prepare_follower(x);
    enum cache_turn turn = cache_join(c->cache, &c->key, &x->request.headers, c->found, &c->follower, &c->fill.place);
    if (turn == CACHE_FOLLOW) cache_unfollow(&c->follower);
    if (turn != CACHE_LEAD) return;
    finish_request(x);
    fill_begin(&c->fill, x,
               &(struct fill_options){ .place = c->fill.place, .old = cached_ref(c->found), .behind = true });
}

static enum cache_fwd reason_to_ask(const struct exchange *x) {
    const struct caching *c = x->caching;
    if (!c->found || c->found->pass) return c->status.fwd;
    if (c->found->partial && !covers(x, c->found)) return CACHE_FWD_PARTIAL;
    if (x->cache_refresh) return CACHE_FWD_REQUEST;
    return c->reuse.reason == REUSE_BY_REQUEST && !c->stale_found ? CACHE_FWD_REQUEST : CACHE_FWD_STALE;
}

/* HEAD is answered from what GET stored; what it would bring is not worth a body's place. */
static enum caching_answer ask(struct exchange *x) {
    struct caching *c = x->caching;
    c->status.fwd = reason_to_ask(x);
    c->status.in_vain = c->followed;
    if (is_passed(x)) c->status.detail = cache_rule_word(c->found->rule);
    if (c->released) c->status.detail = SLICE("policy-late");
    return x->request.method == METHOD_HEAD || c->released ? CACHING_NONE : CACHING_FILLS;
}

static enum caching_answer hit(struct exchange *x) {
    struct caching *c = x->caching;
    enum cache_fwd miss = c->status.fwd;
    c->status.fwd = c->followed ? c->waited_for : CACHE_HIT; /* RFC 9211 2.6: it went forward, with another one */
    if (serve_found(x)) return CACHING_SERVED;
    c->status = (struct cache_status){ .cache = c->status.cache, .fwd = miss };
    c->fill.place = cache_fill_alone(c->cache, &c->key, &x->request.headers);
    cached_unref(c->found);
    c->found = NULL;
    return CACHING_FILLS;
}

static struct caching *begin_once(struct exchange *x) {
    bool caches = x->site && x->site->cache.cache && x->request.method != METHOD_CONNECT;
    return x->caching || !caches ? x->caching : begin(x);
}

enum reuse_verdict caching_try(struct exchange *x) {
    struct caching *c = begin_once(x);
    if (!c || !c->asks) return REUSE_VALIDATE;
    look(x);
    enum reuse_verdict verdict = judge(x);
    if (verdict == REUSE_VALIDATE) c->status.fwd = reason_to_ask(x);
    return verdict;
}

enum caching_answer caching_look_up(struct exchange *x) {
    struct caching *c = begin_once(x);
    if (!c || !c->asks) return CACHING_NONE;
    if (c->follower.fill) {
        int outcome = atomic_load_explicit(&c->follower.outcome, memory_order_acquire);
        if (outcome == CACHE_FILLING) return CACHING_WAIT;
        heed_outcome(c, (enum cache_outcome)outcome);
    }
    for (;;) {
        look(x);
        if (may_load(x)) {
            if (load(x) == CACHING_WAIT) return CACHING_WAIT;
            continue;
        }
        switch (judge(x)) {
        case REUSE_FRESH:
        case REUSE_STALE: return hit(x);
        case REUSE_STALE_WHILE_REVALIDATE: refresh_behind(x); return hit(x);
        case REUSE_BYPASS:
            c->asks = false;
            c->status.fwd = CACHE_FWD_REQUEST;
            return CACHING_NONE;
        case REUSE_GATEWAY_TIMEOUT: return CACHING_REFUSED;
        case REUSE_VALIDATE: break;
        }
        if (ask(x) == CACHING_NONE) return CACHING_NONE;
        enum caching_answer answer = join(x);
        if (answer != CACHING_NONE) return answer;
    }
}

/* ---- filling */

/* A part that more may be joined to. What policy makes of answers it makes of each whole one. */
static struct cached *take_part(struct exchange *x) {
    struct caching *c = x->caching;
    struct cached *part = c->found;
    if (!part || !part->partial || cache_body_state(part->body) != CACHE_BODY_WHOLE) return NULL;
    if (x->site->hooks & 1u << HOOK_ON_STORE) return NULL;
    c->found = NULL;
    return part;
}

void caching_fill(struct exchange *x) {
    struct caching *c = x->caching;
    bool alone = !c->found || c->found->pass || !covers(x, c->found);
    struct cached *known = take_known(x), *part = known ? NULL : take_part(x);
    finish_request(x);
    fill_begin(
        &c->fill, x,
        &(struct fill_options){
            .place = c->fill.place, .old = known, .part = part, .as_it_is = is_passed(x) || (alone && asks_range(x)) });
}

/* The fill begins behind the invalidation by the same answer. */
bool caching_adopt(struct exchange *x) {
    struct caching *c = x->caching;
    struct cache_control told;
    if (!c || c->asks || c->fill.exchange || x->cache_bypass || x->request.method != METHOD_POST) return false;
    if (x->fetch->tunnel || x->request_body.state != PIPE_ENDED) return false;
    cache_control_of_response(&told, &x->response.headers, true);
    struct target t = caching_target(x);
    if (!cache_post_answers_get(&x->arena, &t, &x->response, &told)) return false;
    struct fetch *fetch = x->fetch;
    cache_control_of_request(&c->asked, &x->request.headers);
    c->asked_headers = x->request.headers;
    c->key = caching_key(x);
    fetch_waiter_forget(&x->fetch_waiter);
    x->fetch = NULL;
    x->body = NULL;
    fill_adopt(&c->fill, x, fetch, cache_fill_alone(c->cache, &c->key, &x->request.headers));
    return true;
}

/* What private= and no-cache= name is not stored, and meant for who asked (RFC 9111 5.2.2.7). */
static void add_named(struct exchange *x) {
    const struct fill *f = &x->caching->fill;
    const struct headers *sent = &f->fetch->response.headers;
    headers_each(h, sent) {
        if (h->hop || header_is_core((enum header_id)h->id) || !cache_control_names(&f->told, sent, h->name)) continue;
        headers_add(&x->response.headers, h->name, h->value);
    }
}

/* Its age is that of the answer just got: what it came with. */
void caching_take_filled(struct exchange *x) {
    struct caching *c = x->caching;
    if (c->served || c->fill.behind || x->step != STEP_AWAIT_HEAD) return;
    cached_unref(c->found);
    c->found = cached_ref(c->fill.stored);
    struct cache_control nothing = { 0 };
    c->reuse = reuse_of(&c->found->freshness, &nothing, caching_now());
    c->status.fwd_status = c->fill.status;
    c->status.has_ttl = true;
    c->status.ttl = c->reuse.left;
    c->status.stored = true;
    if (!serve(x, c->fill.validated ? SOURCE_CACHE : SOURCE_BACKEND)) return;
    if (!c->fill.validated && !c->fill.joined) add_named(x);
    if (c->fill.validated || c->reuse.age_seconds > 0) add_age(x, c->reuse.age_seconds);
}

static bool serve_stale(struct exchange *x) {
    struct caching *c = x->caching;
    cached_unref(c->found);
    c->found = cached_ref(c->fill.old);
    c->status.fwd_status = c->fill.status;
    c->reuse = reuse_of(&c->found->freshness, &(struct cache_control){ 0 }, caching_now());
    return serve_found(x);
}

enum caching_answer caching_await(struct exchange *x) {
    struct caching *c = x->caching;
    switch (c->fill.state) {
    case FILL_ASKING:
    case FILL_ON_STORE:
    case FILL_MAKING: return CACHING_WAIT;
    case FILL_STORED: return c->served ? CACHING_SERVED : CACHING_REFUSED;
    case FILL_STALE: return serve_stale(x) ? CACHING_SERVED : CACHING_REFUSED;
    case FILL_PASSED: break;
    }
    c->status.fwd_status = c->fill.status;
    if (!cache_rule_stores(c->fill.rule)) c->status.detail = cache_rule_word(c->fill.rule);
    return CACHING_NONE;
}

void caching_take_changes(struct exchange *x) {
    struct storing *s = caching_leads(x->caching) ? x->caching->fill.storing : NULL;
    if (!s) return;
    x->response_content = s->content;
    if (s->made) x->body = x->reply_body = s->made;
    s->made = NULL;
}

/* Is it the one request, rather than what is asked for, that keeps the answer from others? */
static bool is_of_request(enum cache_rule rule) {
    return rule == CACHE_RULE_STATUS || rule == CACHE_RULE_RANGE || rule == CACHE_RULE_AUTHORIZATION ||
           rule == CACHE_RULE_REQUEST_NO_STORE;
}

/* That a backend is in trouble says nothing of the next request; nor do credentials, or a range that is none: with a
 * field that nobody needs anyone could keep a URL out of the cache. */
double caching_pass_seconds(const struct exchange *x, enum cache_rule rule, int status) {
    const struct cached *mark = is_passed(x) ? x->caching->found : NULL;
    int64_t half = mark ? mark->freshness.lifetime / 2 : 0;
    bool remembered = mark && caching_now() < mark->freshness.received + half;
    return status >= 500 || is_of_request(rule) || remembered ? 0 : policy_of(x)->pass;
}

/* Surrogate-Key: words. Cache-Tag: a list with commas. */
void caching_tags(struct exchange *x, const struct headers *headers, struct cache_draft *draft) {
    struct slice *tags = NULL, rest, tag;
    const struct storing *s = x->caching->fill.exchange ? x->caching->fill.storing : NULL;
    unsigned count = s ? s->wish.tag_count : 0;
    struct slice keys = headers_joined(headers, SLICE("Surrogate-Key")),
                 list = headers_joined(headers, SLICE("Cache-Tag"));
    if (keys.p || list.p || count) tags = arena_alloc(&x->arena, CACHE_TAGS_MAX * sizeof *tags);
    for (unsigned i = 0; i < count; i++) tags[i] = s->wish.tags[i];
    for (rest = keys; rest.p && count < CACHE_TAGS_MAX;) {
        tag = slice_trim(slice_cut(&rest, ' '));
        if (tag.n) tags[count++] = tag;
    }
    for (rest = list; rest.p && count < CACHE_TAGS_MAX && header_list_next(&rest, &tag);) tags[count++] = tag;
    draft->tags = tags;
    draft->tag_count = count;
}

/* ---- coded forms */

bool caching_take_form(struct exchange *x, enum coding coding, int level) {
    struct caching *c = x->caching;
    if (!c || !c->served || x->body != &c->hit.pipe || !list_empty(&c->hit.pipe.stages)) return false;
    if (c->found->partial || cache_body_state(c->found->body) != CACHE_BODY_WHOLE) return false;
    struct worker *w = worker_of_exchange(x);
    struct cached *form = form_of(&c->form, x, c->found, coding, level);
    if (!form) return false;
    hit_close(&c->hit);
    must(hit_open(&c->hit, form->body, &w->loop, &w->mailbox)); /* whole, or begun just now */
    form_start(&c->form);
    x->response.framing = framing_of_body(form->body);
    cached_unref(form);
    return true;
}

bool caching_form_length(struct exchange *x, enum coding coding, uint64_t *length) {
    const struct caching *c = x->caching;
    return c && c->served && !c->found->partial && form_length(x, c->found, coding, length);
}

/* ---- its end */

void caching_leave(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c) return;
    cache_unfollow(&c->follower);
    hit_close(&c->hit);
    if (c->served && x->body == &c->hit.pipe) x->body = NULL;
}

void caching_end(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c) return;
    caching_leave(x);
    caching_stop_settling(c);
    fill_end(&c->fill);
    form_end(&c->form);
    cached_unref(c->found);
    c->found = NULL;
    news_close(c->news);
    c->news = NULL;
}

/* ---- what became of it */

static bool was_passed(const struct caching *c) {
    if (c->fill.exchange) return c->fill.state == FILL_PASSED && !cache_rule_stores(c->fill.rule);
    return c->found && c->found->pass;
}

bool caching_result(const struct caching *c, enum cache_result *result) {
    if (!c) return false;
    const struct fill *f = &c->fill;
    bool led = f->exchange && !f->behind;
    if (!c->asks) *result = CACHE_RESULT_BYPASS;
    else if (!c->served) *result = was_passed(c) ? CACHE_RESULT_PASS : CACHE_RESULT_MISS;
    else if (c->status.stored) *result = f->validated ? CACHE_RESULT_REVALIDATED : CACHE_RESULT_MISS;
    else if (c->stale_found || c->reuse.left <= 0 || (led && f->state == FILL_STALE)) *result = CACHE_RESULT_STALE;
    else *result = c->followed ? CACHE_RESULT_COLLAPSED : CACHE_RESULT_HIT;
    return true;
}

const char *caching_word(const struct caching *c) {
    enum cache_result result;
    return caching_result(c, &result) ? cache_result_word(result) : NULL;
}

struct slice caching_rule(const struct caching *c) {
    enum cache_result result;
    const struct slice none = { NULL, 0 };
    if (!caching_result(c, &result)) return none;
    const struct fill *f = &c->fill;
    bool judged = f->exchange && !f->behind && f->status && (f->state == FILL_STORED || f->state == FILL_PASSED);
    if (judged && f->state == FILL_PASSED && cache_rule_stores(f->rule)) return SLICE("no-room");
    if (judged) return cache_rule_word(f->rule);
    if (c->found && result != CACHE_RESULT_MISS && c->asks) return cache_rule_word(c->found->rule);
    if (c->asks || c->status.fwd == CACHE_FWD_BYPASS) return none;
    return cache_rule_word(c->status.fwd == CACHE_FWD_METHOD ? CACHE_RULE_METHOD : CACHE_RULE_REQUEST_NO_STORE);
}
