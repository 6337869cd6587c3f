/* What the files of gate.re share: regex.c (compiled patterns, and one match), bind_re.c (the methods that look) and
 * bind_re_gsub.c (the one that replaces). Nobody else includes it. */
#pragma once

#include "lua/bind.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { BYTES_PER_STEP = 64 }; /* of a subject: what passing over them costs */

struct engine;

struct regex {
    struct handle handle;
    struct engine *engine; /* made before, collected after */
    pcre2_code *code;
    pcre2_match_data *match;
    size_t jit_bytes;
    uint32_t groups; /* the whole match not counted */
    bool utf;
};

extern const struct handle_kind regex_kind;

/* To be called once in a state, after the kind has been opened. */
void regex_open(lua_State *L);
/* Of the letters in "imsxu"; raises for others. */
uint32_t regex_options(lua_State *L, const char *flags);
/* Pushes the object for the pattern at index 1: one of the last that were asked for, or a new one. */
void regex_push(lua_State *L, uint32_t options);
/* The one at index 1, and its subject at 2. */
struct regex *regex_self(lua_State *L);
struct slice regex_subject(lua_State *L);

/* Is there a match at `at` or behind? Its places are then in the match data, until the next call. The regex is at index
 * 1 or, in an iterator, wherever it is kept. */
bool regex_match(lua_State *L, struct regex *, struct slice subject, size_t at, uint32_t options);
/* Pushes a group of that match, 0 the whole; nil if it took no part. */
void regex_push_group(lua_State *L, const struct regex *, struct slice subject, uint32_t i);
/* All groups; the whole match if there are none and `whole`. */
int regex_push_groups(lua_State *L, const struct regex *, struct slice subject, bool whole);

/* The names lie in the pattern, each as two bytes of number, text, NUL. */
struct names {
    PCRE2_SPTR first;
    uint32_t count, size;
};

struct names regex_names(const struct regex *);

/* ---- one match after another */

struct scan {
    struct regex *r;
    struct slice s;
    size_t at;       /* where to look on */
    bool empty;      /* the last match was empty, and ended there */
    size_t from, to; /* of the last match */
};

bool scan_next(lua_State *L, struct scan *);
/* How many there may be: the argument, or no end. */
lua_Integer regex_max_opt(lua_State *L, int arg);

int re_gsub(lua_State *L);
