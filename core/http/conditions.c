/* RFC 9110 13.2.2 as it is written there. Lists of entity tags are read here: a backslash in a tag is a byte like any
 * other, so that header_list_next, which knows quoted strings, would cut them in the wrong places. */
#include "http/conditions.h"

#include "http/freshness.h"

#define IF_MATCH            SLICE("If-Match")
#define IF_NONE_MATCH       SLICE("If-None-Match")
#define IF_MODIFIED_SINCE   SLICE("If-Modified-Since")
#define IF_UNMODIFIED_SINCE SLICE("If-Unmodified-Since")
#define IF_RANGE            SLICE("If-Range")
#define LAST_MODIFIED       SLICE("Last-Modified")

/* ---- entity tags */

static bool is_etag_byte(char c) {
    unsigned char byte = (unsigned char)c;
    return byte > ' ' && byte != '"' && byte != 0x7f;
}

/* Takes one off the front; false leaves `*rest` where it was. */
static bool take_etag(struct slice *rest, struct etag *etag) {
    struct slice s = *rest;
    etag->weak = slice_starts_with(s, SLICE("W/"));
    if (etag->weak) s = slice_skip(s, 2);
    if (!s.n || *s.p != '"') return false;
    size_t n = 1;
    while (n < s.n && is_etag_byte(s.p[n])) n++;
    if (n == s.n || s.p[n] != '"') return false;
    etag->opaque = slice_make(s.p + 1, n - 1);
    *rest = slice_skip(s, n + 1);
    return true;
}

bool etag_parse(struct slice s, struct etag *etag) { return take_etag(&s, etag) && s.n == 0; }

bool etag_of(const struct headers *headers, struct etag *etag) {
    const struct header *h = headers_find_id(headers, HEADER_ETAG);
    return h && !headers_next(headers, h) && etag_parse(slice_trim(h->value), etag);
}

bool etag_matches_weak(const struct etag *a, const struct etag *b) { return slice_equal(a->opaque, b->opaque); }

bool etag_matches_strong(const struct etag *a, const struct etag *b) {
    return !a->weak && !b->weak && etag_matches_weak(a, b);
}

/* ---- validators */

bool validator_present(const struct headers *response) {
    struct etag etag;
    int64_t modified;
    return etag_of(response, &etag) || cache_date_read(response, LAST_MODIFIED, &modified);
}

bool last_modified_equal(const struct headers *a, const struct headers *b) {
    int64_t x, y;
    return cache_date_read(a, LAST_MODIFIED, &x) && cache_date_read(b, LAST_MODIFIED, &y) && x == y;
}

bool last_modified_is_strong(const struct headers *response) {
    int64_t modified, date;
    return cache_date_read(response, LAST_MODIFIED, &modified) &&
           cache_date_read(response, header_name_of(HEADER_DATE), &date) && date - modified >= 1000;
}

/* ---- lists of entity tags */

typedef bool comparison(const struct etag *, const struct etag *);

/* The next one in the list; what is none is passed over, up to its comma. */
static bool next_etag(struct slice *rest, struct etag *etag) {
    while (rest->n) {
        *rest = slice_trim(*rest);
        if (take_etag(rest, etag)) return true;
        slice_cut(rest, ',');
    }
    return false;
}

static bool line_matches(struct slice line, const struct etag *own, comparison *matches) {
    struct etag etag;
    while (next_etag(&line, &etag))
        if (matches(&etag, own)) return true;
    return false;
}

/* If-Match and If-None-Match: does one of its tags match? "*" matches whatever there is. */
static bool condition_matches(const struct headers *request, const struct header *first, const struct headers *response,
                              comparison *matches) {
    struct etag own;
    bool has = etag_of(response, &own);
    for (const struct header *h = first; h; h = headers_next(request, h)) {
        if (slice_equal(slice_trim(h->value), SLICE("*"))) return true;
        if (has && line_matches(h->value, &own, matches)) return true;
    }
    return false;
}

/* ---- conditions */

static bool is_retrieval(const struct request *request) {
    return request->method == METHOD_GET || request->method == METHOD_HEAD;
}

/* RFC 9110 13.2.1: conditions are not looked at when the answer is none of success anyway. */
static bool is_success(int status) { return status >= 200 && status < 300; }

bool condition_is_for_origin(const struct headers *request) {
    return headers_find_other(request, IF_MATCH) || headers_find_other(request, IF_UNMODIFIED_SINCE);
}

/* When the response was last modified, as far as is known. */
static int64_t modified_at(const struct headers *stored, int64_t received) {
    int64_t at;
    if (cache_date_read(stored, LAST_MODIFIED, &at)) return at;
    return cache_date_read(stored, header_name_of(HEADER_DATE), &at) ? at : received;
}

enum condition_result condition_of_cache(const struct request *request, int status, const struct headers *stored,
                                         int64_t received) {
    const struct header *none_match = headers_find_other(&request->headers, IF_NONE_MATCH);
    int64_t since;
    bool unchanged = false;
    if (!is_retrieval(request) || !is_success(status)) return CONDITION_GO_ON;
    if (none_match) unchanged = condition_matches(&request->headers, none_match, stored, etag_matches_weak);
    else if (cache_date_read(&request->headers, IF_MODIFIED_SINCE, &since))
        unchanged = modified_at(stored, received) <= since;
    return unchanged ? CONDITION_NOT_MODIFIED : CONDITION_GO_ON;
}

/* Steps 1 and 2. */
static bool is_refused(const struct headers *request, const struct headers *response) {
    const struct header *match = headers_find_other(request, IF_MATCH);
    int64_t since, modified;
    if (match) return !condition_matches(request, match, response, etag_matches_strong);
    return cache_date_read(request, IF_UNMODIFIED_SINCE, &since) &&
           cache_date_read(response, LAST_MODIFIED, &modified) && modified > since;
}

/* Steps 3 and 4. */
static bool is_unchanged(const struct request *request, const struct headers *response) {
    const struct header *none_match = headers_find_other(&request->headers, IF_NONE_MATCH);
    int64_t since, modified;
    if (none_match) return condition_matches(&request->headers, none_match, response, etag_matches_weak);
    return is_retrieval(request) && cache_date_read(&request->headers, IF_MODIFIED_SINCE, &since) &&
           cache_date_read(response, LAST_MODIFIED, &modified) && modified <= since;
}

enum condition_result condition_of_origin(const struct request *request, int status, const struct headers *response) {
    enum method method = request->method;
    bool selects = method != METHOD_CONNECT && method != METHOD_OPTIONS && method != METHOD_TRACE;
    if (!selects || !is_success(status)) return CONDITION_GO_ON;
    if (is_refused(&request->headers, response)) return CONDITION_FAILED;
    if (!is_unchanged(request, response)) return CONDITION_GO_ON;
    return is_retrieval(request) ? CONDITION_NOT_MODIFIED : CONDITION_FAILED;
}

bool condition_allows_range(const struct headers *request, const struct headers *response) {
    struct etag wanted, own;
    int64_t date, modified;
    const struct header *h = headers_find_other(request, IF_RANGE);
    if (!h) return true;
    if (headers_next(request, h)) return false;
    if (etag_parse(slice_trim(h->value), &wanted)) return etag_of(response, &own) && etag_matches_strong(&wanted, &own);
    return cache_date_read(request, IF_RANGE, &date) && cache_date_read(response, LAST_MODIFIED, &modified) &&
           date == modified && last_modified_is_strong(response);
}
