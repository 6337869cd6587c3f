/* Lua's tokens, as far as finding lines takes: no values, no escapes, and no errors: what is not Lua gives some
 * token. */
#pragma once

#include "base/slice.h"

enum token_kind { TOKEN_END, TOKEN_NAME, TOKEN_STRING, TOKEN_NUMBER, TOKEN_MARK };

struct token {
    enum token_kind kind;
    struct slice text; /* in the source; of a string: what stands between its quotes, escapes as written */
    int line;
};

struct lexer {
    struct token token; /* the present one */
    struct token ahead; /* the one behind it */
    struct slice rest;
    int line;
};

/* The first token is the present one then. The source stays its owner's. */
void lexer_start(struct lexer *, struct slice source);
void lexer_advance(struct lexer *);

bool token_is_mark(const struct token *, const char *mark); /* of one or two characters */
bool token_is_word(const struct token *, const char *word);
bool token_is_name(const struct token *); /* a word that is none of Lua's */
