/* The objects scripts see, one `bind_<thing>_open` each, called in this order (engine.h says how). */
#pragma once

#include <lua.h>

#define BINDINGS(BINDING)                                                                                              \
    BINDING(headers)                                                                                                   \
    BINDING(args)                                                                                                      \
    BINDING(cookies)                                                                                                   \
    BINDING(body)                                                                                                      \
    BINDING(req)                                                                                                       \
    BINDING(res)                                                                                                       \
    BINDING(cache)                                                                                                     \
    BINDING(reply)                                                                                                     \
    BINDING(fetch)                                                                                                     \
    BINDING(tls)                                                                                                       \
    BINDING(shared)                                                                                                    \
    BINDING(limit)                                                                                                     \
    BINDING(map)                                                                                                       \
    BINDING(log)                                                                                                       \
    BINDING(hash)                                                                                                      \
    BINDING(crypto)                                                                                                    \
    BINDING(jwt)                                                                                                       \
    BINDING(clock)                                                                                                     \
    BINDING(backend)                                                                                                   \
    BINDING(task)                                                                                                      \
    BINDING(socket)                                                                                                    \
    BINDING(lock)                                                                                                      \
    BINDING(dns)                                                                                                       \
    BINDING(hex)                                                                                                       \
    BINDING(time)                                                                                                      \
    BINDING(uuid)                                                                                                      \
    BINDING(url)                                                                                                       \
    BINDING(cookie)                                                                                                    \
    BINDING(json)                                                                                                      \
    BINDING(cidr)                                                                                                      \
    BINDING(re)                                                                                                        \
    BINDING(metrics)                                                                                                   \
    BINDING(mmdb)

#define BINDING_DECLARATION(thing) void bind_##thing##_open(lua_State *L);
BINDINGS(BINDING_DECLARATION)
#undef BINDING_DECLARATION
