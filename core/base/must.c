/* What happens when `must` fails: one line that says where, the dumps that subsystems registered, then abort.
 *
 * Nothing here allocates or takes a lock: the heap may be what is broken. Dumps are registered once per
 * subsystem at start, so a plain array and an atomic count do. A dump that itself runs into `must` (or a second
 * thread that fails meanwhile) aborts at once instead of recursing. */
#include "base/must.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DUMPS_MAX = 8 };

typedef void (*dump_function)(int fd);

static _Atomic(dump_function) dumps[DUMPS_MAX];
static atomic_uint dump_count;
static atomic_flag failing = ATOMIC_FLAG_INIT;

void must_dump_with(void (*dump)(int fd)) {
    unsigned i = atomic_fetch_add(&dump_count, 1);
    must(i < DUMPS_MAX);
    atomic_store(&dumps[i], dump);
}

_Noreturn void must_fail(const char *cond, const char *file, int line) {
    if (atomic_flag_test_and_set(&failing)) abort();
    char text[512];
    int n = snprintf(text, sizeof text, "moongate: bug: must(%s) failed at %s:%d\n", cond, file, line);
    if (n > (int)sizeof text - 1) n = (int)sizeof text - 1;
    if (write(STDERR_FILENO, text, (size_t)n) < 0) abort();
    for (unsigned i = 0; i < DUMPS_MAX; i++) {
        dump_function dump = atomic_load(&dumps[i]);
        if (dump) dump(STDERR_FILENO);
    }
    abort();
}

void *must_malloc(unsigned long size) {
    void *p = malloc(size ? size : 1);
    must(p);
    return p;
}

void *must_calloc(unsigned long count, unsigned long size) {
    void *p = calloc(count ? count : 1, size ? size : 1);
    must(p);
    return p;
}

void *must_realloc(void *p, unsigned long size) {
    void *grown = realloc(p, size ? size : 1);
    must(grown);
    return grown;
}

char *must_strdup(const char *text) { return must_strndup(text, strlen(text)); }

char *must_strndup(const char *text, unsigned long n) {
    n = strnlen(text, n);
    char *copy = must_malloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

char *must_printf(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = must_vprintf(format, args);
    va_end(args);
    return text;
}

char *must_vprintf(const char *format, va_list args) {
    char *text = NULL;
    must(vasprintf(&text, format, args) >= 0);
    return text;
}
