/* What the files of bodies share: bind_body.c (what is behind one, whether it may be used, waiting), bind_body_read.c
 * (text, chunks) and bind_body_change.c (map, replace). Nobody else includes it. */
#pragma once

#include "lua/bind.h"
#include "proxy/answer.h"

struct body *body_self(lua_State *L, int arg);

/* ---- what is behind it: of its exchange, its answer or its fetch */

struct pipe *body_pipe(const struct body *); /* NULL: the answer has none any more */
struct content *body_content(const struct body *);
struct headers *body_headers(const struct body *);
struct framing *body_framing(const struct body *);
const struct content_failures *body_failures(const struct body *);
uint64_t body_decoded_most(const struct body *); /* bytes */

/* It is a part of a content. */
bool body_is_partial(const struct body *);
/* It has a coding that reading takes off. */
bool body_is_coded(const struct body *);

/* Its pipe. Raises once it is on its way, and where it could not be waited for: in what outlives its exchange, and in
 * the function that makes it. */
struct pipe *body_pipe_check(lua_State *L, const struct body *);
/* Raises for what no coding can be taken off of. */
void body_check_coding(lua_State *L, const struct body *);
/* Raises "word: sentence". */
int body_raise(lua_State *L, enum failure);

/* ---- waiting for it */

struct body_wait;
/* `k` goes on when there is news, its context a struct body_wait, which it ends first of all. */
int body_await(lua_State *L, struct body *, lua_KFunction k);
void body_wait_end(struct body_wait *);

/* ---- methods, and what they need of the state */

int body_text(lua_State *L);
int body_chunks(lua_State *L);
int body_map(lua_State *L);
int body_replace(lua_State *L);
void body_read_open(lua_State *L);
