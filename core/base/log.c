/* The error log. A line is made in one piece and written by one write(2), so threads need no lock and lines
 * never mix (files are opened O_APPEND; a pipe takes up to PIPE_BUF in one piece).
 *
 * What strangers send may end up in a text, so control bytes are written as \xNN, and line breaks are followed
 * by an indent: no text can look like a line of its own.
 *
 * Reopening (SIGUSR1) puts the new file under the old descriptor's number with dup2: a thread that is writing at that
 * moment writes to one or the other, never to a number that has been closed and given to a socket. */
#include "base/log.h"

#include "base/must.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int log_fd = STDERR_FILENO;
static atomic_int log_level_now = LOG_LEVEL_INFO;
static _Thread_local int log_worker = -1;

static _Thread_local void (*capture)(void *with, enum log_level, const char *text);
static _Thread_local void *captured_with;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void log_open(int fd, enum log_level level) {
    int old = atomic_load(&log_fd);
    if (old == STDERR_FILENO) atomic_store(&log_fd, fd);
    else if (old != fd && dup2(fd, old) >= 0 && fd != STDERR_FILENO) close(fd);
    log_set_level(level);
}

void log_set_level(enum log_level level) { atomic_store(&log_level_now, (int)level); }
bool log_wants(enum log_level level) {
    return capture || (int)level <= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}
void log_thread(int worker) { log_worker = worker; }
const char *log_level_name(enum log_level level) { return level_names[level]; }

void log_capture(void (*line)(void *with, enum log_level, const char *text), void *with) {
    capture = line;
    captured_with = with;
}

static int write_prefix(char *to, size_t room, enum log_level level) {
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    char stamp[32], place[32];
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    if (log_worker >= 0) snprintf(place, sizeof place, "%d.%d", (int)getpid(), log_worker);
    else snprintf(place, sizeof place, "%d", (int)getpid());
    return snprintf(to, room, "%s.%03dZ %s [%s] ", stamp, (int)(now.tv_nsec / 1000000), level_names[level], place);
}

/* At most four bytes are written for one of the text, or five for a line break. */
static size_t escape_text(char *to, const char *text, size_t n) {
    char *at = to;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n') at = (char *)memcpy(at, "\n    ", 5) + 5;
        else if (c == '\t' || (c >= 0x20 && c != 0x7f)) *at++ = (char)c;
        else at += sprintf(at, "\\x%02x", c);
    }
    return (size_t)(at - to);
}

static void write_line(enum log_level level, const char *text, size_t n) {
    char small[2048], *line = small;
    while (n && text[n - 1] == '\n') n--;
    size_t most = 96 + 5 * n + 1;
    if (most > sizeof small) line = must_malloc(most);
    size_t used = (size_t)write_prefix(line, 96, level);
    used += escape_text(line + used, text, n);
    line[used++] = '\n';
    ssize_t written = write(atomic_load(&log_fd), line, used);
    (void)written; /* a full disk must not stop the proxy, and there is nowhere to say so */
    if (line != small) free(line);
}

void log_vwrite(enum log_level level, const char *format, va_list args) {
    if (!log_wants(level)) return;
    char small[1024], *text = small;
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, format, args);
    if (n >= (int)sizeof small) {
        text = must_malloc((size_t)n + 1);
        vsnprintf(text, (size_t)n + 1, format, again);
    }
    va_end(again);
    if (n >= 0 && capture) capture(captured_with, level, text);
    else if (n >= 0) write_line(level, text, (size_t)n);
    if (text != small) free(text);
}

void log_write(enum log_level level, const char *format, ...) {
    va_list args;
    va_start(args, format);
    log_vwrite(level, format, args);
    va_end(args);
}
