/* What the operator got wrong (STYLE: errors, the fourth kind): collected, each with its place, never only the
 * first. Used by config, scripts and the command line. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct error_line {
    char *file; /* NULL: none */
    int line;   /* 0: none */
    char *path; /* "sites[1].backends.app[2]", NULL: none */
    char *text; /* may hold more lines (a traceback) */
    bool warning;
};

struct errors {
    struct error_line *list;
    size_t count, room;
    size_t warnings; /* of count */
};

void errors_init(struct errors *);
void errors_fini(struct errors *);
void errors_add(struct errors *, const char *file, int line, const char *path, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void errors_warn(struct errors *, const char *file, int line, const char *path, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* True when there is an error that is not a warning. */
bool errors_any(const struct errors *);
/* Those from index `from` on in the order of their lines; those without a line stay behind what they were found
 * after. */
void errors_sort(struct errors *, size_t from);
/* All of them, a line each: `file:line: path: text` (parts that are missing left out). malloc'd, never NULL. */
char *errors_text(const struct errors *);
