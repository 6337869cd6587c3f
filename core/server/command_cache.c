/* `moongate cache`: orders (cache_orders.h) over the control socket, and their answers for people. */
#include "server/cli.h"
#include "server/control.h"

#include "base/must.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ORDER_MOST = 16000 /* bytes: control.c takes one line */, CONCURRENCY = 8, CONCURRENCY_MOST = 24 };

/* ---- orders */

static long long get_integer(const json_t *o, const char *name) { return json_integer_value(json_object_get(o, name)); }
static double get_number(const json_t *o, const char *name) { return json_number_value(json_object_get(o, name)); }
static const char *get_text(const json_t *o, const char *name) { return json_string_value(json_object_get(o, name)); }
static bool is_true(const json_t *o, const char *name) { return json_is_true(json_object_get(o, name)); }

static void set_text(json_t *o, const char *name, const char *text) {
    if (text) json_object_set_new(o, name, json_string(text));
}

static json_t *make_order(const char *what, const struct cli_args *args) {
    json_t *o = json_object();
    set_text(o, "do", what);
    set_text(o, "site", args->values[OPTION_SITE]);
    return o;
}

/* Sends it; the order is taken over. The status, and the answer in `*text`, which is the caller's: JSON, or a
 * sentence. */
static int give(const char *socket, json_t *order, char **text) {
    int status = EXIT_FAILED;
    char *json = json_dumps(order, JSON_COMPACT), *command = NULL;
    json_decref(order);
    *text = NULL;
    if (!json || strlen(json) > ORDER_MOST)
        *text = must_strdup(json ? "that is too long: an order has 16000 bytes at most" : "that is not UTF-8");
    else {
        char *why = NULL;
        command = must_printf("cache %s", json);
        if (!control_call(socket, command, &status, text, &why)) *text = why;
    }
    free(command);
    free(json);
    size_t n = strlen(*text);
    if (n && (*text)[n - 1] == '\n') (*text)[n - 1] = 0;
    return status;
}

/* The same, to the one that `file` or --control names, printed by `print` unless as JSON. */
static int run(const struct cli_args *args, const char *file, json_t *order, void (*print)(const json_t *)) {
    char *path = cli_find_socket(args, file), *text;
    if (!path) {
        json_decref(order);
        return EXIT_FAILED;
    }
    int status = give(path, order, &text);
    json_t *answer = status == 0 ? json_loads(text, 0, NULL) : NULL;
    if (status != 0) cli_fail(status, "cache: %s", text);
    else if (args->values[OPTION_JSON] || !answer) puts(text);
    else print(answer);
    json_decref(answer);
    free(text);
    free(path);
    return status;
}

/* ---- status */

static void print_size(const char *title, double bytes) {
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB" };
    int i = 0;
    for (; bytes >= 10000 && i < 3; i++) bytes /= 1024;
    printf("%s%.*f %s", title, bytes < 100 && i ? 1 : 0, bytes, units[i]);
}

static void print_results(const json_t *requests) {
    long long sum = 0;
    const char *name;
    json_t *n;
    json_object_foreach((json_t *)(uintptr_t)requests, name, n) sum += json_integer_value(n);
    printf("  %-11s%lld", "requests", sum);
    json_object_foreach((json_t *)(uintptr_t)requests, name, n) if (json_integer_value(n) > 0)
        printf(", %s %lld (%.1f %%)", name, json_integer_value(n), 100. * (double)json_integer_value(n) / (double)sum);
    putchar('\n');
}

static void print_cache(const json_t *c) {
    printf("cache of %s\n  %-11s", get_text(c, "site"), "memory");
    print_size("", get_number(c, "used"));
    print_size(" of ", get_number(c, "memory"));
    printf("\n  %-11s%lld stored now, %lld marks of what is not for it\n", "objects", get_integer(c, "objects"),
           get_integer(c, "passes"));
    printf("  %-11s%lld stored, %lld freshened, %lld evicted, %lld expired, %lld purged, %lld without room\n", "so far",
           get_integer(c, "stored"), get_integer(c, "freshened"), get_integer(c, "evicted"), get_integer(c, "expired"),
           get_integer(c, "purged"), get_integer(c, "refused"));
    print_results(json_object_get(c, "requests"));
}

static void print_status(const json_t *answer) {
    size_t i;
    json_t *cache, *list = json_object_get(answer, "caches");
    json_array_foreach(list, i, cache) print_cache(cache);
    if (json_array_size(list) == 0) puts("no site has a cache");
}

int command_cache_status(const struct cli_args *args) {
    return run(args, args->file, make_order("status", args), print_status);
}

/* ---- purge */

static void print_purge(const json_t *answer) {
    bool soft = is_true(answer, "soft");
    printf("%s: %lld known so far; what a tag or a prefix hits is found when it is next asked for\n",
           soft ? "stale from now on" : "purged", get_integer(answer, "purged"));
}

int command_cache_purge(const struct cli_args *args) {
    json_t *o = make_order("purge", args);
    unsigned count = (args->values[OPTION_URL] != NULL) + (args->values[OPTION_TAG] != NULL) +
                     (args->values[OPTION_PREFIX] != NULL) + (args->values[OPTION_ALL] != NULL);
    if (count != 1) {
        json_decref(o);
        return cli_fail(EXIT_USAGE, "cache purge takes one of --url, --tag, --prefix and --all");
    }
    set_text(o, "url", args->values[OPTION_URL]);
    set_text(o, "tag", args->values[OPTION_TAG]);
    set_text(o, "prefix", args->values[OPTION_PREFIX]);
    if (args->values[OPTION_ALL]) json_object_set_new(o, "all", json_true());
    if (args->values[OPTION_SOFT]) json_object_set_new(o, "soft", json_true());
    return run(args, args->file, o, print_purge);
}

/* ---- why */

static void print_list(const char *before, const json_t *list) {
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)(uintptr_t)list, i, item) printf("%s%s", i ? ", " : before, json_string_value(item));
}

static void print_age(const json_t *v) {
    double left = get_number(v, "left");
    printf("age %.0f s, ", get_number(v, "age"));
    if (left >= 0) printf("fresh for %.0f s more", left);
    else printf("stale for %.0f s", -left);
    if (is_true(v, "always_validated")) fputs(", but validated each time", stdout);
    if (is_true(v, "heuristic")) fputs(" (a guess: it does not say)", stdout);
}

static void print_variant(const json_t *v) {
    const char *purged = get_text(v, "purged");
    if (is_true(v, "pass")) printf("  mark       not for the cache: %s", get_text(v, "rule"));
    else printf("  stored     %lld, by %s", get_integer(v, "status"), get_text(v, "rule"));
    if (purged) printf(", purged%s", strcmp(purged, "soft") == 0 ? " softly" : "");
    print_list(", varies by ", json_object_get(v, "vary"));
    fputs(is_true(v, "fits") ? ", fits this request\n             " : ", does not fit this request\n             ",
          stdout);
    print_age(v);
    if (!is_true(v, "pass")) {
        printf("\n             %lld bytes (%s), %lld hits", get_integer(v, "bytes"), get_text(v, "body"),
               get_integer(v, "hits"));
        print_list(", tags ", json_object_get(v, "tags"));
    }
    putchar('\n');
}

static void print_why(const json_t *answer) {
    size_t i;
    json_t *variant;
    const char *result = get_text(answer, "result"), *why = get_text(answer, "why"), *key = get_text(answer, "key");
    printf("GET %s, site %s\n", get_text(answer, "url"), get_text(answer, "site"));
    if (key) printf("  key        %s%s\n", key, is_true(answer, "own_key") ? " (made by cache_key)" : "");
    printf("  now        %s%s%s\n", result ? result : "not for the cache", why ? ": " : "", why ? why : "");
    json_array_foreach(json_object_get(answer, "variants"), i, variant) print_variant(variant);
    if (json_object_get(answer, "more")) printf("  and %lld variants more\n", get_integer(answer, "more"));
}

int command_cache_why(const struct cli_args *args) {
    if (args->operand_count == 0) return cli_fail(EXIT_USAGE, "cache why needs a URL: moongate cache why URL [FILE]");
    json_t *o = make_order("why", args), *lines = json_array();
    set_text(o, "url", args->operands[0]);
    for (unsigned i = 0; i < args->said_count; i++)
        if (args->said[i].option == OPTION_HEADER) json_array_append_new(lines, json_string(args->said[i].value));
    json_object_set_new(o, "lines", lines);
    return run(args, args->operand_count > 1 ? args->operands[1] : NULL, o, print_why);
}

/* ---- warm: each of some threads takes the next URL, and waits for its answer */

enum { REASONS_MOST = 32, REASON_MOST = 80 };

struct reason {
    char text[REASON_MOST];
    unsigned count;
};

struct warming {
    const struct cli_args *args;
    const char *socket;
    FILE *urls;
    pthread_mutex_t lock; /* for all below, and for what is printed */
    bool terminal;
    unsigned done, stored, already, refused, failed;
    struct reason reasons[REASONS_MOST];
    unsigned reason_count;
};

static void count_reason(struct warming *w, const char *text) {
    char cut[REASON_MOST];
    snprintf(cut, sizeof cut, "%s", text);
    for (unsigned i = 0; i < w->reason_count; i++) {
        if (strcmp(w->reasons[i].text, cut) != 0) continue;
        w->reasons[i].count++;
        return;
    }
    if (w->reason_count == REASONS_MOST) return;
    memcpy(w->reasons[w->reason_count].text, cut, sizeof cut);
    w->reasons[w->reason_count++].count = 1;
}

static void clear_line(const struct warming *w) {
    if (w->terminal) fputs("\r\033[K", stderr);
}

/* The lock is held. */
static void count(struct warming *w, const char *url, int status, const char *text) {
    json_t *answer = status == 0 ? json_loads(text, 0, NULL) : NULL;
    const char *result = answer ? get_text(answer, "result") : "failed",
               *rule = answer ? get_text(answer, "rule") : NULL;
    const char *error = answer ? get_text(answer, "error") : text;
    w->done++;
    clear_line(w);
    if (strcmp(result, "stored") == 0) w->stored++;
    else if (strcmp(result, "already") == 0) w->already++;
    else if (strcmp(result, "refused") == 0) w->refused++, count_reason(w, rule ? rule : "?");
    else {
        w->failed++;
        if (error) cli_fail(0, "%s: %s", url, error);
        else cli_fail(0, "%s: answered with %lld", url, get_integer(answer, "status"));
    }
    if (w->args->values[OPTION_JSON] && answer) puts(text);
    if (w->terminal) fprintf(stderr, "%u done, %u stored, %u failed", w->done, w->stored, w->failed);
    json_decref(answer);
}

/* The next line that is neither empty nor a comment; to be freed. NULL: no more. */
static char *next_url(struct warming *w) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, w->urls) > 0) {
        line[strcspn(line, "\r\n \t")] = 0;
        if (line[0] && line[0] != '#') return line;
    }
    free(line);
    return NULL;
}

static void *warm(void *with) {
    struct warming *w = with;
    pthread_mutex_lock(&w->lock);
    for (char *url; (url = next_url(w));) {
        pthread_mutex_unlock(&w->lock);
        char *text;
        json_t *o = make_order("warm", w->args);
        set_text(o, "url", url);
        int status = give(w->socket, o, &text);
        pthread_mutex_lock(&w->lock);
        count(w, url, status, text);
        free(text);
        free(url);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void warm_all(struct warming *w, unsigned threads) {
    pthread_t list[CONCURRENCY_MOST];
    for (unsigned i = 0; i < threads; i++) must(pthread_create(&list[i], NULL, warm, w) == 0);
    for (unsigned i = 0; i < threads; i++) pthread_join(list[i], NULL);
}

static void print_sums(const struct warming *w) {
    clear_line(w);
    FILE *out = w->args->values[OPTION_JSON] ? stderr : stdout;
    fprintf(out, "%u stored, %u already there, %u refused, %u failed\n", w->stored, w->already, w->refused, w->failed);
    for (unsigned i = 0; i < w->reason_count; i++)
        fprintf(out, "  refused: %s, %u\n", w->reasons[i].text, w->reasons[i].count);
}

int command_cache_warm(const struct cli_args *args) {
    if (args->operand_count == 0)
        return cli_fail(EXIT_USAGE, "cache warm needs a list: moongate cache warm URLS [FILE]");
    long threads = cli_count(args, OPTION_CONCURRENCY, CONCURRENCY);
    if (threads < 1 || threads > CONCURRENCY_MOST)
        return cli_fail(EXIT_USAGE, "--concurrency: expected 1 to %d", CONCURRENCY_MOST);
    struct warming w = { .args = args, .lock = PTHREAD_MUTEX_INITIALIZER, .terminal = isatty(STDERR_FILENO) };
    w.urls = strcmp(args->operands[0], "-") == 0 ? stdin : fopen(args->operands[0], "re");
    if (!w.urls) return cli_fail(EXIT_FAILED, "%s: %m", args->operands[0]);
    char *socket = cli_find_socket(args, args->operand_count > 1 ? args->operands[1] : NULL);
    w.socket = socket;
    if (socket) warm_all(&w, (unsigned)threads);
    if (w.urls != stdin) fclose(w.urls);
    if (!socket) return EXIT_FAILED;
    free(socket);
    print_sums(&w);
    return w.failed ? EXIT_FAILED : EXIT_OK;
}
