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
 * Series are never removed and never move. The lock guards the finding only. Labels come partly from strangers, so a
 * family stops growing at a limit: what would be its next series is NULL, and adding to NULL is allowed and does
 * nothing. */
#include "store/metrics_inside.h"

#include "base/log.h"
#include "base/must.h"

#include <stdlib.h>

enum { PAGE_SLOTS = 512, SERIES_LIMIT = 10000, LINE = 64 };

const double metric_bounds[METRIC_BUCKETS] = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                               0.05,   0.1,     0.25,   0.5,   1,      2.5,   10,   60 };

struct page {
    struct page *next;
    cell *rows; /* (workers + 1) rows of PAGE_SLOTS */
};

struct figures figures = { .lock = PTHREAD_MUTEX_INITIALIZER };

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

struct metric *family_add_series(struct family *f, struct slice labels, int64_t (*read)(const void *),
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
    return family_add_series(f, labels, read, with);
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
        if (metric_bounds[low + half - 1] < seconds) low += half;
    return low + (metric_bounds[low] < seconds);
}

void metric_observe(struct metric *m, int worker, double seconds) { metric_observe_times(m, worker, seconds, 1); }

void metric_observe_times(struct metric *m, int worker, double seconds, int64_t times) {
    if (!m || m->kind != METRIC_HISTOGRAM) return;
    if (!(seconds > 0)) seconds = 0;
    if (seconds > 1e9) seconds = 1e9;
    add_to(m->cells + find_bucket(seconds), worker, times);
    add_to(m->cells + SLOT_SUM, worker, (int64_t)(seconds * 1e9) * times);
}

int64_t cells_sum(const cell *cells) {
    int64_t sum = 0;
    for (unsigned w = 0; w <= figures.workers; w++)
        sum += atomic_load_explicit(cells + (size_t)w * PAGE_SLOTS, memory_order_relaxed);
    return sum;
}

int64_t metric_value(const struct metric *m) {
    if (!m) return 0;
    if (m->kind != METRIC_HISTOGRAM) return m->read ? m->read(m->with) : cells_sum(m->cells);
    int64_t count = 0;
    for (unsigned i = 0; i <= SLOT_INF; i++) count += cells_sum(m->cells + i);
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

double cells_sum_real(const cell *cells) {
    double sum = 0;
    for (unsigned w = 0; w <= figures.workers; w++)
        sum += real_of(atomic_load_explicit(cells + (size_t)w * PAGE_SLOTS, memory_order_relaxed));
    return sum;
}
