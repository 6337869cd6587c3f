/* Time and randomness of the process. */
#pragma once

#include <stddef.h>
#include <stdint.h>

double clock_monotonic(void); /* seconds, for durations and deadlines; never goes back */
double clock_wall(void);      /* Unix seconds with fraction */
uint64_t clock_monotonic_us(void);
uint64_t clock_thread_cpu_us(void);

void random_bytes(void *to, size_t n);  /* from the kernel; aborts if there is none */
void random_secret(void *to, size_t n); /* the same from a store per thread, filled some hundred bytes at a time */
uint64_t random_u64(void);              /* fast, per thread, not for secrets */
