/* Clocks: thin over clock_gettime, which the vDSO answers without a system call (but for CPU time). */
#include "base/clock.h"

#include <time.h>

static struct timespec read_clock(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return now;
}

static double to_seconds(struct timespec t) { return (double)t.tv_sec + (double)t.tv_nsec * 1e-9; }

static uint64_t to_us(struct timespec t) { return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000; }

double clock_monotonic(void) { return to_seconds(read_clock(CLOCK_MONOTONIC)); }
double clock_wall(void) { return to_seconds(read_clock(CLOCK_REALTIME)); }
uint64_t clock_monotonic_us(void) { return to_us(read_clock(CLOCK_MONOTONIC)); }
uint64_t clock_thread_cpu_us(void) { return to_us(read_clock(CLOCK_THREAD_CPUTIME_ID)); }
