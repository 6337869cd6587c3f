/* The access log. A worker writes lines into a block of its own and hands it to the helper thread for files when it
 * is full or a second old; the helper writes whole blocks, so lines of different workers never mix.
 *
 * What is handed over and not yet written is bounded (PENDING_LIMIT over all workers): if the disk stands still,
 * blocks are dropped and counted, never waited for. At the end of a worker its last block is written, if need be by
 * the worker itself.
 *
 * Strangers choose what stands in a line. In the combined form, quotes, backslashes, and all that is not printable
 * ASCII are written as \", \\ and \xHH, as Apache does, so a request can neither end a field nor write a line. In
 * JSON, what is no valid UTF-8 becomes U+FFFD: every line is a valid document.
 *
 * Tried and rejected: one shared buffer with a lock (workers wait for each other), a pipe to a writer process (one
 * copy and two system calls more), O_APPEND writes by the workers (they stall with the disk). */
#include "proxy/access_log.h"

#include "base/log.h"
#include "base/must.h"
#include "base/refs.h"
#include "store/metrics.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef MOONGATE_HARD
enum { BLOCK_BYTES = 256 };
#else
enum { BLOCK_BYTES = 65536 - 128 };
#endif
/* A field is cut at FIELD_LIMIT; a byte may become six ("\u0001"). DATAGRAM_LIMIT: what syslog daemons take. */
enum { PENDING_LIMIT = 16 << 20, FIELD_LIMIT = 16384, ESCAPED = 6, DATAGRAM_LIMIT = 8192 };
static const double FLUSH_SECONDS = 1.0;

/* An open file; the last of sink and a writing helper closes it. */
struct sink_file {
    _Atomic unsigned refs;
    int fd;
};

struct access_sink {
    _Atomic unsigned refs;  /* the owner's, the workers', and one for each block under way */
    _Atomic size_t pending; /* bytes handed over and not yet written */
    bool syslog;
    enum access_format format;
    pthread_mutex_t lock; /* for `file` only, never held while writing */
    struct sink_file *file;
    _Atomic bool failing; /* the last write failed, and it has been said */
    struct metric *dropped;
};

struct block {
    struct job job;
    struct access_sink *sink;
    size_t size, room;
    unsigned lines;
    char bytes[];
};

struct access_log {
    struct access_sink *sink;
    struct helpers *helpers;
    struct loop *loop;
    struct block *block; /* NULL: nothing gathered */
    struct deadline deadline;
    time_t second; /* of `stamp` */
    char stamp[64];
};

/* ---- files and sinks */

static struct sink_file *open_sink_file(int fd) {
    struct sink_file *file = must_calloc(1, sizeof *file);
    atomic_init(&file->refs, 1);
    file->fd = fd;
    return file;
}

static void unref_file(struct sink_file *file) {
    if (!refs_give(&file->refs)) return;
    if (file->fd >= 0 && file->fd != STDERR_FILENO) close(file->fd);
    free(file);
}

static struct sink_file *borrow_file(struct access_sink *sink) {
    pthread_mutex_lock(&sink->lock);
    struct sink_file *file = sink->file;
    refs_take(&file->refs);
    pthread_mutex_unlock(&sink->lock);
    return file;
}

struct access_sink *access_sink_create(int fd, bool syslog, enum access_format format) {
    struct access_sink *sink = must_calloc(1, sizeof *sink);
    atomic_init(&sink->refs, 1);
    pthread_mutex_init(&sink->lock, NULL);
    sink->syslog = syslog;
    sink->format = format;
    sink->file = open_sink_file(fd);
    sink->dropped = metric_get(METRIC_COUNTER, "moongate_access_log_dropped_total",
                               "Lines of the access log that could not be written", SLICE(""));
    return sink;
}

void access_sink_reopen(struct access_sink *sink, int fd) {
    struct sink_file *file = open_sink_file(fd);
    pthread_mutex_lock(&sink->lock);
    struct sink_file *old = sink->file;
    sink->file = file;
    pthread_mutex_unlock(&sink->lock);
    unref_file(old);
}

static void unref_sink(struct access_sink *sink) {
    if (!refs_give(&sink->refs)) return;
    unref_file(sink->file);
    pthread_mutex_destroy(&sink->lock);
    free(sink);
}

void access_sink_destroy(struct access_sink *sink) {
    if (sink) unref_sink(sink);
}

/* ---- writing a block, in the helper thread */

static bool wait_writable(int fd) {
    struct pollfd wanted = { .fd = fd, .events = POLLOUT };
    return poll(&wanted, 1, 5000) == 1;
}

/* Returns 0 or errno. */
static int write_file(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN && wait_writable(fd))
            continue; /* stderr may be a pipe that somebody set non-blocking */
        if (n <= 0) return n < 0 ? errno : EIO;
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

static int connect_syslog(struct access_sink *sink) {
    struct addr addr;
    must(addr_parse(&addr, SLICE("unix:/dev/log")));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    if (connect(fd, &addr.u.sa, addr.size) != 0) {
        int why = errno;
        close(fd);
        return why;
    }
    access_sink_reopen(sink, fd);
    return 0;
}

/* RFC 3164, as local daemons expect it: "<30>Nov 23 10:11:12 moongate[123]: line". 30: daemon, informational. */
static int send_line(int fd, const char *line, size_t size) {
    static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    char text[DATAGRAM_LIMIT];
    struct tm tm;
    time_t now = time(NULL);
    localtime_r(&now, &tm);
    int n = snprintf(text, sizeof text, "<30>%s %2d %02d:%02d:%02d moongate[%d]: ", months[tm.tm_mon], tm.tm_mday,
                     tm.tm_hour, tm.tm_min, tm.tm_sec, (int)getpid());
    size_t room = sizeof text - (size_t)n;
    if (size > room) size = room;
    memcpy(text + n, line, size);
    while (send(fd, text, (size_t)n + size, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) return errno;
    return 0;
}

/* A daemon that was restarted has a new socket behind the old name: each line is tried on a fresh connection, too. */
static int send_line_anew(struct access_sink *sink, const char *line, size_t size) {
    for (int tries = 0;; tries++) {
        struct sink_file *file = borrow_file(sink);
        int why = file->fd >= 0 ? send_line(file->fd, line, size) : ENOTCONN;
        unref_file(file);
        if (why == 0 || tries == 1) return why;
        int again = connect_syslog(sink);
        if (again) return again;
    }
}

static int write_syslog(struct access_sink *sink, const struct block *block, unsigned *left) {
    int why = 0;
    struct slice rest = slice_make(block->bytes, block->size);
    while (why == 0 && rest.p && rest.n) {
        struct slice line = slice_cut(&rest, '\n');
        why = send_line_anew(sink, line.p, line.n);
        if (why == 0) --*left;
    }
    return why;
}

static int write_block(struct access_sink *sink, const struct block *block, unsigned *left) {
    *left = block->lines;
    if (sink->syslog) return write_syslog(sink, block, left);
    struct sink_file *file = borrow_file(sink);
    int why = write_file(file->fd, block->bytes, block->size);
    unref_file(file);
    return why;
}

static void free_block(struct block *block) {
    unref_sink(block->sink);
    free(block);
}

static void run_block(struct job *job) {
    struct block *block = container_of(job, struct block, job);
    struct access_sink *sink = block->sink;
    unsigned left;
    int why = write_block(sink, block, &left);
    if (why) metric_add(sink->dropped, -1, left);
    bool failed_before = atomic_exchange(&sink->failing, why != 0);
    if (why && !failed_before)
        log_error("the access log cannot be written: %s (lines are dropped until it can)", strerror(why));
    if (!why && failed_before) log_info("the access log is written again");
    atomic_fetch_sub_explicit(&sink->pending, block->size, memory_order_relaxed);
    free_block(block);
}

/* ---- a worker's block */

static struct block *make_block(struct access_sink *sink, size_t room) {
    struct block *block = must_malloc(sizeof *block + room);
    *block = (struct block){ .job = { .work = run_block }, .sink = sink, .room = room };
    refs_take(&sink->refs);
    return block;
}

/* Takes the present block from the log; false if it could not be handed over: it is still the caller's. */
static bool hand_over(struct access_log *log, struct block *block) {
    struct access_sink *sink = log->sink;
    size_t pending = atomic_fetch_add_explicit(&sink->pending, block->size, memory_order_relaxed);
    if (pending + block->size <= PENDING_LIMIT && helpers_ask(log->helpers, HELP_FILES, &block->job)) return true;
    atomic_fetch_sub_explicit(&sink->pending, block->size, memory_order_relaxed);
    return false;
}

static void flush_log(struct access_log *log) {
    struct block *block = log->block;
    log->block = NULL;
    deadline_clear(&log->deadline);
    if (!block || hand_over(log, block)) return;
    metric_add(log->sink->dropped, log->loop->index, block->lines);
    free_block(block);
}

void access_log_hand_over(struct access_log *log) {
    if (log) flush_log(log);
}

static void access_log_on_time(struct deadline *deadline) {
    flush_log(container_of(deadline, struct access_log, deadline));
}

struct access_log *access_log_create(struct access_sink *sink, struct helpers *helpers, struct loop *loop) {
    struct access_log *log = must_calloc(1, sizeof *log);
    log->sink = sink;
    log->helpers = helpers;
    log->loop = loop;
    log->second = -1;
    refs_take(&sink->refs);
    deadline_init(&log->deadline, loop, access_log_on_time);
    return log;
}

void access_log_destroy(struct access_log *log) {
    if (!log) return;
    deadline_fini(&log->deadline);
    struct block *block = log->block;
    if (block) {
        /* Whatever is pending: nobody waits for this thread any more, so it may write the block itself. */
        atomic_fetch_add_explicit(&log->sink->pending, block->size, memory_order_relaxed);
        if (!helpers_ask(log->helpers, HELP_FILES, &block->job)) run_block(&block->job);
    }
    unref_sink(log->sink);
    free(log);
}

/* ---- text. Every put_ function writes into room that make_room has seen to. */

static void put_bytes(struct block *b, const char *bytes, size_t n) {
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

static void put_text(struct block *b, const char *text) { put_bytes(b, text, strlen(text)); }

static void put_char(struct block *b, char c) { b->bytes[b->size++] = c; }

__attribute__((format(printf, 2, 3))) static void put_format(struct block *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(b->bytes + b->size, b->room - b->size, format, args);
    va_end(args);
    if (n > 0) b->size += (size_t)n;
    must(b->size < b->room);
}

static struct slice cut_field(struct slice s) { return slice_make(s.p, s.n < FIELD_LIMIT ? s.n : FIELD_LIMIT); }

static const char hex[] = "0123456789abcdef";

/* One field of the combined form, "-" when it is empty. */
static void put_field(struct block *b, struct slice s) {
    s = cut_field(s);
    if (!s.n) put_char(b, '-');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') put_char(b, (char)c);
        else if (c == '"' || c == '\\') put_char(b, '\\'), put_char(b, (char)c);
        else put_text(b, "\\x"), put_char(b, hex[c >> 4]), put_char(b, hex[c & 15]);
    }
}

/* Bytes of the UTF-8 sequence at the front; 0: it is none (RFC 3629 4: no overlong forms, no surrogates). */
static size_t measure_utf8(struct slice s) {
    unsigned char c = (unsigned char)s.p[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || n > s.n) return 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)s.p[i] & 0xc0) != 0x80) return 0;
    unsigned char second = n > 1 ? (unsigned char)s.p[1] : 0;
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f)) return 0;
    if ((c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f)) return 0;
    return n;
}

static void put_json_escape(struct block *b, unsigned char c) {
    put_text(b, "\\u00");
    put_char(b, hex[c >> 4]);
    put_char(b, hex[c & 15]);
}

static void put_json_string(struct block *b, struct slice s) {
    s = cut_field(s);
    put_char(b, '"');
    while (s.n) {
        unsigned char c = (unsigned char)s.p[0];
        size_t n = measure_utf8(s);
        if (c == '"' || c == '\\') put_char(b, '\\'), put_char(b, (char)c);
        else if (c < 0x20 || c == 0x7f) put_json_escape(b, c);
        else if (n == 0) put_text(b, "\\ufffd");
        else put_bytes(b, s.p, n);
        s = slice_skip(s, n ? n : 1);
    }
    put_char(b, '"');
}

/* ,"name":"value", or null for what there is not. */
static void put_json(struct block *b, const char *name, struct slice value) {
    put_text(b, ",\"");
    put_text(b, name);
    put_text(b, "\":");
    if (value.n) put_json_string(b, value);
    else put_text(b, "null");
}

/* ---- lines */

/* "23/Nov/2026:10:11:12 +0000", made once a second; not by strftime, whose month names follow the locale. */
static const char *stamp_of(struct access_log *log, time_t second) {
    static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    if (log->second == second) return log->stamp;
    struct tm tm;
    localtime_r(&second, &tm);
    long offset = tm.tm_gmtoff / 60;
    snprintf(log->stamp, sizeof log->stamp, "%02d/%s/%d:%02d:%02d:%02d %c%02ld%02ld", tm.tm_mday, months[tm.tm_mon],
             tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, offset < 0 ? '-' : '+', labs(offset) / 60,
             labs(offset) % 60);
    log->second = second;
    return log->stamp;
}

static void put_combined(struct access_log *log, const struct access_record *r) {
    struct block *b = log->block;
    put_field(b, r->client_ip);
    put_format(b, " - - [%s] \"", stamp_of(log, (time_t)r->wall));
    if (r->method.n) { /* nothing was understood of a request without one */
        put_field(b, r->method);
        put_char(b, ' ');
        put_field(b, r->target);
        put_char(b, ' ');
        put_field(b, r->version);
    } else put_char(b, '-');
    put_format(b, "\" %03d %llu \"", r->status, (unsigned long long)r->bytes_out);
    put_field(b, r->referer);
    put_text(b, "\" \"");
    put_field(b, r->user_agent);
    put_text(b, "\"\n");
}

static void put_seconds(struct block *b, const char *name, double seconds) {
    if (seconds < 0) put_format(b, ",\"%s\":null", name);
    else put_format(b, ",\"%s\":%.6f", name, seconds);
}

static void put_json_time(struct block *b, double wall) {
    time_t second = (time_t)wall;
    struct tm tm;
    gmtime_r(&second, &tm);
    put_format(b, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
               tm.tm_hour, tm.tm_min, tm.tm_sec, (int)((wall - (double)second) * 1000));
}

static void put_json_line(struct access_log *log, const struct access_record *r) {
    struct block *b = log->block;
    put_json_time(b, r->wall);
    put_json(b, "id", r->id);
    put_json(b, "client", r->client_ip);
    put_json(b, "method", r->method);
    put_json(b, "host", r->host);
    put_json(b, "target", r->target);
    put_json(b, "version", r->version);
    put_format(b, ",\"status\":%d,\"bytes_in\":%llu,\"bytes_out\":%llu", r->status, (unsigned long long)r->bytes_in,
               (unsigned long long)r->bytes_out);
    put_seconds(b, "seconds", r->seconds);
    put_seconds(b, "first_byte", r->first_byte);
    put_json(b, "referer", r->referer);
    put_json(b, "user_agent", r->user_agent);
    put_json(b, "site", r->site);
    put_json(b, "source", r->source);
    put_json(b, "backend", r->backend);
    put_json(b, "server", r->server);
    put_format(b, ",\"tries\":%u", r->tries);
    put_json(b, "cache", r->cache);
    put_json(b, "cache_rule", r->cache_rule);
    put_json(b, "error", slice_equal(r->word, SLICE("ok")) ? SLICE("") : r->word);
    put_text(b, "}\n");
}

/* No line can be longer than this, however it is escaped. */
static size_t bound_line(const struct access_record *r) {
    const struct slice fields[] = { r->client_ip,  r->id,   r->method,  r->target, r->version, r->host, r->referer,
                                    r->user_agent, r->site, r->backend, r->server, r->source,  r->word };
    size_t n = 1024;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) n += cut_field(fields[i]).n * ESCAPED;
    return n;
}

static void make_room(struct access_log *log, size_t n) {
    if (log->block && log->block->room - log->block->size < n) flush_log(log);
    if (log->block) return;
    log->block = make_block(log->sink, n > BLOCK_BYTES ? n : BLOCK_BYTES);
    deadline_set(&log->deadline, FLUSH_SECONDS);
}

void access_log_write(struct access_log *log, const struct access_record *record) {
    make_room(log, bound_line(record));
    if (log->sink->format == ACCESS_JSON) put_json_line(log, record);
    else put_combined(log, record);
    log->block->lines++;
}
