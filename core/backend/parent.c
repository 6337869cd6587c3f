/* Parents are made when a config is read, and compared by what they say: two settings with the same words are one
 * parent for pools, whichever generation they stand in. */
#include "backend/parent.h"

#include "base/base64.h"
#include "base/must.h"
#include "base/refs.h"
#include "http/uri.h"
#include "net/tls.h"

#include <stdio.h>
#include <stdlib.h>

/* "Basic dXNlcjpwYXNzd29yZA==" (RFC 7617) */
static char *write_basic(struct slice auth) {
    static const char scheme[] = "Basic ";
    size_t n = sizeof scheme - 1;
    char *text = must_calloc(n + base64_room(auth.n) + 1, 1);
    memcpy(text, scheme, n);
    base64_encode(text + n, auth, BASE64_PADDED);
    return text;
}

static const char *find_wrong(struct arena *arena, struct slice url, struct slice auth, struct target *target) {
    bool bare = url_parse(arena, url, target) && slice_equal(target->path, SLICE("/")) && !target->query.p;
    if (!bare) return "expected a URL such as \"http://proxy.example:3128\", without user, path and query";
    if (!auth.p) return NULL;
    if (auth.n > PARENT_AUTH_MAX) return "auth has more than 360 bytes";
    if (!auth.n || !memchr(auth.p, ':', auth.n)) return "expected auth such as \"user:password\"";
    for (size_t i = 0; i < auth.n; i++)
        if ((unsigned char)auth.p[i] < ' ' || auth.p[i] == 0x7f) return "auth has a control byte in it";
    return NULL;
}

struct parent *parent_create(struct slice url, struct slice auth, const char **wrong) {
    struct arena arena;
    struct target target;
    struct parent *p = NULL;
    arena_init(&arena);
    *wrong = find_wrong(&arena, url, auth, &target);
    if (!*wrong) {
        bool https = slice_equal(target.scheme, SLICE("https"));
        struct slice host = target.host;
        if (host.p[0] == '[') host = slice_make(host.p + 1, host.n - 2);
        p = must_calloc(1, sizeof *p);
        p->refs = 1;
        p->port = target.port ? target.port : https ? 443 : 80;
        if (!addr_from_ip(&p->addr, host, p->port)) p->host = must_strndup(host.p, host.n);
        struct slice name = arena_printf(&arena, "%.*s:%u", FMT(target.host), (unsigned)p->port);
        p->name = must_strndup(name.p, name.n);
        if (https) p->trust = tls_trust_get(&(struct tls_trust_settings){ 0 }, NULL, 0);
        if (auth.p) p->authorization = write_basic(auth);
    }
    arena_fini(&arena);
    return p;
}

struct parent *parent_ref(struct parent *p) {
    if (p) refs_take(&p->refs);
    return p;
}

void parent_unref(struct parent *p) {
    if (!p || !refs_give(&p->refs)) return;
    tls_trust_unref(p->trust);
    free(p->host);
    free(p->name);
    free(p->authorization);
    free(p);
}

struct slice parent_tls_name(const struct parent *p) {
    struct slice name = slice_of(p->name);
    while (name.p[name.n - 1] != ':') name.n--;
    name.n--;
    return name.p[0] == '[' ? slice_make(name.p + 1, name.n - 2) : name;
}

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

bool parent_equal(const struct parent *a, const struct parent *b) {
    if (a == b) return true;
    return a && b && same_text(a->name, b->name) && a->trust == b->trust &&
           same_text(a->authorization, b->authorization);
}
