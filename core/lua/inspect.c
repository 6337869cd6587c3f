/* The checks. Each file is compiled once more, taken apart (bytecode.c), and its functions are walked scene by scene
 * (flow.c): the file itself, then every function that is made in it, those that are hooks with what hooks get, and
 * again every call of a function of the file with arguments that are known.
 *
 * Which functions are hooks the loaded state says, by their files and bytes: so a policy that a function of another
 * file made is found as well as one that stands in the config. */
#include "lua/inspect.h"

#include "lua/bind.h"
#include "lua/flow.h"
#include "lua/names.h"
#include "lua/policy.h"
#include "lua/sandbox.h"
#include "lua/state_rest.h"
#include "lua/verdict.h"

#include "base/list.h"
#include "base/must.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCENES_MOST = 3000, DEPTH_MOST = 8, RETURNS_MOST = 64 };
enum { FIRST_STATUS = 200, LAST_STATUS = 599 };

/* A function of the file that is looked at, and a hook of a site. */
struct found_hook {
    struct found_hook *next;
    const struct proto *proto; /* read for itself: none of those that are walked */
    enum hook hook;
    unsigned site;
};

/* A scene that is to be looked at, or has been. */
struct visit {
    struct scene scene;
    struct visit *next;
    const struct found_hook *hook; /* it is one: the first of those that it is */
    const char *callback_of;       /* a C function that runs it, in which nothing can wait */
    bool tentative;                /* within pcall: what fails may be meant to */
    bool late;                     /* runs only when the file has been loaded */
    unsigned depth;                /* of calls */
    struct made_return *returns;
    const char **ways; /* by inner function: what runs it, a mark as below; NULL: nothing that is known */
};

struct made_return {
    struct made_return *next;
    int line;
    unsigned count;
    struct fact values[4];
};

/* How a function is run by what it is handed to: a mark, or the name of a function in which nothing waits. */
static const char TENTATIVELY[] = "pcall", LATER[] = "gate.spawn";

struct inspection {
    struct flow flow;
    struct names names;
    struct arena arena;
    struct state *state;
    struct sources *sources;
    struct errors *errors;
    const struct inspect_site *sites;
    unsigned site_count;
    size_t from; /* errors of this file begin here */
    struct found_hook *hooks;
    struct proto *main;
    struct visit *visits, **next;
    unsigned count;
    struct visit *now;
};

static struct inspection *of_flow(struct flow *f) { return container_of(f, struct inspection, flow); }
static struct visit *of_scene(struct scene *s) { return container_of(s, struct visit, scene); }

/* ---- telling */

/* Only what hooks do, as far as it can be followed, is surely meant to work: a library may have functions that nobody
 * calls here. */
static bool is_sure(const struct visit *v) { return v->late && !v->tentative; }

static bool is_told(const struct inspection *in, int line, const char *text) {
    for (size_t i = in->from; i < in->errors->count; i++)
        if (in->errors->list[i].line == line && strcmp(in->errors->list[i].text, text) == 0) return true;
    return false;
}

static __attribute__((format(printf, 4, 5))) void tell(struct inspection *in, int line, bool sure, const char *format,
                                                       ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (is_told(in, line, text)) return;
    if (sure) errors_add(in->errors, in->main->file, line, NULL, "%s", text);
    else errors_warn(in->errors, in->main->file, line, NULL, "%s", text);
}

/* ---- names that are not there */

static bool is_one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (strcmp(name, *list) == 0) return true;
    return false;
}

/* What Lua has and the sandbox takes away: the word of `unsafe` that gives it back, "" if nothing does. */
static const char *unsafe_word(const char *path) {
    static const char *const os[] = { "os.execute", "os.exit",      "os.getenv",  "os.remove",
                                      "os.rename",  "os.setlocale", "os.tmpname", NULL };
    static const char *const debug[] = { "debug.debug",        "debug.gethook",     "debug.getinfo",
                                         "debug.getlocal",     "debug.getupvalue",  "debug.sethook",
                                         "debug.setlocal",     "debug.setupvalue",  "debug.getmetatable",
                                         "debug.setmetatable", "debug.getregistry", NULL };
    static const char *const never[] = { "dofile", "loadfile", "string.dump", NULL };
    if (strcmp(path, "io") == 0 || strcmp(path, "package") == 0) return path;
    if (is_one_of(path, os)) return "os";
    if (is_one_of(path, debug)) return "debug";
    return is_one_of(path, never) ? "" : NULL;
}

/* What other Luas call it. */
static const char *own_name(const char *path) {
    static const char *const pairs[][2] = { { "unpack", "table.unpack" },
                                            { "loadstring", "load" },
                                            { "table.getn", "#" },
                                            { "math.pow", "^" },
                                            { "string.gfind", "string.gmatch" },
                                            { "gate", "local gate = require \"moongate\"" } };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(path, pairs[i][0]) == 0) return pairs[i][1];
    return NULL;
}

/* `consequence`: "and it is called". */
static void tell_missing(struct inspection *in, int line, bool sure, const char *path, const char *consequence) {
    const char *unsafe = unsafe_word(path), *dot = strrchr(path, '.');
    const char *near = own_name(path) ? own_name(path) : names_like_missing(&in->names, path);
    char hint[128] = "";
    if (unsafe && *unsafe) snprintf(hint, sizeof hint, " in the sandbox (unsafe = { \"%s\" } allows it)", unsafe);
    else if (unsafe) snprintf(hint, sizeof hint, " in the sandbox");
    else if (near) snprintf(hint, sizeof hint, " (did you mean '%s'?)", near);
    if (dot && !unsafe)
        tell(in, line, sure, "%.*s has no '%s'%s, %s", (int)(dot - path), path, dot + 1, hint, consequence);
    else
        tell(in, line, sure, "there is no %s%s%s%s, %s", unsafe ? "" : "global '", path, unsafe ? "" : "'", hint,
             consequence);
}

/* The value of a register is used so that nil raises. */
static void see_needed(struct inspection *in, int line, struct fact f, const char *consequence) {
    if (f.kind == FACT_MISSING) tell_missing(in, line, is_sure(in->now), f.missing, consequence);
}

/* It is handed on: nil may be meant. */
static void see_used(struct inspection *in, int line, struct fact f) {
    if (f.kind == FACT_MISSING) tell_missing(in, line, false, f.missing, "and its value is used: it is nil");
    if (f.kind == FACT_TABLE) f.table->opaque = true;
}

/* ---- fields */

static void see_field(struct inspection *in, int line, struct fact base, struct fact key) {
    see_needed(in, line, base, "and a field of it is used");
    if (base.kind != FACT_OBJECT || key.kind != FACT_STRING) return;
    if (names_object_has(&in->names, base.object, key.string)) return;
    const char *near = names_like_field(&in->names, base.object, key.string);
    tell(in, line, is_sure(in->now), "%s has no field '%.*s'%s%s%s", base.object->name, FMT(key.string),
         near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

static void keep_field(struct made_table *t, struct slice name, struct fact value) {
    if (t->field_count == TABLE_ITEMS) {
        t->opaque = true;
        return;
    }
    t->fields[t->field_count] = name;
    t->values[t->field_count++] = value;
}

static void see_assigned(struct inspection *in, int line, struct fact base, struct fact key, struct fact value) {
    struct slice name = key.kind == FACT_STRING ? key.string : SLICE("?");
    see_field(in, line, base, key);
    if (base.kind == FACT_TABLE && key.kind == FACT_STRING) keep_field(base.table, name, value);
    else see_used(in, line, value);
    if (base.kind == FACT_TABLE && key.kind != FACT_STRING) base.table->opaque = true;
    if (base.kind == FACT_OBJECT && names_object_keeps(base.object, name))
        tell(in, line, is_sure(in->now), "%s.%.*s is read-only", base.object->name, FMT(name));
    if (base.kind == FACT_LIVE && base.live->front)
        tell(in, line, is_sure(in->now), "cannot set '%s.%.*s': it is read-only", base.live->path, FMT(name));
}

/* While the file is loaded it may set globals; what has not done so by now, and can still run, will fail. */
static void see_global_set(struct inspection *in, int line, struct slice name) {
    const struct visit *v = in->now;
    if (v->late)
        tell(in, line, is_sure(v) && v->depth == 0, /* what it calls may have run before, and know it */
             "global '%.*s' is set when the file has been loaded: globals are read-only then (use a local, req.ctx or "
             "gate.shared)",
             FMT(name));
    else if (v->scene.outer && !names_is_set(&in->names, name))
        tell(in, line, false,
             "global '%.*s' is set in a function that did not run while the file was loaded (a local?)", FMT(name));
}

/* ---- calls */

static const char *const waiting[] = { "gate.all",
                                       "gate.crypto.password_hash",
                                       "gate.crypto.password_verify",
                                       "gate.crypto.pbkdf2",
                                       "gate.crypto.scrypt",
                                       "gate.dns.resolve",
                                       "gate.fetch",
                                       "gate.lock",
                                       "gate.sleep",
                                       "gate.socket.connect",
                                       NULL };
static const char *const blocking[] = { "io.lines",  "io.open",   "io.popen",   "io.read", "io.write",  "io.input",
                                        "io.output", "os.remove", "os.execute", "os.exit", "os.rename", NULL };

static bool is_backend(const struct inspection *in, unsigned site, struct slice name) {
    for (const char *const *b = in->sites[site].backends; *b; b++)
        if (slice_equal(name, slice_of(*b))) return true;
    return false;
}

static const char *like_backend(const struct inspection *in, struct slice name) {
    struct likeness l = likeness_begin(name);
    for (unsigned i = 0; i < in->site_count; i++)
        for (const char *const *b = in->sites[i].backends; *b; b++) likeness_try(&l, *b);
    return l.best;
}

static void tell_backend(struct inspection *in, int line, const char *where, struct slice name) {
    const char *near = like_backend(in, name);
    tell(in, line, is_sure(in->now), "there is no backend \"%.*s\"%s%s%s%s", FMT(name), where,
         near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
}

static void see_named_backend(struct inspection *in, int line, struct fact name) {
    if (name.kind != FACT_STRING || memmem(name.string.p, name.string.n, "://", 3)) return;
    for (unsigned i = 0; i < in->site_count; i++)
        if (is_backend(in, i, name.string)) return;
    tell_backend(in, line, "", name.string);
}

static void see_load(struct inspection *in, int line, const struct fact *arguments, unsigned count) {
    if (count >= 3 && arguments[2].kind == FACT_STRING && slice_equal(arguments[2].string, SLICE("b")))
        tell(in, line, false, "load: bytecode cannot be checked; text is what is loaded");
}

static void see_live_call(struct inspection *in, int line, const char *path, const struct fact *arguments,
                          unsigned count) {
    const struct visit *v = in->now;
    if (v->callback_of && is_one_of(path, waiting))
        tell(in, line, is_sure(v), "%s waits: cannot wait inside %s", path, v->callback_of);
    if (v->scene.outer && is_one_of(path, blocking))
        tell(in, line, false, "%s blocks its worker, and all who are served by it", path);
    if (strcmp(path, "gate.fetch") == 0 || strcmp(path, "gate.backend") == 0)
        if (count) see_named_backend(in, line, arguments[0]);
    if (strcmp(path, "load") == 0) see_load(in, line, arguments, count);
}

/* What a library function does with a function that it is given. NULL: nothing that matters here. */
static const char *way_of(const char *path) {
    static const char *const tentative[] = { "pcall", "xpcall", NULL };
    static const char *const later[] = { "gate.every", "gate.spawn", NULL };
    static const char *const callbacks[] = { "table.sort", "string.gsub", "load", NULL };
    if (is_one_of(path, tentative)) return TENTATIVELY;
    if (is_one_of(path, later)) return LATER;
    return is_one_of(path, callbacks) ? path : NULL;
}

static void note_way(struct inspection *in, const char *way, struct fact argument) {
    if (argument.kind != FACT_FUNCTION) return;
    struct scene *s = argument.function.made_in;
    struct visit *v = of_scene(s);
    for (unsigned i = 0; i < s->proto->proto_count; i++)
        if (s->proto->protos[i] == argument.function.proto) v->ways[i] = way;
}

/* ---- the queue */

static bool is_same_scene(const struct visit *v, const struct proto *p, const struct scene *outer,
                          const struct fact *arguments, const struct visit *like) {
    if (v->scene.proto != p || v->scene.outer != outer) return false;
    if (v->callback_of != like->callback_of || v->tentative != like->tentative || v->late != like->late) return false;
    for (unsigned i = 0; i < SCENE_ARGUMENTS; i++)
        if (!fact_equal(v->scene.arguments[i], arguments[i])) return false;
    return true;
}

static const struct fact *upvalues_of(const struct scene *outer, const struct proto *p) {
    for (unsigned i = 0; i < outer->proto->proto_count; i++)
        if (outer->proto->protos[i] == p) return outer->inside[i];
    return NULL;
}

/* `like` says how it is run. Ignored: it is known already, or there are too many. */
static struct visit *add_visit(struct inspection *in, const struct proto *p, struct scene *outer,
                               const struct fact *upvalues, const struct fact *arguments, const struct visit *like) {
    for (struct visit *v = in->visits; v; v = v->next)
        if (is_same_scene(v, p, outer, arguments, like)) return v;
    if (in->count == SCENES_MOST) return NULL;
    struct visit *v = arena_alloc_zeroed(&in->arena, sizeof *v);
    v->scene = (struct scene){ .proto = p, .outer = outer, .upvalues = upvalues };
    memcpy(v->scene.arguments, arguments, sizeof v->scene.arguments);
    v->callback_of = like->callback_of;
    v->tentative = like->tentative;
    v->late = like->late;
    v->depth = like->depth;
    v->hook = like->hook;
    v->ways = arena_alloc_zeroed(&in->arena, (p->proto_count + 1) * sizeof(char *));
    *in->next = v;
    in->next = &v->next;
    in->count++;
    return v;
}

static void any_arguments(struct fact to[SCENE_ARGUMENTS]) {
    for (unsigned i = 0; i < SCENE_ARGUMENTS; i++) to[i] = fact_any();
}

/* A call of a function of this file whose arguments tell more than that it is called. */
static void see_known_call(struct inspection *in, struct fact function, const struct fact *arguments, unsigned count) {
    const struct visit *v = in->now;
    const struct proto *p = function.function.proto;
    const struct fact *upvalues = upvalues_of(function.function.made_in, p);
    struct fact known[SCENE_ARGUMENTS];
    any_arguments(known);
    bool tells = v->callback_of || v->late;
    for (unsigned i = 0; i < count && i < p->parameters && i < SCENE_ARGUMENTS; i++) {
        if (arguments[i].kind != FACT_OBJECT && arguments[i].kind != FACT_FUNCTION) continue;
        known[i] = arguments[i];
        tells = true;
    }
    if (!tells || !upvalues || v->depth == DEPTH_MOST) return;
    struct visit like = {
        .callback_of = v->callback_of, .tentative = v->tentative, .late = v->late, .depth = v->depth + 1
    };
    add_visit(in, p, function.function.made_in, upvalues, known, &like);
}

static void see_call(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    struct fact function = registers[op_a(i)];
    const struct fact *arguments = &registers[op_a(i) + 1];
    unsigned count = op_b(i) ? op_b(i) - 1 : 0;
    see_needed(in, line, function, "and it is called");
    for (unsigned j = 0; j < count; j++) see_used(in, line, arguments[j]);
    if (function.kind == FACT_FUNCTION) see_known_call(in, function, arguments, count);
    if (function.kind != FACT_LIVE) return;
    see_live_call(in, line, function.live->path, arguments, count);
    const char *way = way_of(function.live->path);
    for (unsigned j = 0; way && j < count; j++) note_way(in, way, arguments[j]);
}

/* ---- what is returned */

static void note_return(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    unsigned count = op_of(i) == OP_RETURN1 ? 1 : op_b(i) ? op_b(i) - 1 : 0;
    for (unsigned j = 0; j < count; j++)
        if (registers[op_a(i) + j].kind == FACT_MISSING) see_used(in, s->proto->lines[at], registers[op_a(i) + j]);
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
    tell(in, line, true, "%s returns the number %g; a status is a whole number from 200 to 599", hook, n);
}

static void see_answer(struct inspection *in, const struct found_hook *h, const struct made_return *r) {
    double number;
    const char *type = type_name(r->values[0]);
    if (is_number(r->values[0], &number)) see_status(in, r->line, hook_name(h->hook), number);
    else if (type)
        tell(in, r->line, true, "%s returns a %s; expected a reply, a status or nothing", hook_name(h->hook), type);
}

static void see_key(struct inspection *in, const struct made_return *r) {
    for (unsigned i = 0; i < r->count; i++) {
        const char *type = type_name(r->values[i]);
        if (type && (strcmp(type, "table") == 0 || strcmp(type, "function") == 0))
            tell(in, r->line, true,
                 "cache_key returns a %s as a part of the key; parts are strings, numbers, booleans or nil", type);
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
    if (h->site >= in->site_count || is_backend(in, h->site, name)) return;
    if (!is_backend(in, h->site, head)) tell_backend(in, line, in->site_count > 1 ? " in this site" : "", head);
    else if (!may_be_server(&in->sites[h->site], name, head))
        tell(in, line, is_sure(in->now), "the backend \"%.*s\" has no server \"%.*s\"", FMT(head), FMT(rest));
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
        if (!known && !is_one_of(lua_tostring(L, -1), options)) lua_pushboolean(L, known = true);
        if (known) lua_rawset(L, -3);
        else lua_pop(L, 1);
    }
    reading_init(&reading, NULL, NULL, HOOK_PICK_BACKEND, NULL);
    if (!pick_read(&reading, L, lua_gettop(L), &pick)) tell(in, line, true, "pick_backend returns %s", reading.why);
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
        tell(in, r->line, true,
             "pick_backend returns a %s; expected a backend's name, a list of them, a reply or nothing", type);
}

static void see_returns(struct inspection *in, const struct visit *v, const struct found_hook *h) {
    for (const struct made_return *r = v->returns; r; r = r->next) switch (h->hook) {
        case HOOK_ON_CONNECT:
        case HOOK_ON_REQUEST:
        case HOOK_ON_RESPONSE:
        case HOOK_ON_ERROR: see_answer(in, h, r); break;
        case HOOK_CACHE_KEY: see_key(in, r); break;
        case HOOK_PICK_BACKEND: see_pick(in, h, r); break;
        default: break;
        }
}

/* ---- instructions */

static void see_list(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    struct fact base = registers[op_a(i)];
    for (unsigned j = 1; j <= op_b(i); j++) see_used(in, s->proto->lines[at], registers[op_a(i) + j]);
    if (base.kind != FACT_TABLE) return;
    struct made_table *t = base.table;
    t->item_count = 0;
    if (op_b(i) == 0 || op_b(i) > TABLE_ITEMS || op_c(i)) t->opaque = true;
    else
        for (; t->item_count < op_b(i); t->item_count++)
            t->items[t->item_count] = registers[op_a(i) + t->item_count + 1];
}

/* What a new function holds on to may be changed by it. */
static void see_closure(const struct scene *s, unsigned at, const struct fact *registers) {
    const struct proto *inner = s->proto->protos[op_bx(s->proto->code[at])];
    for (unsigned u = 0; u < inner->upvalue_count; u++) {
        struct fact f = inner->upvalues[u].in_register ? registers[inner->upvalues[u].index] : fact_any();
        if (f.kind == FACT_TABLE) f.table->opaque = true;
    }
}

static void see_operands(struct inspection *in, int line, uint32_t i, const struct fact *registers) {
    enum opcode op = op_of(i);
    if (op == OP_CONCAT) {
        for (unsigned j = 0; j < op_b(i); j++)
            see_needed(in, line, registers[op_a(i) + j], "and it is a part of a text");
        return;
    }
    see_needed(in, line, registers[op_b(i)], "and it is calculated with");
    if (op >= OP_ADD && op <= OP_SHR) see_needed(in, line, registers[op_c(i)], "and it is calculated with");
}

static void see_stored(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    struct fact base = flow_base(s, at, registers), key = flow_key(s, at, registers);
    struct fact value = op_k(i) ? fact_of_constant(&s->proto->constants[op_c(i)]) : registers[op_c(i)];
    if (base.kind != FACT_ENVIRONMENT) {
        see_assigned(in, line, base, key, value);
        return;
    }
    see_used(in, line, value);
    if (key.kind == FACT_STRING) see_global_set(in, line, key.string);
}

/* What is read out of a table may be changed behind its back. */
static void see_read(struct inspection *in, int line, struct fact base, struct fact key) {
    see_field(in, line, base, key);
    if (base.kind == FACT_TABLE) base.table->opaque = true;
}

static void see(struct flow *f, struct scene *s, unsigned at, struct fact *registers) {
    struct inspection *in = of_flow(f);
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    enum opcode op = op_of(i);
    switch (op) {
    case OP_GETTABUP:
    case OP_GETFIELD:
    case OP_SELF:
    case OP_GETTABLE:
    case OP_GETI: see_read(in, line, flow_base(s, at, registers), flow_key(s, at, registers)); break;
    case OP_SETTABUP:
    case OP_SETFIELD:
    case OP_SETTABLE:
    case OP_SETI: see_stored(in, s, at, registers); break;
    case OP_SETUPVAL: see_used(in, line, registers[op_a(i)]); break;
    case OP_SETLIST: see_list(in, s, at, registers); break;
    case OP_CLOSURE: see_closure(s, at, registers); break;
    case OP_CALL:
    case OP_TAILCALL: see_call(in, s, at, registers); break;
    case OP_RETURN:
    case OP_RETURN1: note_return(in, s, at, registers); break;
    case OP_UNM:
    case OP_BNOT:
    case OP_LEN:
    case OP_CONCAT: see_operands(in, line, i, registers); break;
    default:
        if (op >= OP_ADDI && op <= OP_SHR) see_operands(in, line, i, registers);
    }
}

/* ---- hooks */

static int append(lua_State *L, const void *bytes, size_t n, void *with) {
    (void)L;
    return fwrite(bytes, 1, n, with) == n ? 0 : 1;
}

/* The function on top, taken apart; pops it. NULL: as bytecode_read says. */
static struct proto *take_apart(struct inspection *in) {
    char *dump = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&dump, &size);
    must(to);
    lua_dump(in->state->L, append, to, 0);
    must(fclose(to) == 0);
    lua_pop(in->state->L, 1);
    struct slice kept = arena_copy(&in->arena, slice_make(dump, size));
    free(dump);
    return bytecode_read(&in->arena, kept);
}

/* Is the function on top one of the file that is looked at? */
static bool stands_in_file(const struct inspection *in) {
    lua_State *L = in->state->L;
    lua_Debug about;
    if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) return false;
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", &about);
    return strcmp(*about.source == '@' ? about.source + 1 : about.source, in->main->file) == 0;
}

static void add_hook(struct inspection *in, int ref, enum hook hook, unsigned site) {
    lua_State *L = in->state->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    if (!stands_in_file(in)) {
        lua_pop(L, 1);
        return;
    }
    const struct proto *proto = take_apart(in);
    if (!proto) return;
    struct found_hook *h = arena_alloc_zeroed(&in->arena, sizeof *h);
    *h = (struct found_hook){ .next = in->hooks, .proto = proto, .hook = hook, .site = site };
    in->hooks = h;
}

static void find_hooks(struct inspection *in) {
    const struct state_rest *rest = in->state->rest;
    for (unsigned site = 0; site < rest->policy_count; site++)
        for (enum hook h = 0; h < HOOK_COUNT; h++) {
            const struct policy_chain *chain = &rest->policies[site]->chains[h];
            for (unsigned i = 0; i < chain->count; i++)
                if (chain->entries[i].kind == ENTRY_FUNCTION) add_hook(in, chain->entries[i].ref, h, site);
        }
}

/* The next hook that this function is, after `h` (NULL: the first). */
static const struct found_hook *next_hook(const struct inspection *in, const struct found_hook *h,
                                          const struct proto *p) {
    for (h = h ? h->next : in->hooks; h; h = h->next)
        if (slice_equal(h->proto->bytes, p->bytes)) return h;
    return NULL;
}

static void hook_arguments(struct inspection *in, enum hook hook, struct fact to[SCENE_ARGUMENTS]) {
    any_arguments(to);
    if (hook == HOOK_ON_CONNECT || hook == HOOK_ON_CERTIFICATE) return;
    to[0] = names_object(&in->names, "moongate.req");
    if (hook == HOOK_ON_STORE || hook == HOOK_ON_RESPONSE || hook == HOOK_ON_LOG)
        to[1] = names_object(&in->names, "moongate.res");
}

/* ---- scenes */

static void add_inner(struct inspection *in, struct visit *v, unsigned index) {
    struct scene *s = &v->scene;
    const struct proto *p = s->proto->protos[index];
    const char *way = v->ways[index];
    struct fact arguments[SCENE_ARGUMENTS];
    struct visit like = { .tentative = v->tentative, .late = v->late };
    like.hook = next_hook(in, NULL, p);
    any_arguments(arguments);
    if (like.hook) hook_arguments(in, like.hook->hook, arguments);
    if (like.hook || way == LATER) like.late = true;
    if (way == TENTATIVELY) like.tentative = true;
    else if (way && way != LATER) like.callback_of = way;
    if (way == TENTATIVELY) like.callback_of = v->callback_of;
    add_visit(in, p, s, s->inside[index], arguments, &like);
}

static void look_at(struct inspection *in, struct visit *v) {
    in->now = v;
    if (!flow_run(&in->flow, &v->scene)) return;
    flow_visit(&in->flow, &v->scene);
    for (const struct found_hook *h = v->hook; h; h = next_hook(in, h, v->scene.proto)) see_returns(in, v, h);
    for (unsigned i = 0; i < v->scene.proto->proto_count; i++)
        if (v->scene.inside[i]) add_inner(in, v, i);
}

static void look_at_main(struct inspection *in) {
    struct fact arguments[SCENE_ARGUMENTS];
    struct fact *upvalues = arena_alloc_zeroed(&in->arena, sizeof *upvalues);
    upvalues->kind = FACT_ENVIRONMENT;
    const struct visit like = { .hook = NULL };
    any_arguments(arguments);
    in->visits = NULL;
    in->next = &in->visits;
    in->count = 0;
    add_visit(in, in->main, NULL, upvalues, arguments, &like);
    for (struct visit *v = in->visits; v; v = v->next) look_at(in, v);
}

/* ---- files */

static void inspect_file(struct inspection *in, const char *path, struct slice text) {
    if (text.n && *text.p == LUA_SIGNATURE[0]) return;
    if (!environment_of_file_push(in->state->L, path)) return;
    lua_pop(in->state->L, 1);
    load_chunk_push(in->state->L, path, text);
    arena_init(&in->arena);
    in->main = take_apart(in);
    in->from = in->errors->count;
    if (in->main) {
        names_open(&in->names, in->state->L, &in->arena);
        in->hooks = NULL;
        find_hooks(in);
        if (names_file(&in->names, in->main)) look_at_main(in);
        names_close(&in->names);
    }
    errors_sort(in->errors, in->from);
    arena_fini(&in->arena);
}

static int inspect_all(lua_State *L) {
    struct inspection *in = lua_touserdata(L, 1);
    const char *path;
    luaL_checkstack(L, 64, NULL);
    for (size_t i = 0; (path = sources_path(in->sources, i)); i++) {
        struct slice text;
        text.p = sources_text(in->sources, i, &text.n);
        if (text.p) inspect_file(in, path, text);
    }
    return 0;
}

void inspect(struct state *state, struct sources *sources, const struct inspect_site *sites, unsigned count,
             struct errors *errors) {
    struct inspection in = {
        .state = state, .sources = sources, .errors = errors, .sites = sites, .site_count = count
    };
    in.flow = (struct flow){ .arena = &in.arena, .names = &in.names, .see = see };
    lua_pushcfunction(state->L, inspect_all);
    lua_pushlightuserdata(state->L, &in);
    must(lua_pcall(state->L, 1, 0, 0) == LUA_OK); /* it runs no script, and every file has been compiled before */
}
