/* Counters, gauges and histograms, written as Prometheus text. Found once by name and labels, kept as pointers,
 * added to without a lock: each worker has its own cell, readers add them up. They live as long as the process. */
#pragma once

#include "base/buffer.h"
#include "base/slice.h"

#include <stdatomic.h>

enum { METRIC_WORKERS = 64, METRIC_BUCKETS = 16 };
enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric; /* one time series: a family with one set of labels */

/* To be called before threads start, once. `workers` <= METRIC_WORKERS. */
void metrics_open(unsigned workers);
void metrics_close(void);

/* Finds or makes. `labels` is the text between the braces, made with metric_labels, "" for none; takes a
 * lock: keep the pointer. `help` is used the first time. NULL when `limit` series of that family exist
 * (10,000: labels a stranger can choose must not grow without end); every function below takes NULL. */
struct metric *metric_get(enum metric_kind, const char *family, const char *help, struct slice labels);
/* The same for a counter or gauge whose value is asked for when it is wanted, by any thread, without a lock of ours;
 * nothing is added to it. `with` lives as long as the metrics. */
struct metric *metric_get_with(enum metric_kind, const char *family, const char *help, struct slice labels,
                               int64_t (*read)(const void *), const void *with);
/* Escapes and writes `name="value"` pairs into `to`, without a NUL. What does not fit is cut: the end of a value, then
 * whole pairs. NUL and bytes that are no UTF-8 become "?". */
struct label {
    const char *name;
    struct slice value;
};
struct slice metric_labels(char *to, size_t size, const struct label *labels, size_t count);

/* `worker`: the caller's number; only that thread writes the cell. Any other number (-1) is for threads that are no
 * workers: they share a cell, at the price of a locked instruction. */
void metric_add(struct metric *, int worker, int64_t n);          /* counters and gauges */
void metric_observe(struct metric *, int worker, double seconds); /* histograms: buckets 100 us … 60 s */
/* The same value `times` times (at most a thousand). */
void metric_observe_times(struct metric *, int worker, double seconds, int64_t times);
int64_t metric_value(const struct metric *); /* sum over workers */

/* ---- Families that scripts declare: their values are floats, and their series have one value for each label. */

struct metric_family;
enum { METRIC_LABELS = 8, METRIC_BOUNDS = 64, METRIC_VALUE_MAX = 128, METRIC_FAMILIES = 200 };

struct metric_declaration {
    enum metric_kind kind;
    const char *name, *help; /* valid: metric_name_valid */
    const char *labels[METRIC_LABELS];
    unsigned label_count;
    double bounds[METRIC_BOUNDS]; /* of a histogram's buckets, ascending */
    unsigned bound_count;
    size_t limit; /* of series */
};

/* The bounds of the core's own histograms, for who has none. */
void metric_default_bounds(struct metric_declaration *);
bool metric_name_valid(struct slice name);  /* Prometheus', without ":" and "moongate_" at the front */
bool metric_label_valid(struct slice name); /* neither "__" at the front nor "le" */

/* Finds or makes. A family nobody has added to may be declared anew, otherwise; one that is in use stays as it is:
 * NULL, with `*conflict` saying what differs. NULL with `*conflict` NULL: there are no metrics in this process. */
struct metric_family *metric_declare(const struct metric_declaration *, const char **conflict);
/* The series of these values, one for each label, cut to METRIC_VALUE_MAX bytes. At the family's limit it is the one
 * whose values are all "other"; then `*other` is set. Takes a lock: keep the pointer. */
struct metric *metric_series(struct metric_family *, const struct slice *values, bool *other);
void metric_add_real(struct metric *, int worker, double n); /* counters and gauges */
void metric_set_real(struct metric *, double value);         /* gauges: one for all workers, the last one counts */
void metric_observe_real(struct metric *, int worker, double value);

/* A gauge whose value is asked for when written. */
void metrics_gauge_with(const char *family, const char *help, double (*read)(void *), void *with);
/* All of it in Prometheus' text format 0.0.4, families sorted by name. From any thread. */
void metrics_write(struct buffer *out);
