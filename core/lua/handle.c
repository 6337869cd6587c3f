/* Handles: how a script holds on to something of C without keeping it alive.
 *
 * A userdata is small, has no user values and is never used again for something else: a script may have kept it, and
 * must then be told that the exchange has ended. What is pooled is only the set of slots of a subject: a few places
 * in one array table of the registry, so that a handle is anchored by lua_rawseti and freed by writing nil, without
 * luaL_ref.
 *
 * Kinds are told apart by a pointer in the userdata instead of by metatable: one comparison. A userdata of another
 * library (io, when `unsafe` allows it) cannot hold that pointer by chance. */
#include "lua/engine.h"

#include "base/must.h"

#include <stdlib.h>

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
    for (unsigned slot = 0; slot < HANDLE_SLOTS; slot++) {
        if (!(set->filled & 1u << slot)) continue;
        lua_pushboolean(L, 0); /* not nil: the array keeps its shape */
        lua_rawseti(L, -2, set->base + (int)slot);
    }
    lua_pop(L, 1);
    set->filled = 0;
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

void handles_open(struct state *s) {
    list_init(&s->handles);
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

/* A fetch made for an exchange shows the exchange's own handles. */
static struct subject *subject_of_slots(struct subject *subject) {
    return subject->exchange ? &subject->exchange->subject : subject;
}

/* Pushes what lies in the slot if it is filled. */
static bool push_slot(lua_State *L, struct handles *set, enum handle_slot slot) {
    if (!(set->filled & 1u << slot)) return false;
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

void handle_push(lua_State *L, struct subject *subject, enum handle_slot slot, const struct handle_kind *kind,
                 void *pointer) {
    struct handles *set = handles_of(state_of(L), subject_of_slots(subject));
    if (push_slot(L, set, slot)) return;
    struct handle *h = handle_new(L, kind, NULL);
    fill_slot(L, set, slot);
    h->pointer = pointer;
    h->next = set->first;
    set->first = h;
}

bool slot_push(lua_State *L, struct subject *subject, enum handle_slot slot) {
    return push_slot(L, handles_of(state_of(L), subject_of_slots(subject)), slot);
}

void slot_set(lua_State *L, struct subject *subject, enum handle_slot slot) {
    fill_slot(L, handles_of(state_of(L), subject_of_slots(subject)), slot);
    lua_pop(L, 1);
}

/* ---- Ties */

void subject_tie(lua_State *L, struct tie *tie) {
    list_push(&handles_of(state_of(L), subject_of_slots(subject_of(L)))->ties, &tie->node);
}

void ties_end(struct list *ties) {
    for (struct list *node; (node = list_pop(ties));) {
        struct tie *tie = container_of(node, struct tie, node);
        tie->ended(tie);
    }
}

/* ---- Handles */

struct handle *handle_new(lua_State *L, const struct handle_kind *kind, void *pointer) {
    struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);
    *h = (struct handle){ .kind = kind, .pointer = pointer };
    lua_rawgetp(L, LUA_REGISTRYINDEX, kind);
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

void handle_kind_open(lua_State *L, const struct handle_kind *kind, const luaL_Reg *metamethods,
                      const luaL_Reg *methods) {
    lua_newtable(L);
    add_common(L, kind);
    lua_newtable(L);
    if (methods) luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index");
    for (const luaL_Reg *m = metamethods; m && m->name; m++) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_pushcclosure(L, m->func, 2);
        lua_setfield(L, -3, m->name);
    }
    lua_pop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, kind);
}

bool handle_kind_known(lua_State *L, const void *kind) {
    bool known = lua_rawgetp(L, LUA_REGISTRYINDEX, kind) == LUA_TTABLE;
    lua_pop(L, 1);
    return known;
}
