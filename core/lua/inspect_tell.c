/* How findings are told: once for each line, with a guess at what was meant. */
#include "lua/inspect_inside.h"

#include <stdarg.h>
#include <stdio.h>

bool visit_is_sure(const struct visit *v) { return v->late && !v->tentative; }

static bool is_told(const struct inspection *in, int line, const char *text) {
    for (size_t i = in->from; i < in->errors->count; i++)
        if (in->errors->list[i].line == line && strcmp(in->errors->list[i].text, text) == 0) return true;
    return false;
}

void inspect_tell(struct inspection *in, int line, bool sure, const char *format, ...) {
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

bool name_is_one_of(const char *name, const char *const *list) {
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
    if (name_is_one_of(path, os)) return "os";
    if (name_is_one_of(path, debug)) return "debug";
    return name_is_one_of(path, never) ? "" : NULL;
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

void inspect_tell_missing(struct inspection *in, int line, bool sure, const char *path, const char *consequence) {
    const char *unsafe = unsafe_word(path), *dot = strrchr(path, '.');
    const char *near = own_name(path) ? own_name(path) : names_like_missing(&in->names, path);
    char hint[128] = "";
    if (unsafe && *unsafe) snprintf(hint, sizeof hint, " in the sandbox (unsafe = { \"%s\" } allows it)", unsafe);
    else if (unsafe) snprintf(hint, sizeof hint, " in the sandbox");
    else if (near) snprintf(hint, sizeof hint, " (did you mean '%s'?)", near);
    if (dot && !unsafe)
        inspect_tell(in, line, sure, "%.*s has no '%s'%s, %s", (int)(dot - path), path, dot + 1, hint, consequence);
    else
        inspect_tell(in, line, sure, "there is no %s%s%s%s, %s", unsafe ? "" : "global '", path, unsafe ? "" : "'",
                     hint, consequence);
}

/* ---- backends */

bool inspect_has_backend(const struct inspection *in, unsigned site, struct slice name) {
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

void inspect_tell_backend(struct inspection *in, int line, const char *where, struct slice name) {
    const char *near = like_backend(in, name);
    inspect_tell(in, line, visit_is_sure(in->now), "there is no backend \"%.*s\"%s%s%s%s", FMT(name), where,
                 near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
}
