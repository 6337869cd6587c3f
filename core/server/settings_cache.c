/* What of a site's `cache` is more than one value. */
#include "server/settings.h"

#include "base/must.h"

#include <stdlib.h>

static const double DAYS = 365 * 86400.0;

/* ---- times */

static bool number_of(const struct value *v, double *n) {
    if (v->kind == VALUE_INTEGER) *n = (double)v->integer;
    else if (v->kind == VALUE_NUMBER) *n = v->number;
    return v->kind == VALUE_INTEGER || v->kind == VALUE_NUMBER;
}

static bool read_time(struct reader *r, const struct spot *at, const struct value *v, double *seconds) {
    double n;
    bool known = number_of(v, &n) || (v->kind == VALUE_STRING && seconds_parse(v->string, &n));
    if (known && n >= 0 && n <= DAYS) *seconds = n;
    else if (known) reader_expected(r, at, "a time from 0 to 8760h", v);
    else reader_expected(r, at, "a time such as 5, \"500ms\", \"10s\", \"1m\"", v);
    return known && n >= 0 && n <= DAYS;
}

void read_stale_if_error(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_cache *c = base;
    c->has_stale_if_error = read_time(r, at, v, &c->stale_if_error);
}

/* ---- negative */

static void add_negative(struct reader *r, const struct spot *at, const struct value *v, struct config_cache *c,
                         int status) {
    double seconds;
    if (!read_time(r, at, v, &seconds)) return;
    c->negative[c->negative_count].status = status;
    c->negative[c->negative_count++].seconds = seconds;
}

static void add_negative_status(struct reader *r, const struct spot *at, const struct value_pair *pair,
                                struct config_cache *c) {
    int64_t status;
    char shown[SHOWN_TEXT];
    bool whole = value_whole(&pair->key, &status);
    struct spot here = { .up = at, .index = whole && status > 0 ? (size_t)status : 0 };
    if (!whole || status < 200 || status > 599 || status == 206 || status == 304)
        reader_error(r, at, "%s is no status of an answer that could be stored: { [404] = \"1m\" }",
                     value_shown(&pair->key, shown));
    else if (c->negative_count == CACHE_NEGATIVE) reader_error(r, &here, "there are more than %d", CACHE_NEGATIVE);
    else add_negative(r, &here, &pair->value, c, (int)status);
}

/* "10s", or { [404] = "1m" }. */
void read_negative(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_cache *c = base;
    if (v->kind != VALUE_TABLE) {
        add_negative(r, at, v, c, 0);
        return;
    }
    if (v->table.count == 0) reader_expected(r, at, "a time, or a table such as { [404] = \"1m\" }", v);
    for (size_t i = 0; i < v->table.count; i++) add_negative_status(r, at, &v->table.list[i], c);
}

/* ---- purge */

void read_purge(struct reader *r, const struct spot *at, const struct value *v, void *base) {
    struct config_cache *c = base;
    read_ranges(r, at, v, &c->purgers, &c->purger_count);
    for (size_t i = 0; i < c->purger_count; i++) {
        const struct cidr *range = &c->purgers[i];
        bool everybody = !range->unix_socket && (range->bits == 0 || (range->bits == 96 && range->bytes[10] == 0xff));
        struct spot here = list_spot(at, v, i + 1);
        if (everybody) reader_warn(r, &here, "every client may empty the cache");
    }
}

void check_cache(struct reader *r, const struct spot *site, const struct value *cache, const struct config_cache *c) {
    struct spot at = { .up = site, .name = "cache" }, memory = { .up = &at, .name = "memory" };
    if (cache && cache->kind == VALUE_TABLE && !value_get(cache, "memory"))
        reader_error(r, &memory, "a cache needs a size, such as \"256M\"");
    if (c->max_object > c->memory && c->memory) {
        struct spot most = { .up = &at, .name = "max_object" };
        reader_error(r, &most, "more than the whole `memory` can never be stored");
    }
}
