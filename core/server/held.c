/* Bound once, handed out as often as asked. A unix socket's file is opened to everybody: who may reach it is
 * for its directory to say, and the serving process that will run behind it is not root either. */
#include "server/held.h"

#include "base/must.h"
#include "net/listener.h"
#include "server/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

unsigned held_cpus(void) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return 1;
    int count = CPU_COUNT(&cpus);
    return count > 0 ? (unsigned)count : 1;
}

void held_init(struct held *h) {
    list_init(&h->listeners);
    h->cpus = held_cpus();
}

static struct held_listener *find_listener(const struct held *h, const char *address) {
    list_each(node, &h->listeners) {
        struct held_listener *l = container_of(node, struct held_listener, node);
        if (strcmp(l->address, address) == 0) return l;
    }
    return NULL;
}

/* The path of a unix socket that is a file; NULL: something else. */
static const char *find_file(const char *address) {
    if (strncmp(address, "unix:/", 6) != 0) return NULL;
    return address + 5;
}

static void close_listener(struct held_listener *l) {
    if (find_file(l->address)) unlink(find_file(l->address));
    for (unsigned i = 0; i < l->count; i++) close(l->fds[i]);
    free(l->fds);
    free(l->address);
    free(l);
}

const struct held_listener *held_get(struct held *h, const char *address, unsigned wanted) {
    struct held_listener *found = find_listener(h, address);
    if (found) return found;
    struct addr addr;
    if (!addr_parse(&addr, slice_of(address))) {
        errno = EINVAL;
        return NULL;
    }
    unsigned count = wanted > h->cpus ? wanted : h->cpus;
    if (count > MESSAGE_FDS) count = MESSAGE_FDS;
    int *fds = must_calloc(count, sizeof *fds);
    int error = listener_bind(&addr, fds, count);
    if (error) {
        free(fds);
        errno = error;
        return NULL;
    }
    if (find_file(address)) chmod(find_file(address), 0666);
    struct held_listener *l = must_calloc(1, sizeof *l);
    *l = (struct held_listener){ .address = must_strdup(address), .fds = fds, .count = count };
    list_push(&h->listeners, &l->node);
    return l;
}

void held_release(struct held *h, const char *address) {
    struct held_listener *l = find_listener(h, address);
    if (!l) return;
    list_remove(&l->node);
    close_listener(l);
}

void held_fini(struct held *h) {
    for (struct list *node; (node = list_pop(&h->listeners));)
        close_listener(container_of(node, struct held_listener, node));
}

void held_keep_over_exec(const struct held *h, bool keep) {
    list_each(node, &h->listeners) {
        const struct held_listener *l = container_of(node, struct held_listener, node);
        for (unsigned i = 0; i < l->count; i++) fcntl(l->fds[i], F_SETFD, keep ? 0 : FD_CLOEXEC);
    }
}

/* ---- written and read back */

void held_write(const struct held *h, FILE *out) {
    list_each(node, &h->listeners) {
        const struct held_listener *l = container_of(node, struct held_listener, node);
        fprintf(out, "listener %u", l->count);
        for (unsigned i = 0; i < l->count; i++) fprintf(out, " %d", l->fds[i]);
        fprintf(out, " %s\n", l->address);
    }
}

bool held_read(struct held *h, const char *text) {
    char *at;
    unsigned long count = strtoul(text, &at, 10);
    if (count == 0 || count > MESSAGE_FDS) return false;
    int *fds = must_calloc(count, sizeof *fds);
    for (unsigned long i = 0; i < count; i++) {
        fds[i] = (int)strtol(at, &at, 10);
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) != 0) {
            free(fds);
            return false;
        }
    }
    struct held_listener *l = must_calloc(1, sizeof *l);
    *l = (struct held_listener){ .address = must_strdup(at + (*at == ' ')), .fds = fds, .count = (unsigned)count };
    list_push(&h->listeners, &l->node);
    return true;
}
