/* Both ends of the control socket.
 *
 * Who may command is the file's mode, and SO_PEERCRED besides, since a socket is reachable between bind and chmod
 * where the umask is wide. A client that says nothing costs a descriptor; there are at most CONNS_MOST of them, the
 * oldest silent one goes first. Answers are kept until the client has read them: a stopped `moongate status` must not
 * stop the supervisor. */
#include "server/control.h"

#include "base/clock.h"
#include "base/must.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { COMMAND_MOST = 16384, CONNS_MOST = 32, QUEUE_LENGTH = 512 };

struct control_conn {
    struct list node;
    struct control *control;
    ev_io io;
    uint32_t id;
    char command[COMMAND_MOST];
    size_t command_size;
    bool asked;
    char *answer; /* NULL: none yet */
    size_t answer_size, answer_sent;
};

/* ---- where */

static char *find_directory(void) {
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0) return must_strdup("/run/moongate");
    if (runtime && runtime[0] == '/') return must_printf("%s/moongate", runtime);
    return must_printf("/tmp/moongate-%u", (unsigned)geteuid());
}

char *control_path(const char *given, const char *config) {
    if (given) return must_strdup(given);
    const char *slash = strrchr(config, '/'), *name = slash ? slash + 1 : config;
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, ".lua") == 0) n -= 4;
    char *directory = find_directory(), *path = must_printf("%s/%.*s.sock", directory, (int)n, name);
    free(directory);
    return path;
}

static bool is_socket_name(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".sock") == 0;
}

static bool make_address(struct sockaddr_un *un, const char *path) {
    *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof un->sun_path) return false;
    memcpy(un->sun_path, path, strlen(path) + 1);
    return true;
}

static int connect_to(const char *path) {
    struct sockaddr_un un;
    if (!make_address(&un, path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof un) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* A supervisor that was killed leaves its socket behind; that is none that runs. One that may not be asked is. */
static bool is_answered(const char *path) {
    int fd = connect_to(path);
    if (fd < 0) return errno != ECONNREFUSED && errno != ENOENT;
    close(fd);
    return true;
}

char *control_path_only(char **why) {
    char *directory = find_directory(), *found = NULL;
    unsigned count = 0;
    DIR *entries = opendir(directory);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        if (!is_socket_name(e->d_name)) continue;
        char *path = must_printf("%s/%s", directory, e->d_name);
        if (is_answered(path) && count++ == 0) found = path;
        else free(path);
    }
    if (entries) closedir(entries);
    if (count != 1) {
        *why = count ? must_printf("%u of them run (%s): name the config", count, directory)
                     : must_printf("none runs (nobody answers in %s)", directory);
        free(found);
        found = NULL;
    }
    free(directory);
    return found;
}

/* ---- the supervisor's end: conns */

static void free_conn(struct control_conn *c) {
    ev_io_stop(c->control->ev, &c->io);
    close(c->io.fd);
    free(c->answer);
    free(c);
}

static void close_conn(struct control_conn *c) {
    list_remove(&c->node);
    free_conn(c);
}

static void watch_conn(struct control_conn *c, int events) {
    ev_io *io = &c->io;
    ev_io_stop(c->control->ev, io);
    ev_io_modify(io, events);
    ev_io_start(c->control->ev, io);
}

/* What the socket takes. True when there is no more to send, or nobody to send it to. */
static bool send_answer(struct control_conn *c) {
    while (c->answer_sent < c->answer_size) {
        const char *rest = c->answer + c->answer_sent;
        ssize_t n = send(c->io.fd, rest, c->answer_size - c->answer_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno != EAGAIN;
        c->answer_sent += (size_t)n;
    }
    return true;
}

static void write_answer(struct control_conn *c) {
    if (send_answer(c)) close_conn(c);
    else watch_conn(c, EV_WRITE);
}

static void read_command(struct control_conn *c) {
    ssize_t n = recv(c->io.fd, c->command + c->command_size, sizeof c->command - 1 - c->command_size, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 || c->asked) { /* gone, or it says more than its line */
        close_conn(c);
        return;
    }
    c->command_size += (size_t)n;
    c->command[c->command_size] = 0;
    char *end = strchr(c->command, '\n');
    if (!end) {
        if (c->command_size == sizeof c->command - 1) close_conn(c);
        return;
    }
    *end = 0;
    c->asked = true;
    c->control->on_command(c->control, c->id, c->command);
}

static void conn_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct control_conn *c = io->data;
    if (c->answer) write_answer(c);
    else read_command(c);
}

static bool may_command(int fd) {
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && (who.uid == 0 || who.uid == geteuid());
}

static void make_room(struct control *control) {
    unsigned count = 0;
    struct control_conn *silent = NULL;
    list_each(node, &control->conns) {
        struct control_conn *c = container_of(node, struct control_conn, node);
        if (!silent && !c->asked) silent = c;
        count++;
    }
    if (count >= CONNS_MOST && silent) close_conn(silent);
}

static void control_on_io(struct ev_loop *ev, ev_io *io, int events) {
    struct control *control = io->data;
    int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (!may_command(fd)) {
        close(fd);
        return;
    }
    make_room(control);
    struct control_conn *c = must_calloc(1, sizeof *c);
    c->control = control;
    c->id = ++control->last_id;
    if (c->id == 0) c->id = ++control->last_id; /* 0 means a signal */
    list_push(&control->conns, &c->node);
    ev_io *conn_io = &c->io;
    ev_io_init(conn_io, conn_on_io, fd, EV_READ);
    c->io.data = c;
    ev_io_start(ev, &c->io);
}

static void answer_conn(struct control_conn *c, int status, const char *text) {
    if (c->answer) return;
    c->answer = must_printf("%d\n%s", status, text ? text : "");
    c->answer_size = strlen(c->answer);
    write_answer(c);
}

void control_answer(struct control *control, uint32_t id, int status, const char *text) {
    list_each_safe(node, &control->conns) {
        struct control_conn *c = container_of(node, struct control_conn, node);
        if (c->id != id) continue;
        answer_conn(c, status, text);
        return;
    }
}

int control_take(struct control *control, uint32_t id) {
    list_each_safe(node, &control->conns) {
        struct control_conn *c = container_of(node, struct control_conn, node);
        if (c->id != id) continue;
        int fd = fcntl(c->io.fd, F_DUPFD_CLOEXEC, 3);
        if (fd >= 0) close_conn(c);
        return fd;
    }
    return -1;
}

void control_answer_all(struct control *control, const char *command, int status, const char *text) {
    list_each_safe(node, &control->conns) {
        struct control_conn *c = container_of(node, struct control_conn, node);
        if (c->asked && (!command || strncmp(c->command, command, strlen(command)) == 0)) answer_conn(c, status, text);
    }
}

/* ---- the supervisor's end: the socket */

/* The default directories are made; one in /tmp must be ours, or a stranger would choose what our commands reach. */
static bool make_directory(const char *path, char **why) {
    char *directory = find_directory();
    size_t n = strlen(directory);
    bool ours = strncmp(path, directory, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
    bool ok = true;
    if (ours) {
        struct stat st;
        mkdir(directory, geteuid() == 0 ? 0755 : 0700);
        ok = lstat(directory, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
        if (!ok) *why = must_printf("%s is not a directory that only you can write to", directory);
    }
    free(directory);
    return ok;
}

static int bind_socket(const struct sockaddr_un *un) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    mode_t before = umask(0177);
    bool bound = bind(fd, (const struct sockaddr *)un, sizeof *un) == 0 && listen(fd, QUEUE_LENGTH) == 0;
    int error = errno;
    umask(before);
    if (bound) return fd;
    close(fd);
    errno = error;
    return -1;
}

/* Removes a socket that nobody answers on. */
static bool remove_stale(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode)) return false;
    int fd = connect_to(path);
    if (fd >= 0) close(fd);
    else if (errno == ECONNREFUSED) return unlink(path) == 0;
    return false;
}

bool control_open(struct control *control, struct ev_loop *ev, const char *path,
                  void (*on_command)(struct control *, uint32_t id, const char *command), char **why) {
    *control = (struct control){ .ev = ev, .on_command = on_command };
    list_init(&control->conns);
    struct sockaddr_un un;
    if (!make_address(&un, path)) {
        *why = must_printf("control socket %s: the path is longer than %zu bytes", path, sizeof un.sun_path - 1);
        return false;
    }
    if (!make_directory(path, why)) return false;
    int fd = bind_socket(&un);
    if (fd < 0 && errno == EADDRINUSE && remove_stale(path)) fd = bind_socket(&un);
    if (fd < 0) {
        *why = errno == EADDRINUSE
                   ? must_printf("control socket %s is in use: is it running already? (--control PATH chooses another)",
                                 path)
                   : must_printf("control socket %s: %s", path, strerror(errno));
        return false;
    }
    control->path = must_strdup(path);
    ev_io *io = &control->io;
    ev_io_init(io, control_on_io, fd, EV_READ);
    io->data = control;
    ev_io_start(ev, io);
    return true;
}

void control_shut(struct control *control) {
    if (!control->path) return;
    ev_io_stop(control->ev, &control->io);
    close(control->io.fd);
    unlink(control->path);
    free(control->path);
    control->path = NULL;
}

void control_close(struct control *control) {
    double until = clock_monotonic() + 1;
    control_shut(control);
    for (struct list *node; (node = list_pop(&control->conns));) {
        struct control_conn *c = container_of(node, struct control_conn, node);
        struct pollfd room = { .fd = c->io.fd, .events = POLLOUT };
        while (!send_answer(c) && clock_monotonic() < until) poll(&room, 1, 100);
        free_conn(c);
    }
}

/* ---- the command line's end */

static bool send_command(int fd, const char *command) {
    char line[COMMAND_MOST];
    int n = snprintf(line, sizeof line, "%s\n", command);
    return send(fd, line, (size_t)n, MSG_NOSIGNAL) == n;
}

static FILE *connect_and_say(const char *path, const char *command, char **why) {
    int fd = connect_to(path);
    if (fd < 0) {
        *why = errno == ENOENT || errno == ECONNREFUSED ? must_printf("it is not running (nobody answers at %s)", path)
                                                        : must_printf("%s: %s", path, strerror(errno));
        return NULL;
    }
    FILE *answer = send_command(fd, command) ? fdopen(fd, "r") : NULL;
    if (answer) return answer;
    *why = must_printf("%s: %s", path, strerror(errno));
    close(fd);
    return NULL;
}

FILE *control_follow(const char *path, const char *command, int *status, char **why) {
    FILE *answer = connect_and_say(path, command, why);
    char line[16];
    if (!answer) return NULL;
    if (fgets(line, sizeof line, answer) && strchr(line, '\n')) {
        *status = (int)strtol(line, NULL, 10);
        return answer;
    }
    *why = must_printf("it went away before it answered (%s)", path);
    fclose(answer);
    return NULL;
}

static char *read_all(FILE *answer) {
    char *text = NULL, bytes[4096];
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    must(out != NULL);
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, answer)) > 0;) fwrite(bytes, 1, n, out);
    must(fclose(out) == 0);
    return text;
}

bool control_call(const char *path, const char *command, int *status, char **text, char **why) {
    FILE *answer = control_follow(path, command, status, why);
    if (!answer) return false;
    *text = read_all(answer);
    fclose(answer);
    return true;
}
