/* A key and its value: one allocation, the bytes of both behind each other. What a script changes in place are scalars
 * only; anything else is a new node. */
#include "store/shared_inside.h"

#include "base/clock.h"

#include <stdlib.h>

bool node_key_fits(struct slice key) { return key.n >= 1 && key.n <= SHARED_KEY_MAX; }

double node_expiry(double ttl) { return ttl > 0 ? clock_monotonic() + ttl : 0; }

void node_set_scalar(struct node *n, const struct shared_value *v) {
    n->kind = (uint8_t)v->kind;
    if (v->kind == SHARED_BOOLEAN) n->boolean = v->boolean;
    else n->integer = v->integer;
}

struct shared_value node_value(const struct node *n) {
    struct shared_value v = { .kind = (enum shared_kind)n->kind };
    if (kind_has_bytes(v.kind)) v.string = slice_make(n->bytes + n->key_size, n->size);
    else if (v.kind == SHARED_BOOLEAN) v.boolean = n->boolean;
    else v.integer = n->integer; /* the bits of a number, too */
    return v;
}

struct node *node_create(struct slice key, uint64_t hash, const struct shared_value *v, double expires) {
    struct node *n = malloc(sizeof *n + key.n + shared_value_size(v));
    if (!n) return NULL;
    *n = (struct node){ .hash = hash, .expires = expires, .key_size = (uint16_t)key.n, .kind = (uint8_t)v->kind };
    list_init(&n->use);
    memcpy(n->bytes, key.p, key.n);
    if (!kind_has_bytes(v->kind)) {
        node_set_scalar(n, v);
        return n;
    }
    n->size = (uint32_t)v->string.n;
    if (v->string.n) memcpy(n->bytes + key.n, v->string.p, v->string.n);
    return n;
}

/* Asks for the time only if the key can expire. */
bool node_has_expired(const struct node *n) { return n->expires != 0 && n->expires <= clock_monotonic(); }

double node_time_left(const struct node *n) { return n->expires != 0 ? n->expires - clock_monotonic() : 0; }
