/* The checks. Each file is compiled once more, taken apart (bytecode.c), and its functions are walked scene by scene
 * (flow.c): the file itself, then every function that is made in it, those that are hooks with what hooks get, and
 * again every call of a function of the file with arguments that are known.
 *
 * Which functions are hooks the loaded state says, by their files and bytes: so a policy that a function of another
 * file made is found as well as one that stands in the config. */
#include "lua/inspect.h"
#include "lua/inspect_inside.h"

#include "lua/policy.h"
#include "lua/sandbox.h"
#include "lua/state_rest.h"

#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

enum { SCENES_MOST = 3000 };

/* ---- the queue */

static bool is_same_scene(const struct visit *v, const struct proto *p, const struct scene *outer,
                          const struct fact *arguments, const struct visit *like) {
    if (v->scene.proto != p || v->scene.outer != outer) return false;
    if (v->callback_of != like->callback_of || v->tentative != like->tentative || v->late != like->late) return false;
    for (unsigned i = 0; i < SCENE_ARGUMENTS; i++)
        if (!fact_equal(v->scene.arguments[i], arguments[i])) return false;
    return true;
}

struct visit *inspect_add_visit(struct inspection *in, const struct proto *p, struct scene *outer,
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

void arguments_any(struct fact to[SCENE_ARGUMENTS]) {
    for (unsigned i = 0; i < SCENE_ARGUMENTS; i++) to[i] = fact_any();
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
    arguments_any(to);
    if (hook == HOOK_ON_CERTIFICATE) return;
    if (hook == HOOK_ON_CONNECT) {
        to[0] = names_object(&in->names, "moongate.arrival");
        return;
    }
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
    arguments_any(arguments);
    if (like.hook) hook_arguments(in, like.hook->hook, arguments);
    if (like.hook || way == LATER) like.late = true;
    if (way == TENTATIVELY) like.tentative = true;
    else if (way && way != LATER) like.callback_of = way;
    if (way == TENTATIVELY) like.callback_of = v->callback_of;
    inspect_add_visit(in, p, s, s->inside[index], arguments, &like);
}

static void look_at(struct inspection *in, struct visit *v) {
    in->now = v;
    if (!flow_run(&in->flow, &v->scene)) return;
    flow_visit(&in->flow, &v->scene);
    for (const struct found_hook *h = v->hook; h; h = next_hook(in, h, v->scene.proto)) inspect_returns(in, v, h);
    for (unsigned i = 0; i < v->scene.proto->proto_count; i++)
        if (v->scene.inside[i]) add_inner(in, v, i);
}

static void look_at_main(struct inspection *in) {
    struct fact arguments[SCENE_ARGUMENTS];
    struct fact *upvalues = arena_alloc_zeroed(&in->arena, sizeof *upvalues);
    upvalues->kind = FACT_ENVIRONMENT;
    const struct visit like = { .hook = NULL };
    arguments_any(arguments);
    in->visits = NULL;
    in->next = &in->visits;
    in->count = 0;
    inspect_add_visit(in, in->main, NULL, upvalues, arguments, &like);
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
    in.flow = (struct flow){ .arena = &in.arena, .names = &in.names, .see = inspect_see };
    lua_pushcfunction(state->L, inspect_all);
    lua_pushlightuserdata(state->L, &in);
    must(lua_pcall(state->L, 1, 0, 0) == LUA_OK); /* it runs no script, and every file has been compiled before */
}
