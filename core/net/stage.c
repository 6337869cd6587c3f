/* Pretended time and streams, for one loop.
 *
 * Deadlines lie in a plain array: a rehearsal has a handful, and looks at them only when nothing else is left to do.
 * Those that were cleared are dropped when they are met, as libev's lazy timers are. */
#include "net/stage.h"

#include "base/clock.h"
#include "base/must.h"

#include <stdlib.h>

enum { SETTLE_US = 5000000 };

void stage_open(struct stage *s, struct loop *l, struct pretence *p) {
    s->pretence = p;
    l->stage = s;
    l->now = p->monotonic;
}

void stage_close(struct stage *s) {
    free(s->deadlines);
    s->deadlines = NULL;
    s->count = s->room = 0;
}

bool stage_settle(struct stage *s, struct loop *l) {
    uint64_t began = clock_thread_cpu_us();
    bool again = true;
    while (again) {
        again = loop_has_leftovers(l); /* whoever is advanced may write, which is an event of the next turn */
        loop_turn(l);
        again = again || s->busy || loop_has_leftovers(l);
        if (again && clock_thread_cpu_us() - began > SETTLE_US) s->restless = true;
        if (s->restless) return false;
    }
    return true;
}

double stage_next(const struct stage *s) {
    double next = 0;
    for (unsigned i = 0; i < s->count; i++) {
        double at = s->deadlines[i]->at;
        if (at > 0 && (next == 0 || at < next)) next = at;
    }
    return next;
}

void stage_move(struct stage *s, double to) {
    double by = to - s->pretence->monotonic;
    if (by <= 0) return;
    s->pretence->monotonic = to;
    s->pretence->wall += by;
}

/* `fires` tells whether it is armed: it is not 0 then. */
void stage_arm(struct stage *s, struct deadline *d) {
    bool armed = d->fires != 0;
    d->fires = d->at;
    if (armed) return;
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 16;
        s->deadlines = must_realloc(s->deadlines, s->room * sizeof *s->deadlines);
    }
    s->deadlines[s->count++] = d;
}

void stage_disarm(struct stage *s, struct deadline *d) {
    d->fires = 0;
    for (unsigned i = 0; i < s->count; i++) {
        if (s->deadlines[i] != d) continue;
        s->deadlines[i] = s->deadlines[--s->count];
        return;
    }
}

/* The earliest that is due, or one that was cleared; NULL: none. */
static struct deadline *find_due(const struct stage *s, double now) {
    struct deadline *due = NULL;
    for (unsigned i = 0; i < s->count; i++) {
        struct deadline *d = s->deadlines[i];
        if (d->at <= now && (!due || d->at < due->at)) due = d;
    }
    return due;
}

void stage_fire_due(struct stage *s, struct loop *l) {
    for (struct deadline *d; (d = find_due(s, l->now));) {
        stage_disarm(s, d);
        if (d->at == 0) continue;
        s->busy = true;
        d->at = 0;
        d->on_time(d);
    }
}
