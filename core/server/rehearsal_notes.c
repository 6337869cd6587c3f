/* What a rehearsal writes down: log lines, each hook's answer and what it changed, and each exchange at its end.
 *
 * What a hook changed is seen by comparing: the fields of request and response before it was asked and after it
 * answered. Names are those a script would use, so that what is printed can be pasted. */
#include "server/rehearsal_parts.h"

#include "base/must.h"

#include <stdlib.h>

enum { BODY_SHOWN = 4096 };

struct noted_field {
    const char *name;
    struct slice value;
    bool matched;
};

struct rehearsal_snapshot {
    unsigned count, room;
    struct noted_field *list;
};

/* As C's strings end. */
static const char *keep_slice(struct arena *arena, struct slice s) {
    if (!s.p) return NULL;
    char *to = arena_bytes(arena, s.n + 1);
    memcpy(to, s.p, s.n);
    to[s.n] = 0;
    return to;
}

static const char *keep(struct arena *arena, const char *text) { return keep_slice(arena, slice_of(text)); }

/* ---- log lines */

void notes_on_line(void *with, enum log_level level, const char *text) {
    struct rehearsal *r = with;
    struct rehearsal_line *line = arena_alloc_zeroed(&r->arena, sizeof *line);
    line->level = log_level_name(level);
    line->text = keep(&r->arena, text);
    *r->next_line = line;
    r->next_line = &line->next;
}

/* ---- snapshots */

static void add_field(struct arena *arena, struct rehearsal_snapshot *s, const char *name, struct slice value) {
    if (!value.p) return;
    if (s->count == s->room) {
        size_t before = s->room * sizeof *s->list;
        s->room = s->room ? 2 * s->room : 32;
        s->list = arena_grow(arena, s->list, before, s->room * sizeof *s->list);
    }
    s->list[s->count++] = (struct noted_field){ .name = name, .value = arena_copy(arena, value) };
}

static void add_headers(struct arena *arena, struct rehearsal_snapshot *s, const char *of, const struct headers *h) {
    headers_each(line, h) {
        if (line->hop || headers_find(h, line->name) != line) continue;
        const char *name = arena_printf(arena, "%s.headers[\"%.*s\"]%c", of, FMT(line->name), 0).p;
        struct slice value = { "", 0 };
        for (const struct header *at = line; at; at = headers_next(h, at)) {
            if (at != line) value = arena_join(arena, value, SLICE(", "));
            value = arena_join(arena, value, at->value);
        }
        add_field(arena, s, name, value);
    }
}

/* An answer of a script's own is short; what a backend sends is not looked at. */
static struct slice own_body(struct arena *arena, const struct exchange *x) {
    if (!x->body || x->body != x->reply_body) return slice_make(NULL, 0);
    size_t n = x->reply_body->pending.size;
    char *bytes = arena_bytes(arena, n + 1);
    buffer_peek(&x->reply_body->pending, bytes, n);
    if (n > BODY_SHOWN) return arena_printf(arena, "(%zu bytes)", n);
    return slice_make(bytes, n);
}

static struct rehearsal_snapshot *take_snapshot(struct rehearsal *r, const struct exchange *x) {
    struct arena *arena = &r->arena;
    struct rehearsal_snapshot *s = arena_alloc_zeroed(arena, sizeof *s);
    const struct target *t = &x->request.target;
    add_field(arena, s, "req.method", x->request.method_name);
    add_field(arena, s, "req.host", t->host);
    add_field(arena, s, "req.path", t->path);
    add_field(arena, s, "req.query", t->query);
    add_headers(arena, s, "req", &x->request.headers);
    if (x->response.status == 0) return s;
    add_field(arena, s, "res.status", arena_printf(arena, "%d", x->response.status));
    add_headers(arena, s, "res", &x->response.headers);
    add_field(arena, s, "res.body", own_body(arena, x));
    return s;
}

/* ---- changes */

static struct noted_field *find_field(struct rehearsal_snapshot *s, const char *name) {
    for (unsigned i = 0; i < s->count; i++)
        if (strcasecmp(s->list[i].name, name) == 0) return &s->list[i];
    return NULL;
}

static void note_change(struct rehearsal *r, struct rehearsal_change ***next, const char *field, struct slice before,
                        struct slice after) {
    struct rehearsal_change *change = arena_alloc_zeroed(&r->arena, sizeof *change);
    change->field = field;
    change->before = before;
    change->after = after;
    **next = change;
    *next = &change->next;
}

static void compare(struct rehearsal *r, struct rehearsal_hook *hook, struct rehearsal_snapshot *after) {
    const struct slice none = { NULL, 0 };
    struct rehearsal_change **next = &hook->changes;
    for (unsigned i = 0; i < hook->before->count; i++) {
        const struct noted_field *was = &hook->before->list[i];
        struct noted_field *is = find_field(after, was->name);
        if (is) is->matched = true;
        if (!is) note_change(r, &next, was->name, was->value, none);
        else if (!slice_equal(was->value, is->value)) note_change(r, &next, was->name, was->value, is->value);
    }
    for (unsigned i = 0; i < after->count; i++) {
        const struct noted_field *is = &after->list[i];
        if (!is->matched) note_change(r, &next, is->name, none, is->value);
    }
}

/* ---- hooks */

static struct rehearsal *of_observer(struct hook_observer *o) { return container_of(o, struct rehearsal, observer); }

static void on_asked(struct hook_observer *o, const struct subject *subject, enum hook hook, const char *path) {
    struct rehearsal *r = of_observer(o);
    struct rehearsal_hook *note = arena_alloc_zeroed(&r->arena, sizeof *note);
    note->hook = hook;
    note->path = keep(&r->arena, path);
    note->verdict = "cancelled";
    note->began = rehearsal_clock(r);
    note->subject = subject;
    if (subject->exchange) note->before = take_snapshot(r, subject->exchange);
    *r->next_hook = note;
    r->next_hook = &note->next;
}

/* The one that waits for an answer. */
static struct rehearsal_hook *find_open(struct rehearsal *r, const struct subject *subject) {
    struct rehearsal_hook *found = NULL;
    for (struct rehearsal_hook *h = r->notes.hooks; h; h = h->next)
        if (h->subject == subject) found = h;
    return found;
}

static const char *verdict_word(enum verdict verdict) {
    switch (verdict) {
    case VERDICT_REPLY: return "reply";
    case VERDICT_PICK: return "pick";
    case VERDICT_NO: return "no";
    case VERDICT_KEY: return "key";
    case VERDICT_FAILED: return "failed";
    default: return "continue";
    }
}

static struct slice name_picked(struct arena *arena, const struct pick *pick) {
    struct slice text = { "", 0 };
    for (unsigned i = 0; i < pick->count; i++) {
        text = arena_printf(arena, "%.*s%s%s%s%.*s", FMT(text), i ? ", " : "", pick->backends[i]->name,
                            pick->servers[i].p ? "/" : "", FMT(pick->servers[i]));
    }
    return text;
}

static void on_answered(struct hook_observer *o, const struct subject *subject, enum hook hook, enum verdict verdict,
                        const struct decision *decision) {
    struct rehearsal *r = of_observer(o);
    struct rehearsal_hook *note = find_open(r, subject);
    if (!note) return;
    note->subject = NULL;
    note->verdict = verdict_word(verdict);
    note->seconds = rehearsal_clock(r) - note->began;
    if (verdict == VERDICT_REPLY) note->status = decision->reply.status;
    if (verdict == VERDICT_PICK) note->picked = name_picked(&r->arena, &decision->pick);
    if (verdict == VERDICT_KEY) note->key = arena_copy(&r->arena, decision->key);
    if (note->before) compare(r, note, take_snapshot(r, subject->exchange));
}

static void on_failed(struct hook_observer *o, const struct subject *subject, const char *text) {
    struct rehearsal *r = of_observer(o);
    struct rehearsal_hook *note = find_open(r, subject);
    if (note) note->error = keep(&r->arena, text);
}

/* ---- exchanges */

static void add_tried(struct rehearsal *r, struct rehearsal_tried ***next, const struct server *s) {
    struct rehearsal_tried *t = arena_alloc_zeroed(&r->arena, sizeof *t);
    t->backend = keep(&r->arena, s->backend);
    t->server = keep(&r->arena, s->name);
    **next = t;
    *next = &t->next;
}

/* Those that failed or were refused, then the one that answered. */
static void note_tries(struct rehearsal *r, const struct fetch *f, struct rehearsal_tried **next) {
    for (unsigned i = 0; i < f->tried_count; i++) add_tried(r, &next, f->tried[i]);
    bool last_failed = f->tried_count && f->tried[f->tried_count - 1] == f->server;
    if (f->server && !last_failed) add_tried(r, &next, f->server);
}

static void on_finished(struct hook_observer *o, const struct exchange *x) {
    struct rehearsal *r = of_observer(o);
    struct rehearsal_exchange *note = arena_alloc_zeroed(&r->arena, sizeof *note);
    note->id = keep(&r->arena, x->id);
    note->site = keep_slice(&r->arena, x->site_name);
    note->source = x->source == SOURCE_NONE ? NULL : exchange_source_name(x->source);
    note->word = x->failure == FAIL_NONE ? NULL : failure_word(x->failure);
    note->failed_hook = x->failed_hook;
    note->cache_bypass = x->cache_bypass;
    if (x->cache_key.p) note->cache_key = arena_copy(&r->arena, x->cache_key);
    note->seconds = x->ended - x->began;
    if (x->fetch) {
        note->tries = x->fetch->tries;
        note_tries(r, x->fetch, &note->tried);
    }
    *r->next_exchange = note;
    r->next_exchange = &note->next;
}

/* ---- the whole */

static void begin_lists(struct rehearsal *r) {
    r->notes = (struct rehearsal_notes){ 0 };
    r->next_hook = &r->notes.hooks;
    r->next_line = &r->notes.lines;
    r->next_exchange = &r->notes.exchanges;
}

void notes_open(struct rehearsal *r) {
    r->observer = (struct hook_observer){
        .asked = on_asked, .answered = on_answered, .failed = on_failed, .finished = on_finished
    };
    arena_init(&r->arena);
    begin_lists(r);
}

void notes_close(struct rehearsal *r) { arena_fini(&r->arena); }

const struct rehearsal_notes *rehearsal_notes(const struct rehearsal *r) { return &r->notes; }

void rehearsal_forget(struct rehearsal *r) {
    must(!r->busy);
    arena_fini(&r->arena);
    begin_lists(r);
}
