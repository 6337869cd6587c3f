/* Building policies: from the tables of a site and of those it uses to flat lists.
 *
 * First all policies of the site are put in one line, depth first: `use = { a, b }` gives a, b, site. Then each hook
 * takes its entries from that line, forward or backward: who guards comes first at on_connect and on_request, the
 * site is asked first where a choice is made, and answers pass back through the line. */
#include "lua/policy.h"

#include "base/must.h"
#include "lua/bind.h"
#include "lua/state_rest.h"
#include "lua/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USE_DEPTH = 8, LINE_MAX_POLICIES = 128, PATH_TEXT = 200 };

/* The policies of one site, in line. Their tables lie on the Lua stack from `base` on. */
struct line {
    lua_State *L;
    struct errors *errors;
    int base;
    unsigned count;
    char *paths[LINE_MAX_POLICIES];
    bool failed;
};

const char *hook_name(enum hook hook) {
    static const char *const names[HOOK_COUNT] = { "on_connect",   "on_request", "cache_key",
                                                   "pick_backend", "on_store",   "on_response",
                                                   "on_log",       "on_error",   "on_certificate" };
    return names[hook];
}

static bool asks_forward(enum hook hook) {
    return hook == HOOK_ON_CONNECT || hook == HOOK_ON_REQUEST || hook == HOOK_ON_LOG || hook == HOOK_ON_CERTIFICATE;
}

static void add_error(struct line *line, const char *path, const char *text) {
    errors_add(line->errors, NULL, 0, *path ? path : NULL, "%s", text);
    line->failed = true;
}

/* ---- The line */

static void add_to_line(struct line *line, const char *path, unsigned depth);

/* The table on top is a policy's; its `use` comes before it. */
static void add_used(struct line *line, const char *path, unsigned depth) {
    lua_State *L = line->L;
    lua_pushliteral(L, "use");
    int type = lua_rawget(L, -2);
    char inner[PATH_TEXT];
    snprintf(inner, sizeof inner, "%s%suse", path, *path ? "." : "");
    if (type != LUA_TNIL && type != LUA_TTABLE) add_error(line, inner, "expected a list of policies (tables)");
    lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
    for (lua_Unsigned i = 1; i <= n && line->count < LINE_MAX_POLICIES; i++) {
        snprintf(inner, sizeof inner, "%s%suse[%d]", path, *path ? "." : "", (int)i);
        lua_rawgeti(L, -1, (lua_Integer)i);
        if (lua_istable(L, -1)) add_to_line(line, inner, depth + 1);
        else add_error(line, inner, "expected a policy: a table of hooks");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Adds the policy on top and what it uses. */
static void add_to_line(struct line *line, const char *path, unsigned depth) {
    lua_State *L = line->L;
    if (depth > USE_DEPTH || line->count >= LINE_MAX_POLICIES) {
        add_error(line, path, "policies that use policies: too many, or one uses itself");
        return;
    }
    lua_checkstack(L, 16);
    add_used(line, path, depth);
    if (line->count >= LINE_MAX_POLICIES) return;
    lua_pushvalue(L, -1);
    lua_rawseti(L, line->base, (lua_Integer)line->count + 1);
    line->paths[line->count++] = must_strdup(path);
}

/* ---- Names */

static const char *nearest_hook(const char *name) {
    struct likeness l = likeness_begin(slice_of(name));
    for (enum hook h = 0; h < HOOK_COUNT; h++) likeness_try(&l, hook_name(h));
    return l.best;
}

static bool is_known(const char *name) {
    static const char *const others[] = { "use", "name", "on_load", "on_unload" };
    for (enum hook h = 0; h < HOOK_COUNT; h++)
        if (strcmp(name, hook_name(h)) == 0) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(name, others[i]) == 0) return true;
    return false;
}

/* A used policy may hold data of its own, but no function that is no hook: it would never run. The site's own names
 * are the config reader's. */
static void check_names(struct line *line, unsigned at) {
    lua_State *L = line->L;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || is_known(lua_tostring(L, -2))) continue;
        const char *name = lua_tostring(L, -2), *near = nearest_hook(name);
        if (!lua_isfunction(L, -1) && strncmp(name, "on_", 3) != 0) continue;
        char path[PATH_TEXT], text[PATH_TEXT];
        snprintf(path, sizeof path, "%s.%s", line->paths[at], name);
        snprintf(text, sizeof text, "there is no such hook%s%s%s", near ? "; did you mean " : "", near ? near : "",
                 near ? "?" : "");
        add_error(line, path, text);
    }
}

/* ---- Chains */

/* Pushes field `name` of the policy at that place of the line. */
static int push_field(struct line *line, unsigned at, const char *name) {
    lua_rawgeti(line->L, line->base, (lua_Integer)at + 1);
    lua_pushstring(line->L, name);
    int type = lua_rawget(line->L, -2);
    lua_replace(line->L, -2);
    return type;
}

/* A list of backends; the names in it are the config reader's to look up. */
static bool check_pick(struct line *line, const char *path) {
    struct pick pick = { 0 };
    struct reading reading;
    reading_init(&reading, NULL, NULL, HOOK_PICK_BACKEND, NULL);
    if (pick_read(&reading, line->L, lua_gettop(line->L), &pick)) return true;
    add_error(line, path, reading.why);
    return false;
}

/* The value on top, which is no function. */
static bool check_constant(struct line *line, const char *path, enum hook hook) {
    lua_State *L = line->L;
    char text[PATH_TEXT];
    const char *expected = verdict_constant_expected(L, lua_gettop(L), hook);
    if (!expected) return hook != HOOK_PICK_BACKEND || !lua_istable(L, -1) || check_pick(line, path);
    snprintf(text, sizeof text, "expected %s, got a %s", expected, luaL_typename(L, -1));
    add_error(line, path, text);
    return false;
}

static void add_entry(struct line *line, unsigned at, enum hook hook, struct policy_chain *chain) {
    lua_State *L = line->L;
    int type = push_field(line, at, hook_name(hook));
    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    char path[PATH_TEXT];
    snprintf(path, sizeof path, "%s%s%s", line->paths[at], *line->paths[at] ? "." : "", hook_name(hook));
    if (type != LUA_TFUNCTION && !check_constant(line, path, hook)) {
        lua_pop(L, 1);
        return;
    }
    chain->entries = must_realloc(chain->entries, (chain->count + 1) * sizeof *chain->entries);
    chain->entries[chain->count++] = (struct policy_entry){
        .kind = type == LUA_TFUNCTION ? ENTRY_FUNCTION : ENTRY_VALUE,
        .ref = luaL_ref(L, LUA_REGISTRYINDEX),
        .path = must_strdup(path),
    };
}

static void add_lifetime(struct line *line, unsigned at, const char *name, struct lifetime_hook **list,
                         unsigned *count) {
    int type = push_field(line, at, name);
    if (type == LUA_TFUNCTION) {
        *list = must_realloc(*list, (*count + 1) * sizeof **list);
        (*list)[(*count)++] = (struct lifetime_hook){ .ref = luaL_ref(line->L, LUA_REGISTRYINDEX), .part = at };
        return;
    }
    lua_pop(line->L, 1);
    if (type == LUA_TNIL) return;
    char path[PATH_TEXT];
    snprintf(path, sizeof path, "%s%s%s", line->paths[at], *line->paths[at] ? "." : "", name);
    add_error(line, path, "expected a function");
}

static void fill_policy(struct line *line, struct site_policy *policy) {
    for (enum hook h = 0; h < HOOK_COUNT; h++) {
        struct policy_chain *chain = &policy->chains[h];
        for (unsigned i = 0; i < line->count; i++) add_entry(line, asks_forward(h) ? i : line->count - 1 - i, h, chain);
        if (chain->count) policy->hooks |= 1u << h;
    }
    for (unsigned i = 0; i < line->count; i++) {
        add_lifetime(line, i, "on_load", &policy->on_load, &policy->on_load_count);
        add_lifetime(line, i, "on_unload", &policy->on_unload, &policy->on_unload_count);
    }
}

/* Builds the policy of the site table on top, which it pops. */
static struct site_policy *build(struct state *state, const char *path, struct errors *errors) {
    lua_State *L = state->L;
    struct line line = { .L = L, .errors = errors };
    struct site_policy *policy = must_calloc(1, sizeof *policy);
    policy->state = state;
    lua_newtable(L);
    lua_insert(L, -2);
    line.base = lua_gettop(L) - 1;
    add_to_line(&line, path, 0);
    for (unsigned i = 0; i + 1 < line.count; i++) {
        lua_rawgeti(L, line.base, (lua_Integer)i + 1);
        check_names(&line, i);
        lua_pop(L, 1);
    }
    fill_policy(&line, policy);
    for (unsigned i = 0; i < line.count; i++) free(line.paths[i]);
    lua_settop(L, line.base - 1);
    return policy;
}

bool policies_build(struct state *state, struct errors *errors) {
    struct state_rest *rest = state->rest;
    lua_State *L = state->L;
    if (rest->policies) return true;
    size_t before = errors->count - errors->warnings;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rest->result);
    if (rest->listed) {
        lua_pushliteral(L, "sites");
        lua_rawget(L, -2);
        lua_replace(L, -2);
    }
    unsigned n = !rest->listed ? 1 : lua_istable(L, -1) ? (unsigned)lua_rawlen(L, -1) : 0;
    rest->policies = must_calloc(n + 1, sizeof *rest->policies);
    for (unsigned i = 0; i < n; i++) {
        char path[PATH_TEXT] = "";
        lua_pushvalue(L, -1);
        if (rest->listed) {
            snprintf(path, sizeof path, "sites[%u]", i + 1);
            lua_rawgeti(L, -1, (lua_Integer)i + 1);
            lua_replace(L, -2);
        }
        if (!lua_istable(L, -1)) { /* the config's reader says so */
            lua_pop(L, 1);
            lua_newtable(L);
        }
        rest->policies[rest->policy_count++] = build(state, path, errors);
    }
    lua_pop(L, 1);
    return errors->count - errors->warnings == before;
}

static void free_policy(struct site_policy *policy) {
    for (enum hook h = 0; h < HOOK_COUNT; h++) {
        struct policy_chain *chain = &policy->chains[h];
        for (unsigned i = 0; i < chain->count; i++) {
            free((char *)(uintptr_t)chain->entries[i].path);
            free(chain->entries[i].pick);
        }
        free(chain->entries);
    }
    free(policy->on_load);
    free(policy->on_unload);
    free(policy);
}

void policies_free(struct state *state) {
    struct state_rest *rest = state->rest;
    for (unsigned i = 0; i < rest->policy_count; i++) free_policy(rest->policies[i]);
    free(rest->policies);
}

/* ---- Binding */

static bool bind_pick(struct site_policy *policy, struct policy_entry *entry, struct errors *errors) {
    lua_State *L = policy->state->L;
    struct arena arena;
    struct pick pick = { 0 };
    struct decision decision;
    arena_init(&arena);
    struct subject subject = { .arena = &arena };
    struct reading reading = {
        .subject = &subject, .site = policy->site, .hook = HOOK_PICK_BACKEND, .decision = &decision
    };
    lua_rawgeti(L, LUA_REGISTRYINDEX, entry->ref);
    bool ok = true;
    if (lua_type(L, -1) == LUA_TSTRING || lua_istable(L, -1) || backend_name_at(L, -1).p) {
        ok = pick_read(&reading, L, lua_gettop(L), &pick);
        if (!ok) errors_add(errors, NULL, 0, entry->path, "%s", reading.why);
    }
    bool fixed = ok && pick.count == 1 && !pick.servers[0].p && !pick.listed;
    if (fixed) { /* the common one is kept; a server's name would need an arena */
        entry->pick = must_malloc(sizeof pick);
        *entry->pick = pick;
        entry->kind = ENTRY_PICK;
    }
    lua_pop(L, 1);
    arena_fini(&arena);
    return ok;
}

bool policy_bind(struct site_policy *policy, struct site *site, struct errors *errors) {
    policy->site = site;
    bool ok = true;
    struct policy_chain *chain = &policy->chains[HOOK_PICK_BACKEND];
    for (unsigned i = 0; i < chain->count; i++)
        if (chain->entries[i].kind == ENTRY_VALUE && !bind_pick(policy, &chain->entries[i], errors)) ok = false;
    return ok;
}
