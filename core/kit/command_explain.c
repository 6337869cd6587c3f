/* `moongate explain`: the command line as a table; the rest is lua/moongate/explain.lua. A file that is to be the body
 * is the caller's, who may read more than the user as whom the config runs. */
#include "kit/host.h"

#include "base/must.h"
#include "server/as_user.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct explanation {
    struct host *host;
    const struct cli_args *args;
    char *body; /* NULL: none */
    size_t body_size;
};

static bool read_all(FILE *file, struct explanation *e) {
    enum { STEP = 65536 };
    size_t n = STEP;
    while (n == STEP) {
        e->body = must_realloc(e->body, e->body_size + STEP);
        n = fread(e->body + e->body_size, 1, STEP, file);
        e->body_size += n;
    }
    return !ferror(file);
}

/* What --body says, or the file it names. */
static bool read_body(struct explanation *e, const char *said) {
    if (!said) return true;
    if (*said != '@') {
        e->body = must_strdup(said);
        e->body_size = strlen(said);
        return true;
    }
    FILE *file = fopen(said + 1, "rbe");
    bool ok = file && read_all(file, e);
    if (!ok) cli_fail(EXIT_FAILED, "%s: %s", said + 1, strerror(errno));
    if (file) fclose(file);
    return ok;
}

/* { operands = { … }, body =, { "--header", "A: b" }, … } */
static void push_args(lua_State *L, const void *with) {
    const struct explanation *e = with;
    const struct cli_args *args = e->args;
    lua_newtable(L);
    lua_newtable(L);
    for (unsigned i = 0; i < args->operand_count; i++) {
        lua_pushstring(L, args->operands[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "operands");
    if (e->body) {
        lua_pushlstring(L, e->body, e->body_size);
        lua_setfield(L, -2, "body");
    }
    for (unsigned i = 0; i < args->said_count; i++) {
        lua_newtable(L);
        lua_pushstring(L, cli_option_name(args->said[i].option));
        lua_rawseti(L, -2, 1);
        lua_pushstring(L, args->said[i].value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static int explain(const void *e) { return host_main(((const struct explanation *)e)->host, push_args, e); }

int command_explain(const struct cli_args *args) {
    struct explanation e = { .args = args, .host = host_open("explain") };
    bool ready = e.host && read_body(&e, args->values[OPTION_BODY]);
    int status = ready ? as_user(args, explain, &e) : EXIT_FAILED;
    host_close(e.host);
    free(e.body);
    return status;
}
