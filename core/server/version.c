/* Versions of libraries are those found at run time, where the library can tell: a security update of Debian shows
 * here.
 *
 * Headers of libraries belong to few files (STYLE), and lua.h and http_parser.h to folders that are not this one: what
 * is wanted of those two is a symbol each, declared here. */
#include "server/version.h"

#include "build_info.h"

#include <ares.h>
#include <ev.h>
#include <jansson.h>
#include <string.h>
#include <xxhash.h>

extern const char lua_ident[]; /* "$LuaVersion: Lua 5.4.4  Copyright …" */
extern unsigned long http_parser_version(void);

const char *version_text(void) { return MOONGATE_VERSION; }
const char *version_commit(void) { return MOONGATE_COMMIT; }

void version_write(FILE *out) {
    unsigned long parser = http_parser_version();
    unsigned hash = XXH_versionNumber();
    fprintf(out, "moongate %s\ncommit: %s\nflags: %s\n", MOONGATE_VERSION, MOONGATE_COMMIT, MOONGATE_FLAGS);
    const char *lua = strstr(lua_ident, "Lua 5");
    fprintf(out, "lua: %.*s\n", lua ? (int)strcspn(lua + 4, " ") : 0, lua ? lua + 4 : "");
    fprintf(out, "libev: %d.%d\n", ev_version_major(), ev_version_minor());
    fprintf(out, "c-ares: %s\n", ares_version(NULL));
    fprintf(out, "http-parser: %lu.%lu.%lu\n", parser >> 16 & 255, parser >> 8 & 255, parser & 255);
    fprintf(out, "xxhash: %u.%u.%u\n", hash / 10000, hash / 100 % 100, hash % 100);
    fprintf(out, "jansson: %s\n", JANSSON_VERSION);
}
