/* A second timer on the thread's CPU clock, beside the budget's. Its signal cannot look at a stack that is just being
 * changed, so it only arms the coroutine's hook (budget_sample): the next instruction, or the return of the C function
 * that runs, takes the sample. In the second case the C function is still on the stack, so that its time goes to it and
 * to the line that called it, not to the one behind.
 *
 * Stacks are counted as text, in a map of this thread. What scripts could make endless (names of functions by `load`)
 * is bounded: further stacks are counted as "(other)". */
#include "lua/sampler.h"

#include "base/must.h"
#include "lua/cpu_timer.h"
#include "lua/engine.h"
#include "lua/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { STACKS_MOST = 10000, FRAMES_MOST = 64, STACK_TEXT = 4096 };

struct sampler {
    struct map stacks; /* text -> struct tally */
    volatile uint64_t outside;
    timer_t timer;
};

struct tally {
    uint64_t count;
};

static _Thread_local struct sampler *volatile sampling;

/* ---- text */

struct text {
    char bytes[STACK_TEXT];
    size_t n;
};

/* ";" and spaces mean something in the output. */
static void add_part(struct text *t, const char *part) {
    for (; *part && t->n < STACK_TEXT - 1; part++) {
        bool plain = (unsigned char)*part > ' ' && *part != ';' && *part != 0x7f;
        t->bytes[t->n++] = plain ? *part : '_';
    }
}

static void add_frame(struct text *t, const char *frame) {
    if (t->n && t->n < STACK_TEXT - 1) t->bytes[t->n++] = ';';
    add_part(t, frame);
}

/* False: a C function without a name, which only stands around another one. */
static bool describe_frame(lua_State *L, lua_Debug *frame, char *to, size_t size) {
    char anonymous[32];
    lua_getinfo(L, "Slnf", frame);
    if (*frame->what == 'C') {
        const char *known = function_name(L);
        if (!known) known = frame->name;
        if (known) snprintf(to, size, "[C]:%s", known);
        return known != NULL;
    }
    lua_pop(L, 1);
    snprintf(anonymous, sizeof anonymous, "function@%d", frame->linedefined);
    snprintf(to, size, "%s:%s:%d", frame->short_src,
             *frame->what == 'm' ? "main"
             : frame->name       ? frame->name
                                 : anonymous,
             frame->currentline);
    return true;
}

static void describe_run(const struct hook_run *run, struct text *t) {
    const struct subject *s = run ? run->subject : NULL;
    add_frame(t, s && s->site ? s->site->name : "(no site)");
    add_frame(t, s && s->kind != SUBJECT_KEEPER ? hook_name(run->hook) : "(task)");
}

/* The outermost frames are left out if there are too many. */
static void describe_stack(lua_State *L, struct text *t) {
    lua_Debug frame;
    char text[192];
    int depth = 0;
    while (depth < FRAMES_MOST && lua_getstack(L, depth, &frame)) depth++;
    for (int level = depth - 1; level >= 0; level--) {
        if (!lua_getstack(L, level, &frame)) continue;
        if (describe_frame(L, &frame, text, sizeof text)) add_frame(t, text);
    }
}

/* ---- samples */

static void count_stack(struct sampler *s, struct slice stack) {
    struct tally *tally = map_get(&s->stacks, stack);
    if (!tally && s->stacks.count >= STACKS_MOST) {
        stack = SLICE("(other)");
        tally = map_get(&s->stacks, stack);
    }
    if (!tally) {
        tally = must_calloc(1, sizeof *tally);
        map_set(&s->stacks, stack, tally);
    }
    tally->count++;
}

void sampler_take(lua_State *L) {
    struct sampler *s = sampling;
    if (!s) return;
    struct text t = { .n = 0 };
    describe_run(run_of(L), &t);
    describe_stack(L, &t);
    count_stack(s, slice_make(t.bytes, t.n));
}

void sampler_miss(void) {
    if (sampling) sampling->outside++;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    struct sampler *s = info->si_code == SI_TIMER ? sampling : NULL;
    if (!s) return;
    int saved = errno;
    if (!budget_sample()) s->outside++;
    errno = saved;
}

/* ---- its life */

struct sampler *sampler_begin(unsigned hz) {
    must(hz > 1);
    if (sampling) return NULL;
    struct sampler *s = must_calloc(1, sizeof *s);
    sampling = s;
    if (cpu_timer_start(&s->timer, CPU_TIMER_SAMPLE, on_signal, NULL, 1000000000L / hz)) return s;
    sampling = NULL;
    free(s);
    return NULL;
}

/* A signal that is already under way finds nothing to count in. */
void sampler_end(struct sampler *s) {
    must(sampling == s);
    cpu_timer_stop(s->timer);
    sampling = NULL;
}

bool sampler_next(const struct sampler *s, size_t *i, struct slice *stack, uint64_t *count) {
    void *tally;
    if (!map_next(&s->stacks, i, stack, &tally)) return false;
    *count = ((struct tally *)tally)->count;
    return true;
}

uint64_t sampler_outside(const struct sampler *s) { return s->outside; }

void sampler_destroy(struct sampler *s) {
    struct slice stack;
    void *tally;
    if (!s) return;
    for (size_t i = 0; map_next(&s->stacks, &i, &stack, &tally);) free(tally);
    map_fini(&s->stacks);
    free(s);
}
