/* A listener is never freed while the process serves: clients hold it for their whole life, and hours may lie between
 * a reload that drops an address and the end of its last client. So the list grows with every new address a config
 * ever names, a hundred bytes each. */
#include "server/listeners.h"

#include "base/must.h"
#include "server/ask.h"
#include "server/config.h"
#include "server/instance.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct listener *listener_find(struct instance *instance, const struct config_listener *wanted) {
    list_each(node, &instance->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        if (addr_equal(&l->addr, &wanted->addr)) return l;
    }
    struct listener *l = must_calloc(1, sizeof *l);
    *l = (struct listener){ .id = instance->listener_ids++, .addr = wanted->addr, .name = must_strdup(wanted->name) };
    list_push(&instance->listeners, &l->node);
    return l;
}

bool listener_ask_bind(struct listener *l, const struct config_listener *wanted, unsigned workers, const char *file,
                       struct errors *errors) {
    char text[ADDR_TEXT];
    if (l->fd_count) return true;
    addr_text(&l->addr, text);
    int error = ask_bind(text, workers, &l->fds, &l->fd_count);
    if (error)
        errors_add(errors, file, wanted->line, wanted->path, "cannot listen on %s: %s", wanted->name, strerror(error));
    return error == 0;
}

void listener_close(struct listener *l, unsigned first, unsigned step) {
    for (unsigned i = first; i < l->fd_count; i += step) {
        if (l->fds[i] >= 0) close(l->fds[i]);
        l->fds[i] = -1;
    }
}

static void close_sockets(struct listener *l) {
    listener_close(l, 0, 1);
    free(l->fds);
    l->fds = NULL;
    l->fd_count = 0;
}

void listener_release(struct listener *l) {
    if (!l->fd_count) return;
    char text[ADDR_TEXT];
    addr_text(&l->addr, text);
    close_sockets(l);
    ask_release(text);
}

struct addr listener_bound(const struct listener *l) {
    struct addr actual = { .size = sizeof actual.u };
    if (addr_port(&l->addr) != 0 || l->addr.u.sa.sa_family == AF_UNIX || l->fd_count == 0) return l->addr;
    return getsockname(l->fds[0], &actual.u.sa, &actual.size) == 0 ? actual : l->addr;
}

char *listener_address(const struct listener *l) {
    struct addr actual = listener_bound(l);
    char text[ADDR_TEXT];
    if (addr_equal(&actual, &l->addr)) return must_strdup(l->name);
    addr_text(&actual, text);
    return must_strdup(text);
}

void listeners_free(struct instance *instance) {
    for (struct list *node; (node = list_pop(&instance->listeners));) {
        struct listener *l = container_of(node, struct listener, node);
        close_sockets(l);
        free(l->name);
        free(l);
    }
}
