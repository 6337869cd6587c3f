/* Versions of libraries are those found at run time, where the library can tell: a security update of Debian shows
 * here.
 *
 * Headers of libraries belong to few files (STYLE), most of them in folders that are not this one: what is wanted of
 * those libraries is a symbol each, declared here. */
#include "server/version.h"

#include "http/h2.h"

#include "build_info.h"

#include <ares.h>
#include <ev.h>
#include <jansson.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

extern const char lua_ident[]; /* "$LuaVersion: Lua 5.4.4  Copyright …" */
extern unsigned long http_parser_version(void);
extern const char *OpenSSL_version(int what);
extern int pcre2_config_8(uint32_t what, void *text);
extern const char *MMDB_lib_version(void);
extern const char *zlibVersion(void);
extern uint32_t BrotliDecoderVersion(void);
extern const char *ZSTD_versionString(void);

enum { OPENSSL_TEXT = 6, PCRE2_TEXT = 11 }; /* OPENSSL_VERSION_STRING, PCRE2_CONFIG_VERSION */

const char *version_text(void) { return MOONGATE_VERSION; }
const char *version_commit(void) { return MOONGATE_COMMIT; }

/* Those that come with TLS, HTTP/2, codings and tools. */
static void write_more(FILE *out) {
    uint32_t brotli = BrotliDecoderVersion();
    char pcre2[64]; /* "10.42 2022-12-11"; the manual wants 24 bytes */
    pcre2_config_8(PCRE2_TEXT, pcre2);
    fprintf(out, "openssl: %s\nnghttp2: %s\n", OpenSSL_version(OPENSSL_TEXT), h2_library_version());
    fprintf(out, "zlib: %s\n", zlibVersion());
    fprintf(out, "brotli: %u.%u.%u\n", brotli >> 24, brotli >> 12 & 4095, brotli & 4095);
    fprintf(out, "zstd: %s\n", ZSTD_versionString());
    fprintf(out, "pcre2: %.*s\n", (int)strcspn(pcre2, " "), pcre2);
    fprintf(out, "libmaxminddb: %s\n", MMDB_lib_version());
}

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
    write_more(out);
}
