/* core/base, but for buffers, maps and values: the small things, as plain functions. */
#include "module.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/failure.h"
#include "base/list.h"
#include "base/log.h"
#include "base/must.h"
#include "base/slab.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- slices */

static int base_to_u64(lua_State *L) {
    uint64_t n = 0;
    if (!slice_to_u64(module_check_slice(L, 1), &n)) return 0;
    lua_pushinteger(L, (lua_Integer)n);
    return 1;
}

static int base_trim(lua_State *L) {
    module_push_slice(L, slice_trim(module_check_slice(L, 1)));
    return 1;
}

/* base.split("a,b", ",") -> { "a", "b" } */
static int base_split(lua_State *L) {
    struct slice rest = module_check_slice(L, 1);
    char at = *luaL_checkstring(L, 2);
    lua_newtable(L);
    for (lua_Integer i = 1; rest.p; i++) {
        module_push_slice(L, slice_cut(&rest, at));
        lua_seti(L, -2, i);
    }
    return 1;
}

static int base_compare(lua_State *L) {
    struct slice a = module_check_slice(L, 1), b = module_check_slice(L, 2);
    lua_pushboolean(L, slice_equal(a, b));
    lua_pushboolean(L, slice_equal_nocase(a, b));
    lua_pushboolean(L, slice_starts_with(a, b));
    lua_pushboolean(L, slice_ends_with(a, b));
    return 4;
}

/* ---- arena */

/* base.arena({ sizes }, seed): allocates pieces of those sizes in turn, writes a pattern into each, and says whether
 * all are whole in the end, how much is used, and whether every aligned one was aligned. */
static int base_arena(lua_State *L) {
    struct arena arena;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 1);
    unsigned char **pieces = lua_newuserdatauv(L, (size_t)count * sizeof *pieces + 1, 0);
    bool aligned = true, whole = true;
    arena_init(&arena);
    for (lua_Integer i = 0; i < count; i++) {
        lua_geti(L, 1, i + 1);
        size_t n = (size_t)lua_tointeger(L, -1);
        lua_pop(L, 1);
        pieces[i] = i % 2 ? (unsigned char *)arena_bytes(&arena, n) : arena_alloc(&arena, n);
        if (i % 2 == 0 && (uintptr_t)pieces[i] % 8) aligned = false;
        memset(pieces[i], (int)(i & 0xff), n);
    }
    for (lua_Integer i = 0; i < count; i++) {
        lua_geti(L, 1, i + 1);
        for (lua_Integer j = 0; j < lua_tointeger(L, -1); j++)
            if (pieces[i][j] != (i & 0xff)) whole = false;
        lua_pop(L, 1);
    }
    lua_pushboolean(L, whole);
    lua_pushboolean(L, aligned);
    lua_pushinteger(L, (lua_Integer)arena.used);
    arena_fini(&arena);
    lua_pushboolean(L, arena.used == 0 && arena.blocks == NULL);
    return 4;
}

/* base.arena_grow(steps, between): an array of integers grown step by step, with `between` bytes taken in between. */
static int base_arena_grow(lua_State *L) {
    struct arena arena;
    lua_Integer steps = luaL_checkinteger(L, 1), between = luaL_checkinteger(L, 2), moves = 0;
    int *list = NULL;
    bool whole = true;
    arena_init(&arena);
    for (lua_Integer i = 0; i < steps; i++) {
        int *grown = arena_grow(&arena, list, (size_t)i * sizeof *list, (size_t)(i + 1) * sizeof *list);
        if (list && grown != list) moves++;
        list = grown;
        list[i] = (int)i;
        if (between) arena_bytes(&arena, (size_t)between);
    }
    for (lua_Integer i = 0; i < steps; i++)
        if (list[i] != (int)i) whole = false;
    arena_fini(&arena);
    lua_pushboolean(L, whole);
    lua_pushinteger(L, moves);
    return 2;
}

static int base_arena_text(lua_State *L) {
    struct arena arena;
    struct slice a = module_check_slice(L, 1), b = module_check_slice(L, 2);
    arena_init(&arena);
    module_push_slice(L, arena_copy(&arena, a));
    module_push_slice(L, arena_copy_lower(&arena, a));
    module_push_slice(L, arena_join(&arena, a, b));
    module_push_slice(L, arena_printf(&arena, "%.*s:%d", FMT(a), 42));
    arena_fini(&arena);
    return 4;
}

/* ---- slab */

/* base.slab(keep, n): takes n objects, gives them back, takes again: how many are kept, and whether all differed. */
static int base_slab(lua_State *L) {
    struct slab slab = SLAB_BYTES(24, (unsigned)luaL_checkinteger(L, 1));
    lua_Integer n = luaL_checkinteger(L, 2);
    void **objects = lua_newuserdatauv(L, (size_t)n * sizeof *objects + 1, 0);
    bool distinct = true, zeroed = true;
    for (lua_Integer i = 0; i < n; i++) objects[i] = memset(slab_take(&slab), 0xff, 24);
    for (lua_Integer i = 0; i < n; i++)
        for (lua_Integer j = 0; j < i; j++)
            if (objects[i] == objects[j]) distinct = false;
    for (lua_Integer i = 0; i < n; i++) slab_give(&slab, objects[i]);
    slab_give(&slab, NULL);
    lua_pushinteger(L, slab.kept);
    unsigned char *again = slab_take_zeroed(&slab);
    for (int i = 0; i < 24; i++)
        if (again[i]) zeroed = false;
    slab_give(&slab, again);
    slab_fini(&slab);
    lua_pushboolean(L, distinct);
    lua_pushboolean(L, zeroed);
    lua_pushinteger(L, slab.kept);
    return 4;
}

/* ---- lists */

struct numbered {
    int number;
    struct list node;
};

static int push_numbers(lua_State *L, struct list *head) {
    lua_newtable(L);
    lua_Integer i = 1;
    list_each(node, head) {
        lua_pushinteger(L, container_of(node, struct numbered, node)->number);
        lua_seti(L, -2, i++);
    }
    return 1;
}

/* base.list(): pushes 1..4 in turns at both ends, removes the 2 twice, splices 9 behind. */
static int base_list(lua_State *L) {
    struct numbered items[] = { { .number = 1 }, { .number = 2 }, { .number = 3 }, { .number = 4 }, { .number = 9 } };
    struct list head, other;
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 4; i++) (i % 2 ? list_push_front : list_push)(&head, &items[i].node);
    list_remove(&items[1].node);
    list_remove(&items[1].node);
    list_push(&other, &items[4].node);
    list_splice(&head, &other);
    push_numbers(L, &head);
    struct list *first = list_pop(&head);
    lua_pushinteger(L, container_of(first, struct numbered, node)->number);
    lua_pushboolean(L, list_empty(&other) && list_pop(&other) == NULL);
    return 3;
}

/* ---- failures, errors, log, must */

static int base_failures(lua_State *L) {
    lua_newtable(L);
    for (int i = 0; i < FAILURE_COUNT; i++) {
        lua_newtable(L);
        lua_pushinteger(L, failure_status((enum failure)i));
        lua_setfield(L, -2, "status");
        lua_pushstring(L, failure_word((enum failure)i));
        lua_setfield(L, -2, "word");
        lua_pushstring(L, failure_sentence((enum failure)i));
        lua_setfield(L, -2, "sentence");
        lua_pushinteger(L, failure_class((enum failure)i));
        lua_setfield(L, -2, "class");
        lua_seti(L, -2, i + 1);
    }
    return 1;
}

static const char *field_text(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    return lua_tostring(L, -1);
}

/* base.errors { { file =, line =, path =, text =, warning = }, ... } -> text, any */
static int base_errors(lua_State *L) {
    struct errors errors;
    luaL_checktype(L, 1, LUA_TTABLE);
    errors_init(&errors);
    for (lua_Integer i = 1; i <= luaL_len(L, 1); i++) {
        lua_settop(L, 1);
        lua_geti(L, 1, i);
        const char *file = field_text(L, "file"), *path = field_text(L, "path"), *text = field_text(L, "text");
        lua_getfield(L, 2, "line");
        int line = (int)lua_tointeger(L, -1);
        lua_getfield(L, 2, "warning");
        (lua_toboolean(L, -1) ? errors_warn : errors_add)(&errors, file, line, path, "%s", text);
    }
    char *text = errors_text(&errors);
    lua_pushstring(L, text);
    lua_pushboolean(L, errors_any(&errors));
    free(text);
    errors_fini(&errors);
    return 2;
}

/* These write where the process logs: call them in a child. */
static int base_log(lua_State *L) {
    log_thread((int)luaL_optinteger(L, 3, -1));
    log_write((enum log_level)luaL_checkinteger(L, 1), "%s", luaL_checkstring(L, 2));
    return 0;
}

static int base_log_open(lua_State *L) {
    int fd = open(luaL_checkstring(L, 1), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return luaL_error(L, "cannot open it");
    log_open(fd, (enum log_level)luaL_checkinteger(L, 2));
    return 0;
}

static void print_state(int fd) {
    if (write(fd, "state: all good\n", 16) < 0) abort();
}

static int base_must(lua_State *L) {
    if (lua_toboolean(L, 2)) must_dump_with(print_state);
    must(lua_toboolean(L, 1));
    return 0;
}

/* ---- clock and randomness */

static int base_clock(lua_State *L) {
    lua_pushnumber(L, clock_monotonic());
    lua_pushnumber(L, clock_wall());
    lua_pushinteger(L, (lua_Integer)clock_monotonic_us());
    lua_pushinteger(L, (lua_Integer)clock_thread_cpu_us());
    return 4;
}

static int base_random(lua_State *L) {
    char bytes[64];
    size_t n = (size_t)luaL_optinteger(L, 1, 16);
    luaL_argcheck(L, n <= sizeof bytes, 1, "at most 64");
    random_bytes(bytes, n);
    lua_pushlstring(L, bytes, n);
    lua_pushinteger(L, (lua_Integer)random_u64());
    return 2;
}

int module_base_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "to_u64", base_to_u64 },
        { "trim", base_trim },
        { "split", base_split },
        { "compare", base_compare },
        { "arena", base_arena },
        { "arena_grow", base_arena_grow },
        { "arena_text", base_arena_text },
        { "slab", base_slab },
        { "list", base_list },
        { "failures", base_failures },
        { "errors", base_errors },
        { "log", base_log },
        { "log_open", base_log_open },
        { "must", base_must },
        { "clock", base_clock },
        { "random", base_random },
        { NULL, NULL },
    };
    luaL_newlib(L, functions);
#ifdef MOONGATE_HARD
    lua_pushboolean(L, true);
    lua_setfield(L, -2, "hard");
#endif
    return 1;
}
