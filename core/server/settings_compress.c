/* `compress`: true, false, or a table of what is not as usual. */
#include "server/settings.h"

#include "base/must.h"

#include <ctype.h>
#include <stdlib.h>

/* What is text and worth it. Pictures, films, fonts in woff2 and archives are compressed already; an event stream is
 * worth more when every event leaves at once, and it does, but for whoever wants that there is `types`. */
static const char *const usual_types[] = {
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/markdown",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/xhtml+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
    NULL,
};

static const enum coding usual_codings[] = { CODING_ZSTD, CODING_BR, CODING_GZIP };

static void use_usual_types(struct compress *c) {
    c->types = must_calloc(sizeof usual_types / sizeof *usual_types, sizeof *c->types);
    for (size_t i = 0; usual_types[i]; i++) c->types[i] = must_strdup(usual_types[i]);
}

static void use_usual_codings(struct compress *c) {
    c->coding_count = sizeof usual_codings / sizeof *usual_codings;
    memcpy(c->codings, usual_codings, sizeof usual_codings);
}

/* ---- the lists */

/* "text/html", or "text/" and a star. */
static bool is_type(struct slice type) {
    struct slice rest = type, kind = slice_cut(&rest, '/');
    return header_name_valid(kind) && rest.p && header_name_valid(rest);
}

static void add_type(struct reader *r, const struct spot *at, const struct value *v, char **type) {
    if (v->kind != VALUE_STRING || !is_type(v->string)) {
        reader_expected(r, at, "a media type such as \"text/html\" or \"text/*\"", v);
        return;
    }
    *type = must_strndup(v->string.p, v->string.n);
    for (char *p = *type; *p; p++) *p = (char)tolower((unsigned char)*p);
}

void read_compress_types(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct compress *c = base;
    size_t count = v->kind == VALUE_TABLE || v->kind == VALUE_STRING ? list_size(v) : 0;
    if (count == 0 || count > COMPRESS_TYPES) {
        reader_expected(r, at, "a list of 1 to 32 media types", v);
        return;
    }
    c->types = must_calloc(count + 1, sizeof *c->types);
    size_t n = 0;
    for (size_t i = 1; i <= count; i++) {
        struct spot here = list_spot(at, v, i);
        add_type(r, &here, list_entry(v, i), &c->types[n]);
        if (c->types[n]) n++;
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, count);
}

static void add_coding(struct reader *r, const struct spot *at, const struct value *v, struct compress *c) {
    enum coding coding = v->kind == VALUE_STRING ? coding_named(v->string) : CODING_UNKNOWN;
    bool twice = false;
    for (unsigned i = 0; i < c->coding_count; i++) twice |= c->codings[i] == coding;
    if (coding == CODING_UNKNOWN || coding == CODING_IDENTITY)
        reader_expected(r, at, "\"gzip\", \"deflate\", \"br\" or \"zstd\"", v);
    else if (twice) reader_error(r, at, "this coding stands in the list twice");
    else c->codings[c->coding_count++] = coding;
}

void read_compress_codings(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    size_t count = v->kind == VALUE_TABLE || v->kind == VALUE_STRING ? list_size(v) : 0;
    if (count == 0) reader_expected(r, at, "a list such as { \"zstd\", \"br\", \"gzip\" }, the preferred first", v);
    for (size_t i = 1; i <= count; i++) {
        struct spot here = list_spot(at, v, i);
        add_coding(r, &here, list_entry(v, i), base);
    }
    if (v->kind == VALUE_TABLE) settings_check_names(r, at, v, 0, count);
}

/* ---- the whole */

void read_compress(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct compress *c = &((struct config_site *)base)->compress;
    if (v->kind != VALUE_BOOLEAN && v->kind != VALUE_TABLE) {
        reader_expected(r, at, "true or a table such as { level = 6 }", v);
        return;
    }
    c->on = v->kind == VALUE_TABLE || v->boolean;
    if (!c->on) return;
    settings_preset(PLACE_COMPRESS, c);
    if (v->kind == VALUE_TABLE) {
        settings_read(r, at, PLACE_COMPRESS, v, c);
        settings_check_names(r, at, v, 1u << PLACE_COMPRESS, 0);
    }
    if (!c->types) use_usual_types(c);
    if (!c->coding_count) use_usual_codings(c);
}

void compress_fini(struct compress *c) {
    for (char **type = c->types; type && *type; type++) free(*type);
    free(c->types);
}

struct compress compress_copy(const struct compress *from) {
    struct compress copy = *from;
    size_t count = 0;
    while (from->types && from->types[count]) count++;
    copy.types = must_calloc(count + 1, sizeof *copy.types);
    for (size_t i = 0; i < count; i++) copy.types[i] = must_strdup(from->types[i]);
    return copy;
}
