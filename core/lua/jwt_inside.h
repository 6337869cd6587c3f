/* What the files of gate.jwt share: bind_jwt.c (algorithms, a token's parts, decode), bind_jwt_verify.c and
 * bind_jwt_sign.c. Nobody else includes it. */
#pragma once

#include "lua/key.h"

/* ---- algorithms */

struct algorithm {
    const char *name;
    enum key_kind kind;
    enum curve curve;
    struct scheme scheme;
    size_t secret_min; /* RFC 7518 3.2: as long as the digest */
};

const struct algorithm *algorithm_named(struct slice name); /* NULL: none that is supported */
/* What a key signs when nothing else is said; NULL: nothing. */
const struct algorithm *algorithm_default(const struct key *);
/* Could this key have made such a signature? */
bool algorithm_fits(const struct algorithm *, const struct key *);

/* ---- tokens: the first argument of verify and decode */

enum { ARG_TOKEN = 1 };

struct token {
    struct slice header, claims, signature; /* base64url */
    struct slice input;                     /* what is signed */
};

struct slice token_check(lua_State *L); /* raises unless it is a string */
/* Takes it apart; false: it has not three parts. */
bool token_split(struct slice text, struct token *);
/* The same, and pushes the header; 0, or the number of results that tell why not. */
int token_open(lua_State *L, struct token *);
/* Pushes the JSON object of a part; 0, or the number of results that tell why not. */
int token_push_part(lua_State *L, struct slice text, const char *name);
int token_fail(lua_State *L, const char *why);

int jwt_verify(lua_State *L);
int jwt_sign(lua_State *L);
