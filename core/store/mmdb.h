/* MaxMind databases: found by the identity of their files, refcounted, shared by workers and generations. A file is
 * copied into sealed memory once, so that one who overwrites it in place cannot pull it from under a reader. From any
 * thread. */
#pragma once

#include "base/slice.h"

struct mmdb;

/* `fd`: a regular file of at most 1 GiB, which stays the caller's. NULL: `*why` (static) says why not. */
struct mmdb *mmdb_open(int fd, const char **why);
struct mmdb *mmdb_ref(struct mmdb *);
void mmdb_unref(struct mmdb *); /* NULL is ignored */
size_t mmdbs(void);             /* how many are open: for specs */

enum mmdb_kind { MMDB_MAP, MMDB_LIST, MMDB_TEXT, MMDB_BYTES, MMDB_INTEGER, MMDB_NUMBER, MMDB_BOOLEAN };

struct mmdb_value {
    enum mmdb_kind kind;
    union {
        struct slice bytes; /* text and bytes; they lie in the database */
        uint32_t count;     /* a map: so many times a text and a value follow; a list: so many values */
        int64_t integer;
        double number;
        bool boolean;
    };
};

/* Values being read, each followed by those within it. Zeroed is empty; it must not outlive the database. */
struct mmdb_cursor {
    void *list, *at;         /* the library's */
    struct mmdb_value value; /* list NULL: the only one */
    bool given;
};

enum mmdb_result { MMDB_FOUND, MMDB_ABSENT, MMDB_CORRUPT };

/* Begins to read what the database has of the address (16 bytes, IPv4 mapped): all of it, or what lies at `path` (ended
 * by NULL; an index of a list counts from 0, from -1 at its end). */
enum mmdb_result mmdb_find(const struct mmdb *, const uint8_t address[16], const char *const *path,
                           struct mmdb_cursor *);
bool mmdb_next(struct mmdb_cursor *, struct mmdb_value *); /* false: no more, or one that is of no known kind */
void mmdb_cursor_fini(struct mmdb_cursor *);
