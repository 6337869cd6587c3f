/* Clocks: thin over clock_gettime, which the vDSO answers without a system call (but for CPU time). A pretence is one
 * look at a thread's own pointer, and there is none in a process that serves. */
#include "base/clock.h"

#include <time.h>

static _Thread_local struct pretence *pretended;

void clock_pretend(struct pretence *p) { pretended = p; }
struct pretence *clock_pretended(void) {
    return pretended;
}

static struct timespec read_clock(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return now;
}

static double to_seconds(struct timespec t) { return (double)t.tv_sec + (double)t.tv_nsec * 1e-9; }

static uint64_t to_us(struct timespec t) { return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000; }

double clock_monotonic(void) { return pretended ? pretended->monotonic : to_seconds(read_clock(CLOCK_MONOTONIC)); }
double clock_wall(void) { return pretended ? pretended->wall : to_seconds(read_clock(CLOCK_REALTIME)); }
int64_t clock_second(void) { return pretended ? (int64_t)pretended->wall : (int64_t)time(NULL); }
uint64_t clock_monotonic_us(void) {
    return pretended ? (uint64_t)(pretended->monotonic * 1e6) : to_us(read_clock(CLOCK_MONOTONIC));
}
uint64_t clock_thread_cpu_us(void) { return to_us(read_clock(CLOCK_THREAD_CPUTIME_ID)); }
