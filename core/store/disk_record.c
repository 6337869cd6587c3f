/* The format of what is written: segment heads, record heads and the meta of a response. Numbers are as this machine
 * writes them; a directory that came from another kind of machine fails at the magic, and is begun anew.
 *
 * Everything read is checked twice: by a checksum, which tells damage, and by bounds, which hold even if somebody
 * forged the checksum. The checksum of a record's head covers that of its meta, that of the meta those of the body's
 * pieces. So a body of any size can be read piece by piece, and no byte is given out that was not checked before.
 *
 * Of a key only 64 bits stand in the index: the whole key is in the meta, and is compared. More bits would cost memory
 * for every object to save a read that happens once in a lifetime. */
#include "store/disk_inside.h"

#include <xxhash.h>

static const uint64_t SEGMENT_MAGIC = 0x31676573746f6f6dULL; /* "mootseg1" */
static const uint64_t RECORD_MAGIC = 0x326365726f6f6d00ULL;

uint64_t disk_sum(const void *bytes, size_t n) { return XXH3_64bits(bytes, n); }

struct digest disk_digest(const void *bytes, size_t n, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(n ? bytes : "", n, seed);
    return (struct digest){ hash.low64, hash.high64 };
}

uint64_t disk_key_hash(const struct disk *d, struct slice key) {
    return XXH3_64bits_withSeed(key.n ? key.p : "", key.n, d->purges.epoch);
}

uint32_t disk_url_hash(const struct disk *d, struct slice url) { return (uint32_t)disk_key_hash(d, url); }

uint32_t disk_variant(struct slice vary) { return vary.n ? (uint32_t)disk_sum(vary.p, vary.n) : 0; }

uint32_t disk_expiry(const struct freshness *f) {
    int64_t ms = f->received - f->initial_age + f->lifetime;
    if (f->flags & FRESHNESS_VALIDATE || ms < 0) return 0;
    return ms / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ms / 1000);
}

/* ---- heads */

void segment_head_seal(struct segment_head *h, uint64_t size) {
    h->magic = SEGMENT_MAGIC + DISK_PIECE;
    h->size = size;
    h->sum = disk_sum(h, offsetof(struct segment_head, sum));
}

bool segment_head_ok(const struct segment_head *h, uint64_t size) {
    return h->magic == SEGMENT_MAGIC + DISK_PIECE && h->size == size && h->sequence &&
           h->sum == disk_sum(h, offsetof(struct segment_head, sum));
}

void record_head_seal(struct record_head *h) {
    h->magic = RECORD_MAGIC;
    h->sum = disk_sum(h, offsetof(struct record_head, sum));
}

bool record_head_ok(const struct record_head *h, uint64_t sequence, uint32_t at, uint32_t units) {
    if (h->magic != RECORD_MAGIC || h->sequence != sequence || h->at != at) return false;
    if (h->sum != disk_sum(h, offsetof(struct record_head, sum))) return false;
    if (h->meta > META_MOST || h->units == 0 || at >= units || h->units > units - at) return false;
    uint64_t most = (uint64_t)h->units * DISK_UNIT;
    return h->body <= most && units_of(sizeof *h + h->meta + h->body) == h->units;
}

/* ---- writing the meta */

/* What has a fixed size. Names and texts follow: key, url, reason, vary; then names and values; then tags. */
struct fixed {
    int64_t received, initial_age, lifetime, stale_while_revalidate, stale_if_error;
    uint64_t first, total;
    uint32_t status, header_count, tag_count;
    uint32_t key, url, reason, vary;
    uint8_t version, flags, partial, reserved;
};

static bool is_written(const struct header *h) { return !h->removed && !h->hop; }

size_t meta_size(const struct cached *c, uint64_t body) {
    size_t size = pieces_of(body) * sizeof(struct digest) + sizeof(struct fixed);
    size += c->key.n + c->url.n + c->reason.n + c->vary.n;
    for (uint32_t i = 0; i < c->header_count; i++)
        if (is_written(&c->headers[i])) size += 8 + c->headers[i].name.n + c->headers[i].value.n;
    for (uint32_t i = 0; i < c->tag_count; i++) size += 4 + c->tags[i].n;
    return size;
}

static char *put(char *to, const void *bytes, size_t n) {
    if (n) memcpy(to, bytes, n);
    return to + n;
}

static char *put_number(char *to, size_t n) {
    uint32_t number = (uint32_t)n;
    return put(to, &number, sizeof number);
}

static char *put_slice(char *to, struct slice s) { return put(to, s.p, s.n); }

static char *put_headers(char *to, const struct cached *c) {
    for (uint32_t i = 0; i < c->header_count; i++) {
        const struct header *h = &c->headers[i];
        if (!is_written(h)) continue;
        to = put_number(to, h->name.n);
        to = put_number(to, h->value.n);
        to = put_slice(to, h->name);
        to = put_slice(to, h->value);
    }
    return to;
}

void meta_write(const struct cached *c, uint64_t body, char *to) {
    const struct freshness *f = &c->freshness;
    struct fixed fixed = { .received = f->received,
                           .initial_age = f->initial_age,
                           .lifetime = f->lifetime,
                           .stale_while_revalidate = f->stale_while_revalidate,
                           .stale_if_error = f->stale_if_error,
                           .first = c->first,
                           .total = c->total,
                           .status = (uint32_t)c->status,
                           .tag_count = c->tag_count,
                           .key = (uint32_t)c->key.n,
                           .url = (uint32_t)c->url.n,
                           .reason = (uint32_t)c->reason.n,
                           .vary = (uint32_t)c->vary.n,
                           .version = c->version,
                           .flags = f->flags,
                           .partial = c->partial };
    for (uint32_t i = 0; i < c->header_count; i++) fixed.header_count += is_written(&c->headers[i]);
    to += pieces_of(body) * sizeof(struct digest);
    to = put(to, &fixed, sizeof fixed);
    to = put_slice(to, c->key);
    to = put_slice(to, c->url);
    to = put_slice(to, c->reason);
    to = put_slice(to, c->vary);
    to = put_headers(to, c);
    for (uint32_t i = 0; i < c->tag_count; i++) {
        to = put_number(to, c->tags[i].n);
        to = put_slice(to, c->tags[i]);
    }
}

/* ---- reading it */

struct input {
    const char *at;
    size_t left;
    bool bad;
};

static struct slice take(struct input *in, size_t n) {
    if (n > in->left) in->bad = true;
    if (in->bad) return slice_make("", 0);
    struct slice s = slice_make(in->at, n);
    in->at += n;
    in->left -= n;
    return s;
}

static uint32_t take_number(struct input *in) {
    uint32_t number = 0;
    struct slice s = take(in, sizeof number);
    if (s.n) memcpy(&number, s.p, sizeof number);
    return number;
}

static void take_headers(struct input *in, struct meta *m, uint32_t count) {
    if (count > in->left / 8) in->bad = true;
    for (uint32_t i = 0; i < count && !in->bad; i++) {
        uint32_t name_n = take_number(in), value_n = take_number(in);
        struct slice name = take(in, name_n), value = take(in, value_n);
        if (!header_name_valid(name) || !header_value_valid(value)) in->bad = true;
        if (!in->bad) headers_add(&m->headers, name, value);
    }
}

static void take_tags(struct input *in, struct meta *m, uint32_t count) {
    if (count > in->left / 4) in->bad = true;
    if (in->bad) return;
    struct slice *tags = arena_alloc(&m->arena, (count + 1) * sizeof *tags);
    for (uint32_t i = 0; i < count && !in->bad; i++) tags[i] = take(in, take_number(in));
    m->draft.tags = tags;
    m->draft.tag_count = count;
}

static void take_fixed(struct meta *m, const struct fixed *f, uint64_t body) {
    m->draft = (struct cache_draft){ .status = (int)f->status,
                                     .version = f->version,
                                     .headers = &m->headers,
                                     .length = body,
                                     .partial = f->partial == 1,
                                     .first = f->first,
                                     .total = f->total,
                                     .loaded = true };
    m->draft.freshness = (struct freshness){ .received = f->received,
                                             .initial_age = f->initial_age,
                                             .lifetime = f->lifetime,
                                             .stale_while_revalidate = f->stale_while_revalidate,
                                             .stale_if_error = f->stale_if_error,
                                             .flags = f->flags };
}

static bool is_sensible(const struct fixed *f) {
    bool times = f->initial_age >= 0 && f->lifetime >= 0 && f->stale_while_revalidate >= 0 && f->stale_if_error >= 0;
    return times && f->status >= 200 && f->status <= 999 && f->partial <= 1;
}

bool meta_read(struct meta *m, const char *bytes, size_t n, uint64_t body) {
    struct input in = { bytes, n, false };
    struct fixed fixed = { 0 };
    uint64_t pieces = pieces_of(body);
    if (pieces > n / sizeof(struct digest)) return false;
    m->sums = (const struct digest *)(const void *)take(&in, (size_t)pieces * sizeof(struct digest)).p;
    struct slice s = take(&in, sizeof fixed);
    if (in.bad) return false;
    memcpy(&fixed, s.p, sizeof fixed);
    if (!is_sensible(&fixed)) return false;
    arena_init(&m->arena);
    headers_init(&m->headers, &m->arena);
    take_fixed(m, &fixed, body);
    m->key = take(&in, fixed.key);
    m->draft.url = take(&in, fixed.url);
    m->draft.reason = take(&in, fixed.reason);
    m->draft.vary = take(&in, fixed.vary);
    take_headers(&in, m, fixed.header_count);
    take_tags(&in, m, fixed.tag_count);
    if (!in.bad && in.left == 0) return true;
    meta_fini(m);
    return false;
}

void meta_fini(struct meta *m) { arena_fini(&m->arena); }
