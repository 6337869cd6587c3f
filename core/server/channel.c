/* Messages between the two processes: a fixed head, then the text, descriptors beside it (SCM_RIGHTS).
 *
 * A long text (a thousand config errors, the status of hundreds of servers) does not fit into one packet: it travels
 * as a memfd, which is one more descriptor, the last. A stream with framing of our own was tried on paper and needs
 * more code on both sides, for descriptors belong to a byte of the stream. */
#include "server/channel.h"

#include "base/must.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_IN_PACKET = 32768, SEND_WAIT_MS = 1000 };

struct head {
    uint32_t kind, id;
    int32_t status;
    uint32_t text_in_memory; /* the last descriptor holds the text */
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * (MESSAGE_FDS + 1))];
};

bool channel_open(int ends[2]) { return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0; }

/* ---- sending */

static bool write_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t written = write(fd, bytes, n);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        bytes += written;
        n -= (size_t)written;
    }
    return true;
}

/* A memfd that holds the text; -1 if there is no memory. */
static int put_in_memory(const char *text, size_t n) {
    int fd = memfd_create("moongate-text", MFD_CLOEXEC);
    if (fd < 0) return -1;
    if (write_all(fd, text, n)) return fd;
    close(fd);
    return -1;
}

static bool send_packet(int fd, const struct msghdr *packet) {
    for (;;) {
        if (sendmsg(fd, packet, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return false;
        struct pollfd room = { .fd = fd, .events = POLLOUT };
        if (poll(&room, 1, SEND_WAIT_MS) <= 0) return false;
    }
}

static void attach_fds(struct msghdr *packet, union control *control, const int *fds, unsigned count) {
    if (count == 0) return;
    memset(control, 0, sizeof *control);
    packet->msg_control = control->bytes;
    packet->msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *c = CMSG_FIRSTHDR(packet);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
}

bool channel_send(int fd, const struct message *m) {
    must(m->fd_count <= MESSAGE_FDS);
    int fds[MESSAGE_FDS + 1], memory = -1;
    unsigned count = m->fd_count;
    memcpy(fds, m->fds, sizeof(int) * count);
    if (m->size > TEXT_IN_PACKET) {
        memory = put_in_memory(m->text, m->size);
        if (memory < 0) return false;
        fds[count++] = memory;
    }
    struct head head = { m->kind, m->id, m->status, memory >= 0 };
    struct iovec parts[2] = { { &head, sizeof head }, { m->text, memory >= 0 ? 0 : m->size } };
    struct msghdr packet = { .msg_iov = parts, .msg_iovlen = 2 };
    union control control;
    attach_fds(&packet, &control, fds, count);
    bool sent = send_packet(fd, &packet);
    if (memory >= 0) close(memory);
    return sent;
}

void message_add_text(struct message *m, const char *text) {
    size_t n = strlen(text) + 1;
    m->text = must_realloc(m->text, m->size + n);
    memcpy(m->text + m->size, text, n);
    m->size += n;
}

bool channel_say(int fd, enum message_kind kind, uint32_t id, int32_t status, const char *text) {
    struct message m = { .kind = kind, .id = id, .status = status };
    m.text = (char *)(uintptr_t)(text ? text : ""); /* only read */
    m.size = strlen(m.text);
    return channel_send(fd, &m);
}

/* ---- receiving */

static void take_fds(struct message *m, struct msghdr *packet, int *memory, bool text_in_memory) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c; c = CMSG_NXTHDR(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        int fds[MESSAGE_FDS + 1];
        if (count > MESSAGE_FDS + 1) count = MESSAGE_FDS + 1;
        memcpy(fds, CMSG_DATA(c), sizeof(int) * count);
        if (text_in_memory && count) *memory = fds[--count];
        for (unsigned i = 0; i < count && m->fd_count < MESSAGE_FDS; i++) m->fds[m->fd_count++] = fds[i];
    }
}

static void read_memory(struct message *m, int fd) {
    off_t size = lseek(fd, 0, SEEK_END);
    m->size = size > 0 ? (size_t)size : 0;
    m->text = must_malloc(m->size + 1);
    size_t got = 0;
    while (got < m->size) {
        ssize_t n = pread(fd, m->text + got, m->size - got, (off_t)got);
        if (n <= 0) break;
        got += (size_t)n;
    }
    m->size = got;
    m->text[got] = 0;
    close(fd);
}

enum channel_result channel_receive(int fd, bool wait, struct message *m) {
    static _Thread_local char bytes[TEXT_IN_PACKET];
    struct head head = { 0 };
    union control control;
    struct iovec parts[2] = { { &head, sizeof head }, { bytes, sizeof bytes } };
    struct msghdr packet = {
        .msg_iov = parts, .msg_iovlen = 2, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes
    };
    ssize_t got;
    do got = recvmsg(fd, &packet, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) return CHANNEL_NOTHING;
    if (got < (ssize_t)sizeof head) return CHANNEL_ENDED;

    *m = (struct message){ .kind = head.kind, .id = head.id, .status = head.status };
    int memory = -1;
    take_fds(m, &packet, &memory, head.text_in_memory != 0);
    if (memory >= 0) {
        read_memory(m, memory);
        return CHANNEL_MESSAGE;
    }
    m->size = (size_t)got - sizeof head;
    m->text = must_malloc(m->size + 1);
    memcpy(m->text, bytes, m->size);
    m->text[m->size] = 0;
    return CHANNEL_MESSAGE;
}

void message_fini(struct message *m) {
    free(m->text);
    m->text = NULL;
    for (unsigned i = 0; i < m->fd_count; i++)
        if (m->fds[i] >= 0) close(m->fds[i]);
    m->fd_count = 0;
}

/* ---- struct setup as text: its fields in order, a NUL behind each; an absent string is empty */

bool setup_send(int fd, const struct setup *s) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    must(out != NULL);
    fprintf(out, "%s%c%s%c%s%c%d%c%d%c%u%c%u%c%d%c", s->file, 0, s->keys ? s->keys : "", 0, s->user ? s->user : "", 0,
            s->user_fixed, 0, s->detached, 0, s->workers, 0, s->restarts, 0, (int)s->supervisor, 0);
    must(fclose(out) == 0);
    struct message m = { .kind = MESSAGE_SETUP, .text = text, .size = size };
    bool sent = channel_send(fd, &m);
    free(text);
    return sent;
}

enum { SETUP_FIELDS = 8 };

bool setup_read(struct setup *s, const struct message *m) {
    const char *fields[SETUP_FIELDS], *at = m->text, *end = m->text + m->size;
    *s = (struct setup){ 0 };
    if (m->kind != MESSAGE_SETUP) return false;
    for (int i = 0; i < SETUP_FIELDS; i++) {
        if (at >= end) return false;
        fields[i] = at;
        at += strlen(at) + 1;
    }
    s->file = must_strdup(fields[0]);
    s->keys = *fields[1] ? must_strdup(fields[1]) : NULL;
    s->user = *fields[2] ? must_strdup(fields[2]) : NULL;
    s->user_fixed = *fields[3] == '1';
    s->detached = *fields[4] == '1';
    s->workers = (unsigned)strtoul(fields[5], NULL, 10);
    s->restarts = (unsigned)strtoul(fields[6], NULL, 10);
    s->supervisor = (pid_t)strtol(fields[7], NULL, 10);
    return true;
}

void setup_fini(struct setup *s) {
    free(s->file);
    free(s->keys);
    free(s->user);
    *s = (struct setup){ 0 };
}
