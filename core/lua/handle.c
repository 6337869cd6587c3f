/* Handles: how a script holds on to something of C without keeping it alive.
 *
 * A userdata is small, has no user values and is never used again for something else: a script may have kept it, and
 * must then be told that the exchange has ended. What is pooled is only the set of slots of a subject: a few places
 * in one array table of the registry, so that a handle is anchored by lua_rawseti and freed by writing nil, without
 * luaL_ref.
 *
 * A metamethod pushes the parts of its object (req.headers) through an upvalue, one call of Lua's API instead of four;
 * they are what scripts ask for most.
 *
 * Kinds are told apart by a pointer in the userdata instead of by metatable: one comparison. A userdata of another
 * library (io, when `unsafe` allows it) cannot hold that pointer by chance. */
#include "lua/engine.h"

#include "base/must.h"

#include <stdlib.h>
#include <string.h>

/* A subject's. */
struct handles {
    struct state *state;
    struct subject *subject;
    struct list node; /* in state->handles */
    struct handle *first;
    struct list ties;
    int base;        /* its slots are base + enum handle_slot */
    uint32_t filled; /* bits of slots */
    struct handles *next_free;
};

_Static_assert(HANDLE_SLOTS <= 32, "slots have bits");

/* ---- Sets */

static struct handles *make_set(struct state *s) {
    struct handles *set = must_calloc(1, sizeof *set);
    set->state = s;
    set->base = (int)(s->handle_sets++ * HANDLE_SLOTS) + 1;
    list_init(&set->node);
    list_init(&set->ties);
    return set;
}

static struct handles *handles_of(struct state *s, struct subject *subject) {
    struct handles *set = subject->handles;
    if (set) return set;
    set = s->free_handles;
    if (set) s->free_handles = set->next_free;
    else set = make_set(s);
    set->subject = subject;
    list_push(&s->handles, &set->node);
    return subject->handles = set;
}

static void null_handles(struct handles *set) {
    for (struct handle *h = set->first; h; h = h->next) h->pointer = NULL;
    set->first = NULL;
    if (!set->filled) return;
    lua_State *L = set->state->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, set->state->handle_slots);
    for (; set->filled; set->filled &= set->filled - 1) {
        lua_pushboolean(L, 0); /* not nil: the array keeps its shape */
        lua_rawseti(L, -2, set->base + __builtin_ctz(set->filled));
    }
    lua_pop(L, 1);
}

void handles_end(struct subject *subject) {
    struct handles *set = subject->handles;
    if (!set) return;
    ties_end(&set->ties);
    null_handles(set);
    subject->handles = NULL;
    set->subject = NULL;
    list_remove(&set->node);
    set->next_free = set->state->free_handles;
    set->state->free_handles = set;
}

void handles_end_all(struct state *s) {
    while (!list_empty(&s->handles)) handles_end(container_of(s->handles.next, struct handles, node)->subject);
}

/* What recall stands on: strings of this length are interned. */
static void check_interning(lua_State *L) {
    char text[RECALL_TEXT_MAX];
    memset(text, 'x', sizeof text);
    lua_pushlstring(L, text, sizeof text);
    lua_pushlstring(L, text, sizeof text);
    must(lua_topointer(L, -1) && lua_topointer(L, -1) == lua_topointer(L, -2));
    lua_pop(L, 2);
}

void handles_open(struct state *s) {
    list_init(&s->handles);
    check_interning(s->L);
    lua_createtable(s->L, 64 * HANDLE_SLOTS, 0);
    s->handle_slots = luaL_ref(s->L, LUA_REGISTRYINDEX);
}

void handles_close(struct state *s) {
    while (s->free_handles) {
        struct handles *set = s->free_handles;
        s->free_handles = set->next_free;
        free(set);
    }
}

/* ---- Slots */

static bool is_of_response(enum handle_slot slot) {
    return slot == HANDLE_RES || slot == HANDLE_RES_HEADERS || slot == HANDLE_RES_BODY || slot == HANDLE_RES_CACHE;
}

/* A fetch made for an exchange shows the exchange's own handles; so does a fill, but those of its response. */
static struct subject *subject_of_slot(struct subject *subject, enum handle_slot slot) {
    bool own = !subject->exchange || (subject->kind == SUBJECT_FILL && is_of_response(slot));
    return own ? subject : &subject->exchange->subject;
}

static bool is_filled(const struct handles *set, enum handle_slot slot) { return set->filled & 1u << slot; }

/* Pushes what lies in the slot if it is filled. */
static bool push_slot(lua_State *L, struct handles *set, enum handle_slot slot) {
    if (!is_filled(set, slot)) return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, set->state->handle_slots);
    lua_rawgeti(L, -1, set->base + (int)slot);
    lua_replace(L, -2);
    return true;
}

/* Puts the value on top into the slot and leaves it there. The mark comes last: growing the array may be refused. */
static void fill_slot(lua_State *L, struct handles *set, enum handle_slot slot) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, set->state->handle_slots);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, set->base + (int)slot);
    lua_pop(L, 1);
    set->filled |= 1u << slot;
}

static void lend_pointer(struct handles *set, struct handle *h, void *pointer) {
    h->pointer = pointer;
    h->next = set->first;
    set->first = h;
}

void handle_push(lua_State *L, struct subject *subject, enum handle_slot slot, const struct handle_kind *kind,
                 void *pointer) {
    struct handles *set = handles_of(state_of(L), subject_of_slot(subject, slot));
    if (push_slot(L, set, slot)) return;
    struct handle *h = handle_new(L, kind, NULL);
    fill_slot(L, set, slot);
    lend_pointer(set, h, pointer);
}

static bool push_part(lua_State *L, struct handles *set, enum handle_slot slot) {
    if (!is_filled(set, slot)) return false;
    lua_rawgeti(L, lua_upvalueindex(UPVALUE_SLOTS), set->base + (int)slot);
    return true;
}

void handle_push_part(lua_State *L, struct subject *subject, enum handle_slot slot, const struct handle_kind *kind,
                      void *pointer) {
    struct handles *set = handles_of(state_of(L), subject_of_slot(subject, slot));
    if (push_part(L, set, slot)) return;
    struct handle *h = handle_new(L, kind, NULL);
    lua_pushvalue(L, -1);
    lua_rawseti(L, lua_upvalueindex(UPVALUE_SLOTS), set->base + (int)slot);
    set->filled |= 1u << slot;
    lend_pointer(set, h, pointer);
}

bool slot_push_part(lua_State *L, struct subject *subject, enum handle_slot slot) {
    return push_part(L, handles_of(state_of(L), subject_of_slot(subject, slot)), slot);
}

bool slot_push(lua_State *L, struct subject *subject, enum handle_slot slot) {
    return push_slot(L, handles_of(state_of(L), subject_of_slot(subject, slot)), slot);
}

void slot_set(lua_State *L, struct subject *subject, enum handle_slot slot) {
    fill_slot(L, handles_of(state_of(L), subject_of_slot(subject, slot)), slot);
    lua_pop(L, 1);
}

/* ---- Ties */

void subject_tie(lua_State *L, struct tie *tie) {
    list_push(&handles_of(state_of(L), subject_of_slot(subject_of(L), HANDLE_REQ))->ties, &tie->node);
}

/* ---- Handles */

/* A table of ours: a lookup by pointer in Lua's registry costs six times as
 * much, and every handle needs its metatable. */
struct known_kind *known_kind_find(struct state *s, const struct handle_kind *kind) {
    size_t place = (uintptr_t)kind >> 4;
    for (unsigned tried = 0; tried < KIND_PLACES; tried++, place++) {
        struct known_kind *known = &s->kinds[place % KIND_PLACES];
        if (known->kind == kind || !known->kind) return known;
    }
    must(!"more kinds of handles than KIND_PLACES");
    return NULL;
}

void handle_metatable_push(lua_State *L, const struct handle_kind *kind) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, known_kind_find(state_of(L), kind)->metatable);
}

struct handle *handle_new(lua_State *L, const struct handle_kind *kind, void *pointer) {
    struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);
    *h = (struct handle){ .kind = kind, .pointer = pointer };
    handle_metatable_push(L, kind);
    lua_setmetatable(L, -2);
    return h;
}

struct handle *handle_test(lua_State *L, int arg, const struct handle_kind *kind) {
    if (lua_type(L, arg) != LUA_TUSERDATA || lua_rawlen(L, arg) < sizeof(struct handle)) return NULL;
    struct handle *h = lua_touserdata(L, arg);
    return h->kind == kind ? h : NULL;
}

void *handle_check(lua_State *L, int arg, const struct handle_kind *kind) {
    struct handle *h = handle_test(L, arg, kind);
    if (!h) luaL_typeerror(L, arg, kind->name);
    else if (!h->pointer) luaL_error(L, "%s", kind->ended ? kind->ended : "the exchange has ended");
    return h ? h->pointer : NULL;
}

static int handle_tostring(lua_State *L) {
    const struct handle *h = lua_touserdata(L, 1);
    if (!h || lua_type(L, 1) != LUA_TUSERDATA || lua_rawlen(L, 1) < sizeof *h ||
        h->kind != lua_touserdata(L, lua_upvalueindex(1)))
        return luaL_error(L, "not a handle");
    lua_pushfstring(L, "%s%s", h->kind->name, h->pointer ? "" : " (ended)");
    return 1;
}

static int handle_gc(lua_State *L) {
    struct handle *h = lua_touserdata(L, 1);
    void *pointer = h->pointer;
    h->pointer = NULL;
    if (pointer) h->kind->collect(pointer);
    return 0;
}

/* With the metatable on top: what every kind has. */
static void add_common(lua_State *L, const struct handle_kind *kind) {
    lua_pushstring(L, kind->name);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushlightuserdata(L, (void *)(uintptr_t)kind);
    lua_pushcclosure(L, handle_tostring, 1);
    lua_setfield(L, -2, "__tostring");
    if (!kind->collect) return;
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
}

/* With the metatable and the table of names on top, which is popped. */
static void add_metamethods(lua_State *L, const luaL_Reg *metamethods) {
    int metatable = lua_gettop(L) - 1;
    lua_rawgeti(L, LUA_REGISTRYINDEX, state_of(L)->handle_slots);
    for (const luaL_Reg *m = metamethods; m && m->name; m++) {
        for (int upvalue = 0; upvalue < UPVALUE_SLOTS; upvalue++) lua_pushvalue(L, metatable + upvalue);
        lua_pushcclosure(L, m->func, UPVALUE_SLOTS);
        lua_setfield(L, metatable, m->name);
    }
    lua_settop(L, metatable);
}

void handle_kind_open(lua_State *L, const struct handle_kind *kind, const luaL_Reg *metamethods,
                      const luaL_Reg *methods) {
    lua_newtable(L);
    add_common(L, kind);
    lua_newtable(L);
    if (methods) luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index");
    add_metamethods(L, metamethods);
    struct known_kind *known = known_kind_find(state_of(L), kind);
    must(!known->kind);
    *known = (struct known_kind){ .kind = kind, .metatable = luaL_ref(L, LUA_REGISTRYINDEX) };
}

void recall_keep(lua_State *L, const void *scope, lua_Integer meaning) {
    struct slice text;
    text.p = lua_tolstring(L, 2, &text.n);
    if (text.n > RECALL_TEXT_MAX) return;
    const void *string = lua_topointer(L, 2);
    struct recalled *r = recall_place(L, scope, string);
    if (r[0].string && !r[1].string) r++;
    *r = (struct recalled){ .string = string, .scope = scope, .text = text, .meaning = meaning };
}

bool handle_kind_known(lua_State *L, const void *kind) {
    return kind && known_kind_find(state_of(L), kind)->kind == kind;
}
