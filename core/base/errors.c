/* The operator's mistakes, collected. A plain growing array: there are few, and they are read once. */
#include "base/errors.h"

#include "base/must.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void errors_init(struct errors *errors) { *errors = (struct errors){ 0 }; }

void errors_fini(struct errors *errors) {
    if (!errors) return;
    for (size_t i = 0; i < errors->count; i++) {
        free(errors->list[i].file);
        free(errors->list[i].path);
        free(errors->list[i].text);
    }
    free(errors->list);
    errors_init(errors);
}

static void add_line(struct errors *errors, struct error_line line) {
    if (errors->count == errors->room) {
        errors->room = errors->room ? errors->room * 2 : 8;
        errors->list = must_realloc(errors->list, errors->room * sizeof *errors->list);
    }
    if (line.warning) errors->warnings++;
    errors->list[errors->count++] = line;
}

static struct error_line make_line(const char *file, int line, const char *path, bool warning) {
    return (struct error_line){
        .file = file ? must_strdup(file) : NULL,
        .line = line,
        .path = path ? must_strdup(path) : NULL,
        .warning = warning,
    };
}

void errors_add(struct errors *errors, const char *file, int line, const char *path, const char *format, ...) {
    struct error_line added = make_line(file, line, path, false);
    va_list args;
    va_start(args, format);
    added.text = must_vprintf(format, args);
    va_end(args);
    add_line(errors, added);
}

void errors_warn(struct errors *errors, const char *file, int line, const char *path, const char *format, ...) {
    struct error_line added = make_line(file, line, path, true);
    va_list args;
    va_start(args, format);
    added.text = must_vprintf(format, args);
    va_end(args);
    add_line(errors, added);
}

bool errors_any(const struct errors *errors) { return errors->count > errors->warnings; }

/* A stable insertion: there are few. */
void errors_sort(struct errors *errors, size_t from) {
    for (size_t i = from + 1; i < errors->count; i++) {
        struct error_line line = errors->list[i];
        size_t j = i;
        for (; j > from && line.line && errors->list[j - 1].line > line.line; j--)
            errors->list[j] = errors->list[j - 1];
        errors->list[j] = line;
    }
}

static void print_line(FILE *to, const struct error_line *line) {
    if (line->file && line->line) fprintf(to, "%s:%d: ", line->file, line->line);
    else if (line->file) fprintf(to, "%s: ", line->file);
    if (line->warning) fputs("warning: ", to);
    if (line->path) fprintf(to, "%s: ", line->path);
    fprintf(to, "%s\n", line->text);
}

char *errors_text(const struct errors *errors) {
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    must(to);
    for (size_t i = 0; i < errors->count; i++) print_line(to, &errors->list[i]);
    must(fclose(to) == 0);
    return text;
}
