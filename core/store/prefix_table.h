/* Sets of IP prefixes with a value each: the longest prefix that has an address wins. Immutable once made, and shared
 * by all who make the same: tables are found by a digest of their entries, and refcounted. From any thread.
 *
 * Addresses have 16 bytes, IPv4 mapped into ::ffff:0:0/96. A prefix shorter than that (such as ::/0) is one of IPv6 and
 * has no IPv4 address. */
#pragma once

#include "base/slice.h"

enum { PREFIX_VALUE_MAX = 0x7fffffff };

struct prefix {
    uint8_t bytes[16];
    uint8_t bits; /* of 128 */
    uint8_t zero[3];
    uint32_t value; /* 1 … PREFIX_VALUE_MAX */
};

/* Clears the bits behind each prefix and puts them in the order of tables: by address, the shorter first. */
void prefixes_sort(struct prefix *, size_t count);

struct prefix_table;

/* Sorts `list`, which stays the caller's. `texts` (p NULL: none) are copied: what values stand for, with
 * prefix_table_text. NULL if one prefix has two values; then `*conflict` is one of the two in `list`. */
struct prefix_table *prefix_table_open(struct prefix *list, size_t count, struct slice texts,
                                       const struct prefix **conflict);
struct prefix_table *prefix_table_ref(struct prefix_table *);
void prefix_table_unref(struct prefix_table *); /* NULL is ignored */

uint32_t prefix_table_get(const struct prefix_table *, const uint8_t address[16]); /* 0: none has it */
/* For tables whose values are offsets in `texts`, plus one: what stands there, up to the NUL. */
const char *prefix_table_text(const struct prefix_table *, uint32_t value);
bool prefix_table_has_texts(const struct prefix_table *);
size_t prefix_table_count(const struct prefix_table *); /* different prefixes */
size_t prefix_table_bytes(const struct prefix_table *);
size_t prefix_tables(void); /* how many there are: for specs */
