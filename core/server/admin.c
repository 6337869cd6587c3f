/* The admin listener: /metrics, /status, /cache, and a page that says so.
 *
 * What changes or asks something (/cache/purge, /cache/why) is for clients on this machine alone, and not for web pages
 * that a browser here happens to show: their requests have an Origin, or say whence they were sent.
 *
 * Its HTTP server is as small as one can be: one request per connection, no bodies, no policy, no exchange. It
 * uses the codec and the conns of the house, so it refuses what they refuse, and it runs on the keeper's loop: a
 * scrape waits for nobody, and stops nobody. What it tells of other threads comes from atomics or from under a lock
 * (metrics, server figures, instance figures); it never looks into a worker.
 *
 * A client here is a monitoring system or a person. Their number is bounded, since each could hold a page of
 * megabytes. */
#include "server/config.h"

#include "base/must.h"
#include "http/date.h"
#include "http/framing.h"
#include "http/uri.h"
#include "net/conn.h"
#include "server/cache_orders.h"
#include "server/instance.h"
#include "server/status.h"
#include "store/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SESSIONS_MOST = 64 };
static const double HEAD_SECONDS = 10, ORDER_SECONDS = 60;
static const struct h1_limits limits = { .head = 16384, .target = 2048, .fields = 100 };

struct admin {
    struct instance *instance;
    struct worker *keeper;
    struct ear ear;
    struct list sessions;
    unsigned session_count;
    struct grave grave;
};

/* One connection: a request, an answer, the end. */
struct session {
    struct conn conn;
    struct admin *admin; /* NULL once it is closed */
    struct list node;
    struct grave grave;
    struct h1_scan scan;
    struct cache_asker asker; /* an order of its is under way, or was */
    bool waits, local;        /* for that; the client is on this machine */
    bool head, posts;         /* its request is a HEAD; what it wants takes POST */
};

/* ---- pages */

static void write_index(struct instance *instance, struct buffer *out) {
    (void)instance;
    buffer_printf(out, "moongate\n\n/metrics  figures for Prometheus\n/status   the state of the proxy in JSON\n"
                       "/cache    the caches' figures in JSON\n\nfrom this machine only:\n\n"
                       "/cache/why?url=URL[&header=Name: value][&site=NAME]  what is stored for it\n"
                       "POST /cache/purge?url=URL|tag=NAME|prefix=URL|all=1[&soft=1][&site=NAME]\n");
}

static void write_figure(struct buffer *out, const char *name, const char *kind, const char *help, double value) {
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, kind, name, value);
}

/* The second number of statm is resident pages. */
static double read_resident_bytes(void) {
    char line[256] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    const char *text = fgets(line, sizeof line, file);
    const char *second = text ? strchr(text, ' ') : NULL;
    fclose(file);
    return second ? strtod(second, NULL) * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double read_cpu_seconds(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double count_open_files(void) {
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return 0;
    double count = -1; /* the directory's own */
    for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* The names of process_* are those that every Prometheus client library uses. Written here and not by store/metrics,
 * which has no counters whose value is asked for. */
static void write_process(struct instance *instance, struct buffer *out) {
    pthread_mutex_lock(&instance->figures.lock);
    struct instance_figures f = instance->figures;
    pthread_mutex_unlock(&instance->figures.lock);
    buffer_printf(
        out,
        "# HELP moongate_reloads_total Loads of the config after the first\n# TYPE moongate_reloads_total counter\n");
    buffer_printf(out, "moongate_reloads_total{result=\"failed\"} %u\nmoongate_reloads_total{result=\"ok\"} %u\n",
                  f.reloads_failed, f.reloads);
    write_figure(out, "process_cpu_seconds_total", "counter", "CPU time of the serving process", read_cpu_seconds());
    write_figure(out, "process_open_fds", "gauge", "Open file descriptors", count_open_files());
    write_figure(out, "process_resident_memory_bytes", "gauge", "Resident memory", read_resident_bytes());
    write_figure(out, "process_start_time_seconds", "gauge", "When the serving process began, Unix time", f.began);
}

static void write_metrics(struct instance *instance, struct buffer *out) {
    metrics_write(out);
    write_process(instance, out);
}

static const struct page {
    const char *path, *type;
    void (*write)(struct instance *, struct buffer *out);
} pages[] = {
    { "/", "text/plain; charset=utf-8", write_index },
    { "/metrics", "text/plain; version=0.0.4; charset=utf-8", write_metrics },
    { "/status", "application/json", status_json },
};

/* ---- answers */

static void answer(struct session *s, int status, const char *type, struct buffer *body) {
    struct response response = { .status = status, .reason = status_reason(status) };
    char extra[400];
    int n = snprintf(extra, sizeof extra,
                     "Date: %.*s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
                     "X-Content-Type-Options: nosniff\r\n%sConnection: close\r\n",
                     FMT(date_now()), type, body->size,
                     status == 405 ? s->posts ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n" : "");
    h1_write_response(&s->conn.out, &response, slice_make(extra, (size_t)n));
    if (!s->head) buffer_move(&s->conn.out, body, body->size);
    buffer_fini(body);
    conn_wrote(&s->conn);
    conn_linger(&s->conn);
}

static void answer_plain(struct session *s, int status, const char *text) {
    struct buffer body = { 0 };
    buffer_printf(&body, "%s\n", text);
    answer(s, status, "text/plain; charset=utf-8", &body);
}

/* ---- orders about the cache */

static void session_on_answer(struct cache_asker *asker, int status, char *text) {
    struct session *s = container_of(asker, struct session, asker);
    struct buffer body = { 0 };
    s->waits = false;
    buffer_printf(&body, "%s\n", text);
    free(text);
    if (status == 0) answer(s, 200, "application/json", &body);
    else answer(s, status == 2 ? 400 : 409, "text/plain; charset=utf-8", &body);
}

static void add_line(json_t *order, const char *line) {
    json_t *lines = json_object_get(order, "lines");
    if (!lines) json_object_set_new(order, "lines", lines = json_array());
    json_array_append_new(lines, json_string(line));
}

/* Names that are known, so that a slip of the pen does not purge all. False: there is another one. */
static bool read_order(json_t *order, struct arena *arena, struct slice query) {
    static const char *const texts[] = { "url", "tag", "prefix", "site" };
    struct slice name, value;
    while (query.p && query_next(&query, &name, &value)) {
        bool known = false;
        value = value.p ? percent_decode(arena, value, true) : SLICE("");
        for (int i = 0; i < 4; i++) {
            if (!slice_equal(name, slice_of(texts[i]))) continue;
            known = json_object_set_new(order, texts[i], json_stringn(value.p, value.n)) == 0;
        }
        bool flag = slice_equal(name, SLICE("all")) || slice_equal(name, SLICE("soft"));
        bool yes = slice_equal(value, SLICE("1")) || slice_equal(value, SLICE("true"));
        if (flag) known = json_object_set_new(order, name.p[0] == 'a' ? "all" : "soft", json_boolean(yes)) == 0;
        if (slice_equal(name, SLICE("header")))
            known = true, add_line(order, arena_printf(arena, "%.*s%c", FMT(value), 0).p);
        if (!known) return false;
    }
    return true;
}

static void give_order(struct session *s, const struct request *request, struct arena *arena, const char *what) {
    json_t *order = json_object();
    json_object_set_new(order, "do", json_string(what));
    if (read_order(order, arena, request->target.query)) {
        s->waits = true;
        s->asker.answered = session_on_answer;
        conn_deadline(&s->conn, ORDER_SECONDS);
        cache_order_begin(s->admin->instance, order, &s->asker);
    } else {
        answer_plain(s, 400, "not understood; / tells what there is");
    }
    json_decref(order);
}

static bool comes_from_page(const struct headers *h) {
    struct slice site = headers_joined(h, SLICE("Sec-Fetch-Site"));
    return headers_find(h, SLICE("Origin")) || (site.p && !slice_equal(site, SLICE("none")));
}

static const struct order_page {
    const char *path, *what;
    bool posts, guarded;
} order_pages[] = {
    { "/cache", "status", false, false },
    { "/cache/why", "why", false, true },
    { "/cache/purge", "purge", true, true },
};

static void answer_order(struct session *s, const struct request *request, struct arena *arena,
                         const struct order_page *page) {
    s->posts = page->posts;
    bool reads = request->method == METHOD_GET || request->method == METHOD_HEAD;
    if (page->posts ? request->method != METHOD_POST : !reads)
        answer_plain(s, 405, page->posts ? "this takes POST" : "this takes GET and HEAD");
    else if (page->guarded && (!s->local || comes_from_page(&request->headers)))
        answer_plain(s, 403, "this is for clients on this machine, and not for web pages");
    else give_order(s, request, arena, page->what);
}

static const struct order_page *find_order(struct slice path) {
    for (size_t i = 0; i < sizeof order_pages / sizeof *order_pages; i++)
        if (slice_equal(path, slice_of(order_pages[i].path))) return &order_pages[i];
    return NULL;
}

static void answer_page(struct session *s, struct request *request, struct arena *arena) {
    enum failure why = framing_of_request(request);
    struct slice host = headers_get_id(&request->headers, HEADER_HOST);
    if (why == FAIL_NONE)
        why = target_parse(&request->target, arena, request->method, request->target.raw, host, SLICE("http"), false);
    if (why != FAIL_NONE) {
        answer_plain(s, failure_status(why), failure_sentence(why));
        return;
    }
    const struct order_page *order = find_order(request->target.path);
    if (order) {
        answer_order(s, request, arena, order);
        return;
    }
    if (request->method != METHOD_GET && request->method != METHOD_HEAD) {
        answer_plain(s, 405, "only GET and HEAD are served here");
        return;
    }
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (!slice_equal(request->target.path, slice_of(pages[i].path))) continue;
        struct buffer body = { 0 };
        pages[i].write(s->admin->instance, &body);
        answer(s, 200, pages[i].type, &body);
        return;
    }
    answer_plain(s, 404, "there is no such page here; / lists them");
}

/* ---- connections */

static struct session *of_conn(struct conn *c) { return container_of(c, struct session, conn); }

static void session_bury(struct grave *grave) { free(container_of(grave, struct session, grave)); }

static void close_session(struct session *s) {
    if (!s->admin) return;
    if (s->waits) cache_order_cancel(&s->asker);
    s->waits = false;
    s->admin->session_count--;
    s->admin = NULL;
    list_remove(&s->node);
    conn_close(&s->conn);
    loop_bury(s->conn.loop, &s->grave);
}

static void session_on_bytes(struct conn *c) {
    struct session *s = of_conn(c);
    struct request request = { .version = HTTP_1_1 };
    struct arena arena;
    enum failure why = FAIL_NONE;
    if (s->waits) return;
    arena_init(&arena);
    switch (h1_read_request(&s->scan, &c->in, &limits, &arena, &request, &why)) {
    case H1_MORE: break;
    case H1_FAILED: answer_plain(s, failure_status(why), failure_sentence(why)); break;
    case H1_DONE:
        s->head = request.method == METHOD_HEAD;
        answer_page(s, &request, &arena);
        break;
    }
    arena_fini(&arena);
}

/* A head that is whole is answered when it comes, so this one is not. */
static void session_on_end(struct conn *c) { close_session(of_conn(c)); }
static void session_on_deadline(struct conn *c) { close_session(of_conn(c)); }
static void session_on_broken(struct conn *c, enum failure why) {
    (void)why;
    close_session(of_conn(c));
}

static const struct conn_handlers handlers = {
    .on_bytes = session_on_bytes,
    .on_end = session_on_end,
    .on_broken = session_on_broken,
    .on_deadline = session_on_deadline,
};

static bool is_local(const struct addr *from) {
    static const char *const ranges[] = { "127.0.0.0/8", "::1", "unix" };
    struct cidr range;
    for (int i = 0; i < 3; i++)
        if (cidr_parse(&range, slice_of(ranges[i])) && cidr_match(&range, 1, from)) return true;
    return false;
}

static void admin_on_accept(struct ear *ear, int fd, const struct addr *from) {
    struct admin *admin = container_of(ear, struct admin, ear);
    if (admin->session_count >= SESSIONS_MOST) {
        close(fd);
        return;
    }
    struct session *s = must_calloc(1, sizeof *s);
    s->admin = admin;
    s->local = is_local(from);
    admin->session_count++;
    grave_init(&s->grave, session_bury);
    list_push(&admin->sessions, &s->node);
    conn_open(&s->conn, &admin->keeper->loop, fd, &handlers);
    conn_deadline(&s->conn, HEAD_SECONDS);
}

/* ---- the listener */

static void admin_bury(struct grave *grave) { free(container_of(grave, struct admin, grave)); }

struct admin *admin_start(struct instance *instance, struct worker *keeper, struct listener *listener) {
    struct admin *admin = must_calloc(1, sizeof *admin);
    admin->instance = instance;
    admin->keeper = keeper;
    list_init(&admin->sessions);
    grave_init(&admin->grave, admin_bury);
    ear_open(&admin->ear, &keeper->loop, listener, 1, admin_on_accept);
    return admin;
}

void admin_stop(struct admin *admin) {
    if (!admin) return;
    ear_close(&admin->ear);
    list_each_safe(node, &admin->sessions) close_session(container_of(node, struct session, node));
    loop_bury(&admin->keeper->loop, &admin->grave);
}
