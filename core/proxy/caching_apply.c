/* The last look at an answer from the cache, before its head leaves: what policy has seen and perhaps changed is whole,
 * and what the client asked for may be less: nothing, if it has the same (RFC 9110 13), or ranges of it (RFC 9110 14),
 * cut out of the stored body by the hit (hit.h). And what Cache-Status says of it. */
#include "base/clock.h"
#include "http/conditions.h"
#include "http/ranges.h"
#include "proxy/answer.h"
#include "proxy/exchange.h"

static void drop_body(struct exchange *x) {
    hit_close(&x->caching->hit);
    answer_empty(x);
}

static void set_status(struct exchange *x, int status) {
    x->response.status = status;
    x->response.reason = status_reason(status);
}

static void not_modified(struct exchange *x) {
    content_suit_unchanged(x);
    set_status(x, 304);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_TYPE);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_ENCODING);
    headers_remove_id(&x->response.headers, HEADER_CONTENT_RANGE);
    drop_body(x);
}

static struct slice content_range(struct exchange *x, struct byte_range range, uint64_t length) {
    char text[CONTENT_RANGE_BYTES];
    size_t n = content_range_write(text, range, length);
    return arena_copy(&x->arena, slice_make(text, n));
}

static void unsatisfiable(struct exchange *x, uint64_t length) {
    char text[CONTENT_RANGE_BYTES];
    size_t n = content_range_write_unsatisfied(text, length);
    set_status(x, 416);
    headers_set_id(&x->response.headers, HEADER_CONTENT_RANGE, arena_copy(&x->arena, slice_make(text, n)));
    drop_body(x);
}

static void cut_one(struct exchange *x, struct byte_range range, uint64_t length, uint64_t offset) {
    struct hit_piece *piece = arena_alloc_zeroed(&x->arena, sizeof *piece);
    piece->first = range.first;
    piece->length = range.last - range.first + 1;
    hit_cut(&x->caching->hit, piece, 1, offset);
    headers_set_id(&x->response.headers, HEADER_CONTENT_RANGE, content_range(x, range, length));
    x->response.framing = (struct framing){ .kind = FRAMING_LENGTH, .length = piece->length };
}

static struct slice taken(struct exchange *x, struct buffer *text) {
    char *copy = arena_bytes(&x->arena, text->size);
    struct slice s = slice_make(copy, text->size);
    buffer_peek(text, copy, text->size);
    buffer_fini(text);
    return s;
}

static struct slice make_boundary(struct exchange *x) {
    return arena_printf(&x->arena, "%016llx%016llx", (unsigned long long)random_u64(),
                        (unsigned long long)random_u64());
}

static void cut_many(struct exchange *x, const struct byte_ranges *ranges, uint64_t length, uint64_t offset) {
    struct multipart m = { .boundary = make_boundary(x),
                           .content_type = headers_get_id(&x->response.headers, HEADER_CONTENT_TYPE),
                           .length = length };
    struct hit_piece *pieces = arena_alloc_zeroed(&x->arena, (ranges->count + 1) * sizeof *pieces);
    struct buffer text = { 0 };
    for (unsigned i = 0; i < ranges->count; i++) {
        multipart_part_write(&text, &m, ranges->list[i]);
        pieces[i].text = taken(x, &text);
        pieces[i].first = ranges->list[i].first;
        pieces[i].length = ranges->list[i].last - ranges->list[i].first + 1;
    }
    multipart_end_write(&text, &m);
    pieces[ranges->count].text = taken(x, &text);
    hit_cut(&x->caching->hit, pieces, ranges->count + 1, offset);
    multipart_type_write(&text, &m);
    headers_set_id(&x->response.headers, HEADER_CONTENT_TYPE, taken(x, &text));
    headers_remove_id(&x->response.headers, HEADER_CONTENT_RANGE);
    x->response.framing = (struct framing){ .kind = FRAMING_LENGTH, .length = multipart_size(&m, ranges) };
}

/* RFC 9110 14.2: of a GET that would be answered with 200, or from a stored part. */
static void apply_ranges(struct exchange *x) {
    const struct cached *found = x->caching->found;
    uint64_t length = found->partial ? found->total : cache_body_expected(found->body);
    struct byte_ranges ranges;
    if (length == UINT64_MAX || !condition_allows_range(&x->request.headers, &x->response.headers)) return;
    switch (ranges_of(&ranges, &x->request.headers, length)) {
    case RANGES_NONE: return;
    case RANGES_UNSATISFIABLE: unsatisfiable(x, length); return;
    case RANGES_SOME: break;
    }
    set_status(x, 206);
    if (ranges.count == 1) cut_one(x, ranges.list[0], length, found->first);
    else cut_many(x, &ranges, length, found->first);
}

/* What a filling request got that asked for a part: as it came. */
static bool is_cut_already(const struct exchange *x) {
    const struct caching *c = x->caching;
    const struct fill *f = &c->fill;
    return c->found->partial && f->exchange && f->state == FILL_STORED && !f->validated && !f->joined;
}

static void apply(struct exchange *x) {
    struct caching *c = x->caching;
    bool untouched = c->served && x->body == &c->hit.pipe && !x->response_content.changed;
    if (!untouched || x->response.status != c->found->status) return;
    enum condition_result result =
        condition_of_cache(&x->request, x->response.status, &x->response.headers, c->found->freshness.received);
    if (result == CONDITION_NOT_MODIFIED) not_modified(x);
    else if (x->request.method != METHOD_GET || is_cut_already(x)) return;
    else if (x->response.status == 200 || x->response.status == 206) apply_ranges(x);
}

void caching_apply(struct exchange *x) {
    struct caching *c = x->caching;
    if (!c || c->applied) return;
    c->applied = true;
    apply(x);
    if (x->source != SOURCE_REPLY) cache_status_add(&x->response.headers, &c->status);
}
