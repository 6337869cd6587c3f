/* Range is first parsed without the body's length, then held against it: of what is not known yet only the first half
 * of the question is asked.
 *
 * A range is cheap to ask for and dear to answer. So the number of ranges is bounded, and those that would send more
 * than the whole body get the whole body (RFC 9110 14.2, 17.15). */
#include "http/ranges.h"

#include "http/conditions.h"
#include "http/grammar.h"

#include <inttypes.h>
#include <stdio.h>

#define RANGE SLICE("Range")
#define UNIT  SLICE("bytes")

/* ---- what is asked for */

struct range_spec {
    uint64_t first, last; /* last UINT64_MAX: to the end */
    bool suffix;          /* the last `last` bytes */
};

/* Digits, saturating. */
static bool read_position(struct slice s, uint64_t *out) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_DIGIT)) return false;
    if (s.n && !slice_to_u64(s, out)) *out = UINT64_MAX;
    return s.n > 0;
}

static bool read_spec(struct slice s, struct range_spec *spec) {
    struct slice rest = s, first = slice_cut(&rest, '-');
    *spec = (struct range_spec){ .last = UINT64_MAX, .suffix = first.n == 0 };
    if (!rest.p) return false;
    if (spec->suffix) return read_position(rest, &spec->last);
    if (!read_position(first, &spec->first)) return false;
    return rest.n == 0 || (read_position(rest, &spec->last) && spec->first <= spec->last);
}

/* "bytes=" and its list (14.1.1, 14.1.2); their number, 0 for what is not heeded. */
static uint32_t read_specs(const struct headers *request, struct range_spec specs[RANGES_MAX]) {
    const struct header *h = headers_find_other(request, RANGE);
    if (!h || headers_next(request, h)) return 0;
    struct slice rest = slice_trim(h->value), unit = slice_cut(&rest, '='), member;
    uint32_t count = 0;
    if (!slice_equal_nocase(unit, UNIT)) return 0;
    while (header_list_next(&rest, &member))
        if (count == RANGES_MAX || !read_spec(member, &specs[count++])) return 0;
    return count;
}

enum ranges_form ranges_form_of(const struct headers *request, struct byte_range *out) {
    struct range_spec specs[RANGES_MAX];
    uint32_t count = read_specs(request, specs);
    if (count != 1) return count ? RANGES_FORM_MANY : RANGES_FORM_NONE;
    *out = (struct byte_range){ specs[0].first, specs[0].last };
    return specs[0].suffix ? RANGES_FORM_SUFFIX : RANGES_FORM_FROM;
}

/* ---- what that is of this body */

static bool satisfy(const struct range_spec *spec, uint64_t length, struct byte_range *out) {
    if (spec->suffix) {
        *out = (struct byte_range){ spec->last < length ? length - spec->last : 0, length - 1 };
        return spec->last > 0;
    }
    *out = (struct byte_range){ spec->first, spec->last < length ? spec->last : length - 1 };
    return spec->first < length;
}

static bool overlap(struct byte_range a, struct byte_range b) { return a.first <= b.last && b.first <= a.last; }

static bool is_greedy(const struct byte_ranges *ranges, uint64_t length) {
    uint64_t left = length;
    uint32_t overlaps = 0;
    for (uint32_t i = 0; i < ranges->count; i++) {
        uint64_t size = ranges->list[i].last - ranges->list[i].first + 1;
        if (size > left) return true;
        left -= size;
        for (uint32_t j = 0; j < i; j++) overlaps += overlap(ranges->list[i], ranges->list[j]);
    }
    return overlaps > 1;
}

/* Of an empty body there is no range that could be written in a Content-Range: asked for its end, it is sent whole. */
static enum ranges_result answer_empty(const struct range_spec *specs, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (specs[i].suffix && specs[i].last) return RANGES_NONE;
    return RANGES_UNSATISFIABLE;
}

enum ranges_result ranges_of(struct byte_ranges *ranges, const struct headers *request, uint64_t length) {
    struct range_spec specs[RANGES_MAX];
    uint32_t count = read_specs(request, specs);
    ranges->count = 0;
    if (!count) return RANGES_NONE;
    if (!length) return answer_empty(specs, count);
    for (uint32_t i = 0; i < count; i++)
        if (satisfy(&specs[i], length, &ranges->list[ranges->count])) ranges->count++;
    if (!ranges->count) return RANGES_UNSATISFIABLE;
    return is_greedy(ranges, length) ? RANGES_NONE : RANGES_SOME;
}

/* ---- Content-Range */

size_t content_range_write(char to[CONTENT_RANGE_BYTES], struct byte_range r, uint64_t length) {
    size_t n = (size_t)snprintf(to, CONTENT_RANGE_BYTES, "bytes %" PRIu64 "-%" PRIu64 "/", r.first, r.last);
    if (length == LENGTH_UNKNOWN) return n + (size_t)snprintf(to + n, CONTENT_RANGE_BYTES - n, "*");
    return n + (size_t)snprintf(to + n, CONTENT_RANGE_BYTES - n, "%" PRIu64, length);
}

size_t content_range_write_unsatisfied(char to[CONTENT_RANGE_BYTES], uint64_t length) {
    return (size_t)snprintf(to, CONTENT_RANGE_BYTES, "bytes */%" PRIu64, length);
}

bool content_range_parse(struct slice s, struct byte_range *range, uint64_t *length) {
    struct slice unit = slice_cut(&s, ' ');
    if (!s.p || !slice_equal_nocase(unit, UNIT)) return false;
    struct slice first = slice_cut(&s, '-');
    if (!s.p || !slice_to_u64(first, &range->first)) return false;
    struct slice last = slice_cut(&s, '/');
    if (!s.p || !slice_to_u64(last, &range->last) || range->first > range->last) return false;
    *length = LENGTH_UNKNOWN;
    if (slice_equal(s, SLICE("*"))) return range->last < LENGTH_UNKNOWN;
    return slice_to_u64(s, length) && range->last < *length;
}

bool content_range_of(const struct headers *response, struct byte_range *range, uint64_t *length) {
    const struct header *h = headers_find_id(response, HEADER_CONTENT_RANGE);
    return h && !headers_next(response, h) && content_range_parse(slice_trim(h->value), range, length);
}

/* ---- multipart/byteranges */

static void append(struct buffer *out, struct slice s) { buffer_append(out, s.p, s.n); }

void multipart_part_write(struct buffer *out, const struct multipart *m, struct byte_range range) {
    char text[CONTENT_RANGE_BYTES];
    append(out, SLICE("\r\n--"));
    append(out, m->boundary);
    if (m->content_type.p) {
        append(out, SLICE("\r\nContent-Type: "));
        append(out, m->content_type);
    }
    append(out, SLICE("\r\nContent-Range: "));
    buffer_append(out, text, content_range_write(text, range, m->length));
    append(out, SLICE("\r\n\r\n"));
}

void multipart_end_write(struct buffer *out, const struct multipart *m) {
    append(out, SLICE("\r\n--"));
    append(out, m->boundary);
    append(out, SLICE("--\r\n"));
}

uint64_t multipart_size(const struct multipart *m, const struct byte_ranges *ranges) {
    char text[CONTENT_RANGE_BYTES];
    size_t head = sizeof "\r\n--" - 1 + m->boundary.n + sizeof "\r\nContent-Range: \r\n\r\n" - 1;
    if (m->content_type.p) head += sizeof "\r\nContent-Type: " - 1 + m->content_type.n;
    uint64_t size = sizeof "\r\n----\r\n" - 1 + m->boundary.n;
    for (uint32_t i = 0; i < ranges->count; i++) {
        struct byte_range r = ranges->list[i];
        size += head + content_range_write(text, r, m->length) + (r.last - r.first + 1);
    }
    return size;
}

void multipart_type_write(struct buffer *out, const struct multipart *m) {
    append(out, SLICE("multipart/byteranges; boundary="));
    append(out, m->boundary);
}

/* ---- extents */

bool extents_add(struct extents *e, struct byte_range r) {
    uint32_t from = 0, to;
    while (from < e->count && e->list[from].last + 1 < r.first) from++;
    for (to = from; to < e->count && e->list[to].first <= r.last + 1; to++) {
        if (e->list[to].first < r.first) r.first = e->list[to].first;
        if (e->list[to].last > r.last) r.last = e->list[to].last;
    }
    /* Those from `from` to `to` are in r now. */
    if (from == to && e->count == EXTENTS_MAX) return false;
    memmove(&e->list[from + 1], &e->list[to], (e->count - to) * sizeof *e->list);
    e->list[from] = r;
    e->count = e->count - (to - from) + 1;
    return true;
}

bool extents_missing(const struct extents *e, struct byte_range wanted, struct byte_range *out) {
    for (uint32_t i = 0; i < e->count && e->list[i].first <= wanted.last; i++) {
        struct byte_range have = e->list[i];
        if (have.last < wanted.first) continue;
        if (have.first > wanted.first) {
            *out = (struct byte_range){ wanted.first, have.first - 1 };
            return true;
        }
        if (have.last >= wanted.last) return false;
        wanted.first = have.last + 1;
    }
    *out = wanted;
    return true;
}

bool extents_have(const struct extents *e, struct byte_range wanted) {
    struct byte_range missing;
    return !extents_missing(e, wanted, &missing);
}

bool extents_complete(const struct extents *e, uint64_t length) {
    return !length || extents_have(e, (struct byte_range){ 0, length - 1 });
}

bool partial_combines(const struct headers *stored, const struct headers *response) {
    struct etag old, new;
    bool has_old = etag_of(stored, &old), has_new = etag_of(response, &new);
    if (has_old || has_new) return has_old && has_new && etag_matches_strong(&old, &new);
    return last_modified_is_strong(stored) && last_modified_is_strong(response) &&
           last_modified_equal(stored, response);
}
