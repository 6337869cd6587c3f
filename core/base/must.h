/* Our own bugs (STYLE: errors, the first kind): the process aborts in every build, and says where. */
#pragma once

#include <stdarg.h>

#define must(cond) ((cond) ? (void)0 : must_fail(#cond, __FILE__, __LINE__))

_Noreturn void must_fail(const char *cond, const char *file, int line);

/* Allocation for what is small and bounded: a refusal aborts, so the results are never NULL. */
void *must_malloc(unsigned long size) __attribute__((returns_nonnull));
void *must_calloc(unsigned long count, unsigned long size) __attribute__((returns_nonnull));
void *must_realloc(void *p, unsigned long size) __attribute__((returns_nonnull));
char *must_strdup(const char *text) __attribute__((returns_nonnull));
char *must_strndup(const char *text, unsigned long n) __attribute__((returns_nonnull));
char *must_printf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
char *must_vprintf(const char *format, va_list) __attribute__((format(printf, 1, 0), returns_nonnull));

/* Adds a function that prints part of the state to stderr when `must` fails: it may read only what
 * cannot crash, and must not allocate. At most 8; called once per subsystem at start. */
void must_dump_with(void (*dump)(int fd));
