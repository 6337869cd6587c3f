/* A profile goes: a round that begins sampling, a timer, a round that ends it, then the workers' counts are summed
 * here, in the main thread. */
#include "server/profile.h"

#include "base/must.h"
#include "lua/sampler.h"
#include "server/channel.h"
#include "server/instance.h"
#include "server/onlooker.h"
#include "server/worker_thread.h"

#include <stdio.h>
#include <stdlib.h>

enum { HZ_LEAST = 2, HZ_MOST = 1000, SECONDS_MOST = 3600, LINES_MOST = 3000 };

struct profile {
    struct onlooker onlooker;
    struct instance *instance;
    struct sampler **samplers; /* by worker; NULL: it could not begin */
    unsigned hz;
    bool ending;
    ev_timer timer;
    struct round round;
};

struct line {
    struct slice stack; /* a sampler's */
    uint64_t count;
};

/* ---- telling */

struct sum {
    struct map lines; /* stack -> struct line */
    uint64_t outside;
};

static void add(struct sum *sum, struct slice stack, uint64_t count) {
    struct line *line = map_get(&sum->lines, stack);
    if (!line) {
        line = must_calloc(1, sizeof *line);
        line->stack = stack;
        map_set(&sum->lines, stack, line);
    }
    line->count += count;
}

static int compare(const void *a, const void *b) {
    const struct line *x = *(struct line *const *)a, *y = *(struct line *const *)b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    size_t n = x->stack.n < y->stack.n ? x->stack.n : y->stack.n;
    int order = memcmp(x->stack.p, y->stack.p, n);
    return order ? order : x->stack.n < y->stack.n ? -1 : x->stack.n > y->stack.n;
}

/* All lines, the most frequent first; the map owns them. */
static struct line **sort(const struct sum *sum, size_t *count) {
    struct line **list = must_calloc(sum->lines.count + 1, sizeof(struct line *));
    struct slice stack;
    void *line;
    *count = 0;
    for (size_t i = 0; map_next(&sum->lines, &i, &stack, &line);) list[(*count)++] = line;
    qsort(list, *count, sizeof(struct line *), compare);
    return list;
}

static void say_line(struct profile *p, struct slice stack, uint64_t count) {
    char number[32];
    int n = snprintf(number, sizeof number, " %llu\n", (unsigned long long)count);
    onlooker_add(&p->onlooker, stack.p, stack.n);
    onlooker_add(&p->onlooker, number, (size_t)n);
}

static void say_sum(struct profile *p, const struct sum *sum) {
    size_t count;
    uint64_t others = 0;
    struct line **list = sort(sum, &count);
    for (size_t i = 0; i < count; i++) {
        if (i < LINES_MOST) say_line(p, list[i]->stack, list[i]->count);
        else others += list[i]->count;
        free(list[i]);
    }
    free(list);
    if (others) say_line(p, SLICE("(other)"), others);
    if (sum->outside) say_line(p, SLICE("(core)"), sum->outside);
}

static void tell(struct profile *p) {
    struct sum sum = { .outside = 0 };
    for (unsigned i = 0; i < p->instance->worker_count; i++) {
        struct slice stack;
        uint64_t count;
        if (!p->samplers[i]) continue;
        for (size_t at = 0; sampler_next(p->samplers[i], &at, &stack, &count);) add(&sum, stack, count);
        sum.outside += sampler_outside(p->samplers[i]);
    }
    say_sum(p, &sum);
    map_fini(&sum.lines);
}

/* ---- its life */

static void profile_free(struct profile *p) {
    for (unsigned i = 0; i < p->instance->worker_count; i++) sampler_destroy(p->samplers[i]);
    free(p->samplers);
    free(p);
}

static void profile_on_gone(struct onlooker *o) {
    struct profile *p = container_of(o, struct profile, onlooker);
    p->instance->profile = NULL;
    profile_free(p);
}

static void end_in_worker(struct round *round, struct worker_thread *t) {
    struct sampler *s = container_of(round, struct profile, round)->samplers[t->worker.index];
    if (s) sampler_end(s);
    round_report(round, t);
}

static void profile_on_ended(struct round *round) {
    struct profile *p = container_of(round, struct profile, round);
    tell(p);
    onlooker_end(&p->onlooker);
}

static void begin_ending(struct profile *p) {
    p->round = (struct round){ .visit = end_in_worker, .done = profile_on_ended };
    round_begin(&p->round, p->instance);
}

static void begin_in_worker(struct round *round, struct worker_thread *t) {
    struct profile *p = container_of(round, struct profile, round);
    p->samplers[t->worker.index] = sampler_begin(p->hz);
    round_report(round, t);
}

static void profile_on_begun(struct round *round) {
    struct profile *p = container_of(round, struct profile, round);
    const char *refusal = "1\nprofile: this build has no timers that could take samples\n";
    if (p->samplers[0]) onlooker_say(&p->onlooker, "0\n", 2);
    else onlooker_say(&p->onlooker, refusal, strlen(refusal));
    if (!p->samplers[0] && !p->ending) profile_end(p);
    else if (p->ending) begin_ending(p);
}

void profile_end(struct profile *p) {
    if (!p || p->ending) return;
    p->ending = true;
    ev_timer *timer = &p->timer;
    ev_timer_stop(p->instance->loop.ev, timer);
    if (!p->round.letters) begin_ending(p);
}

void profile_close(struct profile *p) {
    if (!p) return;
    ev_timer *timer = &p->timer;
    ev_timer_stop(p->instance->loop.ev, timer);
    onlooker_close(&p->onlooker);
    profile_free(p);
}

static void profile_on_left(struct onlooker *o) { profile_end(container_of(o, struct profile, onlooker)); }

static void profile_on_time(struct ev_loop *ev, ev_timer *timer, int events) { profile_end(timer->data); }

static void start(struct instance *instance, int fd, double seconds, unsigned hz) {
    struct profile *p = instance->profile = must_calloc(1, sizeof *p);
    p->instance = instance;
    p->hz = hz;
    p->samplers = must_calloc(instance->worker_count, sizeof(struct sampler *));
    p->onlooker.on_left = profile_on_left;
    p->onlooker.on_gone = profile_on_gone;
    onlooker_open(&p->onlooker, &instance->loop, &instance->mailbox, fd);
    ev_timer *timer = &p->timer;
    ev_timer_init(timer, profile_on_time, seconds, 0.);
    timer->data = p;
    ev_timer_start(instance->loop.ev, timer);
    p->round = (struct round){ .visit = begin_in_worker, .done = profile_on_begun };
    round_begin(&p->round, instance);
}

void profile_begin(struct instance *instance, struct message *m) {
    if (m->fd_count == 0) return;
    int fd = m->fds[0];
    m->fds[0] = -1;
    double seconds = 0;
    unsigned hz = 0;
    bool form = sscanf(m->text, "%lf %u", &seconds, &hz) == 2; // NOLINT(cert-err34-c): ours, and looked at below
    if (!form || hz < HZ_LEAST || hz > HZ_MOST || !(seconds > 0 && seconds <= SECONDS_MOST))
        onlooker_refuse(fd, 2, "profile: expected 1 to 3600 seconds, 2 to 1000 samples a second");
    else if (instance->state != INSTANCE_SERVES) onlooker_refuse(fd, 1, "profile: it is not serving");
    else if (instance->profile) onlooker_refuse(fd, 1, "profile: somebody else does already: one at a time");
    else start(instance, fd, seconds, hz);
}
