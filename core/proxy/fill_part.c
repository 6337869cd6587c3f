/* A stored part, and more of the same representation (RFC 9111 3.4, RFC 9110 15.3.7.3): asked for is only what it lacks
 * at its end; what comes is stored behind its bytes, and if nothing is lacking then, as a 200. */
#include "proxy/fill.h"

#include "http/conditions.h"
#include "http/ranges.h"
#include "proxy/exchange.h"

/* What If-Range may say (RFC 9110 13.1.5); p NULL: the part has no strong validator. */
static struct slice strong_validator(const struct headers *stored) {
    struct etag etag;
    const struct header *modified = headers_find(stored, SLICE("Last-Modified"));
    if (etag_of(stored, &etag)) return etag.weak ? slice_make(NULL, 0) : headers_get_id(stored, HEADER_ETAG);
    return modified && last_modified_is_strong(stored) ? modified->value : slice_make(NULL, 0);
}

static uint64_t end_of(const struct cached *part) { return part->first + cache_body_length(part->body); }

void fill_ask_for_rest(struct fill *f) {
    struct headers stored = cached_headers(f->part);
    struct slice validator = strong_validator(&stored);
    if (!validator.p || f->part->first > 0) return;
    f->completes = true;
    unsigned long long from = end_of(f->part);
    headers_add(&f->request.headers, SLICE("Range"), arena_printf(&f->exchange->arena, "bytes=%llu-", from));
    headers_add(&f->request.headers, SLICE("If-Range"), validator);
}

bool fill_may_join(const struct fill *f, const struct response *r) {
    struct byte_range range;
    uint64_t total;
    if (!f->part || r->status != 206 || r->framing.kind != FRAMING_LENGTH) return false;
    if (!content_range_of(&r->headers, &range, &total)) return false;
    struct headers stored = cached_headers(f->part);
    bool touches = range.first >= f->part->first && range.first <= end_of(f->part) && range.last >= end_of(f->part);
    return touches && total == f->part->total && partial_combines(&stored, &r->headers);
}

bool fill_is_rest(const struct fill *f, const struct response *r) {
    struct byte_range range;
    uint64_t total;
    return fill_may_join(f, r) && content_range_of(&r->headers, &range, &total) && range.last + 1 == total;
}

void fill_join(struct fill *f, struct cache_draft *d, struct headers *kept, const struct response *r) {
    struct headers stored = cached_headers(f->part);
    uint64_t end = d->first + d->length;
    headers_init(kept, &f->exchange->arena);
    headers_copy(kept, &stored);
    cache_update(kept, &r->headers, &f->told);
    fill_date(f, kept);
    f->joined = true;
    d->first = f->part->first;
    d->length = end - d->first;
    if (d->first > 0 || end < d->total) return;
    headers_remove_id(kept, HEADER_CONTENT_RANGE);
    d->partial = false;
    d->total = 0;
    d->status = 200;
    d->reason = status_reason(200);
}

static void never_told(struct cache_reader *r) { (void)r; }

/* Its bytes are whole and in memory: they are copied, once. */
void fill_write_part(struct fill *f, uint64_t n) {
    struct cache_reader reader;
    bool passing;
    cache_reader_open(&reader, f->part->body, 0, never_told);
    for (struct slice bytes; n > 0; n -= bytes.n) {
        bytes = cache_reader_peek(&reader, &passing);
        if (bytes.n > n) bytes.n = (size_t)n;
        struct buffer copy = { 0 };
        buffer_append(&copy, bytes.p, bytes.n);
        cache_body_write(f->stored->body, &copy);
        cache_reader_skip(&reader, bytes.n);
    }
    cache_reader_close(&reader);
}
