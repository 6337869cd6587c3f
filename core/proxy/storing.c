/* Three have a say in what is stored, one after the other: the fields of the response (http/freshness.h), the site, and
 * policy. What counts is the response as on_store left it: its fields are judged once more, then what it says in
 * `res.cache` goes before them.
 *
 * Of a 304 the head is judged that it makes: the stored one with the fields that came. */
#include "proxy/storing.h"

#include "proxy/exchange.h"

static struct loop *loop_of(const struct storing *s) { return &s->subject.worker->loop; }

static const struct site *site_of(const struct storing *s) { return s->fill->exchange->site; }

/* ---- the site */

static void adjust_stale(const struct cache_policy *p, const struct cache_control *told, struct freshness *fresh) {
    if (fresh->flags & (FRESHNESS_NEVER_STALE | FRESHNESS_VALIDATE)) return;
    if (!(told->present & CC_STALE_WHILE_REVALIDATE)) fresh->stale_while_revalidate = (int64_t)(p->stale * 1000);
    if (!(told->present & CC_STALE_IF_ERROR) && p->has_stale_if_error)
        fresh->stale_if_error = (int64_t)(p->stale_if_error * 1000);
}

enum cache_rule storing_adjust(const struct cache_policy *p, enum cache_rule rule, int status,
                               const struct headers *headers, const struct cache_control *told,
                               struct freshness *fresh) {
    adjust_stale(p, told, fresh);
    bool silent = rule == CACHE_RULE_NO_FRESHNESS || rule == CACHE_RULE_VALIDATOR || rule == CACHE_RULE_HEURISTIC;
    for (unsigned i = 0; silent && i < p->negative_count; i++) {
        if (p->negative[i].status != status && !(p->negative[i].status == 0 && status >= 400)) continue;
        if (headers_find_id(headers, HEADER_SET_COOKIE) && !(told->present & CC_PUBLIC)) return CACHE_RULE_SET_COOKIE;
        fresh->lifetime = (int64_t)(p->negative[i].seconds * 1000);
        return CACHE_RULE_HEURISTIC;
    }
    return rule;
}

/* The response varies by a field that we write and that is not in the key: nobody knows whom else it fits. */
static bool varies_by_ours(const struct headers *response) {
    static const struct slice ours[] = {
        { "X-Forwarded-For", 15 }, { "Forwarded", 9 }, { "Via", 3 }, { "Early-Data", 10 }
    };
    struct slice rest = headers_joined(response, SLICE("Vary")), name;
    while (rest.p && header_list_next(&rest, &name))
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            if (slice_equal_nocase(name, ours[i])) return true;
    return false;
}

/* ---- the fields, and the site */

static void measure(struct storing *s) {
    struct fill *f = s->fill;
    struct exchange *x = f->exchange;
    const struct response *r = s->answer.response;
    struct freshness *fresh = &s->fresh;
    cache_control_of_response(&f->told, &r->headers, true);
    if (!f->validated) {
        f->rule = freshness_of(fresh, &f->request, &x->caching->asked, r, &f->told, f->asked_at, f->heard_at);
    } else {
        f->rule = freshness_measure(fresh, r->status, &r->headers, &f->told, f->asked_at, f->heard_at);
        cache_update_forbidden(&f->rule, &x->request, &x->caching->asked, &r->headers, &f->told);
    }
    f->rule = storing_adjust(&x->site->cache, f->rule, r->status, &r->headers, &f->told, fresh);
    if (cache_rule_stores(f->rule) && varies_by_ours(&r->headers)) f->rule = CACHE_RULE_VARY_ANY;
}

/* ---- policy */

static bool has_hook(const struct storing *s) { return site_of(s)->hooks & 1u << HOOK_ON_STORE; }

/* Its policy has ended: nobody is there to say what may be stored. */
static bool lost_hook(const struct storing *s) { return !s->subject.site && !site_of(s)->fail_open[HOOK_ON_STORE]; }

static enum verdict call_hook(struct storing *s) {
    struct decision ignored;
    if (lost_hook(s)) return VERDICT_FAILED;
    enum verdict verdict =
        s->hook_running ? hook_go_on(&s->subject, &ignored) : hook_call(&s->subject, HOOK_ON_STORE, NULL, &ignored);
    s->hook_running = verdict == VERDICT_WAIT;
    return verdict;
}

/* Of a part without a place, and of what no request could be matched with, nothing can be stored. */
static bool may_be_stored(enum cache_rule rule) {
    return rule != CACHE_RULE_STATUS && rule != CACHE_RULE_RANGE && rule != CACHE_RULE_VARY_ANY;
}

static int64_t ms(double seconds) { return (int64_t)(seconds * 1000); }

/* Its ttl begins now, whatever age it came with. */
static void heed_wish(struct storing *s) {
    struct fill *f = s->fill;
    const struct store_wish *w = &s->wish;
    struct freshness *fresh = &s->fresh;
    if (w->ttl >= 0 && may_be_stored(f->rule)) {
        f->rule = CACHE_RULE_POLICY;
        fresh->lifetime = fresh->initial_age + ms(w->ttl);
        fresh->flags &= (uint8_t) ~(FRESHNESS_VALIDATE | FRESHNESS_HEURISTIC);
    }
    if (w->stale > 0 || w->stale_if_error > 0) fresh->flags &= (uint8_t)~FRESHNESS_NEVER_STALE;
    if (w->stale >= 0) fresh->stale_while_revalidate = ms(w->stale);
    if (w->stale_if_error >= 0) fresh->stale_if_error = ms(w->stale_if_error);
    if (w->pass >= 0) f->rule = CACHE_RULE_POLICY_PASS;
}

enum verdict storing_ask(struct storing *s) {
    enum verdict verdict = has_hook(s) ? call_hook(s) : VERDICT_CARRY_ON;
    if (verdict == VERDICT_WAIT) {
        storing_await(s);
        return verdict;
    }
    subject_end(&s->subject);
    s->gone = true;
    if (has_hook(s)) measure(s); /* by the fields as it left them */
    heed_wish(s);
    if (verdict == VERDICT_FAILED) s->fill->rule = CACHE_RULE_POLICY_FAILED;
    return verdict;
}

/* ---- policy takes its time: those who follow do not have to wait for it */

static const double PATIENCE = 3; /* seconds */

static void end_patience(struct deadline *d) {
    struct fill *f = container_of(d, struct storing, patience)->fill;
    if (f->place) cache_fill_release(f->place);
}

void storing_await(struct storing *s) {
    if (s->patience.loop) return;
    deadline_init(&s->patience, loop_of(s), end_patience);
    deadline_set(&s->patience, PATIENCE);
}

/* ---- its life */

static void wake_by_watch(struct pipe_watch *w) {
    struct storing *s = container_of(w, struct storing, watch);
    task_wake(loop_of(s), s->subject.task);
}

/* RFC 9111 4.3.4 */
static void merge(struct storing *s, const struct cached *old) {
    struct fill *f = s->fill;
    struct headers stored = cached_headers(old);
    s->merged = (struct response){ .status = old->status, .version = old->version, .reason = old->reason };
    headers_init(&s->merged.headers, s->subject.arena);
    headers_copy(&s->merged.headers, &stored);
    cache_update(&s->merged.headers, &f->fetch->response.headers, &f->told);
    fill_date(f, &s->merged.headers);
}

struct storing *storing_begin(struct fill *f) {
    struct exchange *x = f->exchange;
    struct storing *s = arena_alloc_zeroed(&x->arena, sizeof *s);
    s->fill = f;
    s->subject = (struct subject){ .kind = SUBJECT_FILL,
                                   .worker = x->subject.worker,
                                   .site = x->subject.site,
                                   .exchange = x,
                                   .arena = &x->arena,
                                   .task = &f->task };
    s->wish = (struct store_wish){ .ttl = -1, .stale = -1, .stale_if_error = -1, .pass = -1 };
    s->watch.on_news = wake_by_watch;
    list_init(&s->watch.node);
    s->answer = (struct answer){ .response = &f->fetch->response,
                                 .content = &s->content,
                                 .body = &s->body,
                                 .made = &s->made,
                                 .watch = &s->watch,
                                 .arena = &x->arena,
                                 .gone = &s->gone };
    if (f->validated) {
        merge(s, f->old);
        s->answer.response = &s->merged;
        s->answer.made = NULL; /* its body is stored already */
    } else s->body = &f->fetch->body;
    measure(s);
    return s;
}

void storing_let_go(struct storing *s) {
    subject_end(&s->subject);
    s->subject.site = NULL;
    if (s->hook_running) task_wake(loop_of(s), s->subject.task);
    s->hook_running = false;
}

void storing_stop(struct storing *s) {
    if (!s) return;
    subject_end(&s->subject);
    s->hook_running = false;
    s->gone = true;
    pipe_remove_watch(&s->watch);
}

void storing_fini(struct storing *s) {
    if (!s) return;
    deadline_fini(&s->patience);
    if (s->made) pipe_fini(s->made);
    s->made = NULL;
}
