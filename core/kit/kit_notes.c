/* What was observed of hooks and exchanges, as tables. */
#include "kit/kit_inside.h"

static void push_changes(lua_State *L, const struct change_note *change) {
    lua_newtable(L);
    for (lua_Integer n = 1; change; change = change->next, n++) {
        lua_createtable(L, 0, 3);
        text_set(L, "field", change->field);
        slice_set(L, "before", change->before);
        slice_set(L, "after", change->after);
        lua_rawseti(L, -2, n);
    }
}

static void push_hook(lua_State *L, const struct hook_note *h) {
    lua_createtable(L, 0, 9);
    text_set(L, "hook", hook_name(h->hook));
    text_set(L, "policy", h->path);
    text_set(L, "verdict", h->verdict);
    if (h->status) integer_set(L, "status", h->status);
    if (h->picked.p) slice_set(L, "picked", h->picked);
    if (h->key.p) slice_set(L, "key", h->key);
    text_set(L, "error", h->error);
    number_set(L, "time", h->seconds);
    push_changes(L, h->changes);
    lua_setfield(L, -2, "changes");
}

static void push_exchange(lua_State *L, const struct exchange_note *x) {
    lua_createtable(L, 0, 10);
    text_set(L, "id", x->id);
    text_set(L, "site", x->site);
    text_set(L, "source", x->source);
    text_set(L, "error", x->word);
    text_set(L, "failed_hook", x->failed_hook);
    number_set(L, "time", x->seconds);
    integer_set(L, "tries", x->tries);
    if (x->cache_key.p) slice_set(L, "cache_key", x->cache_key);
    text_set(L, "cache", x->cache);
    lua_newtable(L);
    lua_Integer n = 0;
    for (const struct tried_note *t = x->tried; t; t = t->next) {
        lua_createtable(L, 0, 2);
        text_set(L, "backend", t->backend);
        text_set(L, "server", t->server);
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "tried");
}

/* notes() -> hooks, lines, exchanges: those since the last call, but for those that a request forgot. */
int kit_notes(lua_State *L) {
    struct kit *kit = kit_check(L);
    const struct rehearsal_notes *notes = rehearsal_notes(kit->rehearsal);
    lua_Integer n = 0;
    lua_newtable(L);
    for (const struct hook_note *h = notes->hooks; h; h = h->next) {
        push_hook(L, h);
        lua_rawseti(L, -2, ++n);
    }
    lua_newtable(L);
    n = 0;
    for (const struct rehearsal_line *line = notes->lines; line; line = line->next) {
        lua_createtable(L, 0, 2);
        text_set(L, "level", line->level);
        text_set(L, "text", line->text);
        lua_rawseti(L, -2, ++n);
    }
    lua_newtable(L);
    n = 0;
    for (const struct exchange_note *x = notes->exchanges; x; x = x->next) {
        push_exchange(L, x);
        lua_rawseti(L, -2, ++n);
    }
    rehearsal_forget(kit->rehearsal);
    return 3;
}
