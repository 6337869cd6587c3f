/* What a serving process asks the supervisor for, since it may not take it itself: sockets to listen on, files to read,
 * logs to append to. What is granted, and what not, privilege.h says. */
#include "server/supervisor_inside.h"

#include "base/log.h"
#include "base/must.h"
#include "server/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static int open_to_append(const char *path, bool error_log) {
    int fd = privilege_present() ? grant_append(path)
                                 : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    int ours = fd >= 0 && error_log ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (ours >= 0) log_open(ours, LOG_LEVEL_INFO);
    return fd;
}

/* Each path of the question gets its errno in the answer's text, and its descriptor if that is 0. */
static void grant_many(const struct supervisor *s, const struct message *ask, struct message *answer) {
    struct grant_places places;
    if (privilege_present()) grant_places_find(&places, s->options->file, s->options->keys);
    answer->text = must_calloc(MESSAGE_FDS, sizeof(int32_t));
    for (size_t at = 0, i = 0; at < ask->size && i < MESSAGE_FDS; at += strlen(ask->text + at) + 1, i++) {
        errno = EACCES;
        int fd = privilege_present() ? grant_read(ask->text + at, &places) : -1;
        int32_t error = fd < 0 ? (errno ? errno : EIO) : 0;
        memcpy(answer->text + answer->size, &error, sizeof error);
        answer->size += sizeof error;
        if (fd >= 0) answer->fds[answer->fd_count++] = fd;
    }
}

static int grant_one(const struct supervisor *s, const char *path) {
    struct grant_places places;
    if (!privilege_present()) return -1;
    grant_places_find(&places, s->options->file, s->options->keys);
    return grant_read(path, &places);
}

/* Fills the answer's descriptors; returns 0 or an errno. `*lent`: they stay ours. */
static int grant(struct supervisor *s, const struct message *ask, struct message *answer, bool *lent) {
    const struct held_listener *l;
    int fd = -1;
    errno = EACCES;
    switch (ask->kind) {
    case MESSAGE_BIND:
        l = held_get(&s->held, ask->text, ask->status > 0 ? (unsigned)ask->status : 1);
        if (!l) return errno ? errno : EIO;
        memcpy(answer->fds, l->fds, l->count * sizeof(int));
        answer->fd_count = l->count;
        *lent = true;
        return 0;
    case MESSAGE_RELEASE:
        /* While two processes serve, the other one may still listen there. */
        if (s->processes.next->next == &s->processes) held_release(&s->held, ask->text);
        return 0;
    case MESSAGE_READ: fd = grant_one(s, ask->text); break;
    case MESSAGE_READ_MANY: grant_many(s, ask, answer); return 0;
    case MESSAGE_APPEND: fd = open_to_append(ask->text, ask->status == 1); break;
    default: return ENOSYS;
    }
    if (fd < 0) return errno ? errno : EIO;
    answer->fds[0] = fd;
    answer->fd_count = 1;
    return 0;
}

void serving_on_asks(struct ev_loop *ev, ev_io *io, int events) {
    struct serving *p = io->data;
    struct message ask;
    enum channel_result result = channel_receive(p->asks, false, &ask);
    if (result == CHANNEL_ENDED) ev_io_stop(ev, io);
    if (result != CHANNEL_MESSAGE) return;
    bool lent = false;
    struct message answer = { .kind = MESSAGE_GRANT };
    answer.status = grant(p->supervisor, &ask, &answer, &lent);
    channel_send(p->asks, &answer);
    if (lent) answer.fd_count = 0;
    message_fini(&answer);
    message_fini(&ask);
}
