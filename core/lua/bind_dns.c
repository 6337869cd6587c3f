/* gate.dns.resolve(name, kind): what the resolver knows or finds out, kept for its time there (net/resolver.h). */
#include "lua/bind.h"
#include "lua/sandbox.h"

#include "net/resolver.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { REVERSE_SIZE = 80 };

/* What may be asked for; those of one kind differ in the family that is left out. */
static const struct asked {
    const char *name;
    enum record_kind kind;
    int family;
} asked[] = {
    { "A", RECORD_ADDRESS, AF_INET }, { "AAAA", RECORD_ADDRESS, AF_INET6 }, { "SRV", RECORD_SRV, AF_UNSPEC },
    { "TXT", RECORD_TXT, AF_UNSPEC }, { "CNAME", RECORD_CNAME, AF_UNSPEC }, { "MX", RECORD_MX, AF_UNSPEC },
    { "PTR", RECORD_PTR, AF_UNSPEC }, { NULL, RECORD_ADDRESS, AF_UNSPEC },
};

/* One call. It lies on the stack of the coroutine that waits for it. */
struct lookup {
    struct handle handle;
    struct wait wait;
    struct question *question; /* NULL: answered, or withdrawn */
    const struct asked *asked;
    enum failure why;
    unsigned count;
    struct addr addrs[16];
    struct records *records;
};

static void withdraw(struct lookup *k) {
    if (k->question) question_withdraw(k->question);
    k->question = NULL;
}

static void lookup_collect(void *pointer) {
    struct lookup *k = pointer;
    withdraw(k);
    records_unref(k->records);
}

static const struct handle_kind kind = { .name = "moongate.lookup", .collect = lookup_collect };

static void lookup_cancel(struct wait *w) { withdraw(container_of(w, struct lookup, wait)); }

static void lookup_on_answer(struct question *q) {
    struct lookup *k = q->with;
    k->question = NULL;
    k->why = q->why;
    k->count = q->count;
    memcpy(k->addrs, q->addrs, sizeof k->addrs);
    k->records = q->records;
    q->records = NULL;
    wait_done(&k->wait);
}

/* ---- results */

static void push_addrs(lua_State *L, const struct lookup *k) {
    char text[ADDR_TEXT];
    lua_createtable(L, (int)k->count, 0);
    for (unsigned i = 0; i < k->count; i++) {
        if (k->asked->family != AF_UNSPEC && k->addrs[i].u.sa.sa_family != k->asked->family) continue;
        struct slice ip = addr_ip_text(&k->addrs[i], text);
        lua_pushlstring(L, ip.p, ip.n);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
}

static void push_text(lua_State *L, struct slice text) { lua_pushlstring(L, text.n ? text.p : "", text.n); }

static void set_number(lua_State *L, const char *name, unsigned n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, name);
}

static void push_record(lua_State *L, const struct lookup *k, const struct record *record) {
    if (k->asked->kind != RECORD_SRV && k->asked->kind != RECORD_MX) {
        push_text(L, record->text);
        return;
    }
    lua_createtable(L, 0, 4);
    push_text(L, record->text);
    lua_setfield(L, -2, "target");
    set_number(L, "priority", record->priority);
    if (k->asked->kind == RECORD_MX) return;
    set_number(L, "weight", record->weight);
    set_number(L, "port", record->port);
}

static void push_records(lua_State *L, const struct lookup *k) {
    lua_createtable(L, (int)k->count, 0);
    for (unsigned i = 0; i < k->count; i++) {
        push_record(L, k, &k->records->list[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static int resolve_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct lookup *k = (struct lookup *)context;
    if (k->why == FAIL_NAME_NOT_FOUND && k->asked->kind != RECORD_ADDRESS)
        return fail_world_with(L, failure_word(k->why), "the name has no %s record", k->asked->name);
    if (k->why != FAIL_NONE) return fail_world(L, k->why);
    if (k->records) push_records(L, k);
    else push_addrs(L, k);
    return lua_rawlen(L, -1) ? 1 : fail_world(L, FAIL_NAME_NOT_FOUND);
}

/* ---- the question */

static const struct asked *kind_check(lua_State *L) {
    const struct asked *a = asked;
    if (lua_isnoneornil(L, 2)) return &asked[sizeof asked / sizeof *asked - 1];
    const char *name = luaL_checkstring(L, 2);
    while (a->name && strcmp(a->name, name) != 0) a++;
    if (!a->name) luaL_argerror(L, 2, "expected A, AAAA, SRV, TXT, CNAME, MX or PTR");
    return a;
}

static struct slice reverse_v4(char to[REVERSE_SIZE], const unsigned char *ip) {
    int n = snprintf(to, REVERSE_SIZE, "%u.%u.%u.%u.in-addr.arpa", ip[3], ip[2], ip[1], ip[0]);
    return slice_make(to, (size_t)n);
}

static struct slice reverse_v6(char to[REVERSE_SIZE], const unsigned char *ip) {
    static const char digits[] = "0123456789abcdef";
    char *p = to;
    for (int i = 15; i >= 0; i--) {
        *p++ = digits[ip[i] & 15];
        *p++ = '.';
        *p++ = digits[ip[i] >> 4];
        *p++ = '.';
    }
    memcpy(p, "ip6.arpa", 8);
    return slice_make(to, (size_t)(p + 8 - to));
}

/* The name under which an IP's names stand; any other name is itself. */
static struct slice reverse_name(char to[REVERSE_SIZE], struct slice name) {
    struct addr a;
    if (!addr_from_ip(&a, name, 0)) return name;
    if (a.u.sa.sa_family == AF_INET) return reverse_v4(to, (const unsigned char *)&a.u.in.sin_addr);
    return reverse_v6(to, a.u.in6.sin6_addr.s6_addr);
}

/* gate.dns.resolve(name[, kind]) → a list, or nil, word, sentence */
static int dns_resolve(lua_State *L) {
    char reverse[REVERSE_SIZE];
    lua_settop(L, 2);
    struct slice name = text_check(L, 1);
    const struct asked *a = kind_check(L);
    if (a->kind == RECORD_PTR) name = reverse_name(reverse, name);
    wait_check(L);
    struct lookup *k = object_new(L, &kind, sizeof *k, 0);
    k->asked = a;
    k->wait.cancel = lookup_cancel;
    struct worker *worker = state_of(L)->worker;
    k->question = question_create(name, &worker->mailbox, lookup_on_answer);
    k->question->kind = a->kind;
    k->question->with = k;
    resolver_ask(worker->resolver, k->question);
    return wait_begin(L, &k->wait, (lua_KContext)k, resolve_k);
}

void bind_dns_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "resolve", dns_resolve }, { NULL, NULL } };
    object_kind_open(L, &kind, NULL, NULL, NULL);
    luaL_newlib(L, functions);
    functions_name(L, "gate.dns");
    front_make(L, "gate.dns");
    lua_setfield(L, -2, "dns");
}
