/* What a frame's header tells is enough: which stream, and whether the client ends it. A client never reuses or passes
 * over an identifier and never speaks on a stream that it has ended; one that does is not to be trusted with the rest
 * of its connection. Streams that we ended are another matter: their frames may have been under way. */
#include "http/h2_watch.h"

enum { PREFACE = 24, HEAD = 9, PRIORITY_PAYLOAD = 5, STREAM_ID = 4 };
enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_PRIORITY = 2, FRAME_RST_STREAM = 3, FRAME_PRIORITY_UPDATE = 16 };
enum { FLAG_END_STREAM = 1 };
enum { NO_ERROR = 0, PROTOCOL_ERROR = 1, STREAM_CLOSED = 5 };

static uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- identifiers, halved: 1, 3, 5 are 0, 1, 2 */

static bool bit_of(const uint64_t *bits, uint32_t n) { return bits[n % H2_WATCH_IDS / 64] >> n % 64 & 1; }
static void set_bit(uint64_t *bits, uint32_t n) { bits[n % H2_WATCH_IDS / 64] |= UINT64_C(1) << n % 64; }
static void clear_bit(uint64_t *bits, uint32_t n) { bits[n % H2_WATCH_IDS / 64] &= ~(UINT64_C(1) << n % 64); }

static void begin_stream(struct h2_watch *w, uint32_t n) {
    uint32_t from = w->any ? w->last + 1 : 0;
    if (n - from >= H2_WATCH_IDS) from = n - H2_WATCH_IDS + 1;
    for (uint32_t i = from; i <= n; i++) {
        clear_bit(w->used, i);
        clear_bit(w->ended, i);
    }
    set_bit(w->used, n);
    w->last = n;
    w->any = true;
}

static unsigned check_stream(struct h2_watch *w, uint32_t id, bool headers, bool end) {
    if (id % 2 == 0) return NO_ERROR; /* nghttp2 sees to it */
    uint32_t n = id / 2;
    bool fresh = !w->any || n > w->last;
    if (fresh && !headers) return NO_ERROR; /* idle: likewise */
    if (fresh) begin_stream(w, n);
    if (w->last - n >= H2_WATCH_IDS) return NO_ERROR; /* too long ago to be told */
    if (!bit_of(w->used, n)) return PROTOCOL_ERROR;
    if (bit_of(w->ended, n)) return STREAM_CLOSED;
    if (end) set_bit(w->ended, n);
    return NO_ERROR;
}

static void note_reset(struct h2_watch *w, uint32_t id) {
    if (id % 2 && w->any && w->last - id / 2 < H2_WATCH_IDS) set_bit(w->ended, id / 2);
}

/* ---- frames */

static unsigned check_frame(struct h2_watch *w) {
    uint8_t type = w->head[3], flags = w->head[4];
    uint32_t id = read_u32(w->head + 5) & INT32_MAX;
    bool end = flags & FLAG_END_STREAM;
    switch (type) {
    case FRAME_DATA: return check_stream(w, id, false, end);
    case FRAME_HEADERS: return check_stream(w, id, true, end);
    case FRAME_RST_STREAM: note_reset(w, id); return NO_ERROR;
    case FRAME_PRIORITY:
        if (id == 0 || (read_u32(w->head + HEAD) & INT32_MAX) == id) return PROTOCOL_ERROR;
        return NO_ERROR;
    case FRAME_PRIORITY_UPDATE: return read_u32(w->head + HEAD) & INT32_MAX ? NO_ERROR : PROTOCOL_ERROR;
    default: return NO_ERROR;
    }
}

/* How much of the present frame is wanted here. A priority of a wrong size is nghttp2's to refuse. */
static uint8_t wanted(const struct h2_watch *w) {
    if (w->head_n < HEAD) return HEAD;
    uint32_t length = read_u32(w->head) >> 8;
    switch (w->head[3]) {
    case FRAME_PRIORITY: return length == PRIORITY_PAYLOAD ? HEAD + PRIORITY_PAYLOAD : HEAD;
    case FRAME_PRIORITY_UPDATE: return length >= STREAM_ID ? HEAD + STREAM_ID : HEAD;
    default: return HEAD;
    }
}

static bool is_odd_priority(const struct h2_watch *w) {
    return (w->head[3] == FRAME_PRIORITY || w->head[3] == FRAME_PRIORITY_UPDATE) && w->head_n == HEAD;
}

static unsigned finish_head(struct h2_watch *w) {
    w->left = (read_u32(w->head) >> 8) - (w->head_n - HEAD);
    w->frames++;
    unsigned error = is_odd_priority(w) ? NO_ERROR : check_frame(w);
    w->head_n = 0;
    return error;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

unsigned h2_watch_bytes(struct h2_watch *w, struct slice bytes) {
    size_t preface = least(PREFACE - w->seen, bytes.n);
    w->seen += (uint32_t)preface;
    bytes = slice_skip(bytes, preface);
    while (bytes.n) {
        size_t skipped = least(w->left, bytes.n);
        w->left -= (uint32_t)skipped;
        bytes = slice_skip(bytes, skipped);
        while (bytes.n && w->head_n < wanted(w)) {
            w->head[w->head_n++] = (uint8_t)*bytes.p;
            bytes = slice_skip(bytes, 1);
        }
        if (w->left || w->head_n < wanted(w)) return NO_ERROR;
        unsigned error = finish_head(w);
        if (error) return error;
    }
    return NO_ERROR;
}
