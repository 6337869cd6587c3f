/* All figures as text, for Prometheus.
 *
 * Series are never removed and never move, and the lists of them grow at their heads: the lock is held only to learn
 * where they begin, and the rest is read while workers go on. */
#include "store/metrics_inside.h"

#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

static int compare_families(const void *a, const void *b) {
    return strcmp((*(struct family *const *)a)->name, (*(struct family *const *)b)->name);
}

static int compare_series(const void *a, const void *b) {
    struct slice x = (*(struct metric *const *)a)->labels, y = (*(struct metric *const *)b)->labels;
    int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

static void write_series(struct buffer *out, const char *name, const char *suffix, struct slice labels,
                         const char *value) {
    if (labels.n) buffer_printf(out, "%s%s{%.*s} %s\n", name, suffix, FMT(labels), value);
    else buffer_printf(out, "%s%s %s\n", name, suffix, value);
}

/* With as few digits as read back the same. */
static void print_real(char to[32], double value) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(to, 32, "%.*g", digits, value);
        if (strtod(to, NULL) == value) break;
    }
}

/* Counts are added up on the way, so that the buckets agree with the count even while workers go on. */
static void write_histogram(struct buffer *out, const char *name, const struct metric *m) {
    const double *of = m->declared ? m->declared->bounds : metric_bounds;
    unsigned inf = m->declared ? m->declared->bound_count : SLOT_INF;
    int64_t count = 0;
    char value[32];
    for (unsigned i = 0; i <= inf; i++) {
        char le[32] = "+Inf";
        if (i < inf) print_real(le, of[i]);
        count += cells_sum(m->cells + i);
        buffer_printf(out, "%s_bucket{%.*s%sle=\"%s\"} %lld\n", name, FMT(m->labels), m->labels.n ? "," : "", le,
                      (long long)count);
    }
    if (m->declared) print_real(value, cells_sum_real(m->cells + inf + 1));
    else snprintf(value, sizeof value, "%.9g", (double)cells_sum(m->cells + SLOT_SUM) / 1e9);
    write_series(out, name, "_sum", m->labels, value);
    snprintf(value, sizeof value, "%lld", (long long)count);
    write_series(out, name, "_count", m->labels, value);
}

static void write_metric(struct buffer *out, const char *name, const struct metric *m) {
    if (m->kind == METRIC_HISTOGRAM) {
        write_histogram(out, name, m);
        return;
    }
    char value[32];
    if (m->declared) print_real(value, cells_sum_real(m->cells));
    else snprintf(value, sizeof value, "%lld", (long long)metric_value(m));
    write_series(out, name, "", m->labels, value);
}

static void write_help(struct buffer *out, const struct family *f) {
    static const char *const kinds[] = { "counter", "gauge", "histogram" };
    buffer_printf(out, "# HELP %s ", f->name);
    for (const char *p = f->help; *p; p++) {
        if (*p == '\n') buffer_append(out, "\\n", 2);
        else if (*p == '\\') buffer_append(out, "\\\\", 2);
        else buffer_append(out, p, 1);
    }
    buffer_printf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
}

/* What a family held when the lock was last taken. */
struct view {
    struct family *family;
    struct metric *first;
    size_t count;
    double (*read)(void *);
    void *with;
};

static void write_family(struct buffer *out, const struct view *v) {
    write_help(out, v->family);
    if (v->read) {
        char value[32];
        snprintf(value, sizeof value, "%.17g", v->read(v->with));
        write_series(out, v->family->name, "", SLICE(""), value);
    }
    const struct metric **list = must_malloc((v->count + 1) * sizeof(const struct metric *));
    size_t n = 0;
    for (const struct metric *m = v->first; m; m = m->next) list[n++] = m;
    qsort(list, n, sizeof(const struct metric *), compare_series);
    for (size_t i = 0; i < n; i++) write_metric(out, v->family->name, list[i]);
    free(list);
    /* What has no labels is there from the beginning. */
    const struct metric_family *f = v->family->declared;
    if (f && n == 0 && f->label_count == 0 && f->family.kind != METRIC_HISTOGRAM)
        write_series(out, v->family->name, "", SLICE(""), "0");
}

static struct view *take_views(size_t *count) {
    pthread_mutex_lock(&figures.lock);
    struct view *views = must_calloc(figures.families.count + 1, sizeof *views);
    struct slice name;
    void *found;
    *count = 0;
    for (size_t i = 0; map_next(&figures.families, &i, &name, &found);) {
        struct family *f = found;
        views[(*count)++] = (struct view){ f, f->first, f->count, f->read, f->with };
    }
    pthread_mutex_unlock(&figures.lock);
    return views;
}

void metrics_write(struct buffer *out) {
    size_t count;
    struct view *views = take_views(&count);
    qsort(views, count, sizeof *views, compare_families); /* the family pointer is a view's first member */
    for (size_t i = 0; i < count; i++) write_family(out, &views[i]);
    free(views);
}
