/* The figures: counters, gauges and histograms, each worker adding to cells of its own.
 *
 * A time series owns the same few slots in every worker's row of a page; the rows are 4 KiB apart, so that no two
 * workers ever write one cache line, while the figures of one worker lie densely together. Since only one thread writes
 * a cell, adding is a load and a store, not a locked instruction. Threads that are no workers (helpers, the command
 * line) share one more row and pay for the lock. Readers add the rows up; what they see may be a moment old, never
 * torn.
 *
 * What scripts declare has floats in its cells, as bits, and a gauge of theirs only the shared row: it is set, and a
 * sum over workers of what each has set last would be nobody's value.
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
    const struct metric_family *declared; /* NULL: the core's own */
    struct metric *next;                  /* of its family */
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
    struct metric_family *declared; /* by a script; NULL: the core's own */
};

struct metric_family {
    struct family family;
    char *labels[METRIC_LABELS];
    unsigned label_count;
    double bounds[METRIC_BOUNDS];
    unsigned bound_count;
    size_t limit;
    struct metric *other; /* the limit has been reached */
    struct metric_family *next;
};

static struct {
    pthread_mutex_t lock;
    bool open;
    unsigned workers, used; /* slots of the first page */
    struct page *pages;
    struct map families;
    struct metric_family *declared; /* all, those that were declared anew included */
    unsigned declared_count;
} figures = { .lock = PTHREAD_MUTEX_INITIALIZER };

void metrics_open(unsigned workers) {
    must(workers <= METRIC_WORKERS && !figures.open);
    figures.open = true;
    figures.workers = workers;
    figures.used = PAGE_SLOTS;
}

static void empty_family(struct family *f) {
    for (struct metric *m = f->first, *next; m; m = next) {
        next = m->next;
        free((void *)(uintptr_t)m->labels.p);
        free(m);
    }
    map_fini(&f->by_labels);
    free(f->name);
    free(f->help);
}

static void free_declared(void) {
    while (figures.declared) {
        struct metric_family *f = figures.declared;
        figures.declared = f->next;
        empty_family(&f->family);
        for (unsigned i = 0; i < f->label_count; i++) free(f->labels[i]);
        free(f);
    }
    figures.declared_count = 0;
}

void metrics_close(void) {
    struct slice name;
    void *family;
    for (size_t i = 0; map_next(&figures.families, &i, &name, &family);) {
        if (((struct family *)family)->declared) continue;
        empty_family(family);
        free(family);
    }
    free_declared();
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

static unsigned slots_of(const struct family *f) {
    if (f->kind != METRIC_HISTOGRAM) return 1;
    return f->declared ? f->declared->bound_count + 2 : HISTOGRAM_SLOTS;
}

static struct metric *make_series(struct family *f, struct slice labels, int64_t (*read)(const void *),
                                  const void *with) {
    struct metric *m = must_calloc(1, sizeof *m);
    if (!read) m->cells = take_slots(slots_of(f));
    m->read = read;
    m->with = with;
    m->kind = f->kind;
    m->declared = f->declared;
    f->count++;
    m->labels = slice_make(must_strndup(labels.n ? labels.p : "", labels.n), labels.n);
    m->next = f->first;
    f->first = m;
    map_set(&f->by_labels, m->labels, m);
    return m;
}

static struct metric *find_series(struct family *f, struct slice labels, int64_t (*read)(const void *),
                                  const void *with) {
    struct metric *m = map_get(&f->by_labels, labels);
    if (m || f->count >= SERIES_LIMIT) return m;
    if (f->count + 1 == SERIES_LIMIT) log_warn("metric %s has %d series: there will be no more", f->name, SERIES_LIMIT);
    return make_series(f, labels, read, with);
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

/* ---- floats */

static double real_of(int64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int64_t bits_of(double value) {
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void add_real_to(cell *cells, int worker, double n) {
    if ((unsigned)worker < figures.workers) {
        cell *mine = cells + (size_t)worker * PAGE_SLOTS;
        double sum = real_of(atomic_load_explicit(mine, memory_order_relaxed)) + n;
        atomic_store_explicit(mine, bits_of(sum), memory_order_relaxed);
        return;
    }
    cell *ours = cells + (size_t)figures.workers * PAGE_SLOTS;
    int64_t bits = atomic_load_explicit(ours, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(ours, &bits, bits_of(real_of(bits) + n), memory_order_relaxed,
                                                  memory_order_relaxed)) {}
}

void metric_add_real(struct metric *m, int worker, double n) {
    if (m) add_real_to(m->cells, m->kind == METRIC_GAUGE ? -1 : worker, n);
}

void metric_set_real(struct metric *m, double value) {
    if (!m) return;
    atomic_store_explicit(m->cells + (size_t)figures.workers * PAGE_SLOTS, bits_of(value), memory_order_relaxed);
}

void metric_observe_real(struct metric *m, int worker, double value) {
    if (!m || !m->declared) return;
    const struct metric_family *f = m->declared;
    unsigned i = 0;
    while (i < f->bound_count && f->bounds[i] < value) i++;
    add_to(m->cells + i, worker, 1);
    add_real_to(m->cells + f->bound_count + 1, worker, value);
}

static double sum_real(const cell *cells) {
    double sum = 0;
    for (unsigned w = 0; w <= figures.workers; w++)
        sum += real_of(atomic_load_explicit(cells + (size_t)w * PAGE_SLOTS, memory_order_relaxed));
    return sum;
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
    size_t size = c ? measure_rune(rest->p, rest->n) : 0;
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

/* ---- what scripts declare */

void metric_default_bounds(struct metric_declaration *d) {
    memcpy(d->bounds, bounds, sizeof bounds);
    d->bound_count = METRIC_BUCKETS;
}

static bool is_name(struct slice s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i > 0 && c >= '0' && c <= '9')) return false;
    }
    return s.n > 0;
}

bool metric_name_valid(struct slice name) { return is_name(name) && !slice_starts_with(name, SLICE("moongate_")); }

bool metric_label_valid(struct slice name) {
    return is_name(name) && !slice_starts_with(name, SLICE("__")) && !slice_equal(name, SLICE("le"));
}

static struct metric_family *make_declared(const struct metric_declaration *d) {
    struct metric_family *f = must_calloc(1, sizeof *f);
    f->family.name = must_strdup(d->name);
    f->family.help = must_strdup(d->help);
    f->family.kind = d->kind;
    f->family.declared = f;
    f->label_count = d->label_count;
    for (unsigned i = 0; i < d->label_count; i++) f->labels[i] = must_strdup(d->labels[i]);
    f->bound_count = d->bound_count;
    memcpy(f->bounds, d->bounds, d->bound_count * sizeof *d->bounds);
    f->limit = d->limit;
    f->next = figures.declared;
    figures.declared = f;
    figures.declared_count++;
    map_set(&figures.families, slice_of(f->family.name), f);
    return f;
}

/* NULL: the declaration is of this family. */
static const char *find_difference(const struct metric_family *f, const struct metric_declaration *d) {
    if (f->family.kind != d->kind) return "it is of another kind";
    if (f->label_count != d->label_count) return "it has other labels";
    for (unsigned i = 0; i < d->label_count; i++)
        if (strcmp(f->labels[i], d->labels[i]) != 0) return "it has other labels";
    if (f->bound_count != d->bound_count) return "it has other buckets";
    for (unsigned i = 0; i < d->bound_count; i++)
        if (f->bounds[i] != d->bounds[i]) return "it has other buckets";
    return NULL;
}

static struct metric_family *declare(const struct metric_declaration *d, const char **conflict) {
    const struct family *known = map_get(&figures.families, slice_of(d->name));
    if (known && !known->declared) {
        *conflict = "it is one of Moongate's own";
        return NULL;
    }
    const char *difference = known ? find_difference(known->declared, d) : NULL;
    if (known && !difference) return known->declared;
    *conflict = known && known->count                       ? difference
                : figures.declared_count >= METRIC_FAMILIES ? "there are too many metrics"
                                                            : NULL;
    return *conflict ? NULL : make_declared(d);
}

struct metric_family *metric_declare(const struct metric_declaration *d, const char **conflict) {
    *conflict = NULL;
    if (!figures.open) return NULL;
    pthread_mutex_lock(&figures.lock);
    struct metric_family *f = declare(d, conflict);
    pthread_mutex_unlock(&figures.lock);
    return f;
}

enum { LABELS_TEXT = METRIC_LABELS * (2 * METRIC_VALUE_MAX + 80) };

static struct slice write_values(char to[LABELS_TEXT], const struct metric_family *f, const struct slice *values) {
    struct label labels[METRIC_LABELS];
    for (unsigned i = 0; i < f->label_count; i++) {
        struct slice value = values ? values[i] : SLICE("other");
        if (value.n > METRIC_VALUE_MAX) value.n = METRIC_VALUE_MAX;
        labels[i] = (struct label){ f->labels[i], value };
    }
    return metric_labels(to, LABELS_TEXT, labels, f->label_count);
}

struct metric *metric_series(struct metric_family *f, const struct slice *values, bool *other) {
    char text[LABELS_TEXT];
    struct slice labels = write_values(text, f, values);
    bool full = false;
    pthread_mutex_lock(&figures.lock);
    struct metric *m = map_get(&f->family.by_labels, labels);
    if (!m && f->family.count < f->limit) m = make_series(&f->family, labels, NULL, NULL);
    if (!m) {
        full = !f->other;
        struct slice others = write_values(text, f, NULL);
        if (full) f->other = map_get(&f->family.by_labels, others);
        if (!f->other) f->other = make_series(&f->family, others, NULL, NULL);
        m = f->other;
    }
    *other = m == f->other;
    pthread_mutex_unlock(&figures.lock);
    if (full)
        log_warn("metric %s has %zu series: what would be more is counted as \"other\"", f->family.name, f->limit);
    return m;
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

/* With as few digits as read back the same. */
static void print_real(char to[32], double value) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(to, 32, "%.*g", digits, value);
        if (strtod(to, NULL) == value) break;
    }
}

/* Counts are added up on the way, so that the buckets agree with the count even while workers go on. */
static void write_histogram(struct buffer *out, const char *name, const struct metric *m) {
    const double *of = m->declared ? m->declared->bounds : bounds;
    unsigned inf = m->declared ? m->declared->bound_count : SLOT_INF;
    int64_t count = 0;
    char value[32];
    for (unsigned i = 0; i <= inf; i++) {
        char le[32] = "+Inf";
        if (i < inf) print_real(le, of[i]);
        count += sum_rows(m->cells + i);
        buffer_printf(out, "%s_bucket{%.*s%sle=\"%s\"} %lld\n", name, FMT(m->labels), m->labels.n ? "," : "", le,
                      (long long)count);
    }
    if (m->declared) print_real(value, sum_real(m->cells + inf + 1));
    else snprintf(value, sizeof value, "%.9g", (double)sum_rows(m->cells + SLOT_SUM) / 1e9);
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
    if (m->declared) print_real(value, sum_real(m->cells));
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
