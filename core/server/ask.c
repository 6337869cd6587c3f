/* Questions to the supervisor, synchronous under one lock: they are rare (a start, a reload, a reopened log) and come
 * from the helper threads, which may wait.
 *
 * Reading tries open(2) first, so that an ordinary config never troubles the supervisor; but for a file of which the
 * former load had to ask it. The error log goes the other way round: the supervisor writes to the same file, so it must
 * learn of it.
 *
 * Reading ahead. A thousand sites have two thousand files that only root may read, and a question costs two changes of
 * process. A load mostly wants what the former one wanted, in the same order: so a question about a file is also one
 * about those that followed it then, as many as fit into an answer, and what comes is kept open until it is asked for,
 * or the load ends. One batch is asked for while another is used up, so that both processes work at a time. */
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

struct paths {
    char **list;
    size_t count, room;
};

/* A question about many files, and what was answered. Whoever waits for an answer must take that of a batch first. */
struct batch {
    bool asked;                  /* and not yet answered */
    size_t first, count;         /* of the former load's paths */
    int fds[MESSAGE_FDS];        /* -1: taken, or refused */
    int32_t errors[MESSAGE_FDS]; /* why it was refused; 0: it was not */
};

/* One load at a time, in one helper thread; but `coming` is anybody's who asks, under the lock. */
static struct {
    struct paths former, present; /* what was asked for, in order: by the former load, by this one */
    size_t next;                  /* in `former`: what is expected now */
    struct batch here, coming;
} ahead;

void ask_open(int fd) { asks = fd; }

void ask_close(void) {
    if (asks >= 0) close(asks);
    asks = -1;
}

bool ask_is_open(void) { return asks >= 0; }

static void receive_batch(struct batch *);

/* 0 and an answer for message_fini, or an errno. */
static int ask_with(const struct message *question, struct message *answer) {
    *answer = (struct message){ 0 };
    if (asks < 0) return EACCES;
    pthread_mutex_lock(&lock);
    receive_batch(&ahead.coming);
    bool answered = channel_send(asks, question) && channel_receive(asks, true, answer) == CHANNEL_MESSAGE;
    pthread_mutex_unlock(&lock);
    if (!answered) return EPIPE;
    return answer->status;
}

static int ask_for(enum message_kind kind, const char *text, int status, struct message *answer) {
    struct message question = { .kind = kind, .status = status, .size = strlen(text) };
    question.text = (char *)(uintptr_t)text; /* only read */
    return ask_with(&question, answer);
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

/* ---- reading */

static void forget_paths(struct paths *p) {
    for (size_t i = 0; i < p->count; i++) free(p->list[i]);
    free(p->list);
    *p = (struct paths){ 0 };
}

static void note_path(struct paths *p, const char *path) {
    if (p->count == p->room) {
        p->room = p->room ? p->room * 2 : 64;
        p->list = must_realloc(p->list, p->room * sizeof(char *));
    }
    p->list[p->count++] = must_strdup(path);
}

static void drop_batch(struct batch *b) {
    for (size_t i = 0; i < b->count; i++)
        if (b->fds[i] >= 0) close(b->fds[i]);
    b->count = 0;
}

/* Its descriptors become ours. The lock is held. */
static void receive_batch(struct batch *b) {
    struct message answer = { 0 };
    if (!b->asked) return;
    b->asked = false;
    bool good = channel_receive(asks, true, &answer) == CHANNEL_MESSAGE && answer.status == 0 &&
                answer.size == b->count * sizeof *b->errors;
    if (!good) b->count = 0;
    else memcpy(b->errors, answer.text, answer.size);
    for (size_t i = 0, fd = 0; i < b->count; i++) {
        bool granted = b->errors[i] == 0 && fd < answer.fd_count;
        b->fds[i] = granted ? answer.fds[fd] : -1;
        if (granted) answer.fds[fd++] = -1;
    }
    message_fini(&answer);
}

/* Asks for the former load's files from `first` on, and does not wait. */
static void ask_batch(struct batch *b, size_t first) {
    struct message ask = { .kind = MESSAGE_READ_MANY };
    b->first = first;
    b->count = 0;
    while (b->count < MESSAGE_FDS && first + b->count < ahead.former.count)
        message_add_text(&ask, ahead.former.list[first + b->count++]);
    pthread_mutex_lock(&lock);
    b->asked = b->count > 0 && channel_send(asks, &ask);
    pthread_mutex_unlock(&lock);
    if (!b->asked) b->count = 0;
    free(ask.text);
}

/* The next batch is here, and the one behind it under way. */
static void turn_batch(void) {
    pthread_mutex_lock(&lock);
    receive_batch(&ahead.coming);
    pthread_mutex_unlock(&lock);
    drop_batch(&ahead.here);
    ahead.here = ahead.coming;
    ahead.coming.count = 0;
    ask_batch(&ahead.coming, ahead.here.first + ahead.here.count);
}

static void drop_ahead(void) {
    pthread_mutex_lock(&lock);
    receive_batch(&ahead.coming);
    pthread_mutex_unlock(&lock);
    drop_batch(&ahead.coming);
    drop_batch(&ahead.here);
}

void ask_load_begin(void) {
    drop_ahead();
    forget_paths(&ahead.former);
    ahead.former = ahead.present;
    ahead.present = (struct paths){ 0 };
    ahead.next = 0;
}

void ask_load_end(void) { drop_ahead(); }

static bool covers(const struct batch *b, size_t at) { return at >= b->first && at < b->first + b->count; }

/* Is the path one that the former load asked for? Then `next` is there. Mostly it is the next one. */
static bool find_expected(const char *path) {
    const struct paths *former = &ahead.former;
    for (size_t i = 0; i < former->count; i++) {
        size_t at = (ahead.next + i) % former->count;
        if (strcmp(former->list[at], path) != 0) continue;
        ahead.next = at;
        return true;
    }
    return false;
}

/* The answer about the file at `next`, if there is one: a descriptor, or -1 with errno. Once. */
static bool take_ahead(int *fd) {
    if (!covers(&ahead.here, ahead.next)) {
        if (!covers(&ahead.coming, ahead.next)) {
            drop_ahead();
            ask_batch(&ahead.coming, ahead.next);
        }
        turn_batch();
    }
    size_t i = ahead.next - ahead.here.first;
    if (!covers(&ahead.here, ahead.next) || (ahead.here.fds[i] < 0 && ahead.here.errors[i] == 0)) return false;
    *fd = ahead.here.fds[i];
    ahead.here.fds[i] = -1;
    errno = ahead.here.errors[i];
    ahead.next++;
    return true;
}

static int read_ourselves(const char *path) { return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY); }

/* Then the former load tried in vain to open it, and this one need not. */
static bool is_next(const char *path) {
    const struct paths *former = &ahead.former;
    return asks >= 0 && ahead.next < former->count && strcmp(former->list[ahead.next], path) == 0;
}

int ask_read(const char *path) {
    bool next = is_next(path);
    int fd = next ? -1 : read_ourselves(path);
    if (!next && (fd >= 0 || errno != EACCES || asks < 0)) return fd;
    note_path(&ahead.present, path);
    if (!find_expected(path) || !take_ahead(&fd)) fd = ask_for_file(MESSAGE_READ, path, 0);
    return fd < 0 && next ? read_ourselves(path) : fd;
}

/* ---- logs and sockets */

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
