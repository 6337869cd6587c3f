/* What policy did with one exchange, written down: each hook's answer and what it changed, what it fetched, and how the
 * exchange ended.
 *
 * What a hook changed is seen by comparing: the fields of request and response before it was asked and after it
 * answered. Names are those a script would use, so that what is printed can be pasted. */
#include "proxy/note.h"

#include "backend/server.h"

/* A script can add lines by the ten thousand, and comparing them is in nobody's budget. */
enum { BODY_SHOWN = 4096, LINES_SEEN = 256 };

struct noted_field {
    const char *name;
    struct slice value;
    bool matched;
};

struct snapshot {
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

/* ---- snapshots */

static void add_field(struct arena *arena, struct snapshot *s, const char *name, struct slice value) {
    if (!value.p) return;
    if (s->count == s->room) {
        size_t before = s->room * sizeof *s->list;
        s->room = s->room ? 2 * s->room : 32;
        s->list = arena_grow(arena, s->list, before, s->room * sizeof *s->list);
    }
    s->list[s->count++] = (struct noted_field){ .name = name, .value = arena_copy(arena, value) };
}

static struct slice join_lines(struct arena *arena, const struct headers *h, const struct header *first) {
    struct slice parts[2 * LINES_SEEN];
    unsigned n = 0;
    for (const struct header *at = first; at; at = headers_next(h, at)) {
        if (n) parts[n++] = SLICE(", ");
        parts[n++] = at->value;
    }
    return arena_concat(arena, parts, n);
}

static void add_headers(struct arena *arena, struct snapshot *s, const char *of, const struct headers *all) {
    struct headers h = *all;
    if (h.count > LINES_SEEN) h.count = LINES_SEEN;
    headers_each(line, &h) {
        if (line->hop || headers_find(&h, line->name) != line) continue;
        const char *name = arena_printf(arena, "%s.headers[\"%.*s\"]%c", of, FMT(line->name), 0).p;
        add_field(arena, s, name, join_lines(arena, &h, line));
    }
    if (h.count == all->count) return;
    add_field(arena, s, arena_printf(arena, "%s.headers%c", of, 0).p,
              arena_printf(arena, "(%u lines; the first %u are looked at)", all->count, h.count));
}

/* An answer of a script's own is short; what a backend sends is not looked at. */
static struct slice own_body(struct arena *arena, const struct answer *a) {
    if (!*a->body || !a->made || *a->body != *a->made) return slice_make(NULL, 0);
    const struct buffer *body = &(*a->made)->pending;
    size_t n = body->size;
    char *bytes = arena_bytes(arena, n + 1);
    buffer_peek(body, bytes, n);
    if (n > BODY_SHOWN) return arena_printf(arena, "(%zu bytes)", n);
    return slice_make(bytes, n);
}

static void add_seconds(struct arena *arena, struct snapshot *s, const char *name, double seconds) {
    if (seconds >= 0) add_field(arena, s, name, arena_printf(arena, "%g", seconds));
}

static void add_wish(struct arena *arena, struct snapshot *s, const struct store_wish *w) {
    struct slice tags = { NULL, 0 };
    add_seconds(arena, s, "res.cache.ttl", w->ttl);
    add_seconds(arena, s, "res.cache.stale", w->stale);
    add_seconds(arena, s, "res.cache.stale_if_error", w->stale_if_error);
    add_seconds(arena, s, "res.cache.pass", w->pass);
    for (unsigned i = 0; i < w->tag_count; i++)
        tags = i ? arena_printf(arena, "%.*s, %.*s", FMT(tags), FMT(w->tags[i])) : w->tags[i];
    add_field(arena, s, "res.cache.tags", tags);
}

static struct snapshot *take_snapshot(struct arena *arena, const struct subject *subject) {
    struct exchange *x = subject->exchange;
    const struct storing *storing = storing_of(subject);
    struct answer a = storing ? storing->answer : answer_of(x);
    struct snapshot *s = arena_alloc_zeroed(arena, sizeof *s);
    const struct target *t = &x->request.target;
    add_field(arena, s, "req.method", x->request.method_name);
    add_field(arena, s, "req.host", t->host);
    add_field(arena, s, "req.path", t->path);
    add_field(arena, s, "req.query", t->query);
    add_headers(arena, s, "req", &x->request.headers);
    if (a.response->status == 0) return s;
    add_field(arena, s, "res.status", arena_printf(arena, "%d", a.response->status));
    add_headers(arena, s, "res", &a.response->headers);
    add_field(arena, s, "res.body", own_body(arena, &a));
    if (storing) add_wish(arena, s, &storing->wish);
    return s;
}

/* ---- changes */

static struct noted_field *find_field(struct snapshot *s, const char *name) {
    for (unsigned i = 0; i < s->count; i++)
        if (strcasecmp(s->list[i].name, name) == 0) return &s->list[i];
    return NULL;
}

static void note_change(struct arena *arena, struct change_note ***next, const char *field, struct slice before,
                        struct slice after) {
    struct change_note *change = arena_alloc_zeroed(arena, sizeof *change);
    change->field = field;
    change->before = before;
    change->after = after;
    **next = change;
    *next = &change->next;
}

static void compare(struct arena *arena, struct hook_note *hook, struct snapshot *after) {
    const struct slice none = { NULL, 0 };
    struct change_note **next = &hook->changes;
    for (unsigned i = 0; i < hook->before->count; i++) {
        const struct noted_field *was = &hook->before->list[i];
        struct noted_field *is = find_field(after, was->name);
        if (is) is->matched = true;
        if (!is) note_change(arena, &next, was->name, was->value, none);
        else if (!slice_equal(was->value, is->value)) note_change(arena, &next, was->name, was->value, is->value);
    }
    for (unsigned i = 0; i < after->count; i++) {
        const struct noted_field *is = &after->list[i];
        if (!is->matched) note_change(arena, &next, is->name, none, is->value);
    }
}

/* ---- hooks */

void hook_note_begin(struct hook_note *note, struct arena *arena, const struct subject *subject,
                     const struct hook_asked *asked, double now) {
    *note = (struct hook_note){ .hook = asked->hook, .verdict = "cancelled", .began = now, .subject = subject };
    note->path = keep(arena, asked->path);
    if (asked->file) note->place = arena_printf(arena, "%s:%d%c", asked->file, asked->line, 0).p;
    if (subject->exchange) note->before = take_snapshot(arena, subject);
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

static void add_tried(struct arena *arena, struct tried_note ***next, const struct server *s) {
    struct tried_note *t = arena_alloc_zeroed(arena, sizeof *t);
    t->backend = keep(arena, s->backend);
    t->server = keep(arena, s->name);
    **next = t;
    *next = &t->next;
}

/* Those that failed or were refused, then the one that answered. */
static void note_tries(struct arena *arena, const struct fetch *f, struct tried_note **next) {
    for (unsigned i = 0; i < f->tried_count; i++) add_tried(arena, &next, f->tried[i]);
    bool last_failed = f->tried_count && f->tried[f->tried_count - 1] == f->server;
    if (f->server && !last_failed) add_tried(arena, &next, f->server);
}

void hook_note_end(struct hook_note *note, struct arena *arena, const struct subject *subject, enum verdict verdict,
                   const struct decision *decision, double now) {
    note->subject = NULL;
    note->verdict = verdict_word(verdict);
    note->seconds = now - note->began;
    if (verdict == VERDICT_REPLY) note->status = decision->reply.status;
    if (verdict == VERDICT_PICK) note->picked = name_picked(arena, &decision->pick);
    if (verdict == VERDICT_KEY) note->key = arena_copy(arena, decision->key);
    if (note->before) compare(arena, note, take_snapshot(arena, subject));
}

void hook_note_fail(struct hook_note *note, struct arena *arena, const char *text) { note->error = keep(arena, text); }

void hook_note_fetch(struct hook_note *note, struct arena *arena, const struct fetch *f, enum failure why,
                     double seconds) {
    struct fetch_note **next = &note->fetches;
    while (*next) next = &(*next)->next;
    struct fetch_note *fetch = *next = arena_alloc_zeroed(arena, sizeof *fetch);
    fetch->method = arena_copy(arena, f->request->method_name);
    fetch->target = arena_copy(arena, f->target);
    if (f->backend) fetch->backend = keep(arena, f->backend->name);
    if (f->server) fetch->server = keep(arena, f->server->name);
    fetch->status = why == FAIL_NONE ? f->response.status : 0;
    fetch->word = why == FAIL_NONE ? NULL : failure_word(why);
    fetch->seconds = seconds;
}

void exchange_note_fill(struct exchange_note *note, struct arena *arena, const struct exchange *x) {
    *note = (struct exchange_note){ .id = keep(arena, x->id), .site = keep_slice(arena, x->site_name) };
    note->source = x->source == SOURCE_NONE ? NULL : exchange_source_name(x->source);
    note->word = x->failure == FAIL_NONE ? NULL : failure_word(x->failure);
    note->failed_hook = x->failed_hook;
    note->cache_bypass = x->cache_bypass;
    if (x->cache_key.p) note->cache_key = arena_copy(arena, x->cache_key);
    note->seconds = x->ended - x->began;
    note->cache = caching_word(x->caching);
    const struct fetch *f = x->fetch;
    if (!f && caching_leads(x->caching)) f = fill_fetch(&x->caching->fill);
    if (!f) return;
    note->tries = f->tries;
    note_tries(arena, f, &note->tried);
}
