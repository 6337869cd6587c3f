/* Reading DNS answers. c-ares has a parser for every type, but in this version most of them drop the TTL, without which
 * nothing can be kept for the right time; so the few fixed fields are read here, and what is hard, compressed names, by
 * ares_expand_name. Every read is preceded by a look at what is left. */
#include "net/dns_answer.h"

#include "base/must.h"
#include "base/refs.h"

#include <ares.h>
#include <stdlib.h>

enum { HEAD_BYTES = 12, QUESTION_BYTES = 4, RECORD_BYTES = 10, NAME_MOST = 1024, CLASS_IN = 1 };

/* A message under way. */
struct reading {
    const unsigned char *message, *at, *end;
    struct records *records;
    size_t used, room; /* of records->bytes */
};

int record_type(enum record_kind kind) {
    static const int types[RECORD_KINDS] = {
        [RECORD_SRV] = 33, [RECORD_TXT] = 16, [RECORD_CNAME] = 5, [RECORD_MX] = 15, [RECORD_PTR] = 12
    };
    return types[kind];
}

static uint16_t peek16(const unsigned char *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t peek32(const unsigned char *p) { return (uint32_t)peek16(p) << 16 | peek16(p + 2); }

static bool has(const struct reading *r, size_t n) { return (size_t)(r->end - r->at) >= n; }

/* Expands the name at `at`, which lies before `end`; the bytes it takes there, 0: malformed. */
static size_t expand(const struct reading *r, const unsigned char *at, char **name) {
    long taken = 0;
    *name = NULL;
    if (at >= r->end) return 0;
    if (ares_expand_name(at, r->message, (int)(r->end - r->message), name, &taken) != ARES_SUCCESS) return 0;
    if (taken > 0 && taken <= r->end - at) return (size_t)taken;
    ares_free_string(*name);
    *name = NULL;
    return 0;
}

static bool skip_name(struct reading *r) {
    char *name;
    size_t n = expand(r, r->at, &name);
    if (n == 0) return false;
    ares_free_string(name);
    r->at += n;
    return true;
}

static bool skip_questions(struct reading *r, unsigned count) {
    for (; count; count--) {
        if (!skip_name(r) || !has(r, QUESTION_BYTES)) return false;
        r->at += QUESTION_BYTES;
    }
    return true;
}

/* Bytes that belong to the text of record `to` from now on. */
static bool add_text(struct reading *r, struct record *to, const void *bytes, size_t n) {
    if (n > r->room - r->used) return false;
    memcpy(r->records->bytes + r->used, bytes, n);
    if (!to->text.p) to->text.p = r->records->bytes + r->used;
    to->text.n += n;
    r->used += n;
    return true;
}

static bool read_name(struct reading *r, struct record *to, const unsigned char *at) {
    char *name;
    if (expand(r, at, &name) == 0) return false;
    size_t n = strlen(name);
    bool fits = n <= NAME_MOST && add_text(r, to, name, n);
    ares_free_string(name);
    return fits;
}

/* A TXT record is a row of strings with lengths; what they say is one text (RFC 7208 3.3 reads them so, too). */
static bool read_strings(struct reading *r, struct record *to, const unsigned char *at, size_t n) {
    while (n) {
        size_t length = *at;
        if (length + 1 > n || !add_text(r, to, at + 1, length)) return false;
        at += length + 1;
        n -= length + 1;
    }
    return true;
}

/* The `n` bytes of one record at r->at. */
static bool read_data(struct reading *r, enum record_kind kind, struct record *to, size_t n) {
    const unsigned char *p = r->at;
    switch (kind) {
    case RECORD_SRV:
        if (n < 7) return false;
        *to = (struct record){ .priority = peek16(p), .weight = peek16(p + 2), .port = peek16(p + 4) };
        return read_name(r, to, p + 6);
    case RECORD_MX:
        if (n < 3) return false;
        to->priority = peek16(p);
        return read_name(r, to, p + 2);
    case RECORD_TXT: return read_strings(r, to, p, n);
    default: return read_name(r, to, p);
    }
}

static bool read_record(struct reading *r, enum record_kind kind) {
    struct records *all = r->records;
    if (!skip_name(r) || !has(r, RECORD_BYTES)) return false;
    unsigned type = peek16(r->at), class = peek16(r->at + 2);
    uint32_t ttl = peek32(r->at + 4);
    size_t n = peek16(r->at + 8);
    r->at += RECORD_BYTES;
    if (!has(r, n)) return false;
    if (ttl < all->ttl) all->ttl = ttl; /* aliases on the way count */
    bool wanted = type == (unsigned)record_type(kind) && class == CLASS_IN && all->count < RECORDS_MOST;
    if (wanted && !read_data(r, kind, &all->list[all->count++], n)) return false;
    r->at += n;
    return true;
}

static bool read_message(struct reading *r, enum record_kind kind) {
    unsigned questions = peek16(r->at + 4), answers = peek16(r->at + 6);
    r->at += HEAD_BYTES;
    if (!skip_questions(r, questions)) return false;
    for (; answers; answers--)
        if (!read_record(r, kind)) return false;
    return true;
}

static int compare_records(const void *a, const void *b) {
    const struct record *x = a, *y = b;
    if (x->priority != y->priority) return x->priority < y->priority ? -1 : 1;
    return (x->weight < y->weight) - (x->weight > y->weight);
}

/* A copy of just its size, for it is kept; frees the former. */
static struct records *shrink(struct reading *r) {
    struct records *all = r->records, *copy = must_malloc(sizeof *all + r->used);
    memcpy(copy, all, sizeof *all + r->used);
    for (unsigned i = 0; i < copy->count; i++)
        if (all->list[i].text.p) copy->list[i].text.p = copy->bytes + (all->list[i].text.p - all->bytes);
    free(all);
    return copy;
}

struct records *dns_answer_read(const unsigned char *message, size_t size, enum record_kind kind) {
    if (size < HEAD_BYTES || size > UINT16_MAX) return NULL;
    size_t room = size + (size_t)RECORDS_MOST * NAME_MOST;
    struct records *all = must_calloc(1, sizeof *all + room);
    struct reading r = { .message = message, .at = message, .end = message + size, .records = all, .room = room };
    all->refs = 1;
    all->ttl = UINT32_MAX;
    if (!read_message(&r, kind)) {
        free(all);
        return NULL;
    }
    if (kind == RECORD_SRV || kind == RECORD_MX) qsort(all->list, all->count, sizeof *all->list, compare_records);
    return shrink(&r);
}

struct records *records_ref(struct records *all) {
    refs_take(&all->refs);
    return all;
}

void records_unref(struct records *all) {
    if (all && refs_give(&all->refs)) free(all);
}
