/* Questions to the supervisor, synchronous under one lock: they are rare (a start, a reload, a reopened log) and come
 * from the helper threads, which may wait.
 *
 * Reading tries open(2) first, so that an ordinary config never troubles the supervisor. The error log goes the other
 * way round: the supervisor writes to the same file, so it must learn of it. */
#include "server/ask.h"

#include "base/must.h"
#include "server/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int asks = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void ask_open(int fd) { asks = fd; }

void ask_close(void) {
    if (asks >= 0) close(asks);
    asks = -1;
}

/* 0 and an answer for message_fini, or an errno. */
static int ask_for(enum message_kind kind, const char *text, int status, struct message *answer) {
    *answer = (struct message){ 0 };
    if (asks < 0) return EACCES;
    pthread_mutex_lock(&lock);
    bool answered = channel_say(asks, kind, 0, status, text) && channel_receive(asks, true, answer) == CHANNEL_MESSAGE;
    pthread_mutex_unlock(&lock);
    if (!answered) return EPIPE;
    return answer->status;
}

static int ask_for_file(enum message_kind kind, const char *path, int status) {
    struct message answer;
    int error = ask_for(kind, path, status, &answer), fd = -1;
    if (error == 0 && answer.fd_count > 0) {
        fd = answer.fds[0];
        answer.fds[0] = -1;
    }
    message_fini(&answer);
    if (fd < 0) errno = error ? error : EIO;
    return fd;
}

int ask_read(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0 || errno != EACCES || asks < 0) return fd;
    return ask_for_file(MESSAGE_READ, path, 0);
}

static int append_ourselves(const char *path) {
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

int ask_append(const char *path, bool error_log) {
    int fd = error_log ? ask_for_file(MESSAGE_APPEND, path, 1) : append_ourselves(path);
    if (fd >= 0) return fd;
    return error_log ? append_ourselves(path) : ask_for_file(MESSAGE_APPEND, path, 0);
}

int ask_bind(const char *address, unsigned wanted, int **fds, unsigned *count) {
    struct message answer;
    int error = ask_for(MESSAGE_BIND, address, (int)wanted, &answer);
    *count = error ? 0 : answer.fd_count;
    *fds = NULL;
    if (*count) {
        *fds = must_malloc(*count * sizeof(int));
        memcpy(*fds, answer.fds, *count * sizeof(int));
        answer.fd_count = 0;
    }
    message_fini(&answer);
    return error || *count ? error : EIO;
}

void ask_release(const char *address) {
    struct message answer;
    ask_for(MESSAGE_RELEASE, address, 0, &answer);
    message_fini(&answer);
}
