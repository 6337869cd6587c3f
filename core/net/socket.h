/* A socket: a conn that a script opened (gate.socket), with what comes before and after: its name is resolved, its
 * addresses are tried one after the other, and when the script is through with it, it may lie in a pool until another
 * script wants one of that key. A worker's sockets are counted and bounded, and so are the bytes they hold.
 *
 * A socket is made by socket_create and belongs to whoever made it until socket_close or socket_keep; its memory goes
 * at the end of that turn. `on_news` tells of every change (bytes, room, an end, a connect that stands or failed), in
 * the gather or the flush phase; look at the state then. It may call anything here. All of it belongs to the worker's
 * thread. */
#pragma once

#include "base/map.h"
#include "net/conn.h"
#include "net/egress.h"
#include "net/resolver.h"

enum {
    SOCKETS_MOST = 4096,        /* of a worker, idle and closing ones included */
    SOCKETS_IDLE_MOST = 1024,   /* of them in pools */
    SOCKET_HOLD_MOST = 32 << 20 /* bytes that one may be asked to gather */
};

/* A worker's. */
struct sockets {
    struct loop *loop;
    struct mailbox *mailbox;
    struct list all;
    struct list idle; /* the one that was kept first comes first */
    struct map pools; /* by key */
    unsigned count, idle_count;
    size_t held; /* bytes that may be gathered beyond CONN_IN_LIMIT, of all */
};

enum socket_state {
    SOCKET_NEW,        /* never connected, or not yet again: `why` says what became of the last connect */
    SOCKET_RESOLVING,  /* its name is looked up */
    SOCKET_CONNECTING, /* one of its addresses is tried, or its TLS handshake is under way */
    SOCKET_OPEN,
    SOCKET_BROKEN, /* `why`; what had arrived can still be read */
    SOCKET_IDLE,   /* in a pool */
    SOCKET_CLOSING /* what was written is still on its way */
};

struct socket {
    struct conn conn;
    struct sockets *set;
    enum socket_state state;
    enum failure why;
    void (*on_news)(struct socket *);
    void *with;      /* the owner's */
    unsigned reused; /* times it came out of a pool */
    char *key;       /* of the pool it came from or may go to; NULL: none */
    size_t held;
    /* while it connects */
    struct question *question;
    struct addr *addrs;
    struct addr peer;            /* the one that is tried, or was reached */
    const struct egress *egress; /* rules for them; NULL: all are allowed */
    unsigned count, next;
    int family;
    uint16_t port;
    double patience;         /* loop time at which connecting ends; 0: never */
    struct tls_trust *trust; /* a reference; NULL: it is plain, or not yet TLS */
    char *name;              /* what it was connected to, or the name its certificate must bear */
    const char *reason;      /* of TLS_FAILED and CERTIFICATE: more about it; may be NULL. Static */

    struct list node;    /* in set->all */
    struct list by_age;  /* in set->idle */
    struct list in_pool; /* in its pool */
    struct grave grave;
};

void sockets_init(struct sockets *, struct loop *, struct mailbox *);
/* Closes the idle ones and those that are closing. */
void sockets_drop_idle(struct sockets *);
/* Every socket was closed by its owner before. */
void sockets_fini(struct sockets *);

/* NULL: there are too many. */
struct socket *socket_create(struct sockets *);

struct socket_target {
    struct slice host; /* "unix:/path", or a name or IP */
    uint16_t port;
    int family;                  /* AF_UNSPEC: whichever there is */
    double seconds;              /* in all; 0: however long */
    struct tls_trust *trust;     /* speak TLS; NULL: not */
    struct slice name;           /* for its certificate; p NULL: the host */
    const struct egress *egress; /* rules for its addresses, until it is connected; NULL: all are allowed */
};

/* Connects a NEW one. on_news follows when it is OPEN or NEW again, which it may be on return already. */
void socket_connect(struct socket *, struct resolver *, const struct socket_target *);
/* An OPEN plain one, with nothing to read or write, speaks TLS from now on. on_news follows when it is OPEN again, or
 * NEW: the connection is lost then. `name`: p NULL: the host it was connected to. */
void socket_secure(struct socket *, struct tls_trust *, struct slice name);
/* Gives up a connect that is under way: NEW again, with TIMEOUT for a reason. */
void socket_stop_connecting(struct socket *);
/* Lets `in` gather up to so many bytes (never less than CONN_IN_LIMIT). False: too many for one socket, or for the
 * worker. */
bool socket_hold(struct socket *, size_t bytes);
/* No more bytes come: FIN, a failure, never connected. */
bool socket_at_end(const struct socket *);
/* What was written is still sent, in the background and for a bounded time. NULL is ignored. */
void socket_close(struct socket *);

/* ---- Pools */

/* One of that key that is OPEN and whose peer is allowed, its owner the caller's; NULL: there is none. */
struct socket *socket_reuse(struct sockets *, struct slice key, const struct egress *);
/* Puts an OPEN one with a key into its pool, where it stays so many seconds, unless there are `most` newer ones. False
 * if it is no good for anybody else (it ended, or holds bytes): it is still the caller's. */
bool socket_keep(struct socket *, double seconds, unsigned most);
