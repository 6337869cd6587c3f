/* Every way in which the world can fail us (STYLE: errors, the third kind): one row each. It gives the enum,
 * the access log's word, the metric's label, and what a script gets as `nil, word, sentence`.
 *
 * FAILURE(NAME, status, class, word, sentence)
 *   status  what the client is answered when the core answers by itself; 0: nobody is left to answer
 *   class   which word of a backend's `retry_on` it falls under */
#pragma once

enum retry_class { RETRY_NEVER, RETRY_CONNECT, RETRY_RESET, RETRY_TIMEOUT };

#define FAILURES(FAILURE)                                                                                              \
    FAILURE(NONE, 200, RETRY_NEVER, "ok", "nothing failed")                                                            \
    /* the client's request */                                                                                         \
    FAILURE(BAD_REQUEST, 400, RETRY_NEVER, "bad_request", "the request is malformed")                                  \
    FAILURE(BAD_HOST, 400, RETRY_NEVER, "bad_host", "the request needs exactly one valid Host")                        \
    FAILURE(BAD_FRAMING, 400, RETRY_NEVER, "bad_framing", "the length of the request body is ambiguous")               \
    FAILURE(BAD_BODY, 400, RETRY_NEVER, "bad_body", "the request body is malformed")                                   \
    FAILURE(HEAD_TIMEOUT, 408, RETRY_NEVER, "head_timeout", "the request head did not arrive in time")                 \
    FAILURE(BODY_TIMEOUT, 408, RETRY_NEVER, "body_timeout", "the request body did not arrive in time")                 \
    FAILURE(BODY_TOO_LARGE, 413, RETRY_NEVER, "body_too_large", "the request body is larger than this site takes")     \
    FAILURE(BAD_CONTENT, 400, RETRY_NEVER, "bad_content", "the request's content is not what its content coding says") \
    FAILURE(UNKNOWN_CODING, 415, RETRY_NEVER, "unknown_coding", "the content coding is not understood")                \
    FAILURE(TARGET_TOO_LONG, 414, RETRY_NEVER, "target_too_long", "the request target is longer than this site takes") \
    FAILURE(PLAIN_ON_TLS, 400, RETRY_NEVER, "plain_on_tls", "this port speaks TLS: the address begins with https")     \
    FAILURE(EXPECTATION, 417, RETRY_NEVER, "expectation", "the expectation cannot be met")                             \
    FAILURE(MISDIRECTED, 421, RETRY_NEVER, "misdirected", "this server does not serve that host")                      \
    FAILURE(TOO_EARLY, 425, RETRY_NEVER, "too_early", "the TLS handshake that the request came with did not end")      \
    FAILURE(HEADERS_TOO_LARGE, 431, RETRY_NEVER, "headers_too_large",                                                  \
            "the request headers are larger than this site takes")                                                     \
    FAILURE(DESTINATION_REFUSED, 403, RETRY_NEVER, "destination_refused",                                              \
            "connections to that address are not allowed")                                                             \
    FAILURE(PURGE_REFUSED, 403, RETRY_NEVER, "purge_refused", "purging is not allowed from this address")              \
    FAILURE(PORT_REFUSED, 403, RETRY_NEVER, "port_refused", "connections to that port are not allowed")                \
    FAILURE(LOOP, 508, RETRY_NEVER, "loop", "the request has come here before")                                        \
    FAILURE(BAD_METHOD, 501, RETRY_NEVER, "bad_method", "this method is not served here")                              \
    FAILURE(BAD_CODING, 501, RETRY_NEVER, "bad_coding", "the transfer coding is not understood")                       \
    FAILURE(BAD_VERSION, 505, RETRY_NEVER, "bad_version", "this HTTP version is not served")                           \
    /* hooks */                                                                                                        \
    FAILURE(HOOK_FAILED, 500, RETRY_NEVER, "hook_failed", "the site's policy failed")                                  \
    FAILURE(PICK_FAILED, 502, RETRY_NEVER, "pick_failed", "the choice of a backend failed")                            \
    FAILURE(RESPONSE_HOOK_FAILED, 502, RETRY_NEVER, "response_hook_failed", "the policy for the response failed")      \
    FAILURE(HOOK_DRAINED, 503, RETRY_NEVER, "hook_drained", "the configuration this request began under was closed")   \
    /* backends */                                                                                                     \
    FAILURE(NO_BACKEND, 502, RETRY_NEVER, "no_backend", "no backend was picked")                                       \
    FAILURE(NO_SERVER, 503, RETRY_CONNECT, "no_server", "no server of the backend is available")                       \
    FAILURE(BUSY, 503, RETRY_CONNECT, "busy", "every server of the backend has as many requests as it takes")          \
    FAILURE(QUEUE_TIMEOUT, 503, RETRY_CONNECT, "queue_timeout", "no server of the backend had a place in time")        \
    FAILURE(NAME_NOT_FOUND, 502, RETRY_CONNECT, "name_not_found", "the server's name has no address")                  \
    FAILURE(NAME_FAILED, 502, RETRY_CONNECT, "name_failed", "the server's name could not be resolved")                 \
    FAILURE(CONNECT_REFUSED, 502, RETRY_CONNECT, "connect_refused", "the server refused the connection")               \
    FAILURE(CONNECT_FAILED, 502, RETRY_CONNECT, "connect_failed", "the server could not be reached")                   \
    FAILURE(CONNECT_TIMEOUT, 504, RETRY_CONNECT, "connect_timeout",                                                    \
            "the server did not accept the connection in time")                                                        \
    FAILURE(STREAM_REFUSED, 502, RETRY_CONNECT, "stream_refused",                                                      \
            "the server refused the request before it acted on it")                                                    \
    FAILURE(PARENT_REFUSED, 502, RETRY_CONNECT, "parent_refused", "the parent proxy did not connect to the server")    \
    FAILURE(TLS_FAILED, 502, RETRY_CONNECT, "tls_failed", "the TLS handshake with the server failed")                  \
    FAILURE(CERTIFICATE, 502, RETRY_CONNECT, "certificate", "the server's certificate is not trusted")                 \
    FAILURE(RESET, 502, RETRY_RESET, "reset", "the server closed the connection before it answered")                   \
    FAILURE(FIRST_BYTE_TIMEOUT, 504, RETRY_TIMEOUT, "first_byte_timeout", "the server did not answer in time")         \
    FAILURE(BETWEEN_TIMEOUT, 504, RETRY_NEVER, "between_timeout", "the server stopped in the middle of its answer")    \
    FAILURE(NOT_CACHED, 504, RETRY_NEVER, "not_cached", "nothing stored fits, and the request wants nothing else")     \
    FAILURE(TOTAL_TIMEOUT, 504, RETRY_NEVER, "total_timeout", "the request took longer than it may")                   \
    FAILURE(BAD_RESPONSE, 502, RETRY_NEVER, "bad_response", "the server's answer is malformed")                        \
    FAILURE(RESPONSE_HEADERS_TOO_LARGE, 502, RETRY_NEVER, "response_headers_too_large",                                \
            "the server's headers are too large")                                                                      \
    FAILURE(TRUNCATED, 502, RETRY_NEVER, "truncated", "the server closed the connection in the middle of its answer")  \
    /* what scripts wait for */                                                                                        \
    FAILURE(TIMEOUT, 504, RETRY_NEVER, "timeout", "the time set for it has passed")                                    \
    FAILURE(CLOSED, 502, RETRY_NEVER, "closed", "the connection is closed")                                            \
    FAILURE(BAD_RESPONSE_CONTENT, 502, RETRY_NEVER, "bad_response_content",                                            \
            "the answer's content is not what its content coding says")                                                \
    FAILURE(RESPONSE_TOO_LARGE, 502, RETRY_NEVER, "response_too_large", "the answer's content decodes to too much")    \
    FAILURE(PARTIAL, 502, RETRY_NEVER, "partial", "the answer is a part of a content, which cannot be changed")        \
    /* ours */                                                                                                         \
    FAILURE(OVERLOADED, 503, RETRY_NEVER, "overloaded", "there are too many connections")                              \
    FAILURE(DRAINING, 503, RETRY_NEVER, "draining", "the proxy is shutting down")                                      \
    FAILURE(TOO_LARGE, 500, RETRY_NEVER, "too_large", "the body is larger than the limit")                             \
    FAILURE(FULL, 500, RETRY_NEVER, "full", "there is no room for more")                                               \
    FAILURE(LIMITED, 429, RETRY_NEVER, "limited", "the limit is reached")                                              \
    FAILURE(TUNNEL_IDLE, 0, RETRY_NEVER, "tunnel_idle", "nothing passed through the tunnel for too long")              \
    FAILURE(CANCELLED, 0, RETRY_NEVER, "cancelled", "nobody waits for it any more")                                    \
    FAILURE(CLIENT_LEFT, 0, RETRY_NEVER, "client_left", "the client left")

enum failure {
#define FAILURE_ENUM(name, status, class, word, sentence) FAIL_##name,
    FAILURES(FAILURE_ENUM)
#undef FAILURE_ENUM
        FAILURE_COUNT
};

struct failure_row {
    int status;
    enum retry_class class;
    const char *word, *sentence;
};

extern const struct failure_row failure_table[FAILURE_COUNT];

static inline int failure_status(enum failure f) { return failure_table[f].status; }
static inline const char *failure_word(enum failure f) { return failure_table[f].word; }
static inline const char *failure_sentence(enum failure f) { return failure_table[f].sentence; }
static inline enum retry_class failure_class(enum failure f) { return failure_table[f].class; }
