/* The answer section of a DNS message (RFC 1035 4.1), as records of one kind. No I/O: bytes in, records out. Names are
 * expanded by c-ares, which follows their pointers safely. */
#pragma once

#include "base/slice.h"

#include <stdatomic.h>

enum record_kind {
    RECORD_ADDRESS, /* A and AAAA together: not read here */
    RECORD_SRV,
    RECORD_TXT,
    RECORD_CNAME,
    RECORD_MX,
    RECORD_PTR,
    RECORD_KINDS
};

enum { RECORDS_MOST = 64 };

struct record {
    uint16_t priority, weight, port; /* of SRV; MX has a priority */
    struct slice text;               /* the name it leads to, without a dot at its end; what a TXT says */
};

/* Immutable once made, shared by threads. SRV and MX stand in the order in which they are to be used: by priority,
 * then the greater weight first. */
struct records {
    atomic_uint refs;
    uint32_t ttl; /* seconds, the least of all */
    unsigned count;
    struct record list[RECORDS_MOST];
    char bytes[]; /* of the texts */
};

/* The records of that kind, perhaps none, at most RECORDS_MOST; NULL: the message is malformed. */
struct records *dns_answer_read(const unsigned char *message, size_t size, enum record_kind);
struct records *records_ref(struct records *);
void records_unref(struct records *); /* NULL is ignored */
/* The number of the kind's type, as questions have it. */
int record_type(enum record_kind);
