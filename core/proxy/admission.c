/* on_connect, as a protocol that comes before the first one: it begins with its question, and gives way to what the
 * client would have spoken without it. Whoever is not let in is closed without a word: with TLS there is nobody yet who
 * could say one. */
#include "proxy/admission.h"

#include "base/log.h"
#include "base/must.h"

#include <stdlib.h>

struct admission {
    struct task task;
    struct subject subject;
    struct arena arena;
    struct grave grave;
    struct list node; /* in worker->admissions */
    struct client *client;
    struct generation *generation; /* a reference: the one whose sites are asked */
    const struct host_table *table;
    unsigned at; /* of the table's guards */
    bool waits;
    struct arrival arrival;
    struct decision decision;
};

static void admission_bury(struct grave *g) {
    struct admission *a = container_of(g, struct admission, grave);
    generation_unref(a->generation);
    arena_fini(&a->arena);
    free(a);
}

static void end_admission(struct admission *a) {
    a->client->admission = NULL;
    list_remove(&a->node);
    task_forget(&a->task);
    subject_end(&a->subject);
    loop_bury(&a->subject.worker->loop, &a->grave);
}

void admission_cancel(struct admission *a) {
    if (a) end_admission(a);
}

/* Strangers are turned away all day: no line of the log for each, but for who looks for one. */
static void turn_away(struct admission *a) {
    struct client *c = a->client;
    struct worker *w = a->subject.worker;
    char text[ADDR_TEXT];
    metric_add(w->metrics->turned_away, w->loop.index, 1);
    log_debug("%s: on_connect of %s does not let %.*s in", c->listener->name, a->subject.site->name,
              FMT(addr_text(&c->addr, text)));
    client_close(c);
}

static void let_in(struct admission *a) {
    struct client *c = a->client;
    end_admission(a);
    conn_pause(&c->conn, false);
    client_begin(c, client_first_protocol(c));
}

static void admission_advance(struct task *task) {
    struct admission *a = container_of(task, struct admission, task);
    for (; a->at < a->table->guard_count; a->at++) {
        a->subject.site = a->table->guards[a->at];
        enum verdict verdict = a->waits ? hook_go_on(&a->subject, &a->decision)
                                        : hook_call(&a->subject, HOOK_ON_CONNECT, &a->arrival, &a->decision);
        a->waits = verdict == VERDICT_WAIT;
        if (a->waits) return;
        if (verdict == VERDICT_CARRY_ON) continue;
        turn_away(a);
        return;
    }
    let_in(a);
}

void admissions_let_go(struct worker *w, const struct generation *g) {
    list_each_safe(node, &w->admissions) {
        struct admission *a = container_of(node, struct admission, node);
        if (a->generation == g) turn_away(a);
    }
}

/* ---- as a protocol */

static void begin(struct client *c) {
    struct worker *w = client_worker(c);
    struct admission *a = must_calloc(1, sizeof *a);
    c->admission = a;
    a->client = c;
    a->generation = generation_ref(w->generation);
    a->table = client_table(c);
    a->arrival = (struct arrival){ &c->addr, c->listener->name };
    arena_init(&a->arena);
    grave_init(&a->grave, admission_bury);
    task_init(&a->task, admission_advance);
    list_push(&w->admissions, &a->node);
    a->subject = (struct subject){ .kind = SUBJECT_ADMISSION, .worker = w, .arena = &a->arena, .task = &a->task };
    a->subject.site = a->table->guards[0];
    conn_pause(&c->conn, true);
    conn_deadline(&c->conn, client_timeouts(c)->head);
    task_wake(&w->loop, &a->task);
}

static void on_broken(struct conn *conn, enum failure why) {
    (void)why;
    client_close(client_of_conn(conn));
}

static void on_deadline(struct conn *conn) { client_close(client_of_conn(conn)); }
static void on_nothing(struct conn *conn) { (void)conn; }

/* client_close has ended it. */
static void leave(struct client *c) { (void)c; }

static const struct conn_handlers handlers = {
    .on_bytes = on_nothing, .on_end = on_nothing, .on_broken = on_broken, .on_deadline = on_deadline
};
const struct client_protocol client_admission = {
    .handlers = &handlers, .begin = begin, .drain = client_close, .leave = leave
};
