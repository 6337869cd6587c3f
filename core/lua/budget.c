/* The CPU budget. A script that is in time costs nothing: no system call, no hook, no count of instructions. Each
 * thread that runs scripts has a POSIX timer on its own CPU clock, which fires every TICK_US of it; the signal
 * handler looks whether a script runs and how long it has. Only one that is late gets a count hook on its coroutine,
 * from within the handler (which lua_sethook is made for); C functions with loops of their own ask budget_check.
 *
 * How a late script is stopped: its coroutine yields, from within the hook or the C function, never to be resumed.
 * resume and wrap pass that outward as they pass a wait, and the run fails. No pcall sees anything. Inside of a C
 * function's callback nothing can yield: there every instruction raises, up to the first place that can. An error
 * raised within a hook has two consequences in Lua 5.4.4, which were found by trying: message handlers run without
 * hooks, so a handler that loops would never be stopped (our xpcall does not call it then), and a coroutine that died
 * of it never has hooks again, so it is neither pooled nor are its <close> handlers run.
 *
 * The kernel looks at CPU timers at its own tick (1 to 4 ms), so a call ends up to a tick after its budget, never
 * before it: of the first tick that falls into a call only half is charged, since the call began somewhere within it.
 * Calls too short to be hit are not charged, which is right on average for those that wait often.
 *
 * Where there is no timer (the helper thread that loads files; under ThreadSanitizer, which holds signals back while
 * uninstrumented code runs) the state counts: its coroutines are born with a hook that looks at the clock every COUNT
 * instructions. */
#include "lua/budget.h"

#include "base/clock.h"
#include "base/must.h"
#include "lua/cpu_timer.h"
#include "lua/engine.h"
#include "lua/sampler.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <time.h>

enum { TICK_US = 2500, COUNT = 4096 };

#if defined(__SANITIZE_THREAD__)
/* Debian's Lua throws with the checked longjmp, which ThreadSanitizer does not know: its shadow stack would grow with
 * every error. */
void __longjmp_chk(jmp_buf, int) __attribute__((visibility("default"), noreturn));
void __longjmp_chk(jmp_buf env, int value) { longjmp(env, value); }
#endif

/* A thread's timer. In thread-local memory, so that a signal that was already under way when the timer ended finds
 * it. */
struct ticker {
    struct meter *volatile meter; /* of the script that runs; NULL: none */
    volatile sig_atomic_t due;    /* a sample of it is to be taken in its hook */
    unsigned users;
    timer_t timer;
};

static _Thread_local struct ticker ticker;

static void on_hook(lua_State *L, lua_Debug *ar);

/* The one hook of a coroutine: after every `count` instructions (0: never), and at each line where coverage is asked
 * for. */
static void set_hook(lua_State *L, int count) {
    int mask = (count ? LUA_MASKCOUNT : 0) | (state_of(L)->coverage ? LUA_MASKLINE : 0);
    lua_sethook(L, mask ? on_hook : NULL, mask, count);
}

/* Async-signal-safe, unlike the one of base/clock.h by contract. */
static uint64_t cpu_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void charge(struct meter *m) {
    uint64_t now = cpu_now();
    if (m->exact) m->used = now - m->entered;
    else m->used += m->ticked ? now - m->last_tick : TICK_US / 2;
    m->last_tick = now;
    m->ticked = 1;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    struct ticker *t = info->si_value.sival_ptr;
    struct meter *m = info->si_code == SI_TIMER && t ? t->meter : NULL;
    lua_State *L = m ? m->L : NULL;
    if (!L) return;
    int saved = errno;
    charge(m);
    if (m->used >= m->limit) {
        m->late = 1;
        set_hook(L, 1);
    }
    errno = saved;
}

bool budget_sample(void) {
    const struct meter *m = ticker.meter;
    lua_State *L = m ? m->L : NULL;
    if (!L) return false;
    ticker.due = 1;
    int coverage = state_of(L)->coverage ? LUA_MASKLINE : 0;
    lua_sethook(L, on_hook, LUA_MASKCOUNT | LUA_MASKRET | coverage, 1);
    return true;
}

bool budget_thread_begin(void) {
    if (ticker.users == 0 && !cpu_timer_start(&ticker.timer, CPU_TIMER_BUDGET, on_signal, &ticker, TICK_US * 1000L))
        return false;
    ticker.users++;
    return true;
}

void budget_thread_end(void) {
    must(ticker.users > 0);
    if (--ticker.users == 0) cpu_timer_stop(ticker.timer);
}

void budget_count(lua_State *L) {
    state_of(L)->meter.counting = true;
    set_hook(L, COUNT);
}

void budget_count_no_more(lua_State *L) {
    state_of(L)->meter.counting = false;
    set_hook(L, 0); /* other coroutines lose theirs when it fires */
}

void meter_enter(struct meter *m, lua_State *L, uint64_t used, uint64_t limit) {
    m->used = used;
    m->limit = limit;
    m->late = 0;
    m->ticked = 0;
    m->exact = m->raised = false;
    m->text[0] = '\0';
    if (m->counting) {
        m->exact = true;
        m->entered = cpu_now() - used;
    }
    ticker.meter = m;
    m->L = L; /* volatile: written last, as the handler looks at it first */
}

void meter_enter_exact(struct meter *m, lua_State *L, uint64_t limit) {
    meter_enter(m, NULL, 0, limit);
    m->exact = true;
    m->entered = cpu_now();
    m->L = L;
}

static void drop_sample(void) {
    ticker.due = 0;
    sampler_miss();
}

uint64_t meter_leave(struct meter *m) {
    m->L = NULL;
    ticker.meter = NULL;
    if (ticker.due) drop_sample();
    if (m->ticked || m->counting) charge(m);
    return m->used;
}

void meter_pause(struct meter *m, struct meter_pause *pause) {
    pause->of_thread = ticker.meter;
    ticker.meter = NULL;
    pause->was = *m;
}

void meter_go_on(struct meter *m, const struct meter_pause *pause) {
    ticker.meter = NULL;
    *m = pause->was;
    ticker.meter = pause->of_thread;
}

/* "config.lua:3: over its CPU budget (10 ms)": where it was found out first. */
static void note_place(lua_State *L, struct meter *m, lua_Debug *ar) {
    lua_Debug frame;
    if (m->text[0]) return;
    int place = 0;
    if (!ar && lua_getstack(L, 1, &frame)) ar = &frame;
    if (ar && lua_getinfo(L, "Sl", ar) && ar->currentline > 0)
        place = snprintf(m->text, sizeof m->text, "%s:%d: ", ar->short_src, ar->currentline);
    snprintf(m->text + place, sizeof m->text - (size_t)place, "over its CPU budget (%d ms)", (int)(m->limit / 1000));
}

/* `ar` is NULL in a C function; then this does not return. */
static int stop(lua_State *L, lua_Debug *ar) {
    struct state *state = state_of(L);
    struct meter *m = &state->meter;
    note_place(L, m, ar);
    if (lua_isyieldable(L)) {
        state->passing = state->killing = true;
        return lua_yield(L, 0);
    }
    set_hook(L, 1);
    if (ar) m->raised = true;
    lua_pushstring(L, m->text);
    return lua_error(L);
}

static void look_at_clock(struct meter *m) {
    if (!m->counting || !m->L || m->late) return;
    charge(m);
    if (m->used >= m->limit) m->late = 1;
}

static void note_line(lua_State *L, lua_Debug *ar) {
    struct coverage *coverage = state_of(L)->coverage;
    if (lua_getinfo(L, "S", ar) && *ar->source == '@') coverage->line(coverage, ar->source + 1, ar->currentline);
}

/* Fires when a sample is due, at an instruction or a return. Else every COUNT instructions where states count; else at
 * every one of a late coroutine, or once in one that was armed in a former call and has not run since. */
static void on_hook(lua_State *L, lua_Debug *ar) {
    if (ar->event == LUA_HOOKLINE) {
        note_line(L, ar);
        return;
    }
    struct meter *m = &state_of(L)->meter;
    if (ticker.due) {
        ticker.due = 0;
        sampler_take(L);
    }
    look_at_clock(m);
    if (m->late && m->L && ar->event == LUA_HOOKCOUNT) {
        stop(L, ar);
        return;
    }
    set_hook(L, m->late && m->L ? 1 : m->counting ? COUNT : 0);
}

void budget_check(lua_State *L) {
    struct meter *m = &state_of(L)->meter;
    look_at_clock(m);
    if (m->late && m->L) stop(L, NULL);
}

void budget_disarm(lua_State *L) {
    if (state_of(L)->meter.counting) set_hook(L, COUNT);
    else set_hook(L, 0);
}
