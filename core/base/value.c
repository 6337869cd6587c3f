/* Plain data as a tree. Tables keep their pairs in one array: the sequence first, in order, then the rest sorted by
 * key, so that two runs of one config compare pair by pair whatever order Lua gave them in, and a lookup is a
 * binary search. Adding in key order, or to the sequence, is an append; else the pairs behind are moved. */
#include "base/value.h"

#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

const char *value_kind_name(const struct value *value) {
    switch (value->kind) {
    case VALUE_NIL: return "nothing";
    case VALUE_BOOLEAN: return "a boolean";
    case VALUE_INTEGER: return "an integer";
    case VALUE_NUMBER: return "a number";
    case VALUE_STRING: return "a string";
    case VALUE_TABLE: return "a table";
    case VALUE_FUNCTION: return "a function";
    case VALUE_OTHER: break;
    }
    return value->other ? value->other : "something else";
}

static int compare_strings(struct slice a, struct slice b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.p, b.p, n) : 0;
    if (order) return order;
    return (a.n > b.n) - (a.n < b.n);
}

static double as_number(const struct value *v) { return v->kind == VALUE_INTEGER ? (double)v->integer : v->number; }

/* Numbers before strings before booleans. Other kinds do not come as keys; they sort by kind only. */
static int rank_of(const struct value *v) {
    switch (v->kind) {
    case VALUE_INTEGER:
    case VALUE_NUMBER: return 0;
    case VALUE_STRING: return 1;
    case VALUE_BOOLEAN: return 2;
    default: return 3 + (int)v->kind;
    }
}

static int compare_keys(const struct value *a, const struct value *b) {
    int ranks = rank_of(a) - rank_of(b);
    if (ranks) return ranks;
    if (a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER)
        return (a->integer > b->integer) - (a->integer < b->integer);
    if (rank_of(a) == 0) return (as_number(a) > as_number(b)) - (as_number(a) < as_number(b));
    if (a->kind == VALUE_STRING) return compare_strings(a->string, b->string);
    if (a->kind == VALUE_BOOLEAN) return (int)a->boolean - (int)b->boolean;
    return 0;
}

/* Where in the sorted rest the key stands (`*found`) or belongs. */
static size_t search_rest(const struct value *table, const struct value *key, bool *found) {
    size_t low = table->table.sequence, high = table->table.count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_keys(&table->table.list[middle].key, key);
        if (order == 0) *found = true;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

const struct value *value_get(const struct value *table, const char *key) {
    if (!table || table->kind != VALUE_TABLE) return NULL;
    struct value wanted = { .kind = VALUE_STRING, .string = slice_of(key) };
    bool found;
    size_t i = search_rest(table, &wanted, &found);
    return found ? &table->table.list[i].value : NULL;
}

const struct value *value_at(const struct value *table, size_t index) {
    if (!table || table->kind != VALUE_TABLE || index == 0 || index > table->table.sequence) return NULL;
    return &table->table.list[index - 1].value;
}

/* The array has no field for its room: it is always the next power of two. */
static void insert_pair(struct value *table, size_t at, struct value_pair pair) {
    size_t count = table->table.count;
    if ((count & (count - 1)) == 0) {
        size_t room = count ? count * 2 : 1;
        table->table.list = must_realloc(table->table.list, room * sizeof pair);
    }
    memmove(&table->table.list[at + 1], &table->table.list[at], (count - at) * sizeof pair);
    table->table.list[at] = pair;
    table->table.count++;
}

/* The rest begins with the smallest numbers: those that now continue the sequence become part of it. */
static void extend_sequence(struct value *table) {
    bool found;
    for (;;) {
        struct value next = { .kind = VALUE_INTEGER, .integer = (int64_t)table->table.sequence + 1 };
        size_t i = search_rest(table, &next, &found);
        if (!found || table->table.list[i].key.kind != VALUE_INTEGER) return;
        struct value_pair pair = table->table.list[i];
        size_t at = table->table.sequence;
        memmove(&table->table.list[at + 1], &table->table.list[at], (i - at) * sizeof pair);
        table->table.list[at] = pair;
        table->table.sequence++;
    }
}

static void replace_pair(struct value_pair *pair, struct value key, struct value value) {
    value_fini(&key);
    value_fini(&pair->value);
    pair->value = value;
}

void value_add(struct value *table, struct value key, struct value value) {
    must(table->kind == VALUE_TABLE);
    size_t sequence = table->table.sequence;
    struct value_pair pair = { key, value };
    if (key.kind == VALUE_INTEGER && key.integer >= 1 && (uint64_t)key.integer <= sequence) {
        replace_pair(&table->table.list[key.integer - 1], key, value);
        return;
    }
    if (key.kind == VALUE_INTEGER && key.integer == (int64_t)sequence + 1) {
        insert_pair(table, sequence, pair);
        table->table.sequence++;
        if (table->table.count > table->table.sequence) extend_sequence(table);
        return;
    }
    bool found;
    size_t at = search_rest(table, &key, &found);
    if (found) replace_pair(&table->table.list[at], key, value);
    else insert_pair(table, at, pair);
}

static bool equal_tables(const struct value *a, const struct value *b) {
    if (a->table.count != b->table.count || a->table.sequence != b->table.sequence) return false;
    for (size_t i = 0; i < a->table.count; i++) {
        const struct value_pair *x = &a->table.list[i], *y = &b->table.list[i];
        if (!value_equal(&x->key, &y->key) || !value_equal(&x->value, &y->value)) return false;
    }
    return true;
}

bool value_equal(const struct value *a, const struct value *b) {
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case VALUE_NIL:
    case VALUE_FUNCTION: return true;
    case VALUE_BOOLEAN: return a->boolean == b->boolean;
    case VALUE_INTEGER: return a->integer == b->integer;
    case VALUE_NUMBER: return a->number == b->number || (a->number != a->number && b->number != b->number);
    case VALUE_STRING: return slice_equal(a->string, b->string);
    case VALUE_TABLE: return equal_tables(a, b);
    case VALUE_OTHER: break;
    }
    return a->other == b->other || (a->other && b->other && strcmp(a->other, b->other) == 0);
}

/* "[2]", ".name", or "name" at the front; how long it is. */
static size_t write_step(const struct value *key, bool first, char *to, size_t room) {
    int n = 0;
    if (key->kind == VALUE_INTEGER) n = snprintf(to, room, "[%lld]", (long long)key->integer);
    else if (key->kind == VALUE_STRING) n = snprintf(to, room, "%s%.*s", first ? "" : ".", FMT(key->string));
    return (size_t)n < room ? (size_t)n : room - 1;
}

void value_difference(const struct value *a, const struct value *b, char *to, size_t room) {
    size_t at = 0;
    *to = 0;
    while (a->kind == VALUE_TABLE && b->kind == VALUE_TABLE) {
        size_t i = 0, n = a->table.count < b->table.count ? a->table.count : b->table.count;
        const struct value_pair *x = a->table.list, *y = b->table.list;
        while (i < n && value_equal(&x[i].key, &y[i].key) && value_equal(&x[i].value, &y[i].value)) i++;
        if (i == n && a->table.count == b->table.count) return;
        const struct value_pair *other = i < a->table.count ? &x[i] : &y[i];
        at += write_step(&other->key, at == 0, to + at, room - at);
        if (i == n || !value_equal(&x[i].key, &y[i].key)) return;
        a = &x[i].value;
        b = &y[i].value;
    }
}

struct value value_string(struct slice s) {
    char *p = must_malloc(s.n + 1);
    if (s.n) memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return (struct value){ .kind = VALUE_STRING, .string = { p, s.n } };
}

struct value value_copy(const struct value *value) {
    struct value copy = *value;
    if (value->kind == VALUE_STRING) return value_string(value->string);
    if (value->kind == VALUE_FUNCTION && value->function.file) copy.function.file = must_strdup(value->function.file);
    if (value->kind != VALUE_TABLE) return copy;
    copy.table.list = NULL;
    copy.table.count = 0;
    for (size_t i = 0; i < value->table.count; i++) {
        const struct value_pair *pair = &value->table.list[i];
        insert_pair(&copy, i, (struct value_pair){ value_copy(&pair->key), value_copy(&pair->value) });
    }
    return copy;
}

void value_fini(struct value *value) {
    if (!value) return;
    if (value->kind == VALUE_STRING) free((char *)(uintptr_t)value->string.p);
    if (value->kind == VALUE_FUNCTION) free(value->function.file);
    if (value->kind == VALUE_TABLE) {
        for (size_t i = 0; i < value->table.count; i++) {
            value_fini(&value->table.list[i].key);
            value_fini(&value->table.list[i].value);
        }
        free(value->table.list);
    }
    *value = (struct value){ .kind = VALUE_NIL };
}
