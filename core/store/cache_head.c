/* Stored heads: one run of memory each, in this order: the store's own line, the head, its key, header fields, tags,
 * text. Nothing of it changes once it can be found, but for the counters. What a look-up reads stands together: a
 * stored object that is asked for now and then is in no cache of the processor.
 *
 * Names of fields that have the house's spelling point to the house's table, not to a copy: half the text of an
 * ordinary head. */
#include "store/cache_inside.h"

#include "base/must.h"
#include "base/refs.h"

/* ---- building */

struct writer {
    char *at;
};

static struct slice write_text(struct writer *w, struct slice text) {
    char *to = w->at;
    if (text.n) memcpy(to, text.p, text.n);
    w->at += text.n;
    return slice_make(to, text.n);
}

static bool is_kept(const struct header *h) { return !h->removed && !h->hop; }

static bool has_house_name(const struct header *h) {
    return h->id != HEADER_OTHER && slice_equal(h->name, header_name_of((enum header_id)h->id));
}

/* The key is followed by what needs an alignment. */
static size_t key_size(struct slice key) { return (key.n + 7) / 8 * 8; }

static size_t text_size(const struct cache_draft *d) { return d->reason.n + d->url.n + d->vary.n; }

static size_t headers_size(const struct headers *headers, uint32_t *count) {
    size_t size = 0;
    *count = 0;
    if (!headers) return 0;
    headers_each(h, headers) {
        if (!is_kept(h)) continue;
        size += sizeof *h + h->value.n + (has_house_name(h) ? 0 : h->name.n);
        ++*count;
    }
    return size;
}

static void write_headers(struct stored *s, struct writer *w, const struct headers *headers) {
    struct header *to = s->head.headers;
    if (!headers) return;
    headers_each(h, headers) {
        if (!is_kept(h)) continue;
        struct slice name = has_house_name(h) ? header_name_of((enum header_id)h->id) : write_text(w, h->name);
        *to++ = (struct header){ .name = name, .value = write_text(w, h->value), .id = h->id };
        if (h->id == HEADER_ETAG || slice_equal_nocase(h->name, SLICE("Last-Modified"))) s->validates = true;
    }
}

/* Each tag once. False: no room. */
static bool borrow_tags(struct cache *cache, struct cached *c, const struct cache_draft *d) {
    for (uint32_t i = 0; i < d->tag_count; i++) {
        struct tag *tag = tag_borrow(cache, d->tags[i]);
        if (!tag) return false;
        struct slice text = tag_slice(tag);
        bool again = false;
        for (uint32_t j = 0; j < c->tag_count; j++) again |= c->tags[j].p == text.p;
        if (again) tag_give_back(cache, tag, false);
        else c->tags[c->tag_count++] = text;
    }
    return true;
}

static void fill_head(struct cached *c, const struct cache_draft *d) {
    c->status = d->status;
    c->version = d->version;
    c->rule = d->rule;
    c->freshness = d->freshness;
    c->rule = d->rule;
    c->partial = d->partial;
    c->first = d->first;
    c->total = d->total;
    c->stored_at = (uint64_t)cache_now();
}

struct stored *stored_create(struct cache *cache, struct slice key, uint64_t hash, const struct cache_draft *d,
                             struct cache_body *body) {
    uint32_t count, units;
    size_t fields = headers_size(d->headers, &count);
    size_t size = sizeof(struct stored) + key_size(key) + fields + d->tag_count * sizeof(struct slice) + text_size(d);
    if (size > MEMORY_RUN_MOST) return NULL;
    struct stored *s = room_take(cache, NULL, memory_units(size), memory_units(size), &units);
    if (!s) return NULL;
    *s = (struct stored){ .hash = hash, .units = units, .weight = units, .head = { .refs = 1, .cache = cache } };
    list_init(&s->place);
    struct cached *c = &s->head;
    struct writer w = { (char *)(s + 1) };
    c->key = write_text(&w, key);
    c->headers = (struct header *)(void *)((char *)(s + 1) + key_size(key));
    c->header_count = count;
    c->tags = (struct slice *)(void *)(c->headers + count);
    w.at = (char *)(c->tags + d->tag_count);
    fill_head(c, d);
    write_headers(s, &w, d->headers);
    c->vary = write_text(&w, d->vary);
    c->reason = write_text(&w, d->reason);
    c->url = write_text(&w, d->url);
    if (!borrow_tags(cache, c, d)) {
        cached_unref(c);
        return NULL;
    }
    c->body = body;
    return s;
}

/* ---- references */

struct cached *cached_ref(struct cached *c) {
    refs_take(&c->refs);
    return c;
}

static void destroy(struct stored *s) {
    struct cached *c = &s->head;
    bool purged = atomic_load_explicit(&s->mark, memory_order_relaxed) == MARK_HARD;
    must(!s->linked && s->queue == QUEUE_NONE);
    for (uint32_t i = 0; i < c->tag_count; i++) tag_give_back(c->cache, tag_of(c->tags[i]), purged);
    body_unref(c->body);
    room_give(c->cache, NULL, s, s->units);
}

void cached_unref(struct cached *c) {
    if (c && refs_give(&c->refs)) destroy(STORED_OF(c));
}

void stored_bury(struct stored *dead) {
    while (dead) {
        struct stored *next = dead->next;
        cached_unref(&dead->head);
        dead = next;
    }
}
