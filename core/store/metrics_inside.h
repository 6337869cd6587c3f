/* What the files of the metrics share; nobody else includes it.
 *
 *   metrics.c            finding series, adding to them
 *   metrics_labels.c     the text between the braces
 *   metrics_declared.c   families that scripts declare
 *   metrics_write.c      all of it as text */
#pragma once

#include "base/map.h"
#include "store/metrics.h"

#include <pthread.h>

enum { SLOT_INF = METRIC_BUCKETS, SLOT_SUM, HISTOGRAM_SLOTS };

extern const double metric_bounds[METRIC_BUCKETS]; /* of the core's own histograms */

typedef _Atomic int64_t cell;

struct page;

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

struct figures {
    pthread_mutex_t lock; /* of finding and of the lists' heads */
    bool open;
    unsigned workers, used; /* slots of the first page */
    struct page *pages;
    struct map families;
    struct metric_family *declared; /* all, those that were declared anew included */
    unsigned declared_count;
};

extern struct figures figures;

/* With the lock held: a series that is not there yet. `read` NULL: it has cells. */
struct metric *family_add_series(struct family *, struct slice labels, int64_t (*read)(const void *), const void *with);
/* The sum of one slot over all rows. */
int64_t cells_sum(const cell *);
double cells_sum_real(const cell *);
