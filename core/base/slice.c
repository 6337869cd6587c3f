/* The few slice functions that are worth a call. The rest is inline in the header. */
#include "base/slice.h"

bool slice_to_u64(struct slice s, uint64_t *out) {
    uint64_t sum = 0;
    if (s.n == 0) return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9) return false;
        if (__builtin_mul_overflow(sum, (uint64_t)10, &sum)) return false;
        if (__builtin_add_overflow(sum, (uint64_t)digit, &sum)) return false;
    }
    *out = sum;
    return true;
}
