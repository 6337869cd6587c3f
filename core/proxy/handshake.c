/* on_certificate: asked when the name is known and nothing was shown yet. What it returns is the name of a certificate
 * that the config has, or a certificate itself; nothing means as configured.
 *
 * Certificates that scripts return are parsed when they first come (most of a millisecond) and kept for a while: the
 * next handshakes of the name find them by their digest. */
#include "proxy/handshake.h"

#include "base/log.h"
#include "base/must.h"
#include "net/tls.h"

#include <stdlib.h>

struct handshake {
    struct task task;
    struct subject subject;
    struct arena arena;
    struct grave grave;
    struct list node; /* in worker->handshakes */
    struct client *client;
    struct generation *generation; /* a reference */
    struct slice name;
    bool waits;
    struct decision decision;
};

static void handshake_bury(struct grave *g) {
    struct handshake *h = container_of(g, struct handshake, grave);
    generation_unref(h->generation);
    arena_fini(&h->arena);
    free(h);
}

static void end_handshake(struct handshake *h) {
    h->client->handshake = NULL;
    list_remove(&h->node);
    task_forget(&h->task);
    subject_end(&h->subject);
    loop_bury(&h->subject.worker->loop, &h->grave);
}

/* The worker keeps the last ones, in turn. A reference of the worker's, or NULL. */
static struct tls_certificates *take_certificate(struct handshake *h, const struct certificate_text *text) {
    char why[256];
    struct worker *w = h->subject.worker;
    struct tls_certificates *c = tls_certificates_create();
    if (!tls_certificates_add(c, text->cert, text->key, slice_make(NULL, 0), why, sizeof why)) {
        log_error("on_certificate of %s returned for \"%.*s\" what is no certificate: %s", h->subject.site->name,
                  FMT(h->name), why);
        tls_certificates_unref(c);
        return NULL;
    }
    struct tls_certificates **place = &w->shown[w->shown_next++ % WORKER_SHOWN];
    tls_certificates_unref(*place);
    return *place = c;
}

static struct tls_certificates *judge(struct handshake *h, enum verdict verdict) {
    const struct certificate_text *text = &h->decision.certificate;
    switch (verdict) {
    case VERDICT_CARRY_ON: return client_certificates(h->client, h->name);
    case VERDICT_CERTIFICATE:
        return text->name.p ? client_certificates(h->client, text->name) : take_certificate(h, text);
    default: return NULL;
    }
}

static void handshake_advance(struct task *task) {
    struct handshake *h = container_of(task, struct handshake, task);
    enum verdict verdict = h->waits ? hook_go_on(&h->subject, &h->decision)
                                    : hook_call(&h->subject, HOOK_ON_CERTIFICATE, &h->name, &h->decision);
    h->waits = verdict == VERDICT_WAIT;
    if (h->waits) return;
    struct slice named = verdict == VERDICT_CERTIFICATE ? h->decision.certificate.name : slice_make(NULL, 0);
    conn_tls_present(&h->client->conn, judge(h, verdict), named.p ? named : h->name);
    end_handshake(h);
}

void handshake_begin(struct client *client, struct site *site, struct slice name) {
    struct worker *w = client_worker(client);
    struct handshake *h = must_calloc(1, sizeof *h);
    client->handshake = h;
    h->client = client;
    h->generation = generation_ref(site->generation);
    arena_init(&h->arena);
    grave_init(&h->grave, handshake_bury);
    task_init(&h->task, handshake_advance);
    list_push(&w->handshakes, &h->node);
    if (name.n) h->name = arena_copy(&h->arena, name);
    h->subject =
        (struct subject){ .kind = SUBJECT_HANDSHAKE, .worker = w, .site = site, .arena = &h->arena, .task = &h->task };
    task_wake(&w->loop, &h->task);
}

void handshake_cancel(struct handshake *h) {
    if (h) end_handshake(h);
}

void handshakes_let_go(struct worker *w, const struct generation *g) {
    list_each_safe(node, &w->handshakes) {
        struct handshake *h = container_of(node, struct handshake, node);
        if (h->generation != g) continue;
        conn_tls_present(&h->client->conn, NULL, h->name);
        end_handshake(h);
    }
}
