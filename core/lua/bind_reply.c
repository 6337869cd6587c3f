/* gate.reply and gate.redirect: an answer as a value. It belongs to no exchange: a policy may make it once, keep it
 * as a constant, and return it from any hook, any number of times. Header fields are checked and copied when it is
 * made, so that using it cannot fail. */
#include "lua/bind.h"

#include "http/uri.h"

enum { BODY_VALUE = 1 }; /* the user value that is the body */

static const struct handle_kind kind = { .name = "moongate.reply" };

struct reply_value {
    struct handle handle;
    int status;
    uint32_t count;
    struct header list[]; /* and behind it the text */
};

/* ---- making one */

struct measure {
    size_t count, bytes;
};

static void measure_line(void *with, struct slice name, struct slice value) {
    struct measure *m = with;
    m->count++;
    m->bytes += name.n + value.n;
}

struct filling {
    struct reply_value *reply;
    size_t room;
    char *at, *end;
};

static struct slice fill_text(struct filling *f, struct slice s) {
    struct slice copy = { f->at, s.n };
    if (s.n) memcpy(f->at, s.p, s.n);
    f->at += s.n;
    return copy;
}

/* The table cannot have grown since it was measured, but is not trusted in that. */
static void fill_line(void *with, struct slice name, struct slice value) {
    struct filling *f = with;
    if (f->reply->count == f->room || name.n + value.n > (size_t)(f->end - f->at)) return;
    struct header *h = &f->reply->list[f->reply->count++];
    *h = (struct header){ .id = (uint8_t)header_id_of(name) };
    h->name = fill_text(f, name);
    h->value = fill_text(f, value);
}

/* Pushes a reply with the headers of the table at `headers` (0: none), and `extra` bytes of room for one line more. */
static struct reply_value *reply_new(lua_State *L, int status, int headers, size_t extra, struct filling *f) {
    struct measure m = { .count = extra ? 1 : 0, .bytes = extra };
    if (headers) header_table_each(L, headers, "gate.reply", measure_line, &m);
    struct reply_value *r = object_new(L, &kind, sizeof *r + m.count * sizeof *r->list + m.bytes, 1);
    char *text = (char *)(r->list + m.count);
    r->status = status;
    *f = (struct filling){ .reply = r, .room = m.count, .at = text, .end = text + m.bytes };
    if (headers) header_table_each(L, headers, "gate.reply", fill_line, f);
    return r;
}

static int check_status(lua_State *L, int arg) {
    int whole = 0;
    lua_Integer status = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &whole) : 0;
    if (!whole || status < 200 || status > 599)
        luaL_argerror(L, arg, "status expected, a whole number from 200 to 599");
    return (int)status;
}

static bool is_headers(lua_State *L, int arg) {
    return lua_type(L, arg) == LUA_TTABLE || lua_type(L, arg) == LUA_TUSERDATA;
}

static int gate_reply(lua_State *L) {
    struct filling filling;
    lua_settop(L, 3);
    int status = check_status(L, 1);
    bool has_body = !lua_isnil(L, 2), has_headers = !lua_isnil(L, 3);
    bool flows = handle_test(L, 2, &body_kind) != NULL;
    if (has_body && !flows && lua_type(L, 2) != LUA_TSTRING) return luaL_typeerror(L, 2, "string");
    if (flows && !body_is_fetched(L, 2)) return luaL_argerror(L, 2, "a body that flows is one that gate.fetch streams");
    /* What another server sent with a 205 may be relayed, and is cut off (exchange.c). */
    bool takes = flows ? response_has_body(METHOD_GET, status) : status_has_content(status);
    if (has_body && lua_rawlen(L, 2) && !takes) return luaL_argerror(L, 2, "a reply with this status has no body");
    if (has_headers && !is_headers(L, 3)) return luaL_typeerror(L, 3, "table");
    reply_new(L, status, has_headers ? 3 : 0, 0, &filling);
    if (!has_body) return 1;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, BODY_VALUE);
    return 1;
}

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static int gate_redirect(lua_State *L) {
    struct filling filling;
    size_t n;
    if (lua_type(L, 1) != LUA_TSTRING) return luaL_typeerror(L, 1, "string");
    const char *url = lua_tolstring(L, 1, &n);
    int status = lua_isnoneornil(L, 2) ? 302 : check_status(L, 2);
    if (!is_redirect(status)) return luaL_argerror(L, 2, "301, 302, 303, 307 or 308 expected");
    if (n == 0 || n > 8192) return luaL_argerror(L, 1, "a URL has 1 to 8192 bytes");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)url[i] <= ' ' || (unsigned char)url[i] >= 0x7f)
            return luaL_argerror(L, 1, "a URL has visible ASCII only: percent-encode what else is in it");
    struct slice name = header_name_of(HEADER_LOCATION);
    reply_new(L, status, 0, name.n + n, &filling);
    fill_line(&filling, name, slice_make(url, n));
    return 1;
}

/* ---- what a script sees of it */

static void get_status(lua_State *L, void *reply) { lua_pushinteger(L, ((struct reply_value *)reply)->status); }

static void get_body(lua_State *L, void *reply) {
    (void)reply;
    lua_getiuservalue(L, 1, BODY_VALUE);
}

static struct headers headers_of(struct reply_value *r) {
    return (struct headers){ .list = r->list, .count = r->count, .room = r->count };
}

static void get_headers(lua_State *L, void *reply) {
    struct headers headers = headers_of(reply);
    headers_copy_push(L, &headers);
}

static const struct field fields[] = {
    { "status", get_status, NULL },
    { "body", get_body, NULL },
    { "headers", get_headers, NULL },
    { NULL, NULL, NULL },
};

static int reply_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "reply"); }
static int reply_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "reply"); }

static const luaL_Reg metamethods[] = { { "__index", reply_index }, { "__newindex", reply_newindex }, { NULL, NULL } };

/* ---- for hook.c */

bool reply_test(lua_State *L, int index) {
    const struct handle *h = handle_at(L, index);
    return h && h->kind == &kind;
}

static struct slice copy_body(lua_State *L, int index, struct arena *arena) {
    struct slice body = { NULL, 0 };
    if (lua_getiuservalue(L, index, BODY_VALUE) == LUA_TSTRING) {
        body.p = lua_tolstring(L, -1, &body.n);
        body = body.n ? arena_copy(arena, body) : SLICE("");
    }
    lua_pop(L, 1);
    return body;
}

static bool give_body(lua_State *L, int index, const struct subject *subject, struct reply *out) {
    bool flows = lua_getiuservalue(L, index, BODY_VALUE) == LUA_TUSERDATA;
    bool ok = !flows || body_give(L, lua_gettop(L), subject->exchange, out);
    lua_pop(L, 1);
    return ok;
}

bool reply_read(lua_State *L, int index, const struct subject *subject, struct reply *out) {
    struct arena *arena = subject->arena;
    struct reply_value *r = lua_touserdata(L, index);
    *out = (struct reply){ .status = r->status, .body = copy_body(L, index, arena) };
    headers_init(&out->headers, arena);
    if (!give_body(L, index, subject, out)) return false;
    for (uint32_t i = 0; i < r->count; i++)
        headers_add(&out->headers, arena_copy(arena, r->list[i].name), arena_copy(arena, r->list[i].value));
    if (out->body.n && !headers_find_id(&out->headers, HEADER_CONTENT_TYPE))
        headers_add_id(&out->headers, HEADER_CONTENT_TYPE, SLICE("text/plain; charset=utf-8"));
    return true;
}

/* ---- open */

void bind_reply_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, NULL);
    lua_pushcfunction(L, gate_reply);
    lua_setfield(L, -2, "reply");
    lua_pushcfunction(L, gate_redirect);
    lua_setfield(L, -2, "redirect");
}
