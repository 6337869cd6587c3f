/* What a cache reads of two heads, a request's and a response's, one field on each line, an empty line between them.
 * Spans stay in their bounds, whoever was stored for matches itself, and what is to be sent is well-formed. */
#include "base/must.h"
#include "http/cache_status.h"
#include "http/conditions.h"
#include "http/ranges.h"
#include "http/structured.h"
#include "http/vary.h"

static void read_fields(struct headers *headers, struct arena *arena, struct slice *rest) {
    headers_init(headers, arena);
    while (rest->p) {
        struct slice value = slice_cut(rest, '\n'), name = slice_cut(&value, ':');
        if (!value.p) return;
        if (header_name_valid(name)) headers_add(headers, name, slice_trim(value));
    }
}

static void check_directives(const struct cache_control *cc) {
    must(cc->max_age <= DELTA_MAX && cc->s_maxage <= DELTA_MAX && cc->min_fresh <= DELTA_MAX);
    must(cc->max_stale <= DELTA_MAX && cc->stale_if_error <= DELTA_MAX && cc->stale_while_revalidate <= DELTA_MAX);
    must(!(cc->present & CC_MALFORMED) || cc->present & CC_NO_STORE);
    must(cc->present & CC_MAX_AGE || !cc->max_age);
}

static void check_freshness(struct request *request, struct response *response, bool targeted) {
    struct cache_control asked, told;
    struct freshness f;
    cache_control_of_request(&asked, &request->headers);
    cache_control_of_response(&told, &response->headers, targeted);
    check_directives(&asked);
    check_directives(&told);
    freshness_of(&f, request, &asked, response, &told, 1699999999000, 1700000000000);
    must(f.lifetime >= 0 && f.initial_age >= 1000);
    struct reuse r = reuse_of(&f, &asked, 1700000005000);
    must(r.age >= 6000 && r.left == f.lifetime - r.age && r.age_seconds <= DELTA_MAX);
    must(!(told.present & CC_NO_CACHE) || r.verdict >= REUSE_VALIDATE);
    headers_each(h, &response->headers) cache_stores_field(h, &response->headers, &told);
}

static void check_vary(struct arena *arena, const struct headers *request, const struct headers *response) {
    struct slice key = vary_key(arena, response, request), name;
    enum vary vary = vary_of(response);
    must((key.p == NULL) == (vary == VARY_ANY));
    must(vary_matches(key, request) == (vary != VARY_ANY));
    while (key.n && vary_key_next(&key, &name)) must(header_name_valid(name));
}

static void check_parts(const struct headers *request, const struct headers *response) {
    struct byte_ranges ranges;
    struct extents extents = { 0 };
    uint64_t length, sum = 0;
    if (ranges_of(&ranges, request, 1000) == RANGES_SOME) {
        for (uint32_t i = 0; i < ranges.count; i++) {
            struct byte_range r = ranges.list[i];
            must(r.first <= r.last && r.last < 1000 && extents_add(&extents, r) && extents_have(&extents, r));
            sum += r.last - r.first + 1;
        }
        must(sum <= 1000);
    }
    if (content_range_of(response, &ranges.list[0], &length)) must(ranges.list[0].last < length);
    condition_allows_range(request, response);
}

static void check_status(struct headers *response) {
    struct sf_reader reader;
    struct sf_value value;
    const struct cache_status status = { .cache = SLICE("moongate"), .fwd = CACHE_FWD_STALE, .detail = SLICE("x y") };
    cache_status_add(response, &status);
    sf_begin(&reader, headers_joined(response, SLICE("Cache-Status")));
    while (sf_list_next(&reader, &value)) continue;
    must(!reader.failed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct request request = { .method = METHOD_GET };
    struct response response = { .status = 200 };
    if (size < 1 || size > 4096) return 0;
    struct slice rest = slice_make((const char *)data + 1, size - 1);
    arena_init(&arena);
    read_fields(&request.headers, &arena, &rest);
    read_fields(&response.headers, &arena, &rest);
    if (data[0] & 1) response.status = 206;
    check_freshness(&request, &response, data[0] & 2);
    check_vary(&arena, &request.headers, &response.headers);
    check_parts(&request.headers, &response.headers);
    condition_of_cache(&request, response.status, &response.headers, 1700000000000);
    condition_of_origin(&request, response.status, &response.headers);
    cache_304_selects(&response.headers, &request.headers, false);
    check_status(&response.headers);
    arena_fini(&arena);
    return 0;
}
