/* Figures are told at once, purges when they are safe on disk, too. `why` and `warm` go as a request through a listener
 * of ours (visit.h): only policy knows what the key of a URL is, and what a site's answer to it will be. */
#include "server/cache_orders.h"

#include "base/must.h"
#include "http/uri.h"
#include "proxy/purge.h"
#include "proxy/purge_wait.h"
#include "proxy/question.h"
#include "server/channel.h"
#include "server/instance.h"
#include "server/visit.h"
#include "server/worker_thread.h"

#include <stdio.h>
#include <stdlib.h>

enum { LINES_MOST = 32 };

struct disk_wait {
    struct disk_wait *next;
    struct purge_wait wait;
};

/* One that waits: for a visit, or for disks. */
struct cache_order {
    struct cache_asker *asker;
    struct list node; /* in instance->purges, if it waits for disks */
    struct task task;
    struct disk_wait *waits;
    json_t *answer; /* when these are over */
    struct visit *visit;
    bool asks; /* `question` is open */
    struct cache_question question;
    char *url;
};

static struct slice get(const json_t *order, const char *name) {
    const json_t *value = json_object_get(order, name);
    if (!json_is_string(value)) return slice_make(NULL, 0);
    return slice_make(json_string_value(value), json_string_length(value));
}

/* ---- answers */

static void answer_json(struct cache_asker *a, json_t *o) {
    char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(o);
    must(text);
    a->answered(a, 0, text);
}

static void refuse(struct cache_asker *a, int status, const char *sentence) {
    a->answered(a, status, must_strdup(sentence));
}

/* ---- figures */

static void set_integer(json_t *o, const char *name, uint64_t n) {
    json_object_set_new(o, name, json_integer((json_int_t)n));
}

static json_t *text_of(struct slice s) {
    json_t *text = json_stringn(s.p, s.n);
    return text ? text : json_null();
}

static json_t *describe_results(const struct cache_metrics *m) {
    json_t *o = json_object();
    for (int r = 0; r < CACHE_RESULT_COUNT; r++)
        set_integer(o, cache_result_word((enum cache_result)r),
                    m->requests[r] ? (uint64_t)metric_value(m->requests[r]) : 0);
    return o;
}

static json_t *describe_cache(struct cache *cache) {
    struct cache_figures f;
    const struct cache_metrics *m = &site_metrics_get(cache_site(cache))->cache;
    json_t *o = json_object();
    cache_figures(cache, &f);
    json_object_set_new(o, "site", text_of(cache_site(cache)));
    set_integer(o, "memory", f.memory);
    set_integer(o, "used", f.used);
    set_integer(o, "objects", f.objects);
    set_integer(o, "passes", f.passes);
    set_integer(o, "stored", f.stored);
    set_integer(o, "freshened", f.freshened);
    set_integer(o, "evicted", f.evicted);
    set_integer(o, "evicted_bytes", f.evicted_bytes);
    set_integer(o, "refused", f.refused);
    set_integer(o, "purged", f.purged);
    set_integer(o, "expired", f.expired);
    set_integer(o, "sent_bytes", m->bytes ? (uint64_t)metric_value(m->bytes) : 0);
    json_object_set_new(o, "requests", describe_results(m));
    return o;
}

static void do_status(struct cache_asker *a) {
    json_t *o = json_object(), *list = json_array();
    for (struct cache *c = cache_next(NULL); c; c = cache_next(c)) json_array_append_new(list, describe_cache(c));
    json_object_set_new(o, "caches", list);
    answer_json(a, o);
}

/* ---- orders that wait */

static void order_free(struct cache_order *o) {
    if (o->asks) free(question_close(&o->question));
    for (struct disk_wait *w = o->waits, *next; w; w = next) {
        next = w->next;
        purge_wait_end(&w->wait);
        free(w);
    }
    task_forget(&o->task);
    list_remove(&o->node);
    json_decref(o->answer);
    free(o->url);
    free(o);
}

static void order_advance(struct task *);

static struct cache_order *order_create(struct cache_asker *a) {
    struct cache_order *o = must_calloc(1, sizeof *o);
    o->asker = a;
    list_init(&o->node);
    task_init(&o->task, order_advance);
    return o;
}

void cache_order_cancel(struct cache_asker *a) {
    struct cache_order *o = a->order;
    if (!o) return;
    a->order = NULL;
    if (o->visit) visit_cancel(o->visit);
    order_free(o);
}

static struct cache_asker *finish(struct cache_order *o) {
    struct cache_asker *a = o->asker;
    a->order = NULL;
    return a;
}

/* ---- purging */

/* A URL is named as it is stored: normalised. */
static bool normalise(struct arena *arena, struct slice *url) {
    struct target t;
    if (!url_parse(arena, arena_copy(arena, *url), &t)) return false;
    t.path = path_normalise(arena, t.path);
    if (!t.path.p) return false;
    *url = target_url(arena, &t);
    return true;
}

/* False: `*why`. */
static bool read_purge_order(const json_t *order, struct arena *arena, struct purge_order *p, const char **why) {
    static const char *const names[] = { [PURGE_URL] = "url", [PURGE_TAG] = "tag", [PURGE_PREFIX] = "prefix" };
    bool all = json_is_true(json_object_get(order, "all"));
    unsigned count = all;
    p->kind = PURGE_ALL;
    p->soft = json_is_true(json_object_get(order, "soft"));
    for (int k = PURGE_URL; k <= PURGE_PREFIX; k++) {
        struct slice text = get(order, names[k]);
        if (!text.n) continue;
        p->kind = (enum purge_kind)k;
        p->text = text;
        count++;
    }
    *why = "purge takes one of url, tag, prefix and all";
    if (count != 1) return false;
    *why = "not an http:// or https:// URL";
    return p->kind == PURGE_TAG || p->kind == PURGE_ALL || normalise(arena, &p->text);
}

/* ---- until purges are safe on disk */

static void order_advance(struct task *t) {
    struct cache_order *o = container_of(t, struct cache_order, task);
    for (const struct disk_wait *w = o->waits; w; w = w->next)
        if (!purge_wait_over(&w->wait)) return;
    struct cache_asker *a = finish(o);
    answer_json(a, json_incref(o->answer));
    order_free(o);
}

static void await_disk(struct instance *instance, struct cache_order *o, struct cache *cache) {
    struct worker *keeper = &instance->threads[0].worker;
    struct disk_wait *w = must_calloc(1, sizeof *w);
    w->next = o->waits;
    o->waits = w;
    purge_wait_begin(&w->wait, cache, &keeper->loop, &keeper->mailbox, &o->task);
}

void cache_orders_end(struct instance *instance) {
    list_each_safe(node, &instance->purges) {
        struct cache_order *o = container_of(node, struct cache_order, node);
        struct cache_asker *a = finish(o);
        refuse(a, 1, "the proxy stops: the purge is done, but may not be on disk yet");
        order_free(o);
    }
}

static void run_purge(struct instance *instance, struct cache_asker *a, const struct purge_order *p,
                      struct slice site) {
    uint64_t count = 0;
    json_t *sites = json_array();
    struct cache_order *o = order_create(a);
    for (struct cache *c = cache_next(NULL); c; c = cache_next(c)) {
        if (site.n && !slice_equal(site, cache_site(c))) continue;
        count += purge_run(c, p);
        await_disk(instance, o, c);
        json_array_append_new(sites, text_of(cache_site(c)));
    }
    if (json_array_size(sites) > 0) {
        o->answer = json_pack("{sI,sb,so}", "purged", (json_int_t)count, "soft", p->soft, "sites", sites);
        a->order = o;
        list_push(&instance->purges, &o->node);
        order_advance(&o->task);
        return;
    }
    json_decref(sites);
    order_free(o);
    refuse(a, 1, site.n ? "there is no cache of a site of that name" : "no site has a cache");
}

static void do_purge(struct instance *instance, const json_t *order, struct cache_asker *a) {
    struct arena arena;
    struct purge_order p = { .kind = PURGE_ALL };
    const char *why;
    arena_init(&arena);
    if (read_purge_order(order, &arena, &p, &why)) run_purge(instance, a, &p, get(order, "site"));
    else refuse(a, 2, why);
    arena_fini(&arena);
}

/* ---- orders that wait for a visit */

static void begin(struct instance *instance, struct cache_asker *a, const struct visit_request *r,
                  struct cache_order *o) {
    const char *why;
    o->url = must_strndup(r->url.p, r->url.n);
    o->visit = visit_begin(instance, r, &why);
    if (o->visit) {
        a->order = o;
        return;
    }
    order_free(o);
    refuse(a, 1, why);
}

/* ---- why */

static void why_on_answer(void *with, const struct visit_answer *v) {
    struct cache_order *o = with;
    struct cache_asker *a = finish(o);
    char *answer = question_close(&o->question);
    o->asks = false;
    if (answer) a->answered(a, 0, answer);
    else if (v->error) refuse(a, 1, v->error);
    else a->answered(a, 1, must_printf("the site answered %d itself, before the cache was asked", v->status));
    order_free(o);
}

static void do_why(struct instance *instance, const json_t *order, struct cache_asker *a) {
    struct cache_order *o = order_create(a);
    struct slice lines[LINES_MOST + 1];
    char text[sizeof QUESTION_FIELD + QUESTION_SECRET + 8];
    const json_t *list = json_object_get(order, "lines");
    size_t count = json_array_size(list) < LINES_MOST ? json_array_size(list) : LINES_MOST;
    for (size_t i = 0; i < count; i++) lines[i] = slice_of(json_string_value(json_array_get(list, i)));
    question_open(&o->question);
    o->asks = true;
    snprintf(text, sizeof text, "%s: %s", QUESTION_FIELD, o->question.secret);
    lines[count] = slice_of(text);
    begin(instance, a,
          &(struct visit_request){ .url = get(order, "url"),
                                   .site = get(order, "site"),
                                   .lines = lines,
                                   .line_count = (unsigned)count + 1,
                                   .answered = why_on_answer,
                                   .with = o },
          o);
}

/* ---- warming */

/* What our own Cache-Status says: the last member. */
struct told {
    bool hit, stored;
    struct slice word;
};

static struct told read_status(struct slice list) {
    struct told told = { .hit = false };
    struct slice member = { NULL, 0 }, next;
    while (list.p && header_list_next(&list, &next)) member = next;
    for (struct slice rest = member; rest.p;) {
        struct slice value = slice_trim(slice_cut(&rest, ';')), name = slice_cut(&value, '=');
        if (slice_equal(name, SLICE("hit"))) told.hit = true;
        if (slice_equal(name, SLICE("collapsed")) && !value.p) told.hit = true;
        if (slice_equal(name, SLICE("stored"))) told.stored = true;
        if (slice_equal(name, SLICE("detail")) || (slice_equal(name, SLICE("fwd")) && !told.word.p)) told.word = value;
    }
    return told;
}

static void warm_on_answer(void *with, const struct visit_answer *v) {
    struct cache_order *o = with;
    struct cache_asker *a = finish(o);
    struct told told = read_status(v->cache_status);
    const char *result = told.hit ? "already" : told.stored ? "stored" : "refused";
    json_t *json = json_object();
    if (v->error || v->status >= 400) result = "failed";
    json_object_set_new(json, "url", text_of(slice_of(o->url)));
    json_object_set_new(json, "result", json_string(result));
    json_object_set_new(json, "status", json_integer(v->status));
    json_object_set_new(json, "bytes", json_integer((json_int_t)v->bytes));
    if (v->error) json_object_set_new(json, "error", json_string(v->error));
    else if (!v->cache_status.p) json_object_set_new(json, "rule", json_string("no-cache-asked"));
    else if (!told.hit && !told.stored) json_object_set_new(json, "rule", text_of(told.word));
    answer_json(a, json);
    order_free(o);
}

static void do_warm(struct instance *instance, const json_t *order, struct cache_asker *a) {
    struct cache_order *o = order_create(a);
    begin(instance, a,
          &(struct visit_request){
              .url = get(order, "url"), .site = get(order, "site"), .answered = warm_on_answer, .with = o },
          o);
}

void cache_order_begin(struct instance *instance, const json_t *order, struct cache_asker *a) {
    struct slice what = get(order, "do");
    a->order = NULL;
    if (slice_equal(what, SLICE("status"))) do_status(a);
    else if (slice_equal(what, SLICE("purge"))) do_purge(instance, order, a);
    else if (slice_equal(what, SLICE("why"))) do_why(instance, order, a);
    else if (slice_equal(what, SLICE("warm"))) do_warm(instance, order, a);
    else refuse(a, 2, "no such order");
}

/* ---- over the control socket: main thread, keeper, main thread */

struct order_letter {
    struct letter letter;
    struct cache_asker asker;
    struct instance *instance;
    uint32_t id;
    int status;
    char *text; /* the order, then the answer */
};

static void letter_on_return(struct letter *letter, struct loop *loop) {
    struct order_letter *l = container_of(letter, struct order_letter, letter);
    channel_say(l->instance->orders, MESSAGE_DONE, l->id, l->status, l->text);
    free(l->text);
    free(l);
}

static void letter_on_answer(struct cache_asker *a, int status, char *text) {
    struct order_letter *l = container_of(a, struct order_letter, asker);
    free(l->text);
    l->text = must_printf("%s\n", text);
    free(text);
    l->status = status;
    l->letter.deliver = letter_on_return;
    must(mailbox_post(&l->instance->mailbox, &l->letter)); /* the main thread's closes last */
}

static void letter_on_arrival(struct letter *letter, struct loop *loop) {
    struct order_letter *l = container_of(letter, struct order_letter, letter);
    json_t *order = json_loads(l->text, 0, NULL);
    cache_order_begin(l->instance, order, &l->asker);
    json_decref(order);
}

void cache_order_take(struct instance *instance, const struct message *m) {
    if (instance->state != INSTANCE_SERVES) {
        channel_say(instance->orders, MESSAGE_DONE, m->id, 1, "it is not serving\n");
        return;
    }
    struct order_letter *l = must_calloc(1, sizeof *l);
    l->letter.deliver = letter_on_arrival;
    l->asker.answered = letter_on_answer;
    l->instance = instance;
    l->id = m->id;
    l->text = must_strdup(m->text);
    must(mailbox_post(&instance->threads[0].worker.mailbox, &l->letter));
}
