/* Reading what hooks return, and the constants that stand in their place: the same rules for both.
 *
 * This runs in C, between scripts: tables are read raw, everything is bounded, and what is made of it lies in the
 * subject's arena. */
#include "lua/verdict.h"

#include "lua/bind.h"

#include <stdarg.h>
#include <stdio.h>

enum { TRIES_MAX = 100, FIRST_ERROR_STATUS = 400, LAST_STATUS = 599, FIRST_STATUS = 200 };

static bool fail(struct reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(struct reading *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(r->why, sizeof r->why, format, args);
    va_end(args);
    return false;
}

/* ---- Replies */

static bool is_status(lua_State *L, int index, lua_Integer low) {
    int whole;
    lua_Integer status = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &whole) : (whole = 0);
    return whole && status >= low && status <= LAST_STATUS;
}

bool verdict_takes_reply(enum hook hook) {
    return hook == HOOK_ON_REQUEST || hook == HOOK_ON_RESPONSE || hook == HOOK_ON_ERROR || hook == HOOK_PICK_BACKEND;
}

/* A reply or a bare status; false: neither. */
static bool read_reply(struct reading *r, lua_State *L, int index) {
    struct reply *reply = &r->decision->reply;
    if (reply_test(L, index)) {
        if (!reply_read(L, index, r->subject, reply)) return fail(r, SPENT_REPLY);
        return true;
    }
    if (!is_status(L, index, FIRST_STATUS)) return false;
    reply->status = (int)lua_tointeger(L, index);
    headers_init(&reply->headers, r->subject->arena);
    return true;
}

static enum verdict read_answer(struct reading *r, lua_State *L, int first, int count) {
    if (count == 0 || lua_isnil(L, first)) return VERDICT_CARRY_ON;
    if (read_reply(r, L, first)) return VERDICT_REPLY;
    if (*r->why) return VERDICT_FAILED;
    if (lua_type(L, first) == LUA_TNUMBER)
        fail(r, "the number %g; a status is a whole number from 200 to 599", lua_tonumber(L, first));
    else fail(r, "a %s; expected a reply, a status or nothing", luaL_typename(L, first));
    return VERDICT_FAILED;
}

/* ---- Admissions: nobody is there yet to whom a reply could be said */

static enum verdict read_admission(struct reading *r, lua_State *L, int first, int count) {
    if (count == 0 || lua_isnil(L, first)) return VERDICT_CARRY_ON;
    if (lua_type(L, first) == LUA_TBOOLEAN && !lua_toboolean(L, first)) return VERDICT_NO;
    fail(r, "a %s; expected false or nothing", reply_test(L, first) ? "reply" : luaL_typename(L, first));
    return VERDICT_FAILED;
}

/* ---- Cache keys: a letter for the type, then the bytes with their length, so that no two lists look alike */

enum { KEY_PARTS = 64, KEY_BYTES = 65536, PART_OVERHEAD = 32 };

static char *write_integer(char *to, char letter, lua_Integer n) {
    char digits[24];
    int i = 0;
    lua_Unsigned rest = n < 0 ? 0 - (lua_Unsigned)n : (lua_Unsigned)n;
    do digits[i++] = (char)('0' + rest % 10);
    while (rest /= 10);
    *to++ = letter;
    if (n < 0) *to++ = '-';
    while (i) *to++ = digits[--i];
    return to;
}

/* A number that is whole is the same part whatever its kind, as it is the same key of a table. */
static char *write_number(char *to, lua_State *L, int index) {
    int whole;
    lua_Integer n = lua_tointegerx(L, index, &whole);
    if (!whole) return to + snprintf(to, PART_OVERHEAD, "f%a,", (double)lua_tonumber(L, index));
    to = write_integer(to, 'i', n);
    *to++ = ',';
    return to;
}

/* Writes one part, PART_OVERHEAD bytes at most beside a string's own. NULL: it is of a wrong type. */
static char *write_part(char *to, lua_State *L, int index) {
    size_t n;
    const char *p;
    switch (lua_type(L, index)) {
    case LUA_TNIL: *to++ = 'n'; return to;
    case LUA_TBOOLEAN: *to++ = lua_toboolean(L, index) ? 't' : 'b'; return to;
    case LUA_TNUMBER: return write_number(to, L, index);
    case LUA_TSTRING:
        p = lua_tolstring(L, index, &n);
        to = write_integer(to, 's', (lua_Integer)n);
        *to++ = ':';
        memcpy(to, p, n);
        return to + n;
    default: return NULL;
    }
}

/* The room that a key of these parts takes at most; 0: it is too large. */
static size_t key_room(lua_State *L, int first, int count) {
    size_t room = 0;
    if (count > KEY_PARTS) return 0;
    for (int i = first; i < first + count && room <= KEY_BYTES; i++)
        room += PART_OVERHEAD + (lua_type(L, i) == LUA_TSTRING ? (size_t)lua_rawlen(L, i) : 0);
    return room <= KEY_BYTES ? room : 0;
}

static enum verdict read_key(struct reading *r, lua_State *L, int first, int count) {
    if (count == 0) return VERDICT_CARRY_ON;
    if (count == 1 && lua_type(L, first) == LUA_TBOOLEAN && !lua_toboolean(L, first)) return VERDICT_NO;
    size_t room = key_room(L, first, count);
    if (!room) {
        fail(r, "a key of more than %d parts or %d bytes", KEY_PARTS, KEY_BYTES);
        return VERDICT_FAILED;
    }
    char *key = arena_bytes(r->subject->arena, room), *to = key;
    for (int i = first; i < first + count && to; i++) {
        to = write_part(to, L, i);
        if (!to) fail(r, "a %s as a part of the key; parts are strings, numbers, booleans or nil", luaL_typename(L, i));
    }
    if (!to) return VERDICT_FAILED;
    r->decision->key = slice_make(key, (size_t)(to - key));
    return VERDICT_KEY;
}

/* ---- Picks */

static bool add_backend(struct reading *r, struct pick *pick, struct backend *backend, struct slice server) {
    if (pick->count == PICK_MAX) return fail(r, "a list of more than %d backends", PICK_MAX);
    pick->backends[pick->count] = backend;
    pick->servers[pick->count++] = server;
    return true;
}

/* "backend", or "backend/server" if there is no backend of the whole name. */
static bool add_named(struct reading *r, lua_State *L, struct pick *pick, struct slice name) {
    if (!r->site) return add_backend(r, pick, NULL, name);
    struct backend *backend = map_get(&r->site->backends_by_name, name);
    struct slice server = { NULL, 0 };
    if (!backend) {
        struct slice rest = name, head = slice_cut(&rest, '/');
        if (rest.p && (backend = map_get(&r->site->backends_by_name, head))) server = rest;
    }
    if (!backend)
        return fail(r, "the backend \"%.*s\", which this site does not have", (int)(name.n < 100 ? name.n : 100),
                    name.p);
    const struct worker *worker = state_of(L)->worker; /* NULL: a constant, read with the config */
    if (server.p && !backend_has_server(backend, worker ? &worker->loop : NULL, server))
        return fail(r, "the server \"%.*s\", which its backend does not have", (int)(name.n < 100 ? name.n : 100),
                    name.p);
    if (server.p) server = arena_copy(r->subject->arena, server);
    return add_backend(r, pick, backend, server);
}

static bool add_entry(struct reading *r, lua_State *L, int index, struct pick *pick) {
    struct slice name;
    if (lua_type(L, index) == LUA_TSTRING) name.p = lua_tolstring(L, index, &name.n);
    else name = backend_name_at(L, index);
    if (name.p) return add_named(r, L, pick, name);
    return fail(r, "a %s; expected a backend's name", luaL_typename(L, index));
}

static bool read_retry_word(struct reading *r, lua_State *L, int index, struct pick *pick) {
    static const struct {
        struct slice word;
        uint32_t bit;
    } words[] = { { { "connect", 7 }, 1u << RETRY_CONNECT },
                  { { "reset", 5 }, 1u << RETRY_RESET },
                  { { "timeout", 7 }, 1u << RETRY_TIMEOUT },
                  { { "5xx", 3 }, RETRY_ON_5XX } };
    if (is_status(L, index, FIRST_ERROR_STATUS)) {
        status_set_add(&pick->retry_statuses, (int)lua_tointeger(L, index));
        return true;
    }
    struct slice text = { NULL, 0 };
    if (lua_type(L, index) == LUA_TSTRING) text.p = lua_tolstring(L, index, &text.n);
    for (size_t i = 0; text.p && i < sizeof words / sizeof *words; i++)
        if (slice_equal(text, words[i].word)) {
            pick->retry_on |= words[i].bit;
            return true;
        }
    return fail(r, "a list with a wrong retry_on: expected \"connect\", \"reset\", \"timeout\", \"5xx\" or a status");
}

/* The value on top: one word, or a list of them. */
static bool read_retry_on(struct reading *r, lua_State *L, struct pick *pick) {
    pick->has_retry_on = true;
    if (!lua_istable(L, -1)) return read_retry_word(r, L, -1, pick);
    lua_Unsigned n = lua_rawlen(L, -1);
    bool ok = n <= 64 || fail(r, "a list with a retry_on that is too long");
    for (lua_Unsigned i = 1; i <= n && ok; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i);
        ok = read_retry_word(r, L, -1, pick);
        lua_pop(L, 1);
    }
    return ok;
}

static bool read_tries(struct reading *r, lua_State *L, struct pick *pick) {
    int whole;
    lua_Integer tries = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : (whole = 0);
    if (!whole || tries < 1 || tries > TRIES_MAX)
        return fail(r, "a list with wrong tries: expected 1 to %d", TRIES_MAX);
    pick->tries = (unsigned)tries;
    return true;
}

static bool read_timeout(struct reading *r, lua_State *L, struct pick *pick) {
    if (seconds_read(L, -1, &pick->timeout) && pick->timeout > 0) return true;
    return fail(r, "a list with a wrong timeout: expected seconds, or a text like \"500ms\"");
}

/* One field of the list that is no entry: key and value are on top. */
static bool read_option(struct reading *r, lua_State *L, struct pick *pick) {
    static const struct {
        const char *name;
        bool (*read)(struct reading *, lua_State *, struct pick *);
    } options[] = { { "tries", read_tries }, { "retry_on", read_retry_on }, { "timeout", read_timeout } };
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    for (size_t i = 0; key && i < sizeof options / sizeof *options; i++)
        if (strcmp(key, options[i].name) == 0) return options[i].read(r, L, pick);
    return fail(r, "a list with an unknown field \"%.40s\"; there are tries, retry_on, timeout",
                key ? key : luaL_typename(L, -2));
}

static bool read_list(struct reading *r, lua_State *L, int index, struct pick *pick) {
    lua_Unsigned n = lua_rawlen(L, index);
    bool ok = n > 0 ? n <= PICK_MAX || fail(r, "a list of more than %d backends", PICK_MAX)
                    : fail(r, "a list without a backend");
    for (lua_Unsigned i = 1; i <= n && ok; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        ok = add_entry(r, L, lua_gettop(L), pick);
        lua_pop(L, 1);
    }
    for (lua_pushnil(L); ok && lua_next(L, index); lua_pop(L, 1)) {
        bool entry = lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && (lua_Unsigned)lua_tointeger(L, -2) <= n;
        if (!entry) ok = read_option(r, L, pick);
        if (!ok) break;
    }
    pick->listed = true;
    return ok;
}

bool pick_read(struct reading *r, lua_State *L, int index, struct pick *pick) {
    int top = lua_gettop(L);
    lua_checkstack(L, 8);
    bool ok = lua_istable(L, index) ? read_list(r, L, index, pick) : add_entry(r, L, index, pick);
    lua_settop(L, top);
    return ok;
}

static enum verdict read_pick(struct reading *r, lua_State *L, int first, int count) {
    if (count == 0 || lua_isnil(L, first)) return VERDICT_CARRY_ON;
    if (lua_type(L, first) == LUA_TBOOLEAN && !lua_toboolean(L, first)) return VERDICT_NO;
    if (read_reply(r, L, first)) return VERDICT_REPLY;
    if (*r->why) return VERDICT_FAILED;
    return pick_read(r, L, first, &r->decision->pick) ? VERDICT_PICK : VERDICT_FAILED;
}

/* ---- Certificates */

enum { PEM_MAX = 1 << 18 };

/* A field of the table at `index`, copied; p NULL: it is absent. */
static bool read_pem(struct reading *r, lua_State *L, int index, const char *name, struct slice *to) {
    lua_pushstring(L, name);
    int type = lua_rawget(L, index);
    bool ok = type == LUA_TNIL || (type == LUA_TSTRING && lua_rawlen(L, -1) <= PEM_MAX);
    if (ok && type == LUA_TSTRING) {
        to->p = lua_tolstring(L, -1, &to->n);
        *to = arena_copy(r->subject->arena, *to);
    }
    lua_pop(L, 1);
    return ok || fail(r, "a certificate whose %s is not PEM of at most 256 KiB", name);
}

static enum verdict read_certificate(struct reading *r, lua_State *L, int first, int count) {
    struct certificate_text *c = &r->decision->certificate;
    if (count == 0 || lua_isnil(L, first)) return VERDICT_CARRY_ON;
    if (lua_type(L, first) == LUA_TSTRING) {
        c->name.p = lua_tolstring(L, first, &c->name.n);
        c->name = arena_copy(r->subject->arena, c->name);
        return VERDICT_CERTIFICATE;
    }
    if (!lua_istable(L, first)) {
        fail(r, "a %s; expected a name, { cert =, key = } or nothing", luaL_typename(L, first));
        return VERDICT_FAILED;
    }
    lua_checkstack(L, 4);
    bool ok = read_pem(r, L, first, "cert", &c->cert) && read_pem(r, L, first, "key", &c->key);
    if (ok && !c->cert.p) ok = fail(r, "a table without cert");
    return ok ? VERDICT_CERTIFICATE : VERDICT_FAILED;
}

/* ---- */

enum verdict verdict_read(struct reading *r, lua_State *L, int first, int count) {
    switch (r->hook) {
    case HOOK_ON_REQUEST:
    case HOOK_ON_RESPONSE:
    case HOOK_ON_ERROR: return read_answer(r, L, first, count);
    case HOOK_ON_CONNECT: return read_admission(r, L, first, count);
    case HOOK_CACHE_KEY: return read_key(r, L, first, count);
    case HOOK_PICK_BACKEND: return read_pick(r, L, first, count);
    case HOOK_ON_CERTIFICATE: return read_certificate(r, L, first, count);
    default: return VERDICT_CARRY_ON;
    }
}

const char *verdict_constant_expected(lua_State *L, int index, enum hook hook) {
    int type = lua_type(L, index);
    bool reply = is_status(L, index, FIRST_STATUS) || reply_test(L, index);
    switch (hook) {
    case HOOK_ON_CONNECT: return type == LUA_TBOOLEAN && !lua_toboolean(L, index) ? NULL : "a function or false";
    case HOOK_ON_REQUEST:
    case HOOK_ON_RESPONSE:
    case HOOK_ON_ERROR: return reply ? NULL : "a function, a reply or a status";
    case HOOK_CACHE_KEY:
        return type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN
                   ? NULL
                   : "a function, a string, a number or false";
    case HOOK_PICK_BACKEND:
        return reply || type == LUA_TSTRING || type == LUA_TTABLE || backend_name_at(L, index).p
                   ? NULL
                   : "a function, a backend's name, a list of them or a reply";
    default: return "a function";
    }
}
