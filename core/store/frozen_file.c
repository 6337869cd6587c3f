/* The text formats of frozen maps. All that is wrong is told with its line, the first of it only: a list of a million
 * lines that is another kind of file would be a million errors.
 *
 * CSV, TSV and lines have no types, and guessing them would make "007" a number and then 7; so values are strings
 * unless the config says that they are numbers. JSON has its own. */
#include "store/frozen_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LEVELS = 32, NUMBER_TEXT = 64 };

/* A reading under way. */
struct reading {
    struct frozen_maker *maker;
    struct slice rest;
    uint32_t line;
    bool numbers;
    struct frozen_trouble *trouble;
    char *unquoted; /* CSV: room for one entry's fields */
};

static bool fail(struct reading *r, const char *what) {
    snprintf(r->trouble->what, sizeof r->trouble->what, "%s", what);
    return false;
}

/* ---- one entry */

static bool add_number(struct reading *r, struct packing *p, struct slice text) {
    char copy[NUMBER_TEXT + 1], *end;
    if (text.n == 0 || text.n > NUMBER_TEXT) return fail(r, "its value is no number");
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    errno = 0;
    long long whole = strtoll(copy, &end, 10);
    if (*end == '\0' && errno == 0 && end == copy + text.n) {
        packing_integer(p, whole);
        return true;
    }
    double number = strtod(copy, &end);
    if (end != copy + text.n || !isfinite(number)) return fail(r, "its value is no number");
    packing_number(p, number);
    return true;
}

/* `value` with p NULL: there is none. */
static bool add_entry(struct reading *r, struct slice key, struct slice value) {
    struct packing *p = frozen_add(r->maker, key, r->line);
    if (!p) return fail(r, key.n ? "its key is longer than 1024 bytes" : "it has no key");
    if (!value.p) packing_boolean(p, true);
    else if (r->numbers) return add_number(r, p, value);
    else packing_string(p, value);
    return true;
}

/* The next line, without its end. */
static struct slice take_line(struct reading *r) {
    struct slice line = slice_cut(&r->rest, '\n');
    r->line++;
    if (line.n && line.p[line.n - 1] == '\r') line.n--;
    return line;
}

/* ---- lines */

static bool read_lines(struct reading *r) {
    while (r->rest.p) {
        struct slice line = slice_trim(take_line(r)), value = { NULL, 0 };
        if (line.n == 0 || *line.p == '#') continue;
        size_t n = 0;
        while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t') n++;
        if (n < line.n) value = slice_trim(slice_skip(line, n));
        if (!add_entry(r, slice_make(line.p, n), value)) return false;
    }
    return true;
}

static bool read_tsv(struct reading *r) {
    while (r->rest.p) {
        struct slice value = take_line(r);
        if (value.n == 0) continue;
        struct slice key = slice_cut(&value, '\t');
        if (value.n && memchr(value.p, '\t', value.n)) return fail(r, "it has more than two columns");
        if (!add_entry(r, key, value)) return false;
    }
    return true;
}

/* ---- CSV */

/* Cuts a quoted field off, behind its first quote, into `to`; false if its quotes do not end. It may span lines. */
static bool cut_quoted(struct reading *r, char *to, struct slice *field) {
    size_t n = 0;
    for (struct slice s = r->rest; s.n; s = slice_skip(s, 1)) {
        if (*s.p == '\n') r->line++;
        if (*s.p == '"') {
            bool doubled = s.n > 1 && s.p[1] == '"';
            if (doubled) s = slice_skip(s, 1);
            else {
                r->rest = slice_skip(s, 1);
                *field = slice_make(to, n);
                return true;
            }
        }
        to[n++] = *s.p;
    }
    return fail(r, "its quotes do not end");
}

static bool at_line_end(struct slice s) {
    return s.n == 0 || *s.p == '\n' || (*s.p == '\r' && s.n > 1 && s.p[1] == '\n');
}

static bool cut_field(struct reading *r, char *to, struct slice *field) {
    if (r->rest.n && *r->rest.p == '"') {
        r->rest = slice_skip(r->rest, 1);
        if (!cut_quoted(r, to, field)) return false;
    } else {
        const char *from = r->rest.p;
        while (!at_line_end(r->rest) && *r->rest.p != ',') r->rest = slice_skip(r->rest, 1);
        *field = slice_make(from, (size_t)(r->rest.p - from));
    }
    if (at_line_end(r->rest) || *r->rest.p == ',') return true;
    return fail(r, "something stands behind its quotes");
}

static void end_line(struct reading *r) {
    if (r->rest.n && *r->rest.p == '\r') r->rest = slice_skip(r->rest, 1);
    if (r->rest.n) r->rest = slice_skip(r->rest, 1);
}

static bool cut_columns(struct reading *r, struct slice *key, struct slice *value) {
    if (!cut_field(r, r->unquoted, key)) return false;
    if (at_line_end(r->rest)) return true;
    r->rest = slice_skip(r->rest, 1);
    if (!cut_field(r, r->unquoted + key->n, value)) return false;
    return at_line_end(r->rest) || fail(r, "it has more than two columns");
}

/* An entry, and what is wrong with it, bears the line on which it begins. */
static bool read_csv_entry(struct reading *r) {
    struct slice key, value = { NULL, 0 };
    uint32_t began = ++r->line;
    bool ok = cut_columns(r, &key, &value);
    uint32_t ended = r->line;
    r->line = began;
    if (!ok || !add_entry(r, key, value)) return false;
    r->line = ended;
    end_line(r);
    return true;
}

/* No field is longer than the text. */
static bool read_csv(struct reading *r) {
    r->unquoted = malloc(r->rest.n + 1);
    bool ok = r->unquoted != NULL || fail(r, "there is no memory for it");
    while (ok && r->rest.n) {
        if (at_line_end(r->rest)) {
            r->line++;
            end_line(r);
        } else ok = read_csv_entry(r);
    }
    free(r->unquoted);
    return ok;
}

/* ---- JSON */

static bool pack_json(struct reading *r, struct packing *p, const json_t *v, unsigned level);

static struct slice text_of(const json_t *v) { return slice_make(json_string_value(v), json_string_length(v)); }

static bool pack_array(struct reading *r, struct packing *p, const json_t *v, unsigned level) {
    size_t count = json_array_size(v);
    packing_table(p, count, count);
    for (size_t i = 0; i < count; i++) {
        packing_integer(p, (int64_t)i + 1);
        if (!pack_json(r, p, json_array_get(v, i), level + 1)) return false;
    }
    return true;
}

static bool pack_object(struct reading *r, struct packing *p, const json_t *v, unsigned level) {
    const char *key;
    json_t *value;
    packing_table(p, json_object_size(v), 0);
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        packing_string(p, slice_of(key));
        if (!pack_json(r, p, value, level + 1)) return false;
    }
    return true;
}

static bool pack_json(struct reading *r, struct packing *p, const json_t *v, unsigned level) {
    if (level >= LEVELS) return fail(r, "it is nested too deeply");
    switch (json_typeof(v)) {
    case JSON_TRUE:
    case JSON_FALSE: packing_boolean(p, json_is_true(v)); return true;
    case JSON_INTEGER: packing_integer(p, json_integer_value(v)); return true;
    case JSON_REAL: packing_number(p, json_real_value(v)); return true;
    case JSON_STRING: packing_string(p, text_of(v)); return true;
    case JSON_ARRAY: return pack_array(r, p, v, level);
    case JSON_OBJECT: return pack_object(r, p, v, level);
    case JSON_NULL: break;
    }
    return fail(r, "null is no value");
}

static bool add_member(struct reading *r, const char *key, const json_t *value) {
    struct packing *p = frozen_add(r->maker, slice_of(key), 0);
    char why[96];
    if (!p) return fail(r, *key ? "a key is longer than 1024 bytes" : "a key is empty");
    if (pack_json(r, p, value, 0)) return true;
    snprintf(why, sizeof why, "'%.40s': %.40s", key, r->trouble->what);
    return fail(r, why);
}

/* The library tells lines of what is no JSON; of what is, no more is known than the key. */
static bool read_json(struct reading *r) {
    json_error_t error;
    const char *key;
    json_t *value, *root = json_loadb(r->rest.p, r->rest.n, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        r->line = error.line > 0 ? (uint32_t)error.line : 1;
        return fail(r, error.text);
    }
    r->line = 1;
    bool ok = json_is_object(root) || fail(r, "it is no object");
    if (ok) {
        json_object_foreach(root, key, value) {
            ok = add_member(r, key, value);
            if (!ok) break;
        }
    }
    json_decref(root);
    return ok;
}

/* ---- what others call */

enum frozen_format frozen_format_of(struct slice path) {
    if (slice_ends_with(path, SLICE(".csv"))) return FROZEN_CSV;
    if (slice_ends_with(path, SLICE(".tsv"))) return FROZEN_TSV;
    if (slice_ends_with(path, SLICE(".json"))) return FROZEN_JSON;
    return FROZEN_LINES;
}

bool frozen_read(struct frozen_maker *maker, struct slice text, enum frozen_format format, bool numbers,
                 struct frozen_trouble *trouble) {
    static bool (*const readers[])(struct reading *) = { read_lines, read_csv, read_tsv, read_json };
    if (slice_starts_with(text, SLICE("\xEF\xBB\xBF"))) text = slice_skip(text, 3);
    struct reading r = { .maker = maker, .rest = text, .numbers = numbers, .trouble = trouble };
    bool ok = readers[format](&r);
    trouble->line = r.line;
    return ok;
}
