/* MaxMind databases (MMDB): found by the identity of their files, refcounted, shared by workers and generations. A file
 * is copied into sealed memory once, so that one who overwrites it in place cannot pull it from under a reader. From
 * any thread. */
#pragma once

#include "base/slice.h"

struct mmdb;

/* `fd`: a regular file, which stays the caller's. NULL: `why` (static) says why not. */
struct mmdb *mmdb_open(int fd, const char **why);
struct mmdb *mmdb_ref(struct mmdb *);
void mmdb_unref(struct mmdb *); /* NULL is ignored */
size_t mmdbs(void);             /* how many are open: for specs */

enum mmdb_kind {
    MMDB_MAP,   /* `count` pairs follow: a text each, and a value */
    MMDB_LIST,  /* `count` values follow */
    MMDB_TEXT,
    MMDB_BYTES, /* also a number of 128 bits: 16 bytes, big-endian */
    MMDB_INTEGER,
    MMDB_NUMBER,
    MMDB_BOOLEAN,
};

struct mmdb_value {
    enum mmdb_kind kind;
    union {
        struct slice bytes; /* in the database: as long as it is referenced */
        uint32_t count;
        int64_t integer;
        double number;
        bool boolean;
    };
};

enum mmdb_result { MMDB_FOUND, MMDB_ABSENT, MMDB_CORRUPT };

/* What the database has of the address (16 bytes, IPv4 mapped): all of it, or what lies at `path` (ended by NULL; an
 * index counts from 0). A visit gives the value and all within it, in order, until it returns false. */
enum mmdb_result mmdb_visit(struct mmdb *, const uint8_t address[16], const char *const *path,
                            bool (*visit)(void *with, const struct mmdb_value *), void *with);
