/* A trace goes: begin (main thread) -> a round that sets the observers -> lines, from the workers -> its end, for
 * whatever reason: a round that takes the observers away and forgets unfinished notes -> the last line, with the sums.
 *
 * An exchange that began after the trace is judged once, when it first comes by: its request is then as it was
 * received. The verdict is kept in the exchange (watched), under the number of the trace (watcher), so that what an
 * earlier trace left there means nothing. */
#include "server/trace.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "proxy/note.h"
#include "server/instance.h"
#include "server/onlooker.h"
#include "server/trace_filter.h"
#include "server/worker_thread.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { TRACED_MOST = 128, BEGUN_MOST = 500, HOOKS_MOST = 64, SHOWN_MOST = 400 };

/* One exchange that is traced. Its worker's. */
struct traced {
    struct list node; /* in tracer->traced */
    struct exchange *exchange;
    struct arena arena;
    struct slice method, target, host;
    struct hook_note *hooks, **next;
    unsigned hook_count;
};

/* A worker's side. */
struct tracer {
    struct hook_observer observer;
    struct trace *trace;
    struct worker *worker;
    struct list traced;
    double began; /* loop time */
    unsigned count, begun;
    long second; /* the one that `begun` counts in */
};

struct trace {
    struct onlooker onlooker;
    struct instance *instance;
    struct trace_filter *filter;
    bool secrets, limited, ending;
    const char *why; /* it ended; static */
    uint32_t number;
    ev_timer timer;
    struct letter full;
    struct round round;
    struct tracer *tracers; /* by worker */
    atomic_long left;       /* lines, if limited */
    atomic_ulong told, dropped;
};

/* ---- traced exchanges */

static struct tracer *of_observer(struct hook_observer *o) { return container_of(o, struct tracer, observer); }

static void traced_destroy(struct tracer *t, struct traced *r) {
    r->exchange->watched = NULL;
    list_remove(&r->node);
    arena_fini(&r->arena);
    free(r);
    t->count--;
}

/* False: there are too many, this one is not traced. */
static bool has_room(struct tracer *t) {
    long second = (long)loop_now(&t->worker->loop);
    if (second != t->second) t->begun = 0;
    t->second = second;
    if (t->count < TRACED_MOST && t->begun < BEGUN_MOST) return true;
    atomic_fetch_add(&t->trace->dropped, 1);
    return false;
}

static struct traced *traced_create(struct tracer *t, struct exchange *x) {
    struct traced *r = must_calloc(1, sizeof *r);
    arena_init(&r->arena);
    r->exchange = x;
    r->method = arena_copy(&r->arena, x->request.method_name);
    r->target = arena_copy(&r->arena, x->request.target.raw);
    r->host = arena_copy(&r->arena, x->request.target.host);
    r->next = &r->hooks;
    list_push(&t->traced, &r->node);
    t->count++;
    t->begun++;
    return r;
}

/* NULL: it is not traced. */
static struct traced *traced_of(struct tracer *t, struct exchange *x) {
    if (!x) return NULL;
    if (x->watcher == t->trace->number) return x->watched;
    x->watcher = t->trace->number;
    x->watched = NULL;
    if (x->began < t->began) return NULL; /* its beginning was not seen */
    if (trace_filter_wants(t->trace->filter, x) && has_room(t)) x->watched = traced_create(t, x);
    return x->watched;
}

static struct hook_note *find_open(struct traced *r, const struct subject *subject) {
    struct hook_note *found = NULL;
    for (struct hook_note *h = r->hooks; h; h = h->next)
        if (h->subject == subject) found = h;
    return found;
}

/* ---- lines */

/* JSON is UTF-8; bytes that are not become U+FFFD. */
static json_t *text_of(struct slice s) {
    if (!s.p) return json_null();
    size_t n = s.n < SHOWN_MOST ? s.n : SHOWN_MOST;
    json_t *text = json_stringn(s.p, n);
    if (text && s.n == n) return text;
    json_decref(text);
    char shown[4 * SHOWN_MOST + 64];
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s.p[i] < 0x80) shown[to++] = s.p[i];
        else memcpy(shown + to, "\xEF\xBF\xBD", 3), to += 3;
    }
    if (s.n > n) to += (size_t)snprintf(shown + to, sizeof shown - to, "… (%zu bytes)", s.n);
    return json_stringn(shown, to);
}

static json_t *text(const char *s) { return text_of(slice_of(s)); }

/* Rounded to microseconds, so that the line stays short. */
static json_t *seconds(double s) { return json_real((double)(int64_t)(s * 1e6 + 0.5) / 1e6); }

static bool is_secret(const char *field) {
    static const char *const names[] = { "[\"authorization\"]", "[\"proxy-authorization\"]", "[\"cookie\"]",
                                         "[\"set-cookie\"]" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasestr(field, names[i])) return true;
    return false;
}

static json_t *describe_change(const struct trace *t, const struct change_note *c) {
    bool masked = !t->secrets && is_secret(c->field);
    struct slice mask = SLICE("(masked)");
    return json_pack("{so,so,so}", "field", text(c->field), "before", text_of(masked && c->before.p ? mask : c->before),
                     "after", text_of(masked && c->after.p ? mask : c->after));
}

static json_t *describe_fetch(const struct fetch_note *f) {
    json_t *o = json_pack("{so,so,so,so,so}", "method", text_of(f->method), "target", text_of(f->target), "backend",
                          text(f->backend), "server", text(f->server), "time", seconds(f->seconds));
    if (f->status) json_object_set_new(o, "status", json_integer(f->status));
    if (f->word) json_object_set_new(o, "error", text(f->word));
    return o;
}

static json_t *describe_hook(const struct trace *t, const struct hook_note *h) {
    json_t *changes = json_array(), *fetches = json_array();
    for (const struct change_note *c = h->changes; c; c = c->next)
        json_array_append_new(changes, describe_change(t, c));
    for (const struct fetch_note *f = h->fetches; f; f = f->next) json_array_append_new(fetches, describe_fetch(f));
    json_t *o = json_pack("{ss,so,so,ss,so}", "hook", hook_name(h->hook), "policy", text(h->path), "place",
                          text(h->place), "verdict", h->verdict, "time", seconds(h->seconds));
    if (h->status) json_object_set_new(o, "status", json_integer(h->status));
    if (h->picked.p) json_object_set_new(o, "picked", text_of(h->picked));
    if (h->error) json_object_set_new(o, "error", text(h->error));
    json_object_set_new(o, "changes", changes);
    json_object_set_new(o, "fetches", fetches);
    return o;
}

/* Nothing where the cache was not asked. */
static void describe_cache(json_t *o, const struct caching *c) {
    const char *word = caching_word(c);
    struct slice rule = caching_rule(c);
    if (!word) return;
    json_t *cache = json_pack("{ss,so,sb}", "result", word, "rule", text_of(rule), "stored", c->status.stored);
    if (c->status.has_ttl) {
        json_object_set_new(cache, "age", seconds((double)c->reuse.age / 1000));
        json_object_set_new(cache, "left", seconds((double)c->status.ttl / 1000));
    }
    json_object_set_new(o, "cache", cache);
}

static json_t *describe(const struct trace *t, const struct traced *r, const struct exchange *x,
                        const struct exchange_note *note) {
    char client[ADDR_TEXT];
    json_t *hooks = json_array(), *tried = json_array();
    for (const struct hook_note *h = r->hooks; h; h = h->next) json_array_append_new(hooks, describe_hook(t, h));
    for (const struct tried_note *s = note->tried; s; s = s->next)
        json_array_append_new(tried, json_pack("{so,so}", "backend", text(s->backend), "server", text(s->server)));
    json_t *o = json_pack("{so,so,so,so,so,so}", "id", text(note->id), "site", text(note->site), "client",
                          text_of(addr_ip_text(&x->client_addr, client)), "method", text_of(r->method), "host",
                          text_of(r->host), "target", text_of(r->target));
    json_object_set_new(o, "hooks", hooks);
    describe_cache(o, x->caching);
    json_object_set_new(o, "tried", tried);
    json_object_set_new(o, "tries", json_integer(note->tries));
    json_object_set_new(o, "status", json_integer(x->head_sent ? x->response.status : 499));
    json_object_set_new(o, "source", text(note->source));
    if (note->word) json_object_set_new(o, "error", text(note->word));
    if (note->failed_hook) json_object_set_new(o, "failed_hook", text(note->failed_hook));
    if (x->first_byte > 0) json_object_set_new(o, "first_byte", seconds(x->first_byte - x->began));
    json_object_set_new(o, "time", seconds(note->seconds));
    json_object_set_new(o, "bytes_in", json_integer((json_int_t)x->bytes_in));
    json_object_set_new(o, "bytes_out", json_integer((json_int_t)x->bytes_out));
    return o;
}

/* A line of its own; takes the object over. To be freed. */
static char *write_line(json_t *line, size_t *n) {
    char *text = json_dumps(line, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(line);
    must(text);
    *n = strlen(text) + 1;
    text[*n - 1] = '\n'; /* in the place of its end */
    return text;
}

/* False: there was no room. */
static bool tell(struct trace *t, json_t *line) {
    size_t n;
    char *text = write_line(line, &n);
    bool told = onlooker_say(&t->onlooker, text, n);
    free(text);
    return told;
}

static void tell_end(struct trace *t) {
    size_t n;
    char *text = write_line(json_pack("{ss,sI,sI}", "end", t->why, "traced", (json_int_t)atomic_load(&t->told),
                                      "dropped", (json_int_t)atomic_load(&t->dropped)),
                            &n);
    onlooker_add(&t->onlooker, text, n);
    free(text);
}

static void letter_on_full(struct letter *letter, struct loop *loop) {
    trace_end(container_of(letter, struct trace, full), "count");
}

/* A place among those that were asked for; the last one ends the trace. */
static bool take_place(struct trace *t) {
    if (!t->limited) return true;
    long left = atomic_fetch_sub(&t->left, 1);
    if (left == 1) must(mailbox_post(&t->instance->mailbox, &t->full)); /* the main thread's closes last */
    return left >= 1;
}

/* ---- the observer, in a worker's thread */

static void on_asked(struct hook_observer *o, const struct subject *subject, const struct hook_asked *asked) {
    struct traced *r = traced_of(of_observer(o), subject->exchange);
    if (!r || r->hook_count == HOOKS_MOST) return;
    struct hook_note *note = arena_alloc(&r->arena, sizeof *note);
    hook_note_begin(note, &r->arena, subject, asked, clock_monotonic());
    *r->next = note;
    r->next = &note->next;
    r->hook_count++;
}

static void on_answered(struct hook_observer *o, const struct subject *subject, enum hook hook, enum verdict verdict,
                        const struct decision *decision) {
    struct traced *r = traced_of(of_observer(o), subject->exchange);
    struct hook_note *note = r ? find_open(r, subject) : NULL;
    if (note) hook_note_end(note, &r->arena, subject, verdict, decision, clock_monotonic());
}

static void on_failed(struct hook_observer *o, const struct subject *subject, const char *text) {
    struct traced *r = traced_of(of_observer(o), subject->exchange);
    struct hook_note *note = r ? find_open(r, subject) : NULL;
    if (note) hook_note_fail(note, &r->arena, text);
}

static void on_fetched(struct hook_observer *o, const struct subject *subject, const struct fetch *f, enum failure why,
                       double seconds) {
    struct traced *r = traced_of(of_observer(o), subject->exchange);
    struct hook_note *note = r ? find_open(r, subject) : NULL;
    if (note) hook_note_fetch(note, &r->arena, f, why, seconds);
}

static void on_finished(struct hook_observer *o, const struct exchange *finished) {
    struct tracer *t = of_observer(o);
    struct exchange *x = (struct exchange *)(uintptr_t)finished; /* whose `watched` is ours */
    struct traced *r = traced_of(t, x);
    if (!r) return;
    int status = x->head_sent ? x->response.status : 499;
    if (trace_filter_wants_status(t->trace->filter, status) && take_place(t->trace)) {
        struct exchange_note note;
        exchange_note_fill(&note, &r->arena, x);
        bool told = tell(t->trace, describe(t->trace, r, x, &note));
        atomic_fetch_add(told ? &t->trace->told : &t->trace->dropped, 1);
    }
    traced_destroy(t, r);
}

/* ---- its life */

static void trace_free(struct trace *t) {
    trace_filter_destroy(t->filter);
    free(t->tracers);
    free(t);
}

static void trace_on_gone(struct onlooker *o) {
    struct trace *t = container_of(o, struct trace, onlooker);
    t->instance->trace = NULL;
    trace_free(t);
}

static void trace_on_observers_gone(struct round *round) {
    struct trace *t = container_of(round, struct trace, round);
    tell_end(t);
    onlooker_end(&t->onlooker);
}

static void leave_worker(struct round *round, struct worker_thread *thread) {
    struct tracer *t = &container_of(round, struct trace, round)->tracers[thread->worker.index];
    if (thread->worker.observer == &t->observer) thread->worker.observer = NULL;
    while (!list_empty(&t->traced)) traced_destroy(t, container_of(t->traced.next, struct traced, node));
    round_report(round, thread);
}

static void begin_leaving(struct trace *t) {
    t->round = (struct round){ .visit = leave_worker, .done = trace_on_observers_gone };
    round_begin(&t->round, t->instance);
}

/* Until every worker has its observer, none can be taken away. Who asked is told now, unless lines of the first worker
 * have already gone out behind the answer. */
static void trace_on_observers_set(struct round *round) {
    struct trace *t = container_of(round, struct trace, round);
    onlooker_say(&t->onlooker, "", 0);
    if (t->ending) begin_leaving(t);
}

static void enter_worker(struct round *round, struct worker_thread *thread) {
    struct tracer *t = &container_of(round, struct trace, round)->tracers[thread->worker.index];
    t->worker = &thread->worker;
    t->began = loop_now(&thread->worker.loop);
    thread->worker.observer = &t->observer;
    round_report(round, thread);
}

void trace_end(struct trace *t, const char *why) {
    if (!t || t->ending) return;
    t->ending = true;
    t->why = why;
    ev_timer *timer = &t->timer;
    ev_timer_stop(t->instance->loop.ev, timer);
    if (!t->round.letters) begin_leaving(t);
}

void trace_close(struct trace *t) {
    if (!t) return;
    ev_timer *timer = &t->timer;
    ev_timer_stop(t->instance->loop.ev, timer);
    onlooker_close(&t->onlooker);
    trace_free(t);
}

static void trace_on_left(struct onlooker *o) { trace_end(container_of(o, struct trace, onlooker), "left"); }

static void trace_on_time(struct ev_loop *ev, ev_timer *timer, int events) { trace_end(timer->data, "seconds"); }

static void open_tracers(struct trace *t) {
    t->tracers = must_calloc(t->instance->worker_count, sizeof *t->tracers);
    for (unsigned i = 0; i < t->instance->worker_count; i++) {
        struct tracer *tracer = &t->tracers[i];
        tracer->trace = t;
        list_init(&tracer->traced);
        tracer->observer = (struct hook_observer){
            .asked = on_asked,
            .answered = on_answered,
            .failed = on_failed,
            .fetched = on_fetched,
            .finished = on_finished,
        };
    }
}

static void start(struct instance *instance, int fd, struct trace_filter *filter, long count, double lasting,
                  bool secrets) {
    static uint32_t numbers;
    struct trace *t = instance->trace = must_calloc(1, sizeof *t);
    t->instance = instance;
    t->filter = filter;
    t->secrets = secrets;
    t->limited = count > 0;
    t->number = ++numbers;
    atomic_init(&t->left, count);
    t->full.deliver = letter_on_full;
    t->onlooker.on_left = trace_on_left;
    t->onlooker.on_gone = trace_on_gone;
    onlooker_open(&t->onlooker, &instance->loop, &instance->mailbox, fd);
    onlooker_add(&t->onlooker, "0\n", 2);
    open_tracers(t);
    ev_timer *timer = &t->timer;
    ev_timer_init(timer, trace_on_time, lasting, 0.);
    timer->data = t;
    if (lasting > 0) ev_timer_start(instance->loop.ev, timer);
    t->round = (struct round){ .visit = enter_worker, .done = trace_on_observers_set };
    round_begin(&t->round, instance);
}

void trace_begin(struct instance *instance, struct message *m) {
    if (m->fd_count == 0) return;
    int fd = m->fds[0], secrets = 0, read = 0;
    m->fds[0] = -1;
    long count = 0;
    double lasting = 0;
    char why[256];
    bool form = sscanf(m->text, "%ld %lf %d %n", &count, &lasting, &secrets, &read) == 3; // NOLINT(cert-err34-c): ours
    struct trace_filter *filter = form ? trace_filter_create(slice_of(m->text + read), why, sizeof why) : NULL;
    if (!form) onlooker_refuse(fd, 2, "trace: not understood");
    else if (!filter) onlooker_refuse(fd, 2, why);
    else if (instance->state != INSTANCE_SERVES) onlooker_refuse(fd, 1, "it is not serving");
    else if (instance->trace) onlooker_refuse(fd, 1, "somebody else traces already: one at a time");
    else {
        start(instance, fd, filter, count, lasting, secrets != 0);
        return;
    }
    trace_filter_destroy(filter);
}
