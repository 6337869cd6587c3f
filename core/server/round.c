/* One letter per worker goes there and comes back; the main thread counts them. */
#include "server/round.h"

#include "base/must.h"
#include "server/instance.h"
#include "server/worker_thread.h"

#include <stdlib.h>

static void letter_on_return(struct letter *letter, struct loop *loop) {
    struct round *r = container_of(letter, struct round_letter, letter)->round;
    if (--r->left > 0) return;
    free(r->letters);
    r->letters = NULL;
    r->done(r);
}

static void letter_on_arrival(struct letter *letter, struct loop *loop) {
    struct round_letter *l = container_of(letter, struct round_letter, letter);
    l->round->visit(l->round, l->thread);
}

void round_report(struct round *r, struct worker_thread *thread) {
    struct letter *letter = &r->letters[thread->worker.index].letter;
    letter->deliver = letter_on_return;
    must(mailbox_post(&r->instance->mailbox, letter)); /* it closes after the workers have ended */
}

void round_begin(struct round *r, struct instance *instance) {
    unsigned count = instance->worker_count;
    r->instance = instance;
    r->left = count;
    r->letters = must_calloc(count, sizeof *r->letters);
    for (unsigned i = 0; i < count; i++) {
        struct round_letter *l = &r->letters[i];
        *l = (struct round_letter){ .round = r, .thread = &instance->threads[i], .letter.deliver = letter_on_arrival };
    }
    /* From the first post on the array may be gone when the last has reported, so it is not looked at again. */
    struct round_letter *letters = r->letters;
    for (unsigned i = 0; i < count; i++) must(mailbox_post(&instance->threads[i].worker.mailbox, &letters[i].letter));
}
