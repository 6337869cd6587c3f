/* Bodies: what is content is moved on by reference, framing is looked at byte by byte and dropped (RFC 9112 6 and
 * 7.1).
 *
 * Chunked coding is read to the letter: hexadecimal digits only, extensions by their grammar, CR LF and nothing else.
 * Leniency here is what request smuggling is made of (a size that one side reads as "0x5", a line break inside a
 * quoted extension, a chunk that ends without CRLF). Padding behind a size, which a few servers of the nineties sent,
 * is refused too.
 *
 * What is no content costs the peer little and us memory and time, so it is bounded: a size line, all extensions of a
 * body together, the trailer section. Extensions mean nothing to anybody and are dropped.
 *
 * The trailer section is scanned like the fields of a head and then split by us: http-parser wants a start line.
 * Trailers that would change how the message is framed, routed, authorised or understood (RFC 9110 6.5.1) are dropped,
 * never merged. */
#include "http/h1.h"

#include "base/must.h"
#include "http/grammar.h"
#include "http/h1_scan.h"

enum {
    SIZE_DIGITS_MAX = 16,
    LINE_MAX_BYTES = 4096,
    EXTENSIONS_MAX = 16384,
    TRAILERS_MAX = 8192,
    TRAILER_FIELDS_MAX = 64
};

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_EXT_SPACE,      /* BWS before ";" */
    CHUNK_EXT_NAME_SPACE, /* BWS behind ";" */
    CHUNK_EXT_NAME,
    CHUNK_EXT_EQUALS,      /* BWS behind a name: "=", ";" or the end */
    CHUNK_EXT_VALUE_SPACE, /* BWS behind "=" */
    CHUNK_EXT_VALUE,
    CHUNK_EXT_QUOTED,
    CHUNK_EXT_ESCAPED, /* behind a backslash */
    CHUNK_EXT_CLOSED,  /* behind a closing quote */
    CHUNK_SIZE_LF,
    CHUNK_CONTENT,
    CHUNK_CONTENT_CR,
    CHUNK_CONTENT_LF,
    CHUNK_TRAILERS,
    CHUNK_BAD,
};

void h1_body_start(struct h1_body *body, const struct framing *framing, struct headers *trailers) {
    *body = (struct h1_body){ .kind = framing->kind, .trailers = trailers };
    if (framing->kind == FRAMING_LENGTH) body->left = framing->length;
    body->done = framing->kind == FRAMING_NONE || (framing->kind == FRAMING_LENGTH && framing->length == 0);
}

static size_t least(size_t a, uint64_t b) { return b < a ? (size_t)b : a; }

/* Moves what there is, what there is room for, and what belongs to it. */
static size_t move_content(struct h1_body *body, struct buffer *in, struct buffer *out, size_t room) {
    size_t n = least(least(in->size, room), body->left);
    if (n) buffer_move(out, in, n);
    body->left -= n;
    return n;
}

/* ---- the size line */

static bool is_bws(char c) { return c == ' ' || c == '\t'; }

/* A digit, or the end of the digits. 16 digits fit; what is above 2^63 is refused so that sums stay right. */
static enum chunk_state step_size(struct h1_body *body, char c) {
    if (byte_is(c, BYTE_HEX)) {
        if (++body->digits > SIZE_DIGITS_MAX || body->left >> 59) return CHUNK_BAD;
        body->left = body->left << 4 | hex_value(c);
        return CHUNK_SIZE;
    }
    if (body->digits == 0) return CHUNK_BAD;
    if (c == '\r') return CHUNK_SIZE_LF;
    if (c == ';') return CHUNK_EXT_NAME_SPACE;
    return is_bws(c) ? CHUNK_EXT_SPACE : CHUNK_BAD;
}

/* What may follow a whole extension: the next one, or the end of the line. */
static enum chunk_state step_past_extension(char c) {
    if (c == '\r') return CHUNK_SIZE_LF;
    if (c == ';') return CHUNK_EXT_NAME_SPACE;
    return is_bws(c) ? CHUNK_EXT_SPACE : CHUNK_BAD;
}

/* *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112 7.1.1. */
static enum chunk_state step_extension(enum chunk_state state, char c) {
    bool token = byte_is(c, BYTE_TOKEN);
    switch (state) {
    case CHUNK_EXT_SPACE: return c == ';' ? CHUNK_EXT_NAME_SPACE : is_bws(c) ? state : CHUNK_BAD;
    case CHUNK_EXT_NAME_SPACE: return token ? CHUNK_EXT_NAME : is_bws(c) ? state : CHUNK_BAD;
    case CHUNK_EXT_NAME:
        if (token) return state;
        if (is_bws(c)) return CHUNK_EXT_EQUALS;
        return c == '=' ? CHUNK_EXT_VALUE_SPACE : step_past_extension(c);
    case CHUNK_EXT_EQUALS:
        if (is_bws(c)) return state;
        return c == '=' ? CHUNK_EXT_VALUE_SPACE : c == ';' ? CHUNK_EXT_NAME_SPACE : CHUNK_BAD;
    case CHUNK_EXT_VALUE_SPACE:
        if (is_bws(c)) return state;
        return c == '"' ? CHUNK_EXT_QUOTED : token ? CHUNK_EXT_VALUE : CHUNK_BAD;
    case CHUNK_EXT_VALUE: return token ? state : step_past_extension(c);
    case CHUNK_EXT_QUOTED:
        if (c == '"') return CHUNK_EXT_CLOSED;
        if (c == '\\') return CHUNK_EXT_ESCAPED;
        return byte_is(c, BYTE_VALUE) ? state : CHUNK_BAD;
    case CHUNK_EXT_ESCAPED: return byte_is(c, BYTE_VALUE) ? CHUNK_EXT_QUOTED : CHUNK_BAD;
    case CHUNK_EXT_CLOSED: return step_past_extension(c);
    default: return CHUNK_BAD;
    }
}

static void start_size(struct h1_body *body) {
    body->state = CHUNK_SIZE;
    body->digits = 0;
    body->line = 0;
    body->left = 0;
}

static enum chunk_state end_size_line(struct h1_body *body, char c) {
    if (c != '\n') return CHUNK_BAD;
    if (body->left) return CHUNK_CONTENT;
    body->scan = (struct h1_scan){ .state = SCAN_FIELD };
    return CHUNK_TRAILERS;
}

static enum chunk_state step_framing(struct h1_body *body, char c) {
    switch (body->state) {
    case CHUNK_SIZE: return step_size(body, c);
    case CHUNK_SIZE_LF: return end_size_line(body, c);
    case CHUNK_CONTENT_CR: return c == '\r' ? CHUNK_CONTENT_LF : CHUNK_BAD;
    case CHUNK_CONTENT_LF:
        if (c != '\n') return CHUNK_BAD;
        start_size(body);
        return CHUNK_SIZE;
    default:
        if (++body->extensions > EXTENSIONS_MAX) return CHUNK_BAD;
        return step_extension(body->state, c);
    }
}

/* Takes framing off until content or the trailers begin. */
static bool read_framing(struct h1_body *body, struct buffer *in) {
    while (in->size) {
        struct slice run = buffer_front(in);
        size_t i = 0;
        while (i < run.n && body->state != CHUNK_CONTENT && body->state != CHUNK_TRAILERS) {
            if (++body->line > LINE_MAX_BYTES) body->state = CHUNK_BAD;
            else body->state = (uint8_t)step_framing(body, run.p[i++]);
            if (body->state == CHUNK_BAD) return false;
        }
        buffer_drop(in, i);
        if (i < run.n) break;
    }
    return true;
}

/* ---- trailers */

static void split_trailers(struct headers *trailers, struct slice section) {
    struct slice name, value;
    while (h1_cut_field(&section, &name, &value))
        if (header_may_trail(name)) headers_add(trailers, name, value);
}

static enum h1_result read_trailers(struct h1_body *body, struct buffer *in) {
    enum failure why;
    uint32_t n = in->size < TRAILERS_MAX ? (uint32_t)in->size : TRAILERS_MAX;
    if (n == body->scan.seen) return H1_MORE;
    struct slice bytes = buffer_gather(in, n);
    enum h1_result result = h1_scan_fields(&body->scan, bytes.p, n, TRAILER_FIELDS_MAX, &why);
    if (result == H1_FAILED || (result == H1_MORE && n == TRAILERS_MAX)) {
        body->state = CHUNK_BAD;
        return H1_FAILED;
    }
    if (result == H1_MORE) return H1_MORE;
    bytes.n = body->scan.seen;
    if (body->trailers && body->scan.lines) split_trailers(body->trailers, arena_copy(body->trailers->arena, bytes));
    buffer_drop(in, bytes.n);
    body->done = true;
    return H1_DONE;
}

/* ---- reading */

static enum h1_result read_chunked(struct h1_body *body, struct buffer *in, struct buffer *out, size_t room) {
    while (body->state != CHUNK_BAD) {
        if (body->state == CHUNK_TRAILERS) return read_trailers(body, in);
        if (body->state == CHUNK_CONTENT) {
            room -= move_content(body, in, out, room);
            if (body->left) return H1_MORE;
            body->state = CHUNK_CONTENT_CR;
            body->line = 0;
        }
        if (!in->size) return H1_MORE;
        if (!read_framing(body, in)) return H1_FAILED;
    }
    return H1_FAILED;
}

enum h1_result h1_body_read(struct h1_body *body, struct buffer *in, struct buffer *out, size_t room) {
    if (body->done) return H1_DONE;
    switch (body->kind) {
    case FRAMING_LENGTH:
        move_content(body, in, out, room);
        body->done = body->left == 0;
        return body->done ? H1_DONE : H1_MORE;
    case FRAMING_CHUNKED: return read_chunked(body, in, out, room);
    case FRAMING_UNTIL_CLOSE: buffer_move(out, in, least(in->size, room)); return H1_MORE;
    default: return H1_DONE;
    }
}
