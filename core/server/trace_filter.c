/* The terms stand in a list in the order in which they were said: the first that does not hold decides. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "server/trace_filter.h"

#include "base/must.h"

#include <pcre2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TERMS_MOST = 16, EFFORT_MOST = 20000 };

enum term_kind { TERM_PATH, TERM_HOST, TERM_METHOD, TERM_STATUS, TERM_CLIENT, TERM_HEADER, TERM_ID, TERM_KINDS };
static const char *const term_names[TERM_KINDS] = { "path", "host", "method", "status", "client", "header", "id" };

struct term {
    enum term_kind kind;
    char *text; /* host, method, id; the name of a header */
    pcre2_code *pattern;
    struct cidr cidr;
    int low, high; /* status */
};

struct trace_filter {
    struct term terms[TERMS_MOST];
    unsigned count;
    pcre2_match_context *limits;
};

/* ---- reading */

static bool fail(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(char *why, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, size, format, args);
    va_end(args);
    return false;
}

static bool read_pattern(struct term *t, struct slice text, char *why, size_t size) {
    int error;
    PCRE2_SIZE at;
    t->pattern = pcre2_compile((PCRE2_SPTR)text.p, text.n, 0, &error, &at, NULL);
    if (t->pattern) return true;
    char reason[120];
    pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
    return fail(why, size, "the pattern '%.*s': %s, at character %zu", FMT(text), reason, at + 1);
}

static bool read_status(struct term *t, struct slice text, char *why, size_t size) {
    bool digits = text.n == 3 && text.p[0] >= '1' && text.p[0] <= '9';
    bool class = digits && text.p[1] == 'x' && text.p[2] == 'x';
    uint64_t exact = 0;
    if (!class && (!digits || !slice_to_u64(text, &exact)))
        return fail(why, size, "status '%.*s': expected a status, or a class such as 5xx", FMT(text));
    t->low = class ? (text.p[0] - '0') * 100 : (int)exact;
    t->high = class ? t->low + 99 : t->low;
    return true;
}

static bool read_header(struct term *t, struct slice text, char *why, size_t size) {
    struct slice pattern = text, name = slice_cut(&pattern, ' ');
    if (!pattern.p || name.n == 0) return fail(why, size, "header: expected NAME PATTERN");
    t->text = must_strndup(name.p, name.n);
    return read_pattern(t, slice_trim(pattern), why, size);
}

static bool read_term(struct term *t, struct slice text, char *why, size_t size) {
    struct slice rest = text, word = slice_cut(&rest, ' ');
    for (t->kind = 0; t->kind < TERM_KINDS; t->kind++)
        if (slice_equal(word, slice_of(term_names[t->kind]))) break;
    if (t->kind == TERM_KINDS)
        return fail(why, size, "there is no term '%.*s'; there are path, host, method, status, client, header, id",
                    FMT(word));
    rest = slice_trim(rest.p ? rest : SLICE(""));
    if (rest.n == 0) return fail(why, size, "%s: what of it?", term_names[t->kind]);
    switch (t->kind) {
    case TERM_PATH: return read_pattern(t, rest, why, size);
    case TERM_STATUS: return read_status(t, rest, why, size);
    case TERM_HEADER: return read_header(t, rest, why, size);
    case TERM_CLIENT:
        return cidr_parse(&t->cidr, rest) || fail(why, size, "client '%.*s': expected an address or a CIDR", FMT(rest));
    default: t->text = must_strndup(rest.p, rest.n); return true;
    }
}

/* Up to the next " and ". */
static struct slice cut_term(struct slice *rest) {
    struct slice term = *rest;
    const char *end = memmem(rest->p, rest->n, " and ", 5);
    *rest = end ? slice_skip(*rest, (size_t)(end - rest->p) + 5) : slice_make(NULL, 0);
    if (end) term.n = (size_t)(end - term.p);
    return slice_trim(term);
}

struct trace_filter *trace_filter_create(struct slice expression, char *why, size_t size) {
    struct trace_filter *f = must_calloc(1, sizeof *f);
    f->limits = pcre2_match_context_create(NULL);
    must(f->limits);
    pcre2_set_match_limit(f->limits, EFFORT_MOST);
    struct slice rest = slice_trim(expression);
    bool ok = true;
    if (rest.n == 0) return f;
    while (rest.p && ok) {
        struct slice term = cut_term(&rest);
        ok = f->count < TERMS_MOST || fail(why, size, "more than %d terms", TERMS_MOST);
        if (ok) ok = read_term(&f->terms[f->count++], term, why, size);
    }
    if (ok) return f;
    trace_filter_destroy(f);
    return NULL;
}

void trace_filter_destroy(struct trace_filter *f) {
    if (!f) return;
    for (unsigned i = 0; i < f->count; i++) {
        free(f->terms[i].text);
        pcre2_code_free(f->terms[i].pattern);
    }
    pcre2_match_context_free(f->limits);
    free(f);
}

/* ---- asking */

static bool finds(const struct trace_filter *f, const struct term *t, struct slice text) {
    pcre2_match_data *found = pcre2_match_data_create(1, NULL);
    must(found);
    int n = pcre2_match(t->pattern, (PCRE2_SPTR)(text.p ? text.p : ""), text.n, 0, 0, found, f->limits);
    pcre2_match_data_free(found);
    return n >= 0;
}

static bool is_host(const char *wanted, struct slice host) {
    if (wanted[0] == '*' && wanted[1] == '.')
        return host.n > strlen(wanted + 1) &&
               strncasecmp(host.p + host.n - strlen(wanted + 1), wanted + 1, strlen(wanted + 1)) == 0;
    return slice_equal_nocase(host, slice_of(wanted));
}

static bool has_header(const struct trace_filter *f, const struct term *t, const struct exchange *x) {
    headers_each(line, &x->request.headers) {
        if (slice_equal_nocase(line->name, slice_of(t->text)) && finds(f, t, line->value)) return true;
    }
    return false;
}

static bool holds(const struct trace_filter *f, const struct term *t, const struct exchange *x) {
    switch (t->kind) {
    case TERM_PATH: return finds(f, t, x->request.target.path);
    case TERM_HOST: return is_host(t->text, x->request.target.host);
    case TERM_METHOD: return slice_equal_nocase(x->request.method_name, slice_of(t->text));
    case TERM_CLIENT: return cidr_match(&t->cidr, 1, &x->client_addr);
    case TERM_HEADER: return has_header(f, t, x);
    case TERM_ID: return strcasecmp(x->id, t->text) == 0;
    default: return true;
    }
}

bool trace_filter_wants(const struct trace_filter *f, const struct exchange *x) {
    for (unsigned i = 0; i < f->count; i++)
        if (!holds(f, &f->terms[i], x)) return false;
    return true;
}

bool trace_filter_wants_status(const struct trace_filter *f, int status) {
    for (unsigned i = 0; i < f->count; i++)
        if (f->terms[i].kind == TERM_STATUS && (status < f->terms[i].low || status > f->terms[i].high)) return false;
    return true;
}
