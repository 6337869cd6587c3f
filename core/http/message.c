/* Methods and statuses: small tables that the rest asks. */
#include "http/message.h"

static bool is_text(struct slice s, const char *text) { return memcmp(s.p, text, s.n) == 0; }

enum method method_of(struct slice name) {
    switch (name.n) {
    case 3: return is_text(name, "GET") ? METHOD_GET : is_text(name, "PUT") ? METHOD_PUT : METHOD_OTHER;
    case 4: return is_text(name, "POST") ? METHOD_POST : is_text(name, "HEAD") ? METHOD_HEAD : METHOD_OTHER;
    case 5: return is_text(name, "PATCH") ? METHOD_PATCH : is_text(name, "TRACE") ? METHOD_TRACE : METHOD_OTHER;
    case 6: return is_text(name, "DELETE") ? METHOD_DELETE : METHOD_OTHER;
    case 7: return is_text(name, "OPTIONS") ? METHOD_OPTIONS : is_text(name, "CONNECT") ? METHOD_CONNECT : METHOD_OTHER;
    default: return METHOD_OTHER;
    }
}

bool method_is_safe(enum method method) {
    return method == METHOD_GET || method == METHOD_HEAD || method == METHOD_OPTIONS || method == METHOD_TRACE;
}

bool method_is_idempotent(enum method method) {
    return method_is_safe(method) || method == METHOD_PUT || method == METHOD_DELETE;
}

struct slice http_version_name(uint8_t version) {
    if (version == HTTP_2) return SLICE("HTTP/2.0");
    return version == HTTP_1_1 ? SLICE("HTTP/1.1") : SLICE("HTTP/1.0");
}

struct slice http_via(uint8_t version) {
    if (version == HTTP_2) return SLICE("2.0 moongate");
    return version == HTTP_1_1 ? SLICE("1.1 moongate") : SLICE("1.0 moongate");
}

bool response_has_body(enum method method, int status) {
    return method != METHOD_HEAD && status >= 200 && status != 204 && status != 304;
}

bool status_has_content(int status) { return response_has_body(METHOD_GET, status) && status != 205; }

bool response_opens_tunnel(enum method method, int status) {
    return method == METHOD_CONNECT && status >= 200 && status <= 299;
}

/* The registry of RFC 9110 16.2 as of 2026. */
static const struct {
    int status;
    struct slice reason;
} reasons[] = {
#define REASON(status, text)                                                                                           \
    {                                                                                                                  \
        status, { text, sizeof(text) - 1 }                                                                             \
    }
    REASON(100, "Continue"),
    REASON(101, "Switching Protocols"),
    REASON(102, "Processing"),
    REASON(103, "Early Hints"),
    REASON(200, "OK"),
    REASON(201, "Created"),
    REASON(202, "Accepted"),
    REASON(203, "Non-Authoritative Information"),
    REASON(204, "No Content"),
    REASON(205, "Reset Content"),
    REASON(206, "Partial Content"),
    REASON(207, "Multi-Status"),
    REASON(208, "Already Reported"),
    REASON(226, "IM Used"),
    REASON(300, "Multiple Choices"),
    REASON(301, "Moved Permanently"),
    REASON(302, "Found"),
    REASON(303, "See Other"),
    REASON(304, "Not Modified"),
    REASON(305, "Use Proxy"),
    REASON(307, "Temporary Redirect"),
    REASON(308, "Permanent Redirect"),
    REASON(400, "Bad Request"),
    REASON(401, "Unauthorized"),
    REASON(402, "Payment Required"),
    REASON(403, "Forbidden"),
    REASON(404, "Not Found"),
    REASON(405, "Method Not Allowed"),
    REASON(406, "Not Acceptable"),
    REASON(407, "Proxy Authentication Required"),
    REASON(408, "Request Timeout"),
    REASON(409, "Conflict"),
    REASON(410, "Gone"),
    REASON(411, "Length Required"),
    REASON(412, "Precondition Failed"),
    REASON(413, "Content Too Large"),
    REASON(414, "URI Too Long"),
    REASON(415, "Unsupported Media Type"),
    REASON(416, "Range Not Satisfiable"),
    REASON(417, "Expectation Failed"),
    REASON(421, "Misdirected Request"),
    REASON(422, "Unprocessable Content"),
    REASON(423, "Locked"),
    REASON(424, "Failed Dependency"),
    REASON(425, "Too Early"),
    REASON(426, "Upgrade Required"),
    REASON(428, "Precondition Required"),
    REASON(429, "Too Many Requests"),
    REASON(431, "Request Header Fields Too Large"),
    REASON(451, "Unavailable For Legal Reasons"),
    REASON(500, "Internal Server Error"),
    REASON(501, "Not Implemented"),
    REASON(502, "Bad Gateway"),
    REASON(503, "Service Unavailable"),
    REASON(504, "Gateway Timeout"),
    REASON(505, "HTTP Version Not Supported"),
    REASON(506, "Variant Also Negotiates"),
    REASON(507, "Insufficient Storage"),
    REASON(508, "Loop Detected"),
    REASON(511, "Network Authentication Required"),
#undef REASON
};

struct slice status_reason(int status) {
    size_t low = 0, high = sizeof reasons / sizeof *reasons;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (reasons[middle].status == status) return reasons[middle].reason;
        if (reasons[middle].status < status) low = middle + 1;
        else high = middle;
    }
    return SLICE("");
}
