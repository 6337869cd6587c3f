/* What a rehearsal writes down: log lines, each hook's answer and what it changed, and each exchange at its end.
 */
#include "server/rehearsal_parts.h"

#include "base/must.h"

#include <stdlib.h>

/* As C's strings end. */
static const char *keep(struct arena *arena, const char *text) { return arena_printf(arena, "%s%c", text, 0).p; }

/* ---- log lines */

void notes_on_line(void *with, enum log_level level, const char *text) {
    struct rehearsal *r = with;
    struct rehearsal_line *line = arena_alloc_zeroed(&r->arena, sizeof *line);
    line->level = log_level_name(level);
    line->text = keep(&r->arena, text);
    *r->next_line = line;
    r->next_line = &line->next;
}

/* ---- hooks */

static struct rehearsal *of_observer(struct hook_observer *o) { return container_of(o, struct rehearsal, observer); }

static void on_asked(struct hook_observer *o, const struct subject *subject, const struct hook_asked *asked) {
    struct rehearsal *r = of_observer(o);
    struct hook_note *note = arena_alloc(&r->arena, sizeof *note);
    hook_note_begin(note, &r->arena, subject, asked, rehearsal_clock(r));
    *r->next_hook = note;
    r->next_hook = &note->next;
}

/* The one that waits for an answer. */
static struct hook_note *find_open(struct rehearsal *r, const struct subject *subject) {
    struct hook_note *found = NULL;
    for (struct hook_note *h = r->notes.hooks; h; h = h->next)
        if (h->subject == subject) found = h;
    return found;
}

static void on_answered(struct hook_observer *o, const struct subject *subject, enum hook hook, enum verdict verdict,
                        const struct decision *decision) {
    struct rehearsal *r = of_observer(o);
    struct hook_note *note = find_open(r, subject);
    if (note) hook_note_end(note, &r->arena, subject, verdict, decision, rehearsal_clock(r));
}

static void on_failed(struct hook_observer *o, const struct subject *subject, const char *text) {
    struct rehearsal *r = of_observer(o);
    struct hook_note *note = find_open(r, subject);
    if (note) hook_note_fail(note, &r->arena, text);
}

static void on_fetched(struct hook_observer *o, const struct subject *subject, const struct fetch *f, enum failure why,
                       double seconds) {
    struct rehearsal *r = of_observer(o);
    struct hook_note *note = find_open(r, subject);
    if (note) hook_note_fetch(note, &r->arena, f, why, seconds);
}

/* ---- exchanges */

static void on_finished(struct hook_observer *o, const struct exchange *x) {
    struct rehearsal *r = of_observer(o);
    struct exchange_note *note = arena_alloc(&r->arena, sizeof *note);
    exchange_note_fill(note, &r->arena, x);
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
        .asked = on_asked,
        .answered = on_answered,
        .failed = on_failed,
        .fetched = on_fetched,
        .finished = on_finished,
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
