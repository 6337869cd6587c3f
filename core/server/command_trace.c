/* `moongate trace`: the lines of a trace (trace.c), for people or as they come. */
#include "server/cli.h"
#include "server/control.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *get_text(const json_t *object, const char *name) {
    return json_string_value(json_object_get(object, name));
}

static double get_ms(const json_t *object, const char *name) {
    return json_number_value(json_object_get(object, name)) * 1000;
}

/* As Lua writes it, in ASCII: what strangers sent must not move the cursor. */
static void print_value(const json_t *value) {
    char *text = json_is_string(value) ? json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    fputs(text ? text : "nil", stdout);
    free(text);
}

static void print_plain(const char *text, const char *indent) {
    fputs(indent, stdout);
    for (; *text; text++) {
        if (*text == '\n' && text[1]) printf("\n%s", indent);
        else if ((unsigned char)*text >= ' ' && *text != 0x7f) putchar(*text);
        else if (*text == '\t') fputs("    ", stdout);
        else if (*text != '\n') putchar('?');
    }
    putchar('\n');
}

static void print_changes(const json_t *hook) {
    size_t i;
    json_t *change;
    json_array_foreach(json_object_get(hook, "changes"), i, change) {
        printf("      %s  ", get_text(change, "field"));
        print_value(json_object_get(change, "before"));
        fputs(" -> ", stdout);
        print_value(json_object_get(change, "after"));
        putchar('\n');
    }
}

static void print_fetches(const json_t *hook) {
    size_t i;
    json_t *fetch;
    json_array_foreach(json_object_get(hook, "fetches"), i, fetch) {
        const char *backend = get_text(fetch, "backend"), *error = get_text(fetch, "error");
        printf("      fetched %s %s of %s: ", get_text(fetch, "method"), get_text(fetch, "target"),
               backend ? backend : "nobody");
        if (error) fputs(error, stdout);
        else printf("%lld", json_integer_value(json_object_get(fetch, "status")));
        printf(", %.1f ms\n", get_ms(fetch, "time"));
    }
}

static void print_hook(const json_t *hook) {
    const char *verdict = get_text(hook, "verdict"), *place = get_text(hook, "place"),
               *picked = get_text(hook, "picked");
    const char *error = get_text(hook, "error");
    long long status = json_integer_value(json_object_get(hook, "status"));
    printf("  %-24s %-24s %s", get_text(hook, "policy"), place ? place : "(a constant)", verdict);
    if (status) printf(" %lld", status);
    if (picked) printf(" %s", picked);
    printf("  (%.2f ms)\n", get_ms(hook, "time"));
    print_changes(hook);
    print_fetches(hook);
    if (error) print_plain(error, "      ");
}

static void print_tried(const json_t *line) {
    size_t i;
    json_t *server;
    json_array_foreach(json_object_get(line, "tried"), i, server)
        printf("%s%s/%s", i ? ", then " : ", ", get_text(server, "backend"), get_text(server, "server"));
}

static void print_left(const json_t *cache) {
    double left = json_number_value(json_object_get(cache, "left"));
    if (!json_object_get(cache, "left")) return;
    if (left < 0) printf(", stale for %.0f s", -left);
    else printf(", fresh for %.0f s", left);
}

/* "hit, age 12 s, fresh for 48 s", "miss, stored: max-age, fresh for 60 s", "miss, not stored: no-store" */
static void print_cache(const json_t *cache) {
    const char *result = get_text(cache, "result"), *rule = get_text(cache, "rule");
    bool stored = json_is_true(json_object_get(cache, "stored"));
    if (!cache) return;
    printf("  cache: %s", result);
    if (!stored && json_object_get(cache, "age"))
        printf(", age %.0f s", json_number_value(json_object_get(cache, "age")));
    if (rule) printf(", %s: %s", stored ? "stored" : "not stored", rule);
    print_left(cache);
    putchar('\n');
}

static void print_exchange(const json_t *line) {
    size_t i;
    json_t *hook;
    const char *site = get_text(line, "site"), *source = get_text(line, "source"), *error = get_text(line, "error");
    printf("%s ", get_text(line, "method"));
    print_value(json_object_get(line, "target"));
    printf(" of %s, from %s, site %s, id %s\n", get_text(line, "host"), get_text(line, "client"),
           site ? site : "(none)", get_text(line, "id"));
    json_array_foreach(json_object_get(line, "hooks"), i, hook) print_hook(hook);
    print_cache(json_object_get(line, "cache"));
    printf("  answer: %lld, from %s", json_integer_value(json_object_get(line, "status")), source ? source : "nobody");
    print_tried(line);
    if (error) printf(", %s", error);
    printf(", after %.1f ms, %lld bytes\n\n", get_ms(line, "time"),
           json_integer_value(json_object_get(line, "bytes_out")));
}

/* The last line; false: it is none. */
static bool read_end(const json_t *line) {
    if (!json_object_get(line, "end")) return false;
    long long dropped = json_integer_value(json_object_get(line, "dropped"));
    fprintf(stderr, "moongate: traced %lld", json_integer_value(json_object_get(line, "traced")));
    if (dropped) fprintf(stderr, ", dropped %lld: there were too many", dropped);
    fputc('\n', stderr);
    return true;
}

static int follow(FILE *answer, bool json) {
    char *text = NULL;
    size_t room = 0;
    bool ended = false;
    while (!ended && getline(&text, &room, answer) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        ended = read_end(line);
        if (json) fputs(text, stdout);
        else if (!ended && line) print_exchange(line);
        fflush(stdout);
        json_decref(line);
    }
    free(text);
    return ended ? EXIT_OK : cli_fail(EXIT_FAILED, "trace: the connection ended");
}

static int copy_refusal(FILE *answer, int status) {
    char text[512];
    while (fgets(text, sizeof text, answer)) fprintf(stderr, "moongate: trace: %s", text);
    return status;
}

/* A filter has a space in it, the name of a config has none. */
static bool read_operands(const struct cli_args *args, const char **filter, const char **file) {
    *filter = "";
    *file = NULL;
    for (unsigned i = 0; i < args->operand_count; i++) {
        const char **to = strchr(args->operands[i], ' ') ? filter : file;
        if (*to && **to) return false;
        *to = args->operands[i];
    }
    return true;
}

int command_trace(const struct cli_args *args) {
    const char *filter, *file;
    char command[1024], *why = NULL;
    long count = cli_count(args, OPTION_COUNT_OF, 0), seconds = cli_count(args, OPTION_SECONDS, 0);
    int status;
    if (count < 0 || seconds < 0) return EXIT_USAGE;
    if (!read_operands(args, &filter, &file))
        return cli_fail(EXIT_USAGE, "trace takes a filter, such as 'path ^/pay', and a FILE");
    int n = snprintf(command, sizeof command, "trace %ld %ld %d %s", count, seconds,
                     args->values[OPTION_SECRETS] ? 1 : 0, filter);
    if (n >= (int)sizeof command || strchr(filter, '\n')) return cli_fail(EXIT_USAGE, "trace: the filter is too long");
    char *path = cli_find_socket(args, file);
    if (!path) return EXIT_FAILED;
    FILE *answer = control_follow(path, command, &status, &why);
    free(path);
    if (!answer) cli_fail(EXIT_FAILED, "trace: %s", why);
    free(why);
    if (!answer) return EXIT_FAILED;
    status = status == 0 ? follow(answer, args->values[OPTION_JSON] != NULL) : copy_refusal(answer, status);
    fclose(answer);
    return status;
}
