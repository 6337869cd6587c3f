/* Plain data as bytes: what shared dictionaries keep tables as, and frozen maps all their values. Written by whoever
 * has the data (Lua tables, JSON), read back value by value. The bytes stay within the process: they have no version,
 * and a reader trusts them.
 *
 * A value is written by one call; a table by packing_table and then its pairs, key before value, as many as were
 * announced. Two tables with the same pairs in the same order have the same bytes. */
#pragma once

#include "base/value.h"

/* ---- writing */

/* Zeroed but for `limit` is empty and valid. Beyond the limit, or without memory, `refused` is set and nothing more is
 * written: looked at once, at the end. */
struct packing {
    char *bytes;
    size_t size, room;
    size_t limit;
    bool refused;
};

void packing_fini(struct packing *);
void packing_boolean(struct packing *, bool);
void packing_integer(struct packing *, int64_t);
void packing_number(struct packing *, double);
void packing_string(struct packing *, struct slice);
/* `sequence`: how many of the pairs are 1..n, a hint for who makes a table of it again. */
void packing_table(struct packing *, size_t pairs, size_t sequence);
void packing_raw(struct packing *, struct slice packed); /* what is packed already */
/* The whole of a tree of plain data: no nil, functions or others in it. */
void packing_value(struct packing *, const struct value *);

/* ---- reading */

enum packed_kind { PACKED_BOOLEAN, PACKED_INTEGER, PACKED_NUMBER, PACKED_STRING, PACKED_TABLE };

struct packed {
    enum packed_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string; /* lies in the bytes */
        struct {
            size_t pairs, sequence;
        } table; /* its pairs follow */
    };
};

/* Reads the value at the front; what stands behind it. */
struct slice packed_read(struct slice from, struct packed *out);
/* What stands behind the value at the front, tables with all that is in them. */
struct slice packed_skip(struct slice from);
/* The same for a length alone, which records of other make begin with. */
struct slice packed_read_size(struct slice from, size_t *out);
void packing_size(struct packing *, size_t);
