/* What the bindings share. Fields of an object are found by one raw read in a table of its own (name -> place in the
 * object's list of fields), UPVALUE_NAMES of its metamethods, and from then on by the address of the string
 * (recall_find), which is a third of that. */
#include "lua/bind.h"

#include "http/grammar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- objects */

static void add_field_names(lua_State *L, const struct field *fields) {
    for (lua_Integer i = 0; fields && fields[i].name; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, fields[i].name);
    }
}

void object_kind_open(lua_State *L, const struct handle_kind *kind, const struct field *fields,
                      const luaL_Reg *metamethods, const luaL_Reg *methods) {
    int top = lua_gettop(L);
    handle_kind_open(L, kind, metamethods, methods);
    known_kind_find(state_of(L), kind)->fields = fields;
    handle_metatable_push(L, kind);
    lua_getfield(L, -1, "__index");
    if (lua_isfunction(L, -1) && lua_getupvalue(L, -1, 2)) add_field_names(L, fields);
    lua_settop(L, top);
}

void *object_new(lua_State *L, const struct handle_kind *kind, size_t size, int uservalues) {
    struct handle *h = lua_newuserdatauv(L, size, uservalues);
    memset(h, 0, size);
    h->kind = kind;
    h->pointer = h;
    handle_metatable_push(L, kind);
    lua_setmetatable(L, -2);
    return h;
}

/* The place of the field whose name is at index 2; -1: none. A method is pushed and gives -2. */
static lua_Integer find_field(lua_State *L, const struct field *fields) {
    const struct recalled *r = recall_find(L, fields);
    if (r) return r->meaning;
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(UPVALUE_NAMES));
    if (type == LUA_TFUNCTION) return -2;
    lua_Integer i = type == LUA_TNUMBER ? lua_tointeger(L, -1) : -1;
    lua_pop(L, 1);
    if (i >= 0) recall_keep(L, fields, i);
    return i;
}

int object_index(lua_State *L, void *object, const struct field *fields, const char *what) {
    lua_Integer i = find_field(L, fields);
    if (i == -2) return 1;
    if (i < 0) return object_unknown(L, what);
    fields[i].get(L, object);
    return 1;
}

int object_newindex(lua_State *L, void *object, const struct field *fields, const char *what) {
    lua_Integer i = find_field(L, fields);
    if (i == -1) return object_unknown(L, what);
    if (i == -2 || !fields[i].set) return luaL_error(L, "%s.%s is read-only", what, lua_tostring(L, 2));
    fields[i].set(L, object);
    return 0;
}

/* ---- did you mean */

enum { LIKE_MAX = 32 };

static unsigned least(unsigned a, unsigned b, unsigned c) {
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Insertions, deletions and replacements that lead from one to the other. */
static unsigned distance(struct slice a, struct slice b) {
    unsigned row[LIKE_MAX + 1];
    for (unsigned j = 0; j <= b.n; j++) row[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned above = row[j];
            row[j] = least(diagonal + (a.p[i - 1] != b.p[j - 1]), above + 1, row[j - 1] + 1);
            diagonal = above;
        }
    }
    return row[b.n];
}

struct likeness likeness_begin(struct slice name) {
    return (struct likeness){ .name = name, .distance = name.n <= 3 ? 2 : 3 }; /* the first that is too far */
}

void likeness_try(struct likeness *l, const char *candidate) {
    struct slice c = slice_of(candidate);
    if (c.n > LIKE_MAX || l->name.n > LIKE_MAX || l->name.n == 0) return;
    unsigned d = distance(l->name, c);
    if (d >= l->distance || d >= c.n) return;
    l->distance = d;
    l->best = candidate;
}

int object_unknown(lua_State *L, const char *what) {
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "%s is read by the name of a field, a string, not a %s", what, luaL_typename(L, 2));
    struct likeness l = likeness_begin(text_check(L, 2));
    lua_pushnil(L);
    while (lua_next(L, lua_upvalueindex(UPVALUE_NAMES))) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) likeness_try(&l, lua_tostring(L, -1));
    }
    if (!l.best) return luaL_error(L, "%s has no field '%s'", what, lua_tostring(L, 2));
    return luaL_error(L, "%s has no field '%s' (did you mean '%s'?)", what, lua_tostring(L, 2), l.best);
}

/* ---- what scripts know of an exchange */

enum { WRITTEN_MAX = 1 << 20 };

struct view *view_of(lua_State *L, struct subject *s) {
    req_push(L, s);
    struct view *v = ((struct handle *)lua_touserdata(L, -1))->pointer;
    lua_pop(L, 1);
    return v;
}

void view_check_request(lua_State *L, const struct view *v) {
    if (v->exchange->request_sent) luaL_error(L, "req is read-only by now: its fetch has begun (assign in on_request)");
    if (v->exchange->head_sent) luaL_error(L, "req is read-only by now: it has been answered");
}

struct view *view_create(struct subject *s) {
    struct exchange *x = s->exchange;
    struct view *v = arena_alloc_zeroed(&x->arena, sizeof *v);
    v->exchange = x;
    v->storing = storing_of(s);
    v->subject = v->storing ? s : &x->subject;
    v->answer = v->storing ? v->storing->answer : answer_of(x);
    body_init(&v->bodies[SIDE_REQUEST], SIDE_REQUEST, x, NULL, NULL);
    body_init(&v->bodies[SIDE_RESPONSE], SIDE_RESPONSE, x, &v->answer, NULL);
    return v;
}

void view_check_response(lua_State *L, const struct view *v) {
    if (*v->answer.gone) luaL_error(L, "res is read-only by now: its head has left (assign in on_response)");
}

void view_charge(lua_State *L, struct view *v, size_t n) {
    if (n > WRITTEN_MAX - v->written) luaL_error(L, "scripts have written more than 1 MiB into this exchange");
    v->written += n;
}

struct slice view_copy(lua_State *L, struct view *v, struct slice s) {
    view_charge(L, v, s.n);
    return arena_copy(&v->exchange->arena, s);
}

/* ---- strings */

enum { BYTES_PER_STEP = 8, MIB = 1 << 20 };

struct slice string_check(lua_State *L, int arg, size_t max) {
    if (lua_type(L, arg) != LUA_TSTRING) luaL_typeerror(L, arg, "string");
    struct slice s = text_check(L, arg);
    if (s.n > max && max % MIB == 0) luaL_argerror(L, arg, lua_pushfstring(L, "longer than %d MiB", (int)(max / MIB)));
    if (s.n > max) luaL_argerror(L, arg, lua_pushfstring(L, "longer than %d bytes", (int)max));
    budget_spend(L, 1 + s.n / BYTES_PER_STEP);
    return s;
}

/* ---- units */

enum { UNIT_TEXT = 32 };

/* Digits, perhaps with a fraction, and then a unit: no sign, no exponent, no hexadecimal. */
static bool read_unit(const char *text, size_t n, const char *const units[], const double factors[], double *out) {
    size_t digits = strspn(text, "0123456789.");
    if (n > UNIT_TEXT || strlen(text) != n || digits == 0 || !byte_is(text[0], BYTE_DIGIT)) return false;
    char number[UNIT_TEXT + 1] = "", *end;
    memcpy(number, text, digits);
    double value = strtod(number, &end);
    if (*end) return false;
    for (int i = 0; units[i]; i++) {
        if (strcmp(text + digits, units[i]) != 0) continue;
        *out = value * factors[i];
        return true;
    }
    return false;
}

bool seconds_read(lua_State *L, int index, double *seconds) {
    static const char *const units[] = { "ms", "s", "m", "h", NULL };
    static const double factors[] = { 0.001, 1, 60, 3600 };
    if (lua_type(L, index) == LUA_TNUMBER) {
        *seconds = lua_tonumber(L, index);
        return isfinite(*seconds) && *seconds >= 0;
    }
    size_t n;
    const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &n) : NULL;
    return text && read_unit(text, n, units, factors, seconds);
}

bool size_read(lua_State *L, int index, uint64_t *bytes) {
    static const char *const units[] = { "", "K", "M", "G", NULL };
    static const double factors[] = { 1, 1024, 1048576, 1073741824 };
    double number;
    size_t n;
    if (lua_type(L, index) == LUA_TNUMBER) {
        number = lua_tonumber(L, index);
    } else {
        const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &n) : NULL;
        if (!text || !read_unit(text, n, units, factors, &number)) return false;
    }
    if (!(number >= 0 && number < 1e15) || number != floor(number)) return false;
    *bytes = (uint64_t)number;
    return true;
}

double seconds_opt(lua_State *L, int arg, double missing) {
    double seconds = missing;
    if (lua_isnoneornil(L, arg)) return missing;
    if (!seconds_read(L, arg, &seconds))
        luaL_argerror(L, arg, "seconds expected, a number or such as \"500ms\" or \"10s\"");
    return seconds;
}

uint64_t size_opt(lua_State *L, int arg, uint64_t missing) {
    uint64_t bytes = missing;
    if (lua_isnoneornil(L, arg)) return missing;
    if (!size_read(L, arg, &bytes))
        luaL_argerror(L, arg, "bytes expected, a whole number or such as \"64K\" or \"1M\"");
    return bytes;
}

const char *value_name_push(lua_State *L, int index) {
    if (lua_type(L, index) == LUA_TNUMBER) {
        lua_pushvalue(L, index);
        return lua_tostring(L, -1);
    }
    if (lua_type(L, index) != LUA_TSTRING) return lua_pushfstring(L, "a %s", luaL_typename(L, index));
    char text[64];
    snprintf(text, sizeof text, "%s", lua_tostring(L, index));
    return lua_pushfstring(L, "\"%s\"", text);
}

/* ---- options */

static void check_option(lua_State *L, const char *what, const char *const names[]) {
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "%s: the names of options are strings, not %ss", what, luaL_typename(L, -1));
    const char *name = lua_tostring(L, -1);
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return;
    struct likeness l = likeness_begin(slice_of(name));
    for (int i = 0; names[i]; i++) likeness_try(&l, names[i]);
    if (l.best) luaL_error(L, "%s has no option '%s' (did you mean '%s'?)", what, name, l.best);
    luaL_error(L, "%s has no option '%s'", what, name);
}

void options_check(lua_State *L, int arg, const char *what, const char *const names[]) {
    if (lua_isnoneornil(L, arg)) return;
    luaL_checktype(L, arg, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, arg)) {
        lua_pop(L, 1);
        check_option(L, what, names);
    }
}

int option_push(lua_State *L, int arg, const char *name) {
    if (!lua_istable(L, arg)) {
        lua_pushnil(L);
        return LUA_TNIL;
    }
    lua_pushstring(L, name);
    return lua_rawget(L, arg);
}
