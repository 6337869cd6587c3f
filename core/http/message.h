/* Requests and responses (RFC 9110 6), whatever version carries them. */
#pragma once

#include "base/failure.h"
#include "http/headers.h"

enum method {
    METHOD_OTHER,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_DELETE,
    METHOD_CONNECT,
    METHOD_OPTIONS,
    METHOD_TRACE,
    METHOD_PATCH
};

enum method method_of(struct slice name); /* case-sensitive */
bool method_is_safe(enum method);         /* RFC 9110 9.2.1 */
bool method_is_idempotent(enum method);   /* RFC 9110 9.2.2; METHOD_OTHER is not */

enum http_version { HTTP_1_0 = 10, HTTP_1_1 = 11, HTTP_2 = 20 };
struct slice http_version_name(uint8_t version); /* "HTTP/1.1", "HTTP/2.0" */
struct slice http_via(uint8_t version);          /* our element of Via for a message that came so */

/* How a body is delimited. FRAMING_NONE: there is none (not even an empty one in chunks). */
enum framing_kind { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_UNTIL_CLOSE };

struct framing {
    enum framing_kind kind;
    uint64_t length;      /* FRAMING_LENGTH */
    bool keep_alive;      /* the connection may carry another message after this one */
    bool upgrade;         /* the message asks for (request) or is (response 101) an upgrade */
    bool expect_continue; /* request: Expect: 100-continue */
};

/* The target as it came, and its parts (http/uri.h). `path` is normalised unless the site says raw. */
struct target {
    struct slice raw;    /* exactly what stood in the start line */
    struct slice scheme; /* "http" or "https", lower case: from an absolute-form target, else the listener's; before it
                            is parsed, what HTTP/2 says, anything */
    struct slice host;   /* lower case, without port, IPv6 with brackets; empty if there is none */
    uint16_t port;       /* 0: none given */
    struct slice path;   /* begins with "/", or "*" (OPTIONS), or empty (CONNECT) */
    struct slice query;  /* without "?"; p NULL: there is no "?" */
    bool absolute;       /* the target was in absolute form */
};

struct request {
    struct slice method_name;
    enum method method;
    uint8_t version; /* enum http_version, as received */
    struct target target;
    struct headers headers;
    struct framing framing;
    struct headers trailers; /* filled when the body has ended */
};

struct response {
    int status;          /* 100 to 599 (999 is refused) */
    uint8_t version;     /* enum http_version */
    struct slice reason; /* as received; may be empty */
    struct headers headers;
    struct framing framing;
    struct headers trailers;
};

/* The standard phrase, "" for an unknown status. */
struct slice status_reason(int status);
/* 1xx, 204 and 304, and everything that answers HEAD, have no body (RFC 9110 6.4.1). */
bool response_has_body(enum method, int status);
/* Nor has a 205 content (RFC 9110 15.3.6), though it is framed as if it could: its length is told, and is 0. */
bool status_has_content(int status);
/* A 2xx to a CONNECT: what follows it is a tunnel, whatever its fields say (RFC 9110 9.3.6). */
bool response_opens_tunnel(enum method, int status);
