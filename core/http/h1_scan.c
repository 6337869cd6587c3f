/* The scan: one pass over the raw bytes of a head, before any parser sees them. Refused is, at the first byte that
 * shows it: a line that does not end in CRLF, a CR or LF anywhere else, a fold, a space before a colon, more than one
 * space between the parts of a start line, a byte outside its part's grammar, a status that is not three digits.
 *
 * It is a state machine over bytes only where a part has no bound (target, field name, value, reason): there it
 * remembers its place, so a head that comes byte by byte costs no more than one that comes whole. The short parts of
 * fixed form (version, status) are simply read again until they are there.
 *
 * Most bytes of a head are field values. They are looked at by words (16 bytes with SSE2, else 8), for controls and
 * DEL.
 *
 * Two decisions about the target: bytes that RFC 3986 forbids but clients send all the same ("<>\^`{|}) pass; "#" does
 * not, since some servers cut the target there and others do not. */
#include "http/h1_scan.h"

#include "http/grammar.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { METHOD_MAX_BYTES = 32, VERSION_BYTES = 8, STATUS_BYTES = 12 };

static enum h1_result fail(enum failure *why, enum failure what) {
    *why = what;
    return H1_FAILED;
}

/* The scan stands at `at`. */
static enum h1_result pause_at(struct h1_scan *s, enum h1_scan_state state, const char *head, const char *at) {
    s->state = (uint8_t)state;
    s->seen = (uint32_t)(at - head);
    return H1_MORE;
}

static const char *skip_class(const char *at, const char *end, int class) {
    while (at < end && byte_is(*at, class)) at++;
    return at;
}

/* Goes on while whole words have no control (HTAB is one) and no DEL; stops before or at the first such byte. */
#ifdef __SSE2__
static const char *skip_plain_words(const char *at, const char *end) {
    const __m128i below = _mm_set1_epi8(0x1f), del = _mm_set1_epi8(0x7f);
    for (; end - at >= 16; at += 16) {
        __m128i word = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(word, below), word);
        int found = _mm_movemask_epi8(_mm_or_si128(control, _mm_cmpeq_epi8(word, del)));
        if (found) return at + __builtin_ctz((unsigned)found);
    }
    return at;
}
#else
/* A byte x is below SP if x - 0x20 borrows while x has no high bit; borrows run upward only, so the first hit is
 * exact. */
static const char *skip_plain_words(const char *at, const char *end) {
    const uint64_t ones = UINT64_MAX / 255;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t no_del = word ^ (ones * 0x7f);
        uint64_t hit = (((word - ones * 0x20) & ~word) | ((no_del - ones) & ~no_del)) & (ones * 0x80);
        if (hit) break;
    }
    return at;
}
#endif

/* A HTAB stops the words; what is left behind it goes byte by byte, which is rare. */
static const char *skip_value(const char *at, const char *end) {
    return skip_class(skip_plain_words(at, end), end, BYTE_VALUE);
}

enum h1_result h1_scan_fields(struct h1_scan *s, const char *head, uint32_t n, uint32_t fields, enum failure *why) {
    const char *at = head + s->seen, *end = head + n;
    enum h1_scan_state state = s->state;
    while (at < end) {
        switch (state) {
        case SCAN_FIELD:
            if (*at == '\r') {
                state = SCAN_END_LF;
                at++;
                continue;
            }
            if (!byte_is(*at, BYTE_TOKEN)) return fail(why, FAIL_BAD_REQUEST);
            if (s->lines == fields) return fail(why, FAIL_HEADERS_TOO_LARGE);
            state = SCAN_NAME;
            __attribute__((fallthrough));
        case SCAN_NAME:
            at = skip_class(at, end, BYTE_TOKEN);
            if (at == end) continue;
            if (*at++ != ':') return fail(why, FAIL_BAD_REQUEST);
            state = SCAN_VALUE;
            __attribute__((fallthrough));
        case SCAN_VALUE:
            at = skip_value(at, end);
            if (at == end) continue;
            if (*at++ != '\r') return fail(why, FAIL_BAD_REQUEST);
            state = SCAN_VALUE_LF;
            continue;
        case SCAN_VALUE_LF:
            if (*at++ != '\n') return fail(why, FAIL_BAD_REQUEST);
            s->line = (uint32_t)(at - head);
            s->lines++;
            state = SCAN_FIELD;
            continue;
        default: /* SCAN_END_LF */
            if (*at++ != '\n') return fail(why, FAIL_BAD_REQUEST);
            pause_at(s, state, head, at);
            return H1_DONE;
        }
    }
    return pause_at(s, state, head, at);
}

bool h1_cut_field(struct slice *lines, struct slice *name, struct slice *value) {
    if (lines->n <= 2) return false;
    struct slice line = slice_cut(lines, '\n');
    line.n--; /* CR */
    *name = slice_cut(&line, ':');
    *value = slice_trim(line);
    return true;
}

/* ---- start lines */

/* How a prefix of "HTTP/1.0" or "HTTP/1.1" reads: FAIL_NONE as long as it may become one. */
static enum failure check_version(const char *p, size_t n) {
    static const char form[] = "HTTP/d.d";
    if (n >= VERSION_BYTES && memcmp(p, "HTTP/1.1", VERSION_BYTES) == 0) return FAIL_NONE; /* nearly all */
    for (size_t i = 0; i < n && i < VERSION_BYTES; i++)
        if (form[i] == 'd' ? !byte_is(p[i], BYTE_DIGIT) : p[i] != form[i]) return FAIL_BAD_REQUEST;
    if (n >= VERSION_BYTES && (p[5] != '1' || p[7] > '1')) return FAIL_BAD_VERSION;
    return FAIL_NONE;
}

/* The version and CRLF; the method and target stand before it. */
static enum h1_result scan_version(struct h1_scan *s, const char *head, uint32_t n, enum failure *why) {
    const char *p = head + s->part;
    size_t have = n - s->part;
    enum failure bad = check_version(p, have);
    if (bad) return fail(why, bad);
    if (have > VERSION_BYTES && p[VERSION_BYTES] != '\r') return fail(why, FAIL_BAD_REQUEST);
    if (have <= VERSION_BYTES + 1) return pause_at(s, SCAN_VERSION, head, head + n);
    if (p[VERSION_BYTES + 1] != '\n') return fail(why, FAIL_BAD_REQUEST);
    s->line = s->part + VERSION_BYTES + 2;
    pause_at(s, SCAN_FIELD, head, head + s->line);
    return H1_DONE;
}

static const char *earlier(const char *a, const char *b) { return a < b ? a : b; }

/* No byte beyond the target's limit is looked at, so that a long target fails alike however it comes. */
static enum h1_result scan_target(struct h1_scan *s, const char *head, uint32_t n, uint32_t limit, enum failure *why) {
    const char *target = head + s->part, *end = head + n;
    const char *stop = (size_t)(end - target) > limit ? target + limit + 1 : end;
    const char *at = skip_class(head + s->seen, stop, BYTE_TARGET);
    if ((size_t)(at - target) > limit) return fail(why, FAIL_TARGET_TOO_LONG);
    if (at == end) return pause_at(s, SCAN_TARGET, head, at);
    if (*at != ' ' || at == target) return fail(why, FAIL_BAD_REQUEST);
    s->part = (uint32_t)(at + 1 - head);
    return scan_version(s, head, n, why);
}

static enum h1_result scan_method(struct h1_scan *s, const char *head, uint32_t n, uint32_t limit, enum failure *why) {
    const char *end = head + n;
    const char *at = skip_class(head + s->seen, earlier(end, head + METHOD_MAX_BYTES + 1), BYTE_TOKEN);
    if (at - head > METHOD_MAX_BYTES) return fail(why, FAIL_BAD_REQUEST);
    if (at == end) return pause_at(s, SCAN_START, head, at);
    if (*at != ' ' || at == head) return fail(why, FAIL_BAD_REQUEST);
    s->part = s->seen = (uint32_t)(at + 1 - head);
    return scan_target(s, head, n, limit, why);
}

static enum h1_result scan_request_line(struct h1_scan *s, const char *head, uint32_t n, uint32_t limit,
                                        enum failure *why) {
    switch (s->state) {
    case SCAN_START: return scan_method(s, head, n, limit, why);
    case SCAN_TARGET: return scan_target(s, head, n, limit, why);
    case SCAN_VERSION: return scan_version(s, head, n, why);
    default: return H1_DONE;
    }
}

enum h1_result h1_scan_request(struct h1_scan *s, const char *head, uint32_t n, const struct h1_limits *limits,
                               enum failure *why) {
    enum h1_result line = scan_request_line(s, head, n, limits->target, why);
    return line == H1_DONE ? h1_scan_fields(s, head, n, limits->fields, why) : line;
}

/* The reason and CRLF. Many servers leave out the SP before an empty reason: so does SCAN_START_LF. */
static enum h1_result scan_reason(struct h1_scan *s, const char *head, uint32_t n, enum failure *why) {
    const char *at = head + s->seen, *end = head + n;
    if (s->state == SCAN_REASON) {
        at = skip_value(at, end);
        if (at == end) return pause_at(s, SCAN_REASON, head, at);
        if (*at++ != '\r') return fail(why, FAIL_BAD_REQUEST);
    }
    if (at == end) return pause_at(s, SCAN_START_LF, head, at);
    if (*at++ != '\n') return fail(why, FAIL_BAD_REQUEST);
    s->line = (uint32_t)(at - head);
    pause_at(s, SCAN_FIELD, head, at);
    return H1_DONE;
}

/* "HTTP/1.1 200" and the byte behind it. */
static enum h1_result scan_status(struct h1_scan *s, const char *head, uint32_t n, enum failure *why) {
    enum failure bad = check_version(head, n);
    if (bad) return fail(why, bad);
    if (n > VERSION_BYTES && head[VERSION_BYTES] != ' ') return fail(why, FAIL_BAD_REQUEST);
    for (uint32_t i = VERSION_BYTES + 1; i < n && i < STATUS_BYTES; i++)
        if (!byte_is(head[i], BYTE_DIGIT)) return fail(why, FAIL_BAD_REQUEST);
    if (n > VERSION_BYTES + 1 && (head[VERSION_BYTES + 1] < '1' || head[VERSION_BYTES + 1] > '5'))
        return fail(why, FAIL_BAD_REQUEST);
    if (n <= STATUS_BYTES) return pause_at(s, SCAN_START, head, head + n);
    if (head[STATUS_BYTES] != ' ' && head[STATUS_BYTES] != '\r') return fail(why, FAIL_BAD_REQUEST);
    enum h1_scan_state next = head[STATUS_BYTES] == ' ' ? SCAN_REASON : SCAN_START_LF;
    pause_at(s, next, head, head + STATUS_BYTES + 1);
    return scan_reason(s, head, n, why);
}

static enum h1_result scan_status_line(struct h1_scan *s, const char *head, uint32_t n, enum failure *why) {
    switch (s->state) {
    case SCAN_START: return scan_status(s, head, n, why);
    case SCAN_REASON:
    case SCAN_START_LF: return scan_reason(s, head, n, why);
    default: return H1_DONE;
    }
}

enum h1_result h1_scan_response(struct h1_scan *s, const char *head, uint32_t n, const struct h1_limits *limits,
                                enum failure *why) {
    enum h1_result line = scan_status_line(s, head, n, why);
    return line == H1_DONE ? h1_scan_fields(s, head, n, limits->fields, why) : line;
}
