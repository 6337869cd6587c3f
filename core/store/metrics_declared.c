/* Families that scripts declare: named, labelled and bounded by them.
 *
 * A policy is loaded again and again, so what is declared in the same way is the same family. What is declared
 * otherwise takes its name over if nobody has added to it yet; the former one stays, since old generations may hold
 * it. */
#include "store/metrics_inside.h"

#include "base/log.h"
#include "base/must.h"

void metric_default_bounds(struct metric_declaration *d) {
    memcpy(d->bounds, metric_bounds, sizeof metric_bounds);
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
    if (!m && f->family.count < f->limit) m = family_add_series(&f->family, labels, NULL, NULL);
    if (!m) {
        full = !f->other;
        struct slice others = write_values(text, f, NULL);
        if (full) f->other = map_get(&f->family.by_labels, others);
        if (!f->other) f->other = family_add_series(&f->family, others, NULL, NULL);
        m = f->other;
    }
    *other = m == f->other;
    pthread_mutex_unlock(&figures.lock);
    if (full)
        log_warn("metric %s has %zu series: what would be more is counted as \"other\"", f->family.name, f->limit);
    return m;
}
