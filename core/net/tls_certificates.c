/* The certificates among which one is chosen for a client: by name, as far as one bears it, and by kind of key, since a
 * site may have RSA and ECDSA side by side; OpenSSL takes the one whose signature the client understands.
 *
 * Names are looked up, not compared: a listener may have a thousand certificates. */
#include "base/arena.h"
#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"
#include "net/tls_openssl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* One identity under one of its names. */
struct bearer {
    const struct tls_identity *identity;
    struct bearer *next;
};

struct tls_certificates {
    _Atomic unsigned refs;
    struct tls_identity **list; /* references */
    unsigned count;
    struct map names; /* "a.test", "*.b.test" -> struct bearer */
    struct arena arena;
};

enum { NAME_MOST = 253 };

/* ---- its life */

struct tls_certificates *tls_certificates_create(void) {
    struct tls_certificates *c = must_calloc(1, sizeof *c);
    atomic_init(&c->refs, 1);
    arena_init(&c->arena);
    return c;
}

struct tls_certificates *tls_certificates_ref(struct tls_certificates *c) {
    if (c) refs_take(&c->refs);
    return c;
}

void tls_certificates_unref(struct tls_certificates *c) {
    if (!c || !refs_give(&c->refs)) return;
    for (unsigned i = 0; i < c->count; i++) tls_shared_unref(&c->list[i]->shared);
    free(c->list);
    map_fini(&c->names);
    arena_fini(&c->arena);
    free(c);
}

/* ---- names */

static struct slice lower_name(struct slice name, char to[NAME_MOST]) {
    if (name.n && name.p[name.n - 1] == '.') name.n--;
    if (name.n > NAME_MOST) return slice_make(NULL, 0);
    for (size_t i = 0; i < name.n; i++) to[i] = (char)tolower((unsigned char)name.p[i]);
    return slice_make(to, name.n);
}

static void bear_names(struct tls_certificates *c, const struct tls_identity *id) {
    for (unsigned i = 0; i < id->name_count; i++) {
        struct bearer *b = arena_alloc(&c->arena, sizeof *b);
        *b = (struct bearer){ .identity = id, .next = map_get(&c->names, id->names[i]) };
        map_set(&c->names, id->names[i], b);
    }
}

static const struct bearer *find_bearers(const struct tls_certificates *c, struct slice name) {
    char lower[NAME_MOST];
    name = lower_name(name, lower);
    if (name.n == 0) return NULL;
    const struct bearer *found = map_get(&c->names, name);
    char *dot = found ? NULL : memchr(lower, '.', name.n);
    if (!dot || dot == lower) return found;
    dot[-1] = '*';
    return map_get(&c->names, slice_make(dot - 1, name.n - (size_t)(dot - 1 - lower)));
}

bool tls_certificates_bear(const struct tls_certificates *c, struct slice name) {
    return find_bearers(c, name) != NULL;
}

/* ---- filling */

bool tls_certificates_add(struct tls_certificates *c, struct slice cert, struct slice key, struct slice ocsp, char *why,
                          size_t size) {
    struct tls_identity *id = tls_identity_get(cert, key, ocsp, why, size);
    if (!id) return false;
    c->list = must_realloc(c->list, (c->count + 1) * sizeof(struct tls_identity *));
    c->list[c->count++] = id;
    bear_names(c, id);
    return true;
}

unsigned tls_certificates_count(const struct tls_certificates *c) { return c->count; }

bool tls_certificates_equal(const struct tls_certificates *a, const struct tls_certificates *b) {
    if (!a || !b || a->count != b->count) return a == b;
    for (unsigned i = 0; i < a->count; i++)
        if (a->list[i] != b->list[i]) return false;
    return true;
}

double tls_certificates_expire(const struct tls_certificates *c) {
    double first = 0;
    for (unsigned i = 0; i < c->count; i++) {
        if (first == 0 || c->list[i]->expires < first) first = c->list[i]->expires;
    }
    return first;
}

bool tls_certificates_unstapled(const struct tls_certificates *c, double now) {
    for (unsigned i = 0; i < c->count; i++)
        if (c->list[i]->ocsp_until > 0 && c->list[i]->ocsp_until <= now) return true;
    return false;
}

/* ---- choosing */

static bool has_kind(const struct tls_identity *const *shown, unsigned count, const struct tls_identity *id) {
    for (unsigned i = 0; i < count; i++)
        if (EVP_PKEY_get_base_id(shown[i]->key) == EVP_PKEY_get_base_id(id->key)) return true;
    return false;
}

/* Nobody bears the name: the first ones, for a client that may know what it does. */
unsigned tls_certificates_choose(const struct tls_certificates *c, struct slice name,
                                 const struct tls_identity *shown[TLS_SHOWN]) {
    unsigned count = 0;
    for (const struct bearer *b = find_bearers(c, name); b && count < TLS_SHOWN; b = b->next)
        if (!has_kind(shown, count, b->identity)) shown[count++] = b->identity;
    for (unsigned i = 0; count == 0 && i < c->count; i++) shown[count++] = c->list[i];
    return count;
}
