/* Plain data between Lua and C: what a config file returned, an on_unload snapshot. A tree that owns
 * all of its strings. Functions appear only as a mark with the place of their definition. */
#pragma once

#include "base/slice.h"

enum value_kind {
    VALUE_NIL,
    VALUE_BOOLEAN,
    VALUE_INTEGER,
    VALUE_NUMBER,
    VALUE_STRING,
    VALUE_TABLE,
    VALUE_FUNCTION,
    VALUE_OTHER
};

struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string; /* NUL follows, for convenience */
        struct {             /* pairs: first the sequence 1..n in order, then the rest sorted by key */
            struct value_pair *list;
            size_t count, sequence;
        } table;
        struct {
            char *file;
            int line;
        } function;
        const char *other; /* a Lua type's name, or a handle's ("moongate.backend"), static or owned by nobody */
    };
};

struct value_pair {
    struct value key, value;
};

const char *value_kind_name(const struct value *); /* "a table", "a string", … for error sentences */
const struct value *value_get(const struct value *table, const char *key); /* NULL: absent */
const struct value *value_at(const struct value *table, size_t index);     /* 1-based; NULL: absent */
bool value_equal(const struct value *, const struct value *);              /* functions are equal to functions */
/* The path of the first place where two that are not equal differ: "sites[1].hosts[2]", "" for the whole. In `to`. */
void value_difference(const struct value *, const struct value *, char *to, size_t room);
struct value value_copy(const struct value *);
struct value value_string(struct slice);                                   /* copies */
void value_add(struct value *table, struct value key, struct value value); /* takes both over */
void value_fini(struct value *);
