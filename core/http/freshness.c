/* RFC 9111 as a list of questions. freshness_of asks them in the order that says most to who wants to know why
 * something is not cached; the first that says no is the rule.
 *
 * Where the RFC leaves a choice: of two values of a directive the first counts. s-maxage forbids stale answers even
 * with stale-while-revalidate beside it, since 5.2.2.10 gives it the meaning of proxy-revalidate. What came without
 * anything to validate it by is kept only if it was ever fresh, or may be served stale. A response with Set-Cookie is
 * somebody's own, unless the origin says how long all may have it. Responses to POST are not stored, though RFC 9110
 * 9.3.3 would allow some. */
#include "http/freshness.h"

#include "http/conditions.h"
#include "http/date.h"
#include "http/ranges.h"
#include "http/reference.h"
#include "http/uri.h"
#include "http/vary.h"

#define EXPIRES       SLICE("Expires")
#define LAST_MODIFIED SLICE("Last-Modified")

enum { SECOND = 1000, HEURISTIC_MAX = 24 * 3600 * SECOND, HEURISTIC_PART = 10 };

/* ---- the rules' words */

static const struct {
    struct slice word;
    bool stored;
} rules[CACHE_RULE_COUNT] = {
#define CACHE_RULE_ROW(id, word, stored) [CACHE_RULE_##id] = { { word, sizeof(word) - 1 }, stored },
    CACHE_RULES(CACHE_RULE_ROW)
#undef CACHE_RULE_ROW
};

struct slice cache_rule_word(enum cache_rule rule) {
    return rules[rule].word;
}
bool cache_rule_stores(enum cache_rule rule) { return rules[rule].stored; }

/* ---- fields that freshness is made of */

static bool is_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

/* With the case that dates are written in: words begin with a capital, the zone is all capitals. */
static void copy_date(char *to, struct slice s) {
    for (size_t i = 0; i < s.n; i++) {
        bool first = i == 0 || !is_letter(s.p[i - 1]), zone = i + 3 >= s.n;
        to[i] = !is_letter(s.p[i]) ? s.p[i] : first || zone ? (char)(s.p[i] & ~0x20) : (char)(s.p[i] | 0x20);
    }
}

bool cache_date_read(const struct headers *headers, struct slice name, int64_t *ms) {
    char text[40];
    int64_t seconds;
    const struct header *h = headers_find(headers, name);
    if (!h || headers_next(headers, h) || h->value.n > sizeof text) return false;
    copy_date(text, h->value);
    if (!date_read(slice_make(text, h->value.n), &seconds)) return false;
    *ms = seconds * SECOND;
    return true;
}

int64_t cache_age_read(const struct headers *headers) {
    struct slice first;
    for (const struct header *h = headers_find_id(headers, HEADER_AGE); h; h = headers_next(headers, h)) {
        struct slice rest = h->value;
        uint32_t seconds = 0;
        if (!header_list_next(&rest, &first)) continue;
        delta_seconds_read(first, &seconds);
        return seconds;
    }
    return 0;
}

/* ---- age and lifetime (4.2) */

/* RFC 9110 15.1 */
static bool is_heuristic_status(int status) {
    switch (status) {
    case 200:
    case 203:
    case 204:
    case 206:
    case 300:
    case 301:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501: return true;
    default: return false;
    }
}

static int64_t at_least_0(int64_t n) { return n > 0 ? n : 0; }

/* 4.2.3. Date has no parts of a second, so the time of arrival is compared without its own. */
static int64_t initial_age(const struct headers *headers, int64_t date, int64_t request_time, int64_t response_time) {
    int64_t apparent = at_least_0(response_time - response_time % SECOND - date);
    int64_t corrected = cache_age_read(headers) * SECOND + (response_time - request_time);
    return apparent > corrected ? apparent : corrected;
}

/* 4.2.1; CACHE_RULE_NO_FRESHNESS if nothing is told. */
static enum cache_rule explicit_lifetime(const struct headers *headers, const struct cache_control *told, int64_t date,
                                         int64_t *lifetime) {
    int64_t expires;
    if (told->present & CC_S_MAXAGE) {
        *lifetime = (int64_t)told->s_maxage * SECOND;
        return CACHE_RULE_S_MAXAGE;
    }
    if (told->present & CC_MAX_AGE) {
        *lifetime = (int64_t)told->max_age * SECOND;
        return CACHE_RULE_MAX_AGE;
    }
    if (told->present & CC_TARGETED || !headers_find_other(headers, EXPIRES)) return CACHE_RULE_NO_FRESHNESS;
    if (cache_date_read(headers, EXPIRES, &expires)) *lifetime = at_least_0(expires - date);
    return CACHE_RULE_EXPIRES;
}

/* 4.2.2 */
static int64_t heuristic_lifetime(const struct headers *headers, int64_t date) {
    int64_t modified;
    if (!cache_date_read(headers, LAST_MODIFIED, &modified)) return 0;
    int64_t lifetime = at_least_0(date - modified) / HEURISTIC_PART;
    return lifetime < HEURISTIC_MAX ? lifetime : HEURISTIC_MAX;
}

static void permit_stale(struct freshness *f, const struct cache_control *told) {
    const uint32_t forbidding = CC_MUST_REVALIDATE | CC_PROXY_REVALIDATE | CC_S_MAXAGE | CC_NO_CACHE;
    if (told->present & CC_NO_CACHE) f->flags |= FRESHNESS_VALIDATE;
    if (told->present & forbidding) {
        f->flags |= FRESHNESS_NEVER_STALE;
        return;
    }
    f->stale_while_revalidate = (int64_t)told->stale_while_revalidate * SECOND;
    f->stale_if_error = (int64_t)told->stale_if_error * SECOND;
}

static bool is_ever_served(const struct freshness *f) {
    return f->lifetime || f->stale_while_revalidate || f->stale_if_error;
}

enum cache_rule freshness_measure(struct freshness *f, int status, const struct headers *headers,
                                  const struct cache_control *told, int64_t request_time, int64_t response_time) {
    int64_t date;
    if (response_time < request_time) response_time = request_time;
    if (!cache_date_read(headers, header_name_of(HEADER_DATE), &date)) date = response_time;
    *f = (struct freshness){ .received = response_time };
    f->initial_age = initial_age(headers, date, request_time, response_time);
    permit_stale(f, told);

    bool heuristic = is_heuristic_status(status) || told->present & CC_PUBLIC, validator = validator_present(headers);
    enum cache_rule rule = explicit_lifetime(headers, told, date, &f->lifetime);
    if (rule == CACHE_RULE_NO_FRESHNESS && !heuristic) return rule;
    if (told->present & CC_NO_CACHE) return validator ? CACHE_RULE_NO_CACHE : CACHE_RULE_NO_VALIDATOR;
    if (rule != CACHE_RULE_NO_FRESHNESS) return is_ever_served(f) || validator ? rule : CACHE_RULE_NO_VALIDATOR;
    if ((f->lifetime = heuristic_lifetime(headers, date))) {
        f->flags |= FRESHNESS_HEURISTIC;
        return CACHE_RULE_HEURISTIC;
    }
    return validator ? CACHE_RULE_VALIDATOR : CACHE_RULE_NO_FRESHNESS;
}

/* ---- may it be stored (3) */

/* Answers to what one request had beyond its target (conditions, Range, Expect, early data, too many or too large
 * fields), or about one client. Stored, they would be given to everybody. RFC 6585 forbids to store the last four. */
static bool is_for_one_request(int status) {
    switch (status) {
    case 304:
    case 412:
    case 416:
    case 417:
    case 425:
    case 428:
    case 429:
    case 431:
    case 511: return true;
    default: return false;
    }
}

/* A 206 of one range of a body whose length is told, and with as many bytes as it says (3.3). */
static bool is_one_part(const struct response *response) {
    struct byte_range range;
    uint64_t length;
    if (!content_range_of(&response->headers, &range, &length) || length == LENGTH_UNKNOWN) return false;
    return response->framing.kind != FRAMING_LENGTH || response->framing.length == range.last - range.first + 1;
}

/* What the directives forbid (5.2.2.3: must-understand outweighs no-store, but only where we do understand). */
static bool is_forbidden(enum cache_rule *rule, int status, const struct cache_control *told) {
    bool unknown = status_reason(status).n == 0, must_understand = told->present & CC_MUST_UNDERSTAND;
    if (must_understand && unknown) *rule = CACHE_RULE_MUST_UNDERSTAND;
    else if (told->present & CC_MALFORMED) *rule = CACHE_RULE_MALFORMED;
    else if (told->present & CC_NO_STORE && !must_understand) *rule = CACHE_RULE_NO_STORE;
    else if (told->present & CC_PRIVATE) *rule = CACHE_RULE_PRIVATE;
    else return false;
    return true;
}

static bool is_private_by_request(const struct request *request, const struct cache_control *told) {
    const uint32_t for_all = CC_PUBLIC | CC_MUST_REVALIDATE | CC_S_MAXAGE;
    return headers_find_id(&request->headers, HEADER_AUTHORIZATION) && !(told->present & for_all);
}

bool cache_update_forbidden(enum cache_rule *why, const struct request *request, const struct cache_control *asked,
                            const struct headers *update, const struct cache_control *told) {
    if (asked->present & CC_NO_STORE) *why = CACHE_RULE_REQUEST_NO_STORE;
    else if (is_forbidden(why, 200, told)) return true;
    else if (is_private_by_request(request, told)) *why = CACHE_RULE_AUTHORIZATION;
    else if (vary_of(update) == VARY_ANY) *why = CACHE_RULE_VARY_ANY;
    else return false;
    return true;
}

static bool is_unstorable(enum cache_rule *rule, const struct request *request, const struct cache_control *asked,
                          const struct response *response, const struct cache_control *told) {
    if (request->method != METHOD_GET && request->method != METHOD_HEAD) *rule = CACHE_RULE_METHOD;
    else if (response->status < 200 || is_for_one_request(response->status)) *rule = CACHE_RULE_STATUS;
    else if (asked->present & CC_NO_STORE) *rule = CACHE_RULE_REQUEST_NO_STORE;
    else if (is_forbidden(rule, response->status, told)) return true;
    else if (is_private_by_request(request, told)) *rule = CACHE_RULE_AUTHORIZATION;
    else if (vary_of(&response->headers) == VARY_ANY) *rule = CACHE_RULE_VARY_ANY;
    else if (response->status == 206 && !is_one_part(response)) *rule = CACHE_RULE_RANGE;
    else return false;
    return true;
}

static bool is_explicit(enum cache_rule rule) {
    return rule == CACHE_RULE_S_MAXAGE || rule == CACHE_RULE_MAX_AGE || rule == CACHE_RULE_EXPIRES;
}

/* A cookie that is stored is given to everybody (7.3). Who gives the answer freshness has said that he means this: RFC
 * 9111 knows no other word for it, and a cache that drops the cookie or the answer is wrong for him. */
static bool gives_away_cookie(enum cache_rule rule, const struct freshness *f, const struct headers *headers,
                              const struct cache_control *told) {
    if (!headers_find_id(headers, HEADER_SET_COOKIE)) return false;
    if (told->present & CC_PUBLIC || (is_explicit(rule) && f->lifetime)) return false;
    return !cache_control_names(told, headers, header_name_of(HEADER_SET_COOKIE));
}

enum cache_rule freshness_of(struct freshness *f, const struct request *request, const struct cache_control *asked,
                             const struct response *response, const struct cache_control *told, int64_t request_time,
                             int64_t response_time) {
    enum cache_rule refused;
    enum cache_rule rule =
        freshness_measure(f, response->status, &response->headers, told, request_time, response_time);
    if (is_unstorable(&refused, request, asked, response, told)) return refused;
    if (cache_rule_stores(rule) && gives_away_cookie(rule, f, &response->headers, told)) return CACHE_RULE_SET_COOKIE;
    return rule;
}

/* ---- reuse (4, 5.2.1) */

static bool may_be_stale(const struct freshness *f) {
    return !(f->flags & (FRESHNESS_VALIDATE | FRESHNESS_NEVER_STALE));
}

/* What is to be done if the request asks for nothing. */
static enum reuse_verdict verdict_by_age(const struct freshness *f, int64_t left) {
    if (f->flags & FRESHNESS_VALIDATE) return REUSE_VALIDATE;
    if (left > 0) return REUSE_FRESH;
    return may_be_stale(f) && -left < f->stale_while_revalidate ? REUSE_STALE_WHILE_REVALIDATE : REUSE_VALIDATE;
}

static bool takes_stale(const struct cache_control *asked, int64_t left) {
    return asked->present & CC_MAX_STALE && -left <= (int64_t)asked->max_stale * SECOND;
}

/* Does the request want something younger, or fresher, than this? */
static bool wants_better(const struct cache_control *asked, const struct reuse *r) {
    uint32_t has = asked->present;
    if (has & CC_NO_CACHE) return true;
    if (has & CC_MAX_AGE && r->age >= (int64_t)asked->max_age * SECOND) return true;
    if (has & CC_MIN_FRESH && r->left < (int64_t)asked->min_fresh * SECOND) return true;
    return has & CC_MAX_STALE && r->left <= 0 && !takes_stale(asked, r->left);
}

enum reuse_verdict reuse_of_nothing(const struct cache_control *asked) {
    if (asked->present & CC_ONLY_IF_CACHED) return REUSE_GATEWAY_TIMEOUT;
    return asked->present & CC_NO_STORE ? REUSE_BYPASS : REUSE_VALIDATE;
}

static int64_t longer(int64_t a, int64_t b) { return a > b ? a : b; }

/* What to do if the validation fails. */
static void allow_stale(struct reuse *r, const struct freshness *f, const struct cache_control *asked) {
    int64_t if_error = longer(f->stale_if_error, (int64_t)asked->stale_if_error * SECOND);
    if (f->flags & FRESHNESS_VALIDATE || asked->present & CC_NO_CACHE) return;
    r->stale_on_error = r->left > 0 || (may_be_stale(f) && -r->left < if_error);
    r->stale_if_cut_off = r->left > 0 || may_be_stale(f);
}

struct reuse reuse_of(const struct freshness *f, const struct cache_control *asked, int64_t now) {
    struct reuse r = { .age = f->initial_age + at_least_0(now - f->received) };
    r.left = f->lifetime - r.age;
    r.age_seconds = r.age / SECOND < DELTA_MAX ? (uint32_t)(r.age / SECOND) : DELTA_MAX;

    enum reuse_verdict by_age = verdict_by_age(f, r.left);
    bool better = wants_better(asked, &r);
    r.reason = by_age == REUSE_VALIDATE ? REUSE_BY_AGE : REUSE_BY_REQUEST;
    if (asked->present & CC_NO_STORE && !(asked->present & CC_ONLY_IF_CACHED)) r.verdict = REUSE_BYPASS;
    else if (by_age != REUSE_VALIDATE && !better) r.verdict = by_age;
    else if (may_be_stale(f) && !better && takes_stale(asked, r.left)) r.verdict = REUSE_STALE;
    else r.verdict = reuse_of_nothing(asked);
    if (r.verdict == REUSE_VALIDATE) allow_stale(&r, f, asked);
    return r;
}

bool cache_status_is_error(int status) { return status == 500 || (status >= 502 && status <= 504); }

/* ---- fields (3.1, 3.2) */

/* Those that are the core's own, the length among them, are written afresh for each answer. */
static bool is_never_stored(const struct header *h) {
    switch ((enum header_id)h->id) {
    case HEADER_OTHER: return slice_equal_nocase(h->name, SLICE("Proxy-Authentication-Info"));
    case HEADER_AGE:
    case HEADER_PROXY_AUTHENTICATE:
    case HEADER_PROXY_AUTHORIZATION: return true;
    default: return header_is_core((enum header_id)h->id);
    }
}

bool cache_stores_field(const struct header *h, const struct headers *response, const struct cache_control *told) {
    return !h->hop && !is_never_stored(h) && !cache_control_names(told, response, h->name);
}

bool cache_updates_field(const struct header *h, const struct headers *response, const struct cache_control *told) {
    const uint32_t for_all = CC_PUBLIC | CC_S_MAXAGE | CC_MAX_AGE;
    if (!cache_stores_field(h, response, told)) return false;
    switch ((enum header_id)h->id) {
    case HEADER_CONTENT_ENCODING:
    case HEADER_CONTENT_RANGE:
    case HEADER_CONTENT_TYPE: return false;
    case HEADER_SET_COOKIE: return told->present & for_all;
    default: return true;
    }
}

void cache_update(struct headers *stored, const struct headers *from, const struct cache_control *told) {
    headers_remove_id(stored, HEADER_AGE);
    headers_remove_id(stored, HEADER_DATE);
    headers_each(h, from) {
        if (h->id != HEADER_AGE && !cache_updates_field(h, from, told)) continue;
        if (headers_find(from, h->name) == h) headers_remove(stored, h->name);
        headers_add(stored, h->name, h->value);
    }
}

/* ---- validation (4.3.4, 4.3.5) */

bool cache_304_selects(const struct headers *stored, const struct headers *not_modified, bool alone) {
    struct etag old, new;
    bool has_old = etag_of(stored, &old), has_new = etag_of(not_modified, &new);
    if (has_old && has_new) return new.weak ? etag_matches_weak(&old, &new) : etag_matches_strong(&old, &new);
    if (!validator_present(not_modified)) return alone;
    if (has_new && !new.weak && !last_modified_is_strong(stored)) return false;
    return last_modified_equal(stored, not_modified);
}

/* What a HEAD says of a field must be what is stored; what it does not say does not differ. */
static bool agrees(const struct headers *stored, const struct headers *head, struct slice name) {
    const struct header *new = headers_find(head, name), *old = headers_find(stored, name);
    return !new || (old && slice_equal(slice_trim(new->value), slice_trim(old->value)));
}

static bool agrees_in_length(uint64_t length, const struct headers *head) {
    uint64_t told;
    struct slice value = headers_get_id(head, HEADER_CONTENT_LENGTH);
    return !value.p || (slice_to_u64(slice_trim(value), &told) && told == length);
}

enum head_effect cache_head_effect(const struct headers *stored, uint64_t length, int status,
                                   const struct headers *head) {
    if (status != 200) return HEAD_LEAVES;
    bool same = agrees(stored, head, header_name_of(HEADER_ETAG)) && agrees(stored, head, LAST_MODIFIED) &&
                agrees_in_length(length, head);
    return same ? HEAD_UPDATES : HEAD_INVALIDATES;
}

/* ---- invalidation (4.4) */

bool cache_invalidates(enum method method, int status) {
    return !method_is_safe(method) && status >= 200 && status < 400;
}

static uint16_t port_of(const struct target *t) {
    if (t->port) return t->port;
    return slice_equal_nocase(t->scheme, SLICE("https")) ? 443 : 80;
}

static bool same_origin(const struct target *a, const struct target *b) {
    return slice_equal_nocase(a->scheme, b->scheme) && slice_equal_nocase(a->host, b->host) && port_of(a) == port_of(b);
}

bool cache_invalidated_uri(struct arena *arena, const struct target *target, struct slice value, struct target *out) {
    struct reference base, given, resolved;
    if (!value.p || !reference_parse(&base, target_url(arena, target))) return false;
    if (!reference_parse(&given, slice_trim(value))) return false;
    reference_resolve(&resolved, &base, &given, arena_bytes(arena, base.path.n + given.path.n + 1));
    char *text = arena_bytes(arena, reference_size(&resolved));
    struct slice url = slice_make(text, reference_write(text, &resolved));
    if (!url_parse(arena, url, out) || !same_origin(target, out)) return false;
    out->path = path_normalise(arena, out->path);
    return out->path.p != NULL;
}

/* ---- answers to POST (RFC 9110 9.3.3) */

bool cache_post_answers_get(struct arena *arena, const struct target *target, const struct response *r,
                            const struct cache_control *told) {
    int64_t ignored;
    struct target named;
    const struct header *location = headers_find(&r->headers, SLICE("Content-Location"));
    if (r->status != 200 || !location || headers_next(&r->headers, location)) return false;
    if (!is_explicit(explicit_lifetime(&r->headers, told, 0, &ignored))) return false;
    return cache_invalidated_uri(arena, target, location->value, &named) &&
           slice_equal(target_url(arena, &named), target_url(arena, target));
}
