/* A socket as a script holds it: what bind_socket.c (making, connecting, settings) and bind_socket_io.c (bytes) share.
 *
 * It is a userdata of its state. The conn behind it ends with the subject whose script made it, with :close(), or when
 * it is collected; from then on every method says "closed". One strand at a time may wait in it. */
#pragma once

#include "lua/bind.h"
#include "net/socket.h"

enum receive_kind { RECEIVE_LINE, RECEIVE_ALL, RECEIVE_COUNT };
enum socket_option { OPTION_NODELAY, OPTION_KEEPALIVE, OPTION_KEEPIDLE, OPTION_REUSEADDR, SOCKET_OPTIONS };

struct socket_handle {
    struct handle handle;
    struct socket *socket; /* NULL: closed */
    struct loop *loop;
    struct tie tie;
    int family; /* AF_UNSPEC (either of TCP's), AF_INET, AF_INET6, AF_UNIX */

    /* waiting */
    struct wait wait;
    struct deadline deadline;
    const char *busy;                      /* the method in which a strand waits; NULL: none */
    bool (*ready)(struct socket_handle *); /* can it go on? Asked outside of scripts */
    bool timed_out;
    double block, total; /* settimeout's, seconds; negative: none */
    double until;        /* loop time at which the method that waits has had its total; 0: none */

    /* receive */
    enum receive_kind kind;
    size_t wanted;  /* bytes, without what `prefix` brought */
    size_t scanned; /* bytes without an end of line */
    bool too_much;
    bool deaf; /* shutdown("receive") */

    /* send */
    size_t sent, last;

    double made; /* loop time */
    int options[SOCKET_OPTIONS];
    unsigned option_bits; /* those that were set */
};

extern const struct handle_kind socket_kind;

/* The handle at 1, in which nobody waits; raises otherwise. */
struct socket_handle *socket_self(lua_State *L);
/* Waits until h->ready, the time set for one wait (it begins anew whenever something happened), or the one for the
 * whole method, which began with socket_begin. `k` must begin with socket_woken. */
void socket_begin(struct socket_handle *);
int socket_await(lua_State *L, struct socket_handle *, const char *method, lua_KFunction k);
/* False: the time has passed. */
bool socket_woken(struct socket_handle *);

/* bind_socket_io.c: those of the methods that move bytes. */
int socket_send(lua_State *L);
int socket_receive(lua_State *L);
int socket_readable(lua_State *L);
