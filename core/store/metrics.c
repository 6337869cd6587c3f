/* The figures: counters, gauges and histograms, each worker adding to cells of its own.
 *
 * A time series owns the same few slots in every worker's row of a page; the rows are 4 KiB apart, so that no two
 * workers ever write one cache line, while the figures of one worker lie densely together. Since only one thread writes
 * a cell, adding is a load and a store, not a locked instruction. Threads that are no workers (helpers, the command
 * line) share one more row and pay for the lock. Readers add the rows up; what they see may be a moment old, never
 * torn.
 *
 * Series are never removed and never move. The lock guards the finding only; the lists that writing walks grow at
 * their heads, so a reader needs it just to learn where they begin. Labels come partly from strangers, so a family
 * stops growing at a limit: what would be its next series is NULL, and adding to NULL is allowed and does nothing. */
#include "store/metrics.h"

#include "base/log.h"
#include "base/map.h"
#include "base/must.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_SLOTS = 512, SERIES_LIMIT = 10000, LINE = 64 };
enum { SLOT_INF = METRIC_BUCKETS, SLOT_SUM, HISTOGRAM_SLOTS };

static const double bounds[METRIC_BUCKETS] = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                               0.05,   0.1,     0.25,   0.5,   1,      2.5,   10,   60 };

typedef _Atomic int64_t cell;

struct page {
    struct page *next;
    cell *rows; /* (workers + 1) rows of PAGE_SLOTS */
};

struct metric {
    cell *cells;                   /* of row 0; those of row w stand w * PAGE_SLOTS further */
    int64_t (*read)(const void *); /* metric_get_with: asked for in place of cells */
    const void *with;
    enum metric_kind kind;
    struct metric *next; /* of its family */
    struct slice labels;
};

struct family {
    char *name, *help;
    enum metric_kind kind;
    struct map by_labels;
    struct metric *first;
    size_t count;
    double (*read)(void *); /* metrics_gauge_with */
    void *with;
};

static struct {
    pthread_mutex_t lock;
    bool open;
    unsigned workers, used; /* slots of the first page */
    struct page *pages;
    struct map families;
} figures = { .lock = PTHREAD_MUTEX_INITIALIZER };

void metrics_open(unsigned workers) {
    must(workers <= METRIC_WORKERS && !figures.open);
    figures.open = true;
    figures.workers = workers;
    figures.used = PAGE_SLOTS;
}

static void free_family(struct family *f) {
    for (struct metric *m = f->first, *next; m; m = next) {
        next = m->next;
        free((void *)(uintptr_t)m->labels.p);
        free(m);
    }
    map_fini(&f->by_labels);
    free(f->name);
    free(f->help);
    free(f);
}

void metrics_close(void) {
    struct slice name;
    void *family;
    for (size_t i = 0; map_next(&figures.families, &i, &name, &family);) free_family(family);
    map_fini(&figures.families);
    figures.families = (struct map){ 0 };
    while (figures.pages) {
        struct page *page = figures.pages;
        figures.pages = page->next;
        free(page->rows);
        free(page);
    }
    figures.open = false;
}

/* ---- finding */

static void add_page(void) {
    size_t bytes = (figures.workers + 1) * PAGE_SLOTS * sizeof(cell);
    struct page *page = must_malloc(sizeof *page);
    page->rows = aligned_alloc(LINE, bytes);
    must(page->rows != NULL);
    memset((void *)page->rows, 0, bytes);
    page->next = figures.pages;
    figures.pages = page;
    figures.used = 0;
}

static cell *take_slots(unsigned n) {
    if (figures.used + n > PAGE_SLOTS) add_page();
    cell *slots = figures.pages->rows + figures.used;
    figures.used += n;
    return slots;
}

static struct family *find_family(enum metric_kind kind, const char *name, const char *help) {
    struct family *f = map_get(&figures.families, slice_of(name));
    if (f) return f;
    f = must_calloc(1, sizeof *f);
    f->name = must_strdup(name);
    f->help = must_strdup(help ? help : "");
    f->kind = kind;
    map_set(&figures.families, slice_of(f->name), f);
    return f;
}

static struct metric *find_series(struct family *f, struct slice labels, int64_t (*read)(const void *),
                                  const void *with) {
    struct metric *m = map_get(&f->by_labels, labels);
    if (m) return m;
    if (f->count >= SERIES_LIMIT) return NULL;
    if (++f->count == SERIES_LIMIT) log_warn("metric %s has %d series: there will be no more", f->name, SERIES_LIMIT);
    m = must_calloc(1, sizeof *m);
    if (!read) m->cells = take_slots(f->kind == METRIC_HISTOGRAM ? HISTOGRAM_SLOTS : 1);
    m->read = read;
    m->with = with;
    m->kind = f->kind;
    m->labels = slice_make(must_strndup(labels.n ? labels.p : "", labels.n), labels.n);
    m->next = f->first;
    f->first = m;
    map_set(&f->by_labels, m->labels, m);
    return m;
}

struct metric *metric_get_with(enum metric_kind kind, const char *family, const char *help, struct slice labels,
                               int64_t (*read)(const void *), const void *with) {
    if (!figures.open) return NULL;
    pthread_mutex_lock(&figures.lock);
    struct family *f = find_family(kind, family, help);
    must(f->kind == kind && !f->read);
    struct metric *m = find_series(f, labels, read, with);
    pthread_mutex_unlock(&figures.lock);
    return m;
}

struct metric *metric_get(enum metric_kind kind, const char *family, const char *help, struct slice labels) {
    return metric_get_with(kind, family, help, labels, NULL, NULL);
}

void metrics_gauge_with(const char *family, const char *help, double (*read)(void *), void *with) {
    if (!figures.open) return;
    pthread_mutex_lock(&figures.lock);
    struct family *f = find_family(METRIC_GAUGE, family, help);
    must(f->kind == METRIC_GAUGE && f->count == 0);
    f->read = read;
    f->with = with;
    pthread_mutex_unlock(&figures.lock);
}

/* ---- adding */

static void add_to(cell *cells, int worker, int64_t n) {
    if ((unsigned)worker < figures.workers) {
        cell *mine = cells + (size_t)worker * PAGE_SLOTS;
        atomic_store_explicit(mine, atomic_load_explicit(mine, memory_order_relaxed) + n, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(cells + (size_t)figures.workers * PAGE_SLOTS, n, memory_order_relaxed);
}

void metric_add(struct metric *m, int worker, int64_t n) {
    if (m && !m->read) add_to(m->cells, worker, n);
}

/* The first bucket whose bound is not below the value; four steps for sixteen. */
static unsigned find_bucket(double seconds) {
    unsigned low = 0;
    for (unsigned half = METRIC_BUCKETS / 2; half; half /= 2)
        if (bounds[low + half - 1] < seconds) low += half;
    return low + (bounds[low] < seconds);
}

void metric_observe(struct metric *m, int worker, double seconds) { metric_observe_times(m, worker, seconds, 1); }

void metric_observe_times(struct metric *m, int worker, double seconds, int64_t times) {
    if (!m || m->kind != METRIC_HISTOGRAM) return;
    if (!(seconds > 0)) seconds = 0;
    if (seconds > 1e9) seconds = 1e9;
    add_to(m->cells + find_bucket(seconds), worker, times);
    add_to(m->cells + SLOT_SUM, worker, (int64_t)(seconds * 1e9) * times);
}

static int64_t sum_rows(const cell *cells) {
    int64_t sum = 0;
    for (unsigned w = 0; w <= figures.workers; w++)
        sum += atomic_load_explicit(cells + (size_t)w * PAGE_SLOTS, memory_order_relaxed);
    return sum;
}

int64_t metric_value(const struct metric *m) {
    if (!m) return 0;
    if (m->kind != METRIC_HISTOGRAM) return m->read ? m->read(m->with) : sum_rows(m->cells);
    int64_t count = 0;
    for (unsigned i = 0; i <= SLOT_INF; i++) count += sum_rows(m->cells + i);
    return count;
}

/* ---- labels */

/* Bytes of the UTF-8 sequence at p, 0 if it is none: one bad byte would make the whole page unreadable to
 * Prometheus. */
static size_t measure_rune(const char *p, size_t n) {
    unsigned char c = (unsigned char)*p;
    size_t size = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (size > n) return 0;
    for (size_t i = 1; i < size; i++)
        if (((unsigned char)p[i] & 0xc0) != 0x80) return 0;
    unsigned char next = size > 2 ? (unsigned char)p[1] : 0;
    bool overlong = (c == 0xe0 && next < 0xa0) || (c == 0xf0 && next < 0x90);
    bool outside = (c == 0xed && next > 0x9f) || (c == 0xf4 && next > 0x8f);
    return overlong || outside ? 0 : size;
}

/* Writes one escaped character at `to`, at most 4 bytes; returns how many, and steps over it. */
static size_t escape_rune(char *to, struct slice *rest) {
    char c = *rest->p;
    size_t size = measure_rune(rest->p, rest->n);
    if (c == '\\' || c == '"' || c == '\n') {
        to[0] = '\\';
        to[1] = c == '\n' ? 'n' : c;
        *rest = slice_skip(*rest, 1);
        return 2;
    }
    if (size) memcpy(to, rest->p, size);
    else to[0] = '?';
    *rest = slice_skip(*rest, size ? size : 1);
    return size ? size : 1;
}

/* Writes one pair, its value cut to what fits. Returns its length, 0 if not even an empty value fits. */
static size_t write_label(char *to, size_t size, bool first, const struct label *label) {
    size_t name = strlen(label->name), used = 0;
    if (size < name + 4) return 0;
    if (!first) to[used++] = ',';
    memcpy(to + used, label->name, name);
    used += name;
    to[used++] = '=';
    to[used++] = '"';
    for (struct slice rest = label->value; rest.n;) {
        char rune[4];
        size_t n = escape_rune(rune, &rest);
        if (used + n + 1 > size) break;
        memcpy(to + used, rune, n);
        used += n;
    }
    to[used++] = '"';
    return used;
}

struct slice metric_labels(char *to, size_t size, const struct label *labels, size_t count) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = write_label(to + used, size - used, used == 0, &labels[i]);
        if (n == 0) break;
        used += n;
    }
    return slice_make(to, used);
}

/* ---- writing */

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

/* Counts are added up on the way, so that the buckets agree with the count even while workers go on. */
static void write_histogram(struct buffer *out, const char *name, const struct metric *m) {
    int64_t count = 0;
    char value[32];
    for (unsigned i = 0; i <= SLOT_INF; i++) {
        char le[24] = "+Inf";
        if (i < SLOT_INF) snprintf(le, sizeof le, "%g", bounds[i]);
        count += sum_rows(m->cells + i);
        buffer_printf(out, "%s_bucket{%.*s%sle=\"%s\"} %lld\n", name, FMT(m->labels), m->labels.n ? "," : "", le,
                      (long long)count);
    }
    snprintf(value, sizeof value, "%.9g", (double)sum_rows(m->cells + SLOT_SUM) / 1e9);
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
    snprintf(value, sizeof value, "%lld", (long long)metric_value(m));
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
