/* Header fields as scripts see them: `req.headers`, `res.headers`, and read-only copies that stand for themselves (what
 * gate.fetch returns, a reply's).
 *
 *     h["X-Key"]            all lines of that name, joined with ", " (Set-Cookie: the first); nil
 *     h["X-Key"] = "v"      one line; nil removes
 *     h:all "Set-Cookie"    a list
 *     h:add("Link", "…")    a further line
 *     for name, value in pairs(h)
 *
 * Names have no case, but `all` and `add` in lower case are the methods; fields of these names are `h.All`, `h.Add`.
 *
 * Reading is the hottest thing scripts do. The id of a name, and that it is a name at all, is found once per string:
 * the metamethods' own table of names keeps name -> id, for the first few hundred names, and recall what the policy
 * uses most; names that a stranger makes up beyond that are looked at each time. Values become Lua strings only when
 * they are read. Repeated lines are joined in Lua's memory, not in the exchange's arena, which a loop would grow. */
#include "lua/bind.h"

#include "http/headers.h"

enum { NAMES_KEPT = 512, NAME_KEPT_MAX = 64, VALUE_MAX = 65536, LIST_MAX = 256, TABLE_MAX = 256 * 1024 };

static const struct handle_kind request_kind = { .name = "moongate.headers" };
static const struct handle_kind response_kind = { .name = "moongate.headers" };
static const struct handle_kind copy_kind = { .name = "moongate.headers" };

/* A copy: the fields and their text follow the struct. */
struct headers_copy {
    struct handle handle;
    struct headers headers;
    struct header list[];
};

/* ---- self */

static const struct headers *headers_self(lua_State *L, int arg) {
    const struct handle *h = handle_at(L, arg);
    if (h && h->kind == &request_kind) return &((struct view *)h->pointer)->exchange->request.headers;
    if (h && h->kind == &response_kind) return &((struct view *)h->pointer)->answer.response->headers;
    if (h && h->kind == &copy_kind) return &((struct headers_copy *)h->pointer)->headers;
    handle_check(L, arg, handle_test(L, arg, &response_kind) ? &response_kind : &request_kind); /* raises */
    return NULL;
}

/* The same, to be written: raises where they are read-only. */
static struct headers *headers_writable(lua_State *L, struct view **view) {
    const struct handle *h = handle_at(L, 1);
    if (h && h->kind == &request_kind) {
        *view = h->pointer;
        view_check_request(L, *view);
        return &(*view)->exchange->request.headers;
    }
    if (h && h->kind == &copy_kind) luaL_error(L, "these headers are read-only: they are a copy of what came");
    headers_self(L, 1);
    *view = h->pointer;
    view_check_response(L, *view);
    return &(*view)->answer.response->headers;
}

/* ---- names */

struct name {
    struct slice text;
    enum header_id id;
};

static struct name name_check(lua_State *L, int arg) {
    if (lua_type(L, arg) != LUA_TSTRING)
        luaL_error(L, "the name of a header is a string, not a %s", luaL_typename(L, arg));
    struct name name = { .text = text_check(L, arg) };
    if (!header_name_valid(name.text))
        luaL_error(L, "the name of a header is a token (RFC 9110 5.6.2), which this is not");
    name.id = header_id_of(name.text);
    return name;
}

/* Remembers the id of the name at index 2 among the names; place 0 holds how many there are. */
static void keep_name(lua_State *L, struct name name) {
    if (name.text.n > NAME_KEPT_MAX) return;
    lua_rawgeti(L, lua_upvalueindex(UPVALUE_NAMES), 0);
    lua_Integer kept = lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (kept >= NAMES_KEPT) return;
    lua_pushvalue(L, 2);
    lua_pushinteger(L, name.id);
    lua_rawset(L, lua_upvalueindex(UPVALUE_NAMES));
    lua_pushinteger(L, kept + 1);
    lua_rawseti(L, lua_upvalueindex(UPVALUE_NAMES), 0);
}

/* The name at index 2. False: it is that of a method, which is pushed. */
static bool find_name(lua_State *L, struct name *name) {
    const struct recalled *r = recall_find(L, &request_kind);
    if (r) {
        *name = (struct name){ r->text, (enum header_id)r->meaning };
        return true;
    }
    lua_pushvalue(L, 2);
    int type = lua_type(L, 2) == LUA_TSTRING ? lua_rawget(L, lua_upvalueindex(UPVALUE_NAMES)) : LUA_TNIL;
    if (type == LUA_TFUNCTION) return false;
    if (type == LUA_TNUMBER) {
        name->text.p = lua_tolstring(L, 2, &name->text.n);
        name->id = (enum header_id)lua_tointeger(L, -1);
        recall_keep(L, &request_kind, name->id);
    }
    lua_pop(L, 1);
    if (type == LUA_TNUMBER) return true;
    *name = name_check(L, 2);
    keep_name(L, *name);
    return true;
}

static struct header *find_line(const struct headers *headers, struct name name) {
    return name.id ? headers_find_id(headers, name.id) : headers_find_other(headers, name.text);
}

/* ---- reading */

static void push_joined(lua_State *L, const struct headers *headers, const struct header *first,
                        const struct header *next) {
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addlstring(&b, first->value.p, first->value.n);
    for (const struct header *h = next; h; h = headers_next(headers, h)) {
        luaL_addlstring(&b, ", ", 2);
        luaL_addlstring(&b, h->value.p, h->value.n);
    }
    luaL_pushresult(&b);
}

static void push_line(lua_State *L, const struct header *h) {
    lua_pushlstring(L, h->value.p ? h->value.p : "", h->value.n);
}

static int headers_index(lua_State *L) {
    const struct headers *headers = headers_self(L, 1);
    struct name name;
    if (!find_name(L, &name)) return 1;
    const struct header *first = find_line(headers, name);
    if (!first) return 0;
    const struct header *next = name.id == HEADER_SET_COOKIE ? NULL : headers_next(headers, first);
    if (next) push_joined(L, headers, first, next);
    else push_line(L, first);
    return 1;
}

static int headers_all(lua_State *L) {
    const struct headers *headers = headers_self(L, 1);
    const struct header *h = find_line(headers, name_check(L, 2));
    lua_newtable(L);
    for (lua_Integer i = 1; h; h = headers_next(headers, h), i++) {
        push_line(L, h);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/* Upvalues: the headers, the place of the next line. */
static int headers_next_line(lua_State *L) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    const struct headers *headers = headers_self(L, 1);
    for (lua_Integer i = lua_tointeger(L, lua_upvalueindex(2)); i < (lua_Integer)headers->count; i++) {
        const struct header *h = &headers->list[i];
        if (h->removed) continue;
        lua_pushinteger(L, i + 1);
        lua_replace(L, lua_upvalueindex(2));
        lua_pushlstring(L, h->name.p, h->name.n);
        push_line(L, h);
        return 2;
    }
    return 0;
}

static int headers_pairs(lua_State *L) {
    headers_self(L, 1);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, headers_next_line, 2);
    return 1;
}

/* ---- writing */

static void check_value(lua_State *L, const char *what, struct slice name, struct slice value) {
    if (value.n > VALUE_MAX) luaL_error(L, "%s: the value of '%s' is longer than 64 KiB", what, name.p);
    if (!header_value_valid(value))
        luaL_error(L, "%s: the value of '%s' has a line break or another control character in it", what, name.p);
}

static struct slice value_check(lua_State *L, struct slice name) {
    int type = lua_type(L, 3);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "the value of header '%s' is a string or a number, not a %s", name.p, luaL_typename(L, 3));
    struct slice value = slice_trim(text_check(L, 3));
    check_value(L, "headers", name, value);
    return value;
}

static void check_mine(lua_State *L, struct name name) {
    if (header_is_core(name.id)) luaL_error(L, "header '%s' is the core's own and cannot be set", name.text.p);
}

/* A field a script has set goes on, also when the client's Connection named it to have it stripped. */
static void set_line(lua_State *L, struct view *v, struct headers *headers, struct name name, struct slice value) {
    struct header *h = find_line(headers, name);
    value = view_copy(L, v, value);
    if (!h) headers_remove_doubles(headers, name.text);
    if (h) headers_replace(headers, h, value);
    else if (name.id) headers_add_id(headers, name.id, value);
    else headers_add_other(headers, view_copy(L, v, name.text), value);
}

static void remove_line(struct headers *headers, struct name name) {
    if (name.id) headers_remove_id(headers, name.id);
    else headers_remove(headers, name.text);
}

static bool is_request_host(lua_State *L, struct name name) {
    return name.id == HEADER_HOST && handle_at(L, 1)->kind == &request_kind;
}

static int headers_newindex(lua_State *L) {
    struct view *v;
    struct headers *headers = headers_writable(L, &v);
    struct name name;
    if (!find_name(L, &name))
        return luaL_error(L, "'%s' is a method of headers; write the field's name in another case", lua_tostring(L, 2));
    check_mine(L, name);
    if (is_request_host(L, name)) {
        request_assign_host(L, v, 3);
    } else if (lua_isnil(L, 3)) {
        remove_line(headers, name);
    } else {
        set_line(L, v, headers, name, value_check(L, name.text));
    }
    return 0;
}

static int headers_add_method(lua_State *L) {
    struct view *v;
    struct headers *headers = headers_writable(L, &v);
    struct name name = name_check(L, 2);
    check_mine(L, name);
    if (is_request_host(L, name)) return luaL_error(L, "a request has one Host: assign it");
    struct slice value = value_check(L, name.text);
    view_charge(L, v, sizeof(struct header));
    value = view_copy(L, v, value);
    headers_add(headers, view_copy(L, v, name.text), value);
    return 0;
}

/* ---- tables of headers: gate.reply, gate.fetch */

struct table_visit {
    const char *what;
    void (*visit)(void *with, struct slice name, struct slice value);
    void *with;
    struct slice name;
    size_t bytes;
};

/* The value on top; it is popped. */
static void visit_value(lua_State *L, struct table_visit *t) {
    int type = lua_type(L, -1);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "%s: the value of header '%s' is a string, a number or a list of them, not a %s", t->what,
                   t->name.p, luaL_typename(L, -1));
    size_t n;
    const char *p = lua_tolstring(L, -1, &n);
    struct slice value = slice_trim(slice_make(p, n));
    check_value(L, t->what, t->name, value);
    budget_spend(L, 1);
    t->bytes += t->name.n + value.n;
    if (t->bytes > TABLE_MAX) luaL_error(L, "%s: the headers are larger than 256 KiB", t->what);
    t->visit(t->with, t->name, value);
    lua_pop(L, 1);
}

static void visit_list(lua_State *L, struct table_visit *t) {
    lua_Unsigned n = lua_rawlen(L, -1);
    if (n > LIST_MAX) luaL_error(L, "%s: header '%s' has more than %d values", t->what, t->name.p, LIST_MAX);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i);
        visit_value(L, t);
    }
    lua_pop(L, 1);
}

/* With the key below the value on top. */
static void visit_entry(lua_State *L, struct table_visit *t) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "%s: headers are a table from name to value", t->what);
    t->name.p = lua_tolstring(L, -2, &t->name.n);
    if (!header_name_valid(t->name))
        luaL_error(L, "%s: the name of a header is a token (RFC 9110 5.6.2), which one is not", t->what);
    if (header_is_core(header_id_of(t->name)))
        luaL_error(L, "%s: header '%s' is the core's own and cannot be set", t->what, t->name.p);
    if (lua_istable(L, -1)) visit_list(L, t);
    else visit_value(L, t);
}

void header_table_each(lua_State *L, int index, const char *what,
                       void (*visit)(void *with, struct slice name, struct slice value), void *with) {
    struct table_visit t = { .what = what, .visit = visit, .with = with };
    const struct handle *h = handle_at(L, index);
    if (h && (h->kind == &request_kind || h->kind == &response_kind || h->kind == &copy_kind)) {
        headers_each(line, headers_self(L, index)) if (!line->hop && !header_is_core(line->id))
            visit(with, line->name, line->value);
        return;
    }
    if (!lua_istable(L, index))
        luaL_error(L, "%s: headers are a table or the headers of a message, not a %s", what, luaL_typename(L, index));
    luaL_checkstack(L, 6, NULL);
    lua_pushnil(L);
    while (lua_next(L, index)) visit_entry(L, &t);
}

/* ---- open */

void request_headers_push(lua_State *L, struct view *v) {
    handle_push_part(L, &v->exchange->subject, HANDLE_REQ_HEADERS, &request_kind, v);
}

void response_headers_push(lua_State *L, struct view *v) {
    handle_push_part(L, v->subject, HANDLE_RES_HEADERS, &response_kind, v);
}

static struct slice copy_text(char **at, struct slice s) {
    struct slice copy = { *at, s.n };
    if (s.n) memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

void headers_copy_push(lua_State *L, const struct headers *from) {
    size_t count = 0, bytes = 0;
    headers_each(h, from) count++, bytes += h->name.n + h->value.n;
    struct headers_copy *c = object_new(L, &copy_kind, sizeof *c + count * sizeof *c->list + bytes, 0);
    char *text = (char *)(c->list + count);
    c->headers.list = c->list;
    headers_each(f, from) {
        struct header *to = &c->list[c->headers.count++];
        *to = (struct header){ .id = f->id, .hop = f->hop };
        to->name = copy_text(&text, f->name);
        to->value = copy_text(&text, f->value);
    }
}

static const luaL_Reg metamethods[] = {
    { "__index", headers_index },
    { "__newindex", headers_newindex },
    { "__pairs", headers_pairs },
    { NULL, NULL },
};
static const luaL_Reg methods[] = { { "all", headers_all }, { "add", headers_add_method }, { NULL, NULL } };

void bind_headers_open(lua_State *L) {
    object_kind_open(L, &request_kind, NULL, metamethods, methods);
    object_kind_open(L, &response_kind, NULL, metamethods, methods);
    object_kind_open(L, &copy_kind, NULL, metamethods, methods);
}
