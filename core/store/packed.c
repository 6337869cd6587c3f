/* A tag byte, then what it says: integers and lengths in groups of seven bits, low ones first, integers folded so that
 * small negative ones are short too; numbers as they lie in memory. A short string takes two bytes more than its
 * text. */
#include "store/packed.h"

#include "base/must.h"

#include <stdlib.h>

enum tag { TAG_FALSE, TAG_TRUE, TAG_INTEGER, TAG_NUMBER, TAG_STRING, TAG_TABLE };
enum { FIRST_ROOM = 256, SIZE_BYTES = 10 };

/* ---- writing */

void packing_fini(struct packing *p) {
    free(p->bytes);
    *p = (struct packing){ .limit = p->limit };
}

/* Room for so many bytes more; NULL: refused. */
static char *make_room(struct packing *p, size_t more) {
    if (p->refused || more > p->limit - p->size) {
        p->refused = true;
        return NULL;
    }
    if (p->size + more > p->room) {
        size_t room = p->room ? p->room * 2 : FIRST_ROOM;
        while (room < p->size + more) room *= 2;
        char *bytes = realloc(p->bytes, room);
        if (!bytes) {
            p->refused = true;
            return NULL;
        }
        p->bytes = bytes;
        p->room = room;
    }
    return p->bytes + p->size;
}

static void write_bytes(struct packing *p, const void *from, size_t n) {
    char *to = make_room(p, n);
    if (!to) return;
    if (n) memcpy(to, from, n);
    p->size += n;
}

static void write_tag(struct packing *p, enum tag tag) {
    char byte = (char)tag;
    write_bytes(p, &byte, 1);
}

static void write_groups(struct packing *p, uint64_t n) {
    unsigned char bytes[SIZE_BYTES];
    size_t used = 0;
    for (; n >= 0x80; n >>= 7) bytes[used++] = (unsigned char)(n | 0x80);
    bytes[used++] = (unsigned char)n;
    write_bytes(p, bytes, used);
}

void packing_size(struct packing *p, size_t n) { write_groups(p, n); }

void packing_boolean(struct packing *p, bool b) { write_tag(p, b ? TAG_TRUE : TAG_FALSE); }

void packing_integer(struct packing *p, int64_t n) {
    write_tag(p, TAG_INTEGER);
    write_groups(p, (uint64_t)n << 1 ^ (uint64_t)(n >> 63));
}

void packing_number(struct packing *p, double n) {
    write_tag(p, TAG_NUMBER);
    write_bytes(p, &n, sizeof n);
}

void packing_string(struct packing *p, struct slice s) {
    write_tag(p, TAG_STRING);
    write_groups(p, s.n);
    write_bytes(p, s.p, s.n);
}

void packing_table(struct packing *p, size_t pairs, size_t sequence) {
    write_tag(p, TAG_TABLE);
    write_groups(p, pairs);
    write_groups(p, sequence);
}

void packing_raw(struct packing *p, struct slice packed) { write_bytes(p, packed.p, packed.n); }

void packing_value(struct packing *p, const struct value *v) {
    switch (v->kind) {
    case VALUE_BOOLEAN: packing_boolean(p, v->boolean); return;
    case VALUE_INTEGER: packing_integer(p, v->integer); return;
    case VALUE_NUMBER: packing_number(p, v->number); return;
    case VALUE_STRING: packing_string(p, v->string); return;
    case VALUE_TABLE:
        packing_table(p, v->table.count, v->table.sequence);
        for (size_t i = 0; i < v->table.count; i++) {
            packing_value(p, &v->table.list[i].key);
            packing_value(p, &v->table.list[i].value);
        }
        return;
    case VALUE_NIL:
    case VALUE_FUNCTION:
    case VALUE_OTHER: must(!"plain data");
    }
}

/* ---- reading */

static struct slice read_groups(struct slice from, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0;; shift += 7) {
        must(from.n > 0 && shift < 64);
        unsigned char byte = (unsigned char)*from.p;
        from = slice_skip(from, 1);
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return from;
    }
}

struct slice packed_read_size(struct slice from, size_t *out) {
    uint64_t n;
    from = read_groups(from, &n);
    *out = (size_t)n;
    return from;
}

static struct slice read_integer(struct slice from, struct packed *out) {
    uint64_t n;
    from = read_groups(from, &n);
    out->kind = PACKED_INTEGER;
    out->integer = (int64_t)(n >> 1 ^ -(n & 1));
    return from;
}

static struct slice read_number(struct slice from, struct packed *out) {
    must(from.n >= sizeof out->number);
    out->kind = PACKED_NUMBER;
    memcpy(&out->number, from.p, sizeof out->number);
    return slice_skip(from, sizeof out->number);
}

static struct slice read_string(struct slice from, struct packed *out) {
    size_t n;
    from = packed_read_size(from, &n);
    must(from.n >= n);
    out->kind = PACKED_STRING;
    out->string = slice_make(from.p, n);
    return slice_skip(from, n);
}

static struct slice read_table(struct slice from, struct packed *out) {
    out->kind = PACKED_TABLE;
    from = packed_read_size(from, &out->table.pairs);
    return packed_read_size(from, &out->table.sequence);
}

struct slice packed_read(struct slice from, struct packed *out) {
    must(from.n > 0);
    enum tag tag = (enum tag) * from.p;
    from = slice_skip(from, 1);
    switch (tag) {
    case TAG_FALSE:
    case TAG_TRUE:
        out->kind = PACKED_BOOLEAN;
        out->boolean = tag == TAG_TRUE;
        return from;
    case TAG_INTEGER: return read_integer(from, out);
    case TAG_NUMBER: return read_number(from, out);
    case TAG_STRING: return read_string(from, out);
    case TAG_TABLE: return read_table(from, out);
    }
    must(!"packed by us");
    return from;
}

struct slice packed_skip(struct slice from) {
    struct packed v;
    for (size_t left = 1; left > 0; left--) {
        from = packed_read(from, &v);
        if (v.kind == PACKED_TABLE) left += 2 * v.table.pairs;
    }
    return from;
}
