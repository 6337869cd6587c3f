/* Time and randomness of the process; in a rehearsal (server/rehearsal.h), pretended ones. */
#pragma once

#include <stddef.h>
#include <stdint.h>

double clock_monotonic(void); /* seconds, for durations and deadlines; never goes back */
double clock_wall(void);      /* Unix seconds with fraction */
int64_t clock_second(void);   /* whole Unix seconds, cheaper */
uint64_t clock_monotonic_us(void);
uint64_t clock_thread_cpu_us(void);

void random_bytes(void *to, size_t n);  /* from the kernel; aborts if there is none */
void random_secret(void *to, size_t n); /* the same from a store per thread, filled some hundred bytes at a time */
uint64_t random_u64(void);              /* fast, per thread, not for secrets */

/* What a thread is told in the world's place: the time stands still until somebody moves it, and the same seed gives
 * the same random numbers, secrets included. CPU time stays real. */
struct pretence {
    double monotonic, wall;
    uint64_t random[4];
};
void pretence_init(struct pretence *, double wall, uint64_t seed);
/* For this thread, from now on; NULL: the world's again. The caller keeps it. */
void clock_pretend(struct pretence *);
struct pretence *clock_pretended(void); /* NULL: none */
