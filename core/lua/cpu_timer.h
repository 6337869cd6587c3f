/* A timer on the CPU clock of the calling thread, whose signal comes to this very thread: for the budget and for
 * samples, each with a signal of its own. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <time.h>

enum { CPU_TIMER_BUDGET = 5, CPU_TIMER_SAMPLE }; /* above SIGRTMIN */

/* Fires every `tick_ns` of CPU time, with `with` as the signal's value. `on_signal` is the signal's for all threads; it
 * is told SI_TIMER. False: there is none, as under ThreadSanitizer, which holds signals back while uninstrumented
 * code runs. */
bool cpu_timer_start(timer_t *, int number, void (*on_signal)(int, siginfo_t *, void *), void *with, long tick_ns);
void cpu_timer_stop(timer_t); /* a signal that is under way comes all the same */
