/* The reader: walks a value tree along the settings table, checks every value against its row, and puts it into a C
 * struct.
 *
 * It never stops at an error: what is wrong is reported with its path and line, the default stays, and reading goes on,
 * so that one run of `check` shows everything. Settings that are more than one value have a reader of their own
 * (SETTING_OWN, in settings_site.c, settings_listen.c, settings_backend.c); rules between settings are config.c's. */
#include "server/settings.h"

#include "base/must.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- places and what is said about them */

static bool is_name(const char *text) {
    if (*text >= '0' && *text <= '9') return false;
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return n > 0 && text[n] == '\0';
}

/* Returns the length so far; what does not fit is cut. */
static size_t write_spot(const struct spot *at, char *to, size_t n) {
    if (!at || (!at->name && !at->index)) return n;
    n = write_spot(at->up, to, n);
    char part[160];
    if (!at->name) snprintf(part, sizeof part, "[%zu]", at->index);
    else if (is_name(at->name)) snprintf(part, sizeof part, "%s%s", n ? "." : "", at->name);
    else snprintf(part, sizeof part, "[\"%s\"]", at->name);
    size_t size = strlen(part);
    if (n + size >= SPOT_TEXT) return n;
    memcpy(to + n, part, size + 1);
    return n + size;
}

char *spot_text(const struct spot *at, char to[SPOT_TEXT]) {
    to[0] = '\0';
    write_spot(at, to, 0);
    return to;
}

int spot_line(const struct reader *r, const struct spot *at) {
    char path[SPOT_TEXT];
    return r->lines ? config_lines_find(r->lines, spot_text(at, path)) : 0;
}

__attribute__((format(printf, 4, 0))) static void tell(struct reader *r, const struct spot *at, bool warning,
                                                       const char *format, va_list args) {
    char path[SPOT_TEXT], *text = must_vprintf(format, args);
    spot_text(at, path);
    (warning ? errors_warn : errors_add)(r->errors, r->config->file, spot_line(r, at), *path ? path : NULL, "%s", text);
    free(text);
}

void reader_error(struct reader *r, const struct spot *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    tell(r, at, false, format, args);
    va_end(args);
}

void reader_warn(struct reader *r, const struct spot *at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    tell(r, at, true, format, args);
    va_end(args);
}

/* At most 40 bytes of it, with what is not printable ASCII escaped: it goes to a terminal. */
static void show_string(struct slice s, char to[SHOWN_TEXT]) {
    char *p = to, *end = to + SHOWN_TEXT - 12;
    size_t i = 0;
    *p++ = '"';
    for (; i < s.n && i < 40 && p < end; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c > 0x7e) p += sprintf(p, "\\x%02x", c);
        else *p++ = (char)c;
    }
    snprintf(p, (size_t)(to + SHOWN_TEXT - p), "%s\"", i < s.n ? "…" : "");
}

char *value_shown(const struct value *v, char to[SHOWN_TEXT]) {
    if (v->kind == VALUE_STRING) show_string(v->string, to);
    else if (v->kind == VALUE_INTEGER) snprintf(to, SHOWN_TEXT, "%" PRId64, v->integer);
    else if (v->kind == VALUE_NUMBER) snprintf(to, SHOWN_TEXT, "%.14g", v->number);
    else if (v->kind == VALUE_BOOLEAN) snprintf(to, SHOWN_TEXT, "%s", v->boolean ? "true" : "false");
    else snprintf(to, SHOWN_TEXT, "%s", value_kind_name(v));
    return to;
}

bool reader_expected(struct reader *r, const struct spot *at, const char *what, const struct value *got) {
    char shown[SHOWN_TEXT];
    reader_error(r, at, "expected %s, got %s", what, value_shown(got, shown));
    return false;
}

/* ---- lists and numbers */

size_t list_size(const struct value *v) { return v->kind == VALUE_TABLE ? v->table.sequence : 1; }

const struct value *list_entry(const struct value *v, size_t index) {
    return v->kind == VALUE_TABLE ? value_at(v, index) : v;
}

struct spot list_spot(const struct spot *at, const struct value *list, size_t index) {
    if (list->kind != VALUE_TABLE) return *at;
    return (struct spot){ .up = at, .index = index };
}

bool value_whole(const struct value *v, int64_t *out) {
    if (v->kind == VALUE_INTEGER) *out = v->integer;
    if (v->kind == VALUE_INTEGER) return true;
    if (v->kind != VALUE_NUMBER || v->number != floor(v->number) || fabs(v->number) > 9007199254740992.0) return false;
    *out = (int64_t)v->number;
    return true;
}

static bool value_number(const struct value *v, double *out) {
    if (v->kind == VALUE_INTEGER) *out = (double)v->integer;
    else if (v->kind == VALUE_NUMBER && isfinite(v->number)) *out = v->number;
    else return false;
    return true;
}

/* ---- one value by its row */

static void *field_of(const struct setting *row, void *base) { return (char *)base + row->field; }

static bool in_bounds(const struct setting *row, double n) { return n >= row->low && n <= row->high; }

static void read_boolean(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                         void *base) {
    if (v->kind == VALUE_BOOLEAN) *(bool *)field_of(row, base) = v->boolean;
    else reader_expected(r, at, "true or false", v);
}

static void read_count(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                       void *base) {
    char what[96];
    int64_t n;
    if (value_whole(v, &n) && in_bounds(row, (double)n)) {
        *(unsigned *)field_of(row, base) = (unsigned)n;
        return;
    }
    snprintf(what, sizeof what, "a whole number from %.0f to %.0f", row->low, row->high);
    reader_expected(r, at, what, v);
}

static void read_seconds(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                         void *base) {
    char what[160], low[UNIT_TEXT], high[UNIT_TEXT];
    double n;
    bool known = value_number(v, &n) || (v->kind == VALUE_STRING && seconds_parse(v->string, &n));
    if (known && in_bounds(row, n)) {
        *(double *)field_of(row, base) = n;
        return;
    }
    snprintf(what, sizeof what, known ? "a time from %s to %s" : "a time such as 5, \"500ms\", \"10s\", \"1m\"",
             seconds_write(row->low, low), seconds_write(row->high, high));
    reader_expected(r, at, what, v);
}

static bool size_of_value(const struct setting *row, const struct value *v, uint64_t *bytes, bool *known) {
    int64_t n = 0;
    *known = true;
    if (row->or_none && v->kind == VALUE_STRING && slice_equal(v->string, SLICE("none"))) *bytes = UINT64_MAX;
    else if (v->kind == VALUE_STRING && size_parse(v->string, bytes)) n = (int64_t)*bytes;
    else if (value_whole(v, &n)) *bytes = n < 0 ? 0 : (uint64_t)n;
    else *known = false;
    if (!*known) return false;
    if (row->or_none && n == 0) *bytes = UINT64_MAX;
    return (row->or_none && n == 0) || in_bounds(row, (double)n);
}

static void read_size(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                      void *base) {
    char what[160], low[UNIT_TEXT], high[UNIT_TEXT];
    uint64_t bytes;
    bool known;
    if (size_of_value(row, v, &bytes, &known)) {
        if (row->type == SETTING_SIZE32) *(uint32_t *)field_of(row, base) = (uint32_t)bytes;
        else *(uint64_t *)field_of(row, base) = bytes;
        return;
    }
    const char *none = row->or_none ? ", or \"none\"" : "";
    if (known)
        snprintf(what, sizeof what, "a size from %s to %s%s", size_write(row->low, low), size_write(row->high, high),
                 none);
    else snprintf(what, sizeof what, "a size such as 4096, \"64K\", \"10M\", \"1G\"%s", none);
    reader_expected(r, at, what, v);
}

static void read_text(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                      void *base) {
    if (v->kind != VALUE_STRING || v->string.n == 0 || memchr(v->string.p, '\0', v->string.n)) {
        reader_expected(r, at, "a string", v);
        return;
    }
    char **to = field_of(row, base);
    free(*to);
    *to = must_strndup(v->string.p, v->string.n);
}

static void read_word(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                      void *base) {
    char what[160] = "";
    for (unsigned i = 0; row->words[i]; i++) {
        if (v->kind == VALUE_STRING && slice_equal(v->string, slice_of(row->words[i]))) {
            *(unsigned *)field_of(row, base) = i;
            return;
        }
        const char *joint = i == 0 ? "" : row->words[i + 1] ? ", " : " or ";
        snprintf(what + strlen(what), sizeof what - strlen(what), "%s\"%s\"", joint, row->words[i]);
    }
    reader_expected(r, at, what, v);
}

static void read_table(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                       void *base) {
    if (v->kind != VALUE_TABLE) {
        reader_expected(r, at, "a table", v);
        return;
    }
    settings_read(r, at, row->table, v, field_of(row, base));
    settings_check_names(r, at, v, 1u << row->table, 0);
}

static void read_row(struct reader *r, const struct spot *at, const struct setting *row, const struct value *v,
                     void *base) {
    switch (row->type) {
    case SETTING_BOOLEAN: read_boolean(r, at, row, v, base); break;
    case SETTING_COUNT: read_count(r, at, row, v, base); break;
    case SETTING_SECONDS: read_seconds(r, at, row, v, base); break;
    case SETTING_SIZE:
    case SETTING_SIZE32: read_size(r, at, row, v, base); break;
    case SETTING_TEXT: read_text(r, at, row, v, base); break;
    case SETTING_WORD: read_word(r, at, row, v, base); break;
    case SETTING_TABLE: read_table(r, at, row, v, base); break;
    case SETTING_OWN: row->read(r, at, v, base); break;
    case SETTING_HOOK: break;
    }
}

/* ---- a place */

void settings_read(struct reader *r, const struct spot *at, enum place place, const struct value *table, void *base) {
    for (const struct setting *row = settings_table; row->name; row++) {
        if (row->place != place) continue;
        const struct value *v = value_get(table, row->name);
        struct spot here = { .up = at, .name = row->name };
        if (v) read_row(r, &here, row, v, base);
    }
}

void settings_preset(enum place place, void *base) {
    for (const struct setting *row = settings_table; row->name; row++) {
        if (row->place != place) continue;
        void *field = field_of(row, base);
        switch (row->type) {
        case SETTING_BOOLEAN: *(bool *)field = row->preset != 0; break;
        case SETTING_COUNT:
        case SETTING_WORD: *(unsigned *)field = (unsigned)row->preset; break;
        case SETTING_SECONDS: *(double *)field = row->preset; break;
        case SETTING_SIZE: *(uint64_t *)field = (uint64_t)row->preset; break;
        case SETTING_SIZE32: *(uint32_t *)field = (uint32_t)row->preset; break;
        case SETTING_TABLE: settings_preset(row->table, field); break;
        default: break;
        }
    }
}

/* ---- names */

static bool is_known(struct slice name, uint32_t places) {
    for (const struct setting *row = settings_table; row->name; row++)
        if (places >> row->place & 1 && slice_equal(name, slice_of(row->name))) return true;
    return false;
}

/* "a site, a listener or a backend": where a name that is not known here would be. Empty: nowhere. */
static void find_homes(struct slice name, char to[SHOWN_TEXT]) {
    enum place homes[PLACE_COUNT];
    size_t count = 0, n = 0;
    for (const struct setting *row = settings_table; row->name; row++)
        if (slice_equal(name, slice_of(row->name)) && row->place != PLACE_FAIL) homes[count++] = row->place;
    to[0] = '\0';
    for (size_t i = 0; i < count && n < SHOWN_TEXT; i++) {
        const char *joint = i == 0 ? "" : i + 1 < count ? ", " : " or ";
        n += (size_t)snprintf(to + n, SHOWN_TEXT - n, "%s%s", joint, settings_places[homes[i]]);
    }
}

static void complain_about_name(struct reader *r, const struct spot *at, struct slice name, uint32_t places,
                                bool hook) {
    const char *kind = hook ? "hook" : "setting";
    char homes[SHOWN_TEXT];
    find_homes(name, homes);
    const char *nearest = settings_nearest(name, places, hook);
    if (*homes && nearest) reader_error(r, at, "this setting belongs to %s; did you mean \"%s\"?", homes, nearest);
    else if (*homes) reader_error(r, at, "this setting belongs to %s", homes);
    else if (nearest) reader_error(r, at, "unknown %s, did you mean \"%s\"?", kind, nearest);
    else if (hook) reader_error(r, at, "unknown hook (a function of the policy's own must be local)");
    else reader_error(r, at, "unknown setting");
}

static void complain_about_entry(struct reader *r, const struct spot *at, const struct value *key, uint32_t places) {
    char shown[SHOWN_TEXT];
    struct spot here = { .up = at, .index = key->kind == VALUE_INTEGER && key->integer > 0 ? (size_t)key->integer : 0 };
    if (here.index == 0) reader_error(r, at, "%s is no name of a setting", value_shown(key, shown));
    else if (places & 1u << PLACE_BACKEND) reader_error(r, &here, "there is a gap in the list before this entry");
    else reader_error(r, &here, "expected name = value, got an entry without a name");
}

void settings_check_names(struct reader *r, const struct spot *at, const struct value *table, uint32_t places,
                          size_t entries) {
    for (size_t i = 0; i < table->table.count; i++) {
        const struct value_pair *pair = &table->table.list[i];
        if (i < table->table.sequence && i < entries) continue;
        if (pair->key.kind != VALUE_STRING) {
            complain_about_entry(r, at, &pair->key, places);
            continue;
        }
        if (is_known(pair->key.string, places)) continue;
        struct spot here = { .up = at, .name = pair->key.string.p };
        bool hook = places & 1u << PLACE_SITE && pair->value.kind == VALUE_FUNCTION;
        complain_about_name(r, &here, pair->key.string, places, hook);
    }
}
