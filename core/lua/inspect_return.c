/* What hooks return: constants that a hook may not return, keys that are none, backends and servers that are not
 * there. */
#include "lua/inspect_inside.h"

#include "lua/verdict.h"

#include <math.h>

enum { FIRST_STATUS = 200, LAST_STATUS = 599 };

void inspect_note_return(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    unsigned count = op_of(i) == OP_RETURN1 ? 1 : op_b(i) ? op_b(i) - 1 : 0;
    for (unsigned j = 0; j < count; j++)
        if (registers[op_a(i) + j].kind == FACT_MISSING) inspect_used(in, s->proto->lines[at], registers[op_a(i) + j]);
    if (!in->now->hook || count == 0) return;
    struct made_return *r = arena_alloc_zeroed(&in->arena, sizeof *r);
    r->line = s->proto->lines[at];
    r->count = count < 4 ? count : 4;
    memcpy(r->values, &registers[op_a(i)], r->count * sizeof *r->values);
    r->next = in->now->returns;
    in->now->returns = r;
}

/* Lua's name for the type; NULL: it is not known, or nil. */
static const char *type_name(struct fact f) {
    switch (f.kind) {
    case FACT_BOOLEAN: return "boolean";
    case FACT_INTEGER:
    case FACT_NUMBER: return "number";
    case FACT_STRING: return "string";
    case FACT_FUNCTION: return "function";
    case FACT_TABLE: return "table";
    case FACT_LIVE: return f.live->type == LUA_TFUNCTION ? "function" : f.live->type == LUA_TTABLE ? "table" : NULL;
    default: return NULL;
    }
}

static bool is_number(struct fact f, double *number) {
    if (f.kind == FACT_INTEGER) *number = (double)f.integer;
    else if (f.kind == FACT_NUMBER) *number = f.number;
    else return false;
    return true;
}

/* A number that is no status is told. */
static void see_status(struct inspection *in, int line, const char *hook, double n) {
    if (n >= FIRST_STATUS && n <= LAST_STATUS && n == floor(n)) return;
    inspect_tell(in, line, true, "%s returns the number %g; a status is a whole number from 200 to 599", hook, n);
}

static void see_answer(struct inspection *in, const struct found_hook *h, const struct made_return *r) {
    double number;
    const char *type = type_name(r->values[0]);
    if (is_number(r->values[0], &number)) see_status(in, r->line, hook_name(h->hook), number);
    else if (type)
        inspect_tell(in, r->line, true, "%s returns a %s; expected a reply, a status or nothing", hook_name(h->hook),
                     type);
}

static void see_admission(struct inspection *in, const struct made_return *r) {
    if (r->count == 0) return;
    struct fact f = r->values[0];
    const char *type = type_name(f);
    if (type && !(f.kind == FACT_BOOLEAN && !f.boolean))
        inspect_tell(in, r->line, true, "on_connect returns a %s; expected false or nothing", type);
}

static void see_key(struct inspection *in, const struct made_return *r) {
    for (unsigned i = 0; i < r->count; i++) {
        const char *type = type_name(r->values[i]);
        if (type && (strcmp(type, "table") == 0 || strcmp(type, "function") == 0))
            inspect_tell(in, r->line, true,
                         "cache_key returns a %s as a part of the key; parts are strings, numbers, booleans or nil",
                         type);
    }
}

static bool may_be_server(const struct inspect_site *site, struct slice name, struct slice backend) {
    struct slice any = slice_make(name.p, backend.n + 1);
    for (const char *const *s = site->servers; *s; s++)
        if (slice_equal(name, slice_of(*s)) || slice_equal(any, slice_of(*s))) return true;
    return false;
}

static void see_picked_name(struct inspection *in, const struct found_hook *h, int line, struct slice name) {
    struct slice rest = name, head = slice_cut(&rest, '/');
    if (h->site >= in->site_count || inspect_has_backend(in, h->site, name)) return;
    if (!inspect_has_backend(in, h->site, head))
        inspect_tell_backend(in, line, in->site_count > 1 ? " in this site" : "", head);
    else if (!may_be_server(&in->sites[h->site], name, head))
        inspect_tell(in, line, visit_is_sure(in->now), "the backend \"%.*s\" has no server \"%.*s\"", FMT(head),
                     FMT(rest));
}

static bool push_list(lua_State *L, const struct made_table *t, const char *unknown);

/* A constant, or a list of them; false: it is something else, and nothing is pushed. */
static bool push_known(lua_State *L, struct fact f) {
    switch (f.kind) {
    case FACT_BOOLEAN: lua_pushboolean(L, f.boolean); return true;
    case FACT_INTEGER: lua_pushinteger(L, f.integer); return true;
    case FACT_NUMBER: lua_pushnumber(L, f.number); return true;
    case FACT_STRING: lua_pushlstring(L, f.string.p, f.string.n); return true;
    case FACT_TABLE: return f.table->field_count == 0 && push_list(L, f.table, "connect");
    default: return false;
    }
}

static bool push_list(lua_State *L, const struct made_table *t, const char *unknown) {
    if (t->opaque || !lua_checkstack(L, 8)) return false;
    lua_createtable(L, (int)t->item_count, (int)t->field_count);
    for (unsigned i = 0; i < t->item_count; i++) {
        if (!push_known(L, t->items[i])) lua_pushstring(L, unknown);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return true;
}

/* The list is made once more, as far as it is known, and read as the hook's answer would be. */
static void see_picked_list(struct inspection *in, const struct found_hook *h, int line, const struct made_table *t) {
    static const char *const options[] = { "tries", "retry_on", "timeout", NULL };
    lua_State *L = in->state->L;
    struct pick pick = { 0 };
    struct reading reading;
    if (!push_list(L, t, "?")) return;
    for (unsigned i = 0; i < t->item_count; i++)
        if (t->items[i].kind == FACT_STRING) see_picked_name(in, h, line, t->items[i].string);
    for (unsigned i = 0; i < t->field_count; i++) {
        lua_pushlstring(L, t->fields[i].p, t->fields[i].n);
        bool known = push_known(L, t->values[i]);
        if (!known && !name_is_one_of(lua_tostring(L, -1), options)) lua_pushboolean(L, known = true);
        if (known) lua_rawset(L, -3);
        else lua_pop(L, 1);
    }
    reading_init(&reading, NULL, NULL, HOOK_PICK_BACKEND, NULL);
    if (!pick_read(&reading, L, lua_gettop(L), &pick))
        inspect_tell(in, line, true, "pick_backend returns %s", reading.why);
    lua_pop(L, 1);
}

static void see_pick(struct inspection *in, const struct found_hook *h, const struct made_return *r) {
    struct fact f = r->values[0];
    double number;
    const char *type = type_name(f);
    if (is_number(f, &number)) see_status(in, r->line, "pick_backend", number);
    else if (f.kind == FACT_STRING) see_picked_name(in, h, r->line, f.string);
    else if (f.kind == FACT_TABLE) see_picked_list(in, h, r->line, f.table);
    else if (type && !(f.kind == FACT_BOOLEAN && !f.boolean))
        inspect_tell(in, r->line, true,
                     "pick_backend returns a %s; expected a backend's name, a list of them, a reply or nothing", type);
}

void inspect_returns(struct inspection *in, const struct visit *v, const struct found_hook *h) {
    for (const struct made_return *r = v->returns; r; r = r->next) switch (h->hook) {
        case HOOK_ON_CONNECT: see_admission(in, r); break;
        case HOOK_ON_REQUEST:
        case HOOK_ON_RESPONSE:
        case HOOK_ON_ERROR: see_answer(in, h, r); break;
        case HOOK_CACHE_KEY: see_key(in, r); break;
        case HOOK_PICK_BACKEND: see_pick(in, h, r); break;
        default: break;
        }
}
