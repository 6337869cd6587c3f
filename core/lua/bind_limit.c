/* gate.limit { name =, rate =, per =, burst =, concurrent =, … }: how much a key may take (store/limit.h). Made while
 * the file is loaded, once per name; the time is that of the turn.
 *
 * What `enter` gives is a slot: a handle to a place that is held. The place belongs to the exchange and is given back
 * when that is over, its body or tunnel included; the script may give it back earlier, by slot:leave() or <close>. Both
 * sides hold a reference: a state may be closed, on another thread, while its exchanges still send. Outside of an
 * exchange (gate.spawn, gate.every) nobody but the script holds the place, and the collector gives back what it
 * forgot. */
#include "lua/bind.h"

#include "base/must.h"
#include "base/refs.h"
#include "store/limit.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_BYTES = 64, BURST_MOST = 1000000000, CONCURRENT_MOST = 1000000, SLOTS_MOST = 32, HASHED_PER_STEP = 64 };
enum { MAX_LEAST = 64 << 10, MAX_DEFAULT = 16 << 20 };

static const char DECLARED; /* registry: name -> limit */

struct limiter {
    struct handle handle;
    struct limit *limit;
    struct limit_rule rule;
    int64_t burst;
    char name[NAME_BYTES + 1];
};

static const struct handle_kind kind = { .name = "moongate.limit" };

/* ---- places and slots */

struct place {
    struct tie tie; /* alone, when it is not an exchange's (any more) */
    struct limit *limit;
    struct digest key;
    atomic_uint refs;
    atomic_bool left;
};

struct slot {
    struct handle handle;
    struct place *place; /* NULL: let through without one */
};

static void place_unref(struct place *p) {
    if (refs_give(&p->refs)) free(p);
}

/* False: it was given back before. */
static bool place_leave(struct place *p) {
    if (atomic_exchange_explicit(&p->left, true, memory_order_acq_rel)) return false;
    limit_leave(p->limit, p->key);
    return true;
}

static void place_give_back(struct tie *tie) {
    struct place *p = container_of(tie, struct place, tie);
    place_leave(p);
    place_unref(p);
}

/* Perhaps on another thread. An exchange's place has a reference besides. */
static void slot_collect(void *pointer) {
    struct place *p = ((struct slot *)pointer)->place;
    if (!p) return;
    if (atomic_load_explicit(&p->refs, memory_order_acquire) == 1) place_leave(p);
    place_unref(p);
}

static const struct handle_kind slot_kind = { .name = "moongate.slot", .collect = slot_collect };

static bool slot_leave(const struct slot *slot) {
    struct place *p = slot->place;
    if (!p) return false;
    if (!list_empty(&p->tie.node)) {
        list_remove(&p->tie.node);
        place_give_back(&p->tie);
        return true;
    }
    return place_leave(p);
}

static int slot_leave_method(lua_State *L) {
    lua_pushboolean(L, slot_leave(object_self(L, 1, &slot_kind)));
    return 1;
}

static int slot_close(lua_State *L) {
    slot_leave(object_self(L, 1, &slot_kind));
    return 0;
}

static const luaL_Reg slot_methods[] = { { "leave", slot_leave_method }, { NULL, NULL } };

static int slot_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, object_self(L, 1, &slot_kind), none, "a slot");
}

static const luaL_Reg slot_metamethods[] = { { "__index", slot_index }, { "__close", slot_close }, { NULL, NULL } };

/* ---- self and arguments */

static struct limiter *limiter_self(lua_State *L) { return object_self(L, 1, &kind); }

static struct limiter *rate_self(lua_State *L, const char *what) {
    struct limiter *l = limiter_self(L);
    if (!l->rule.interval) luaL_error(L, "limit '%s' has no rate: %s cannot be used", l->name, what);
    return l;
}

static struct limiter *concurrent_self(lua_State *L, const char *what) {
    struct limiter *l = limiter_self(L);
    if (!l->rule.concurrent) luaL_error(L, "limit '%s' has no `concurrent`: %s cannot be used", l->name, what);
    return l;
}

static struct digest key_check(lua_State *L) {
    int type = lua_type(L, 2);
    if (type != LUA_TSTRING && type != LUA_TNUMBER) luaL_typeerror(L, 2, "string or number");
    struct slice key = text_check(L, 2);
    budget_spend(L, key.n / HASHED_PER_STEP);
    return digest_bytes(key);
}

static double cost_opt(lua_State *L, int arg) {
    double cost = luaL_optnumber(L, arg, 1);
    if (!(cost >= 0 && cost <= BURST_MOST)) luaL_argerror(L, arg, "a cost is 0 to 1e9");
    return cost;
}

static double time_of_turn(lua_State *L, const struct limiter *l) {
    const struct state *state = state_of(L);
    if (!state->worker) luaL_error(L, "limit '%s' cannot be used while the file is loaded", l->name);
    return loop_now(&state->worker->loop);
}

/* ---- rates */

/* true, left | false, wait; in a dry run true, and what is left is minus the wait; "full" besides, if it was. */
static int push_answer(lua_State *L, const struct limit_answer *a) {
    lua_pushboolean(L, a->passes);
    if (a->verdict == LIMIT_ALLOWED) lua_pushinteger(L, a->left);
    else if (a->verdict == LIMIT_FULL && a->passes) lua_pushinteger(L, 0);
    else lua_pushnumber(L, a->passes ? -a->wait : a->wait);
    if (a->verdict != LIMIT_FULL) return 2;
    lua_pushstring(L, failure_word(FAIL_FULL));
    return 3;
}

static int limit_take_method(lua_State *L) {
    const struct limiter *l = rate_self(L, "take");
    struct digest key = key_check(L);
    struct limit_answer a = limit_take(l->limit, &l->rule, key, cost_opt(L, 3), time_of_turn(L, l));
    return push_answer(L, &a);
}

static int limit_peek_method(lua_State *L) {
    const struct limiter *l = rate_self(L, "peek");
    struct digest key = key_check(L);
    struct limit_answer a = limit_peek(l->limit, &l->rule, key, cost_opt(L, 3), time_of_turn(L, l));
    return push_answer(L, &a);
}

static int limit_reset_method(lua_State *L) {
    const struct limiter *l = limiter_self(L);
    lua_pushboolean(L, limit_reset(l->limit, key_check(L)));
    return 1;
}

static void set_number_field(lua_State *L, const char *name, double n) {
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, name);
}

/* The burst is the quota, and the time in which it comes back the window: the same rate, and `remaining` counts down
 * from it. */
static int limit_fields_method(lua_State *L) {
    const struct limiter *l = rate_self(L, "fields");
    struct digest key = key_check(L);
    double now = time_of_turn(L, l);
    struct limit_answer a = limit_peek(l->limit, &l->rule, key, 0, now);
    double window = ceil((double)l->rule.tolerance / (LIMIT_TICKS_PER_NS * 1e9)), reset = ceil(a.resets);
    lua_createtable(L, 0, 6);
    lua_pushfstring(L, "\"%s\";q=%I;w=%I", l->name, (LUAI_UACINT)l->burst, (LUAI_UACINT)window);
    lua_setfield(L, -2, "RateLimit-Policy");
    lua_pushfstring(L, "\"%s\";r=%I;t=%I", l->name, (LUAI_UACINT)a.left, (LUAI_UACINT)reset);
    lua_setfield(L, -2, "RateLimit");
    set_number_field(L, "RateLimit-Limit", (double)l->burst);
    set_number_field(L, "RateLimit-Remaining", (double)a.left);
    set_number_field(L, "RateLimit-Reset", reset);
    if (a.left == 0) set_number_field(L, "Retry-After", ceil(limit_peek(l->limit, &l->rule, key, 1, now).wait));
    return 1;
}

/* ---- places */

static void check_slots(lua_State *L, const struct exchange *x) {
    unsigned count = 0;
    list_each(node, &x->ties) count++;
    if (count >= SLOTS_MOST) luaL_error(L, "this exchange holds %d slots already", SLOTS_MOST);
}

static struct place *make_place(struct limit *limit, struct digest key, struct exchange *x) {
    struct place *p = must_calloc(1, sizeof *p);
    list_init(&p->tie.node);
    p->tie.ended = place_give_back;
    p->limit = limit;
    p->key = key;
    atomic_init(&p->refs, x ? 2 : 1);
    if (x) list_push(&x->ties, &p->tie.node);
    return p;
}

static int refuse_place(lua_State *L, const struct limiter *l, enum limit_verdict verdict) {
    if (verdict == LIMIT_FULL)
        return fail_world_with(L, failure_word(FAIL_FULL), "limit '%s' has no room for another key", l->name);
    return fail_world_with(L, failure_word(FAIL_LIMITED), "all %d places of limit '%s' are taken",
                           (int)l->rule.concurrent, l->name);
}

/* The handle comes first, since it may be refused memory; it then owns the place. */
static int limit_enter_method(lua_State *L) {
    const struct limiter *l = concurrent_self(L, "enter");
    struct digest key = key_check(L);
    double now = time_of_turn(L, l);
    struct exchange *x = subject_check(L, "enter")->exchange;
    if (x) check_slots(L, x);
    struct slot *slot = object_new(L, &slot_kind, sizeof *slot, 0);
    struct limit_answer a = limit_enter(l->limit, &l->rule, key, now);
    if (!a.passes) return refuse_place(L, l, a.verdict);
    if (a.verdict != LIMIT_FULL) slot->place = make_place(l->limit, key, x);
    if (a.verdict == LIMIT_ALLOWED) return 1;
    lua_pushstring(L, failure_word(a.verdict == LIMIT_FULL ? FAIL_FULL : FAIL_LIMITED));
    return 2;
}

static int limit_active_method(lua_State *L) {
    const struct limiter *l = concurrent_self(L, "active");
    lua_pushinteger(L, limit_places(l->limit, key_check(L)));
    return 1;
}

/* ---- the object */

static const luaL_Reg methods[] = {
    { "take", limit_take_method },
    { "peek", limit_peek_method },
    { "reset", limit_reset_method },
    { "fields", limit_fields_method },
    { "enter", limit_enter_method },
    { "active", limit_active_method },
    { NULL, NULL },
};

static int limiter_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, limiter_self(L), none, "a limit");
}

static int limiter_newindex(lua_State *L) { return luaL_error(L, "a limit has no fields to assign"); }

static const luaL_Reg metamethods[] = { { "__index", limiter_index },
                                        { "__newindex", limiter_newindex },
                                        { NULL, NULL } };

/* ---- gate.limit: the options are at index 1 */

static void read_name(lua_State *L, struct limiter *l) {
    if (option_push(L, 1, "name") != LUA_TSTRING) luaL_error(L, "gate.limit: name is a string");
    struct slice name = text_check(L, -1);
    bool ok = name.n >= 1 && name.n <= NAME_BYTES;
    for (size_t i = 0; ok && i < name.n; i++) ok = name.p[i] >= ' ' && name.p[i] <= '~' && !strchr("\"\\", name.p[i]);
    if (!ok) luaL_error(L, "gate.limit: name has 1 to 64 characters of visible ASCII, no quotes or backslashes");
    memcpy(l->name, name.p, name.n);
}

/* A whole number from 1, or `missing`. */
static int64_t read_count(lua_State *L, const char *name, int64_t most, int64_t missing) {
    int whole = 0;
    if (option_push(L, 1, name) == LUA_TNIL) return missing;
    lua_Integer n = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (!whole || n < 1 || n > most)
        luaL_error(L, "gate.limit: %s is a whole number from 1 to %I", name, (LUAI_UACINT)most);
    return n;
}

static double read_per(lua_State *L) {
    double per = 1;
    if (option_push(L, 1, "per") == LUA_TNIL) return per;
    if (!seconds_read(L, -1, &per) || per <= 0)
        luaL_error(L, "gate.limit: per is a time of more than 0 seconds, a number or such as \"1m\"");
    return per;
}

static void read_rate(lua_State *L, struct limiter *l) {
    double per = read_per(L);
    bool said = !lua_isnil(L, -1);
    if (option_push(L, 1, "rate") == LUA_TNIL) {
        option_push(L, 1, "burst");
        if (said || !lua_isnil(L, -1)) luaL_error(L, "gate.limit: per and burst go with a rate");
        return;
    }
    double rate = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
    if (!(rate > 0 && rate <= BURST_MOST)) luaL_error(L, "gate.limit: rate is a number of more than 0, up to 1e9");
    l->burst = read_count(L, "burst", BURST_MOST, rate < 1 ? 1 : (int64_t)rate);
    if (!limit_rule_set(&l->rule, rate, per, l->burst))
        luaL_error(L, "gate.limit: it would take years until such a burst is paid for");
}

static bool read_flag(lua_State *L, const char *name) {
    int type = option_push(L, 1, name);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.limit: %s is true or false", name);
    return lua_toboolean(L, -1);
}

static bool read_on_full(lua_State *L) {
    if (option_push(L, 1, "on_full") == LUA_TNIL) return false;
    struct slice word = lua_type(L, -1) == LUA_TSTRING ? text_check(L, -1) : slice_make("", 0);
    if (slice_equal(word, SLICE("allow"))) return true;
    if (!slice_equal(word, SLICE("deny"))) luaL_error(L, "gate.limit: on_full is \"deny\" or \"allow\"");
    return false;
}

static size_t read_max(lua_State *L) {
    uint64_t bytes = MAX_DEFAULT;
    if (option_push(L, 1, "max") != LUA_TNIL && (!size_read(L, -1, &bytes) || bytes < MAX_LEAST))
        luaL_error(L, "gate.limit: max is 64K or more, a whole number of bytes or such as \"16M\"");
    return (size_t)bytes;
}

static void read_options(lua_State *L, struct limiter *l) {
    static const char *const names[] = {
        "name", "rate", "per", "burst", "concurrent", "dry_run", "on_full", "max", NULL
    };
    options_check(L, 1, "gate.limit", names);
    read_name(L, l);
    read_rate(L, l);
    l->rule.concurrent = (uint32_t)read_count(L, "concurrent", CONCURRENT_MOST, 0);
    if (!l->rule.interval && !l->rule.concurrent)
        luaL_error(L, "gate.limit: a limit has a rate, `concurrent`, or both");
    l->rule.dry_run = read_flag(L, "dry_run");
    l->rule.full_allows = read_on_full(L);
    l->rule.bytes = read_max(L);
}

static bool same_rule(const struct limit_rule *a, const struct limit_rule *b) {
    return a->interval == b->interval && a->tolerance == b->tolerance && a->concurrent == b->concurrent &&
           a->bytes == b->bytes && a->dry_run == b->dry_run && a->full_allows == b->full_allows;
}

/* options, limit: keeps it for its name, or gives the one that this state made before. */
static int keep_limiter(lua_State *L, struct limiter *l) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &DECLARED);
    if (lua_getfield(L, -1, l->name) != LUA_TNIL) {
        const struct limiter *before = lua_touserdata(L, -1);
        if (same_rule(&before->rule, &l->rule)) return 1;
        return luaL_error(L, "gate.limit '%s': another limit of that name was made before", l->name);
    }
    l->limit = limit_open(slice_of(l->name), l->rule.bytes);
    if (!l->limit) return luaL_error(L, "gate.limit '%s': there are %d limits already", l->name, LIMIT_MOST);
    lua_pop(L, 1);
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, l->name);
    lua_settop(L, 2);
    return 1;
}

static int gate_limit(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (!state_of(L)->loading) return luaL_error(L, "gate.limit: a limit is made while the file is loaded");
    struct limiter *l = object_new(L, &kind, sizeof *l, 0);
    read_options(L, l);
    lua_settop(L, 2);
    return keep_limiter(L, l);
}

void bind_limit_open(lua_State *L) {
    object_kind_open(L, &kind, NULL, metamethods, methods);
    object_kind_open(L, &slot_kind, NULL, slot_metamethods, slot_methods);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &DECLARED);
    lua_pushcfunction(L, gate_limit);
    lua_setfield(L, -2, "limit");
}
