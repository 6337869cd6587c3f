/* Contents: what declared changes mean for a message's head, and when its last stage is put in place.
 *
 * Which fields must change follows from what they tell of (RFC 9110 8): a changed content is another representation,
 * so validators, digests, ranges and the length of the former one go. A content that `compress` only codes is the same
 * in other clothes: its ETag becomes weak (RFC 9110 8.8.1) and lives, so that conditional requests go on working;
 * ranges and digests, which are of the coded bytes, go. */
#include "proxy/content.h"

#include "proxy/exchange.h"
#include "proxy/stages.h"

const struct content_failures request_failures = { FAIL_BAD_CONTENT, FAIL_BODY_TOO_LARGE };
const struct content_failures response_failures = { FAIL_BAD_RESPONSE_CONTENT, FAIL_RESPONSE_TOO_LARGE };

uint64_t content_most(void) { return (uint64_t)CONTENT_MOST_GIB << 30; }

/* ---- declaring */

enum coding content_look(struct content *c, const struct headers *headers) {
    if (!c->looked) c->coding = coding_of(headers);
    c->looked = true;
    return c->coding;
}

bool content_is_partial(int status, const struct headers *headers) {
    return status == 206 || headers_find_id(headers, HEADER_CONTENT_RANGE);
}

void content_decode(struct content *c, struct pipe *p, uint64_t most, const struct content_failures *failures) {
    if (c->decoded || c->coding == CODING_IDENTITY) return;
    c->decoded = true;
    pipe_add_stage(p, stage_decode(c->coding, most, failures->broken, failures->bomb));
}

/* What was true of the bytes, and no longer is. */
static void drop_fields(struct headers *headers) {
    static const struct slice names[] = {
        { "Accept-Ranges", 13 },  { "Content-MD5", 11 }, { "Digest", 6 },
        { "Content-Digest", 14 }, { "Repr-Digest", 11 },
    };
    headers_remove_id(headers, HEADER_CONTENT_LENGTH);
    headers_remove_id(headers, HEADER_CONTENT_RANGE);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) headers_remove(headers, names[i]);
}

void content_change(struct content *c, struct headers *headers, struct framing *framing) {
    if (c->changed) return;
    c->changed = true;
    drop_fields(headers);
    headers_remove_id(headers, HEADER_ETAG);
    framing->kind = FRAMING_CHUNKED;
}

/* ---- the last stage */

static void put_coding_on(struct pipe *p, struct headers *headers, enum coding coding, int level) {
    pipe_add_stage(p, stage_encode(coding, level));
    headers_set_id(headers, HEADER_CONTENT_ENCODING, coding_name(coding));
}

/* Whole and in memory: its length is known after all. */
static void tell_length(const struct pipe *p, struct framing *framing) {
    if (p->state == PIPE_ENDED) *framing = (struct framing){ .kind = FRAMING_LENGTH, .length = p->pending.size };
}

static int level_of(const struct exchange *x) {
    return x->site && x->site->compress.on ? (int)x->site->compress.level : ENCODER_LEVEL_DEFAULT;
}

/* As it came, for whoever it goes to. */
static void put_back_on(const struct content *c, struct pipe *p, struct headers *headers, int level) {
    if (c->decoded && c->plain) headers_remove_id(headers, HEADER_CONTENT_ENCODING);
    else if (c->decoded) put_coding_on(p, headers, c->coding, level);
}

void content_settle_request(struct exchange *x) {
    struct content *c = &x->request_content;
    struct request *r = &x->request;
    if (c->settled || !c->changed) return;
    c->settled = true;
    put_back_on(c, &x->request_body, &r->headers, level_of(x));
    struct framing framing = r->framing;
    tell_length(&x->request_body, &framing);
    r->framing.kind = framing.kind;
    r->framing.length = framing.length;
}

/* ---- Vary */

static void add_vary(struct headers *headers, struct arena *arena) {
    struct slice vary = headers_joined(headers, SLICE("Vary")), rest = vary, member;
    while (header_list_next(&rest, &member))
        if (slice_equal(member, SLICE("*")) || slice_equal_nocase(member, SLICE("Accept-Encoding"))) return;
    if (vary.n) vary = arena_printf(arena, "%.*s, Accept-Encoding", FMT(vary));
    else vary = SLICE("Accept-Encoding");
    headers_set(headers, SLICE("Vary"), vary);
}

/* ---- compress */

static bool type_matches(struct slice type, struct slice pattern) {
    if (!slice_ends_with(pattern, SLICE("/*"))) return slice_equal_nocase(type, pattern);
    return type.n >= pattern.n &&
           slice_equal_nocase(slice_make(type.p, pattern.n - 1), slice_make(pattern.p, pattern.n - 1));
}

static bool type_is_listed(const struct compress *compress, const struct headers *headers) {
    struct slice rest = headers_get_id(headers, HEADER_CONTENT_TYPE), type = slice_trim(slice_cut(&rest, ';'));
    for (char **pattern = compress->types; *pattern; pattern++)
        if (type_matches(type, slice_of(*pattern))) return true;
    return false;
}

/* False: nobody knows. Of the answer to a HEAD it is what Content-Length says. */
static bool length_of(const struct response *r, uint64_t *length) {
    struct slice told = headers_get_id(&r->headers, HEADER_CONTENT_LENGTH);
    *length = r->framing.length;
    return r->framing.kind == FRAMING_LENGTH || (told.p && slice_to_u64(told, length));
}

static bool may_compress(const struct exchange *x) {
    const struct response *r = &x->response;
    uint64_t length;
    if (!x->site || !x->site->compress.on || content_is_partial(r->status, &r->headers)) return false;
    if (headers_find_id(&r->headers, HEADER_CONTENT_ENCODING)) return false;
    if (headers_list_has(&r->headers, HEADER_CACHE_CONTROL, SLICE("no-transform"))) return false;
    if (length_of(r, &length) && length < x->site->compress.min) return false;
    return type_is_listed(&x->site->compress, &r->headers);
}

static void weaken_etag(struct headers *headers, struct arena *arena) {
    struct header *etag = headers_find_id(headers, HEADER_ETAG);
    if (etag && !slice_starts_with(etag->value, SLICE("W/")))
        etag->value = arena_printf(arena, "W/%.*s", FMT(etag->value));
}

static enum coding chosen_coding(const struct exchange *x) {
    const struct compress *compress = &x->site->compress;
    if (x->request.version < HTTP_1_1) return CODING_IDENTITY;
    return coding_negotiate(&x->request.headers, compress->codings, compress->coding_count);
}

void content_suit_unchanged(struct exchange *x) {
    if (x->response_content.plain || !may_compress(x)) return;
    add_vary(&x->response.headers, &x->arena);
    if (chosen_coding(x) != CODING_IDENTITY) weaken_etag(&x->response.headers, &x->arena);
}

/* RFC 9110 9.3.2: the fields that GET would get. The length is known only of a form that is kept. */
static void describe_coded(struct exchange *x, enum coding coding) {
    struct response *r = &x->response;
    uint64_t length;
    bool kept = caching_form_length(x, coding, &length);
    headers_set_id(&r->headers, HEADER_CONTENT_ENCODING, coding_name(coding));
    r->framing.kind = kept ? FRAMING_LENGTH : FRAMING_CHUNKED;
    if (kept) r->framing.length = length;
}

static void compress_answer(struct exchange *x) {
    const struct compress *compress = &x->site->compress;
    struct response *r = &x->response;
    add_vary(&r->headers, &x->arena);
    if (!response_has_body(METHOD_GET, r->status)) return;
    enum coding coding = chosen_coding(x);
    if (coding == CODING_IDENTITY) return;
    drop_fields(&r->headers);
    weaken_etag(&r->headers, &x->arena);
    if (x->request.method == METHOD_HEAD) {
        describe_coded(x, coding);
        return;
    }
    if (caching_take_form(x, coding, (int)compress->level)) {
        headers_set_id(&r->headers, HEADER_CONTENT_ENCODING, coding_name(coding));
        return;
    }
    r->framing.kind = FRAMING_CHUNKED;
    put_coding_on(x->body, &r->headers, coding, (int)compress->level);
    tell_length(x->body, &r->framing);
}

/* ---- the answer */

/* It was decoded, and is coded again as it came for who takes that. */
static void code_again(struct exchange *x) {
    struct content *c = &x->response_content;
    struct response *r = &x->response;
    headers_remove_id(&r->headers, HEADER_CONTENT_ENCODING);
    if (c->plain) return;
    add_vary(&r->headers, &x->arena);
    if (coding_negotiate(&x->request.headers, &c->coding, 1) == c->coding)
        put_coding_on(x->body, &r->headers, c->coding, level_of(x));
}

static void settle(struct exchange *x) {
    struct content *c = &x->response_content;
    c->settled = true;
    if (x->body && c->decoded) code_again(x);
    else if (!c->plain && may_compress(x)) compress_answer(x);
}

void content_settle_stored(const struct answer *a, const struct exchange *x) {
    struct content *c = a->content;
    if (c->settled || !c->changed) return;
    c->settled = true;
    put_back_on(c, *a->body, &a->response->headers, level_of(x));
}

enum content_state content_await(const struct answer *a) {
    struct pipe *p = *a->body;
    if (!a->content->changed || !p) return CONTENT_READY;
    if (!p->pending.size && p->state == PIPE_OPEN) {
        pipe_remove_watch(a->watch);
        pipe_add_watch(p, a->watch);
        pipe_hold(p, 1);
    }
    if (!p->pending.size && p->state == PIPE_OPEN) return CONTENT_WAITS;
    pipe_remove_watch(a->watch);
    if (!p->pending.size && p->state == PIPE_FAILED) return CONTENT_FAILED;
    tell_length(p, &a->response->framing);
    return CONTENT_READY;
}

static void wake_by_watch(struct pipe_watch *w) { exchange_wake(container_of(w, struct exchange, content_watch)); }

enum content_state content_settle_answer(struct exchange *x) {
    if (!x->response_content.settled) settle(x);
    x->content_watch.on_news = wake_by_watch;
    struct answer answer = answer_of(x);
    return content_await(&answer);
}
