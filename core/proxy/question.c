/* The answer is JSON at once: it goes through another thread to a person or a program, and nobody in between reads
 * it. */
#include "proxy/question.h"

#include "base/clock.h"
#include "base/must.h"
#include "http/vary.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

enum { VARIANTS_MOST = 50, TAGS_SHOWN = 32, SHOWN_MOST = 1024 };

static struct {
    pthread_mutex_t lock;
    struct list questions;
    atomic_uint count;
} asked = { .lock = PTHREAD_MUTEX_INITIALIZER, .questions = { &asked.questions, &asked.questions } };

void question_open(struct cache_question *q) {
    unsigned char bytes[QUESTION_SECRET / 2];
    random_secret(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        q->secret[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        q->secret[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    q->secret[QUESTION_SECRET] = 0;
    q->answer = NULL;
    pthread_mutex_lock(&asked.lock);
    list_push(&asked.questions, &q->node);
    atomic_fetch_add(&asked.count, 1);
    pthread_mutex_unlock(&asked.lock);
}

char *question_close(struct cache_question *q) {
    pthread_mutex_lock(&asked.lock);
    list_remove(&q->node);
    atomic_fetch_sub(&asked.count, 1);
    pthread_mutex_unlock(&asked.lock);
    char *answer = q->answer;
    q->answer = NULL;
    return answer;
}

/* ---- what is there */

/* What is no ASCII is told by "?", what is too long is cut. */
static json_t *text_of(struct slice s) {
    char shown[SHOWN_MOST];
    size_t n = s.n < SHOWN_MOST ? s.n : SHOWN_MOST;
    if (!s.p) return json_null();
    for (size_t i = 0; i < n; i++) shown[i] = s.p[i] >= ' ' && s.p[i] <= '~' ? s.p[i] : '?';
    return json_stringn(shown, n);
}

static void set(json_t *o, const char *name, json_t *value) { json_object_set_new(o, name, value); }
static void set_seconds(json_t *o, const char *name, int64_t ms) { set(o, name, json_real((double)ms / 1000)); }

static json_t *names_of(struct slice key) {
    json_t *list = json_array();
    struct slice name;
    while (vary_key_next(&key, &name)) json_array_append_new(list, text_of(name));
    return list;
}

static json_t *tags_of(const struct cached *c) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < c->tag_count && i < TAGS_SHOWN; i++) json_array_append_new(list, text_of(c->tags[i]));
    return list;
}

static const char *body_word(struct cache_body *body) {
    static const char *const words[] = { "arriving", "whole", "broken" };
    return words[cache_body_state(body)];
}

static void describe_body(json_t *o, const struct cached *c) {
    struct cache_body *body = c->body;
    set(o, "bytes", json_integer((json_int_t)cache_body_length(body)));
    set(o, "body", json_string(body_word(body)));
    if (!c->partial) return;
    set(o, "first", json_integer((json_int_t)c->first));
    set(o, "total", json_integer((json_int_t)c->total));
}

static json_t *describe(const struct cached *c, const struct headers *request) {
    struct reuse reuse = reuse_of(&c->freshness, &(struct cache_control){ 0 }, caching_now());
    json_t *o = json_object();
    set(o, "pass", json_boolean(c->pass));
    set(o, "rule", text_of(cache_rule_word(c->rule)));
    if (!c->pass) set(o, "status", json_integer(c->status));
    set(o, "vary", names_of(c->vary));
    set(o, "fits", json_boolean(vary_matches(c->vary, request)));
    set_seconds(o, "age", reuse.age);
    set_seconds(o, "left", reuse.left);
    if (c->pass) return o;
    set_seconds(o, "stale", c->freshness.stale_while_revalidate);
    set_seconds(o, "stale_if_error", c->freshness.stale_if_error);
    set(o, "always_validated", json_boolean(c->freshness.flags & FRESHNESS_VALIDATE));
    set(o, "heuristic", json_boolean(c->freshness.flags & FRESHNESS_HEURISTIC));
    set(o, "tags", tags_of(c));
    set(o, "hits", json_integer(atomic_load(&c->hits)));
    if (c->body) describe_body(o, c);
    return o;
}

struct variants {
    json_t *list;
    const struct headers *request;
    unsigned more;
};

static void see_variant(void *data, const struct cached *c, bool purged, bool softly) {
    struct variants *v = data;
    if (json_array_size(v->list) == VARIANTS_MOST) {
        v->more++;
        return;
    }
    json_t *o = describe(c, v->request);
    set(o, "purged", purged ? json_string("hard") : softly ? json_string("soft") : json_null());
    json_array_append_new(v->list, o);
}

/* ---- what would be */

static void describe_outcome(json_t *o, struct exchange *x, enum reuse_verdict verdict) {
    const struct caching *c = x->caching;
    enum cache_result result = CACHE_RESULT_MISS;
    struct slice why = cache_fwd_word(c->status.fwd);
    if (!c->asks || verdict == REUSE_BYPASS) result = CACHE_RESULT_BYPASS;
    else if (verdict == REUSE_FRESH) result = CACHE_RESULT_HIT;
    else if (verdict == REUSE_STALE || verdict == REUSE_STALE_WHILE_REVALIDATE) result = CACHE_RESULT_STALE;
    else if (c->found && c->found->pass) result = CACHE_RESULT_PASS;
    if (!c->asks && x->cache_bypass) why = SLICE("policy");
    else if (result == CACHE_RESULT_HIT || result == CACHE_RESULT_STALE) why = SLICE("");
    else if (result == CACHE_RESULT_PASS && c->asks) why = cache_rule_word(c->found->rule);
    else if (result == CACHE_RESULT_BYPASS && c->asks) why = cache_rule_word(CACHE_RULE_REQUEST_NO_STORE);
    set(o, "result", json_string(cache_result_word(result)));
    set(o, "why", why.n ? text_of(why) : json_null());
}

static char *make_answer(struct exchange *x) {
    json_t *o = json_object();
    set(o, "site", text_of(x->site_name));
    set(o, "url", text_of(caching_url(x)));
    enum reuse_verdict verdict = caching_try(x);
    struct caching *c = x->caching;
    if (!c) {
        set(o, "result", json_null());
        set(o, "why", json_string("the site has no cache"));
    } else {
        struct variants v = { json_array(), &x->request.headers, 0 };
        describe_outcome(o, x, verdict);
        set(o, "key", text_of(c->key.bytes));
        set(o, "own_key", json_boolean(x->cache_key.p != NULL));
        if (c->asks) cache_each_variant(c->cache, &c->key, see_variant, &v);
        set(o, "variants", v.list);
        if (v.more) set(o, "more", json_integer(v.more));
    }
    char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(o);
    must(text);
    return text;
}

/* ---- is it one? */

/* The lock is held. */
static struct cache_question *find(struct slice secret) {
    list_each(node, &asked.questions) {
        struct cache_question *q = container_of(node, struct cache_question, node);
        if (slice_equal(secret, slice_of(q->secret))) return q;
    }
    return NULL;
}

bool question_take(struct exchange *x) {
    if (atomic_load_explicit(&asked.count, memory_order_relaxed) == 0) return false;
    const struct header *h = headers_find(&x->request.headers, SLICE(QUESTION_FIELD));
    if (!h) return false;
    pthread_mutex_lock(&asked.lock);
    bool open = find(h->value) != NULL;
    pthread_mutex_unlock(&asked.lock);
    if (!open) return false;
    char *answer = make_answer(x); /* which locks the cache: not under ours */
    caching_end(x);
    x->caching = NULL; /* it is in no figure and no log */
    pthread_mutex_lock(&asked.lock);
    struct cache_question *q = find(h->value);
    if (q && !q->answer) q->answer = answer;
    else free(answer);
    pthread_mutex_unlock(&asked.lock);
    return true;
}
