/* The listeners of the serving process: every address that was ever named, each with its number, which generations'
 * tables are indexed by. A load takes those it needs, has the missing ones bound, and either keeps what it bound or
 * gives it back. */
#pragma once

#include "base/errors.h"
#include "net/listener.h"

struct instance;
struct config_listener;

/* Main thread: finds it or makes one that is not bound yet. */
struct listener *listener_find(struct instance *, const struct config_listener *);
/* Any thread, while the listener is of one load only: asks the supervisor for its sockets, if it has none. False: an
 * error was added. */
bool listener_ask_bind(struct listener *, const struct config_listener *, unsigned workers, const char *file,
                       struct errors *);
/* In the thread that accepted from every `step`th socket from `first` on, after its ear was closed: closes them. Nobody
 * else may: a number that another thread closed is still in this one's epoll set. */
void listener_close(struct listener *, unsigned first, unsigned step);
/* Closes the sockets; the supervisor closes his. It may be bound again later. */
void listener_release(struct listener *);
/* Its address, the true port instead of 0. */
struct addr listener_bound(const struct listener *);
/* The same as text, malloc'd. */
char *listener_address(const struct listener *);
void listeners_free(struct instance *);
