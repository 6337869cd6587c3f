/* Randomness: the kernel's for secrets, and a fast generator per thread (xoshiro256**, Blackman and Vigna, 2018)
 * for choices and ids that need no secrecy.
 *
 * A forked child would repeat its parent's numbers, and request ids with them: the fork handler forgets the
 * state of the one thread that lives on, the store of secret bytes included. */
#include "base/clock.h"

#include "base/must.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

static _Thread_local uint64_t own_state[4];
static _Thread_local bool seeded;
static _Thread_local unsigned char store[512];
static _Thread_local size_t stored; /* bytes at the front of `store` that nobody has had */

static void draw_bytes(void *to, size_t n) {
    char *at = to;
    while (n) {
        uint64_t word = random_u64();
        size_t part = n < sizeof word ? n : sizeof word;
        memcpy(at, &word, part);
        at += part;
        n -= part;
    }
}

void random_bytes(void *to, size_t n) {
    if (clock_pretended()) {
        draw_bytes(to, n);
        return;
    }
    char *at = to;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR) continue;
        must(got > 0);
        at += got;
        n -= (size_t)got;
    }
}

static void forget_all(void) {
    seeded = false;
    stored = 0;
}
static void add_fork_handler(void) { pthread_atfork(NULL, NULL, forget_all); }
static void watch_forks(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, add_fork_handler);
}

/* What was given away does not stay in the store. */
void random_secret(void *to, size_t n) {
    if (n > sizeof store || clock_pretended()) {
        random_bytes(to, n);
        return;
    }
    if (n > stored) {
        watch_forks();
        random_bytes(store, sizeof store);
        stored = sizeof store;
    }
    stored -= n;
    memcpy(to, store + stored, n);
    memset(store + stored, 0, n);
}

static void seed_thread(void) {
    watch_forks();
    do random_bytes(own_state, sizeof own_state);
    while (!(own_state[0] | own_state[1] | own_state[2] | own_state[3])); /* the one state it never leaves */
    seeded = true;
}

static uint64_t rotate(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

static uint64_t draw(uint64_t state[4]) {
    uint64_t result = rotate(state[1] * 5, 7) * 9;
    uint64_t mixed = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= mixed;
    state[3] = rotate(state[3], 45);
    return result;
}

uint64_t random_u64(void) {
    struct pretence *pretended = clock_pretended();
    if (pretended) return draw(pretended->random);
    if (!seeded) seed_thread();
    return draw(own_state);
}

/* splitmix64, as the generator's authors advise: no seed gives the state of all zeros. */
void pretence_init(struct pretence *p, double wall, uint64_t seed) {
    p->monotonic = 1000;
    p->wall = wall;
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        p->random[i] = z ^ (z >> 31);
    }
}
