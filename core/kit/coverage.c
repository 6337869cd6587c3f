/* Counting executed lines: an array of counters for each file. Scripts are few and short, so files are looked for from
 * the one that was counted last. */
#include "kit/kit.h"

#include "base/must.h"

#include <stdlib.h>
#include <string.h>

struct counted_file {
    char *name;
    unsigned *lines; /* times, by line */
    int room;
};

static struct {
    struct coverage base;
    struct counted_file *files;
    unsigned count, last;
} counts;

static struct counted_file *find_file(const char *name) {
    if (counts.count && strcmp(counts.files[counts.last].name, name) == 0) return &counts.files[counts.last];
    for (unsigned i = 0; i < counts.count; i++) {
        if (strcmp(counts.files[i].name, name) != 0) continue;
        counts.last = i;
        return &counts.files[i];
    }
    counts.files = must_realloc(counts.files, (counts.count + 1) * sizeof *counts.files);
    counts.files[counts.count] = (struct counted_file){ .name = must_strdup(name) };
    counts.last = counts.count;
    return &counts.files[counts.count++];
}

static void on_line(struct coverage *coverage, const char *name, int line) {
    (void)coverage;
    if (line < 1) return;
    struct counted_file *f = find_file(name);
    if (line >= f->room) {
        int room = line + 256;
        f->lines = must_realloc(f->lines, (size_t)room * sizeof *f->lines);
        memset(f->lines + f->room, 0, (size_t)(room - f->room) * sizeof *f->lines);
        f->room = room;
    }
    f->lines[line]++;
}

struct coverage *kit_coverage(void) {
    counts.base.line = on_line;
    return &counts.base;
}

int kit_coverage_push(lua_State *L) {
    lua_createtable(L, 0, (int)counts.count);
    for (unsigned i = 0; i < counts.count; i++) {
        const struct counted_file *f = &counts.files[i];
        lua_newtable(L);
        for (int line = 1; line < f->room; line++) {
            if (!f->lines[line]) continue;
            lua_pushinteger(L, f->lines[line]);
            lua_rawseti(L, -2, line);
        }
        lua_setfield(L, -2, f->name);
    }
    return 1;
}
