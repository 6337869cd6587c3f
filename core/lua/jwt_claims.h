/* What a token's claims must say (RFC 7519 4.1). */
#pragma once

#include "lua/engine.h"

/* Raises for options that make no sense; called before anything is looked at. */
void claims_options_check(lua_State *L, int options);
/* 0: the claims at `claims` are as the options at `options` want them; else nil, word and sentence have been pushed:
 * their number. */
int claims_check(lua_State *L, int claims, int options);
