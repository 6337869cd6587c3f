/* A call: one gate.fetch, from its options to the end of its answer. bind_fetch.c reads the options into one; call.c
 * is its life.
 *
 * It is C's memory, because the fetch holds pointers into it. It belongs to the box (a userdata) while options are
 * read, so that whatever they raise, the collector frees it; then to the wait; and if its answer is streamed, from the
 * head on to the run, until that ends or the answer is made the body of a reply: then to the exchange. */
#pragma once

#include "lua/bind.h"
#include "lua/callback.h"
#include "proxy/fetch.h"

struct call_box {
    struct handle handle;
    struct call *call; /* NULL: it is somebody else's */
};

/* A function that makes the request's body. */
struct call_source {
    struct callback callback;
    struct call *call;
    struct buffer made;
    bool over, busy;
    char wrong[128];
};

struct fetched;

struct call {
    struct wait wait;
    struct task task;
    struct fetch_waiter waiter;
    struct pipe_reader reader;
    struct grave grave;
    struct tie tie;
    struct call_box *box; /* NULL: it is not the box's any more */
    struct worker *worker;
    struct site *site; /* whose backend and times; NULL: none */
    struct backend *backend;
    struct fetch *fetch; /* NULL: not begun */
    struct arena arena;
    struct request request;
    struct slice target;
    struct buffer query;
    const struct egress *egress; /* rules for where it may go; NULL: everywhere */
    bool is_url;                 /* else the backend was named */
    struct tls_trust *trust;     /* a reference; of the `tls` option, NULL: there was none */
    struct slice tls_name;       /* likewise; p NULL: the URL's host */

    struct pipe own_body; /* of the request: a string's or a function's */
    struct pipe *request_body;
    struct buffer kept_body; /* a string's, for a redirect that repeats it */
    struct call_source *source;
    bool has_body, source_failed;

    double timeout, began, ended;
    bool timeout_given;
    uint64_t max;
    unsigned redirects; /* how many may still be followed */
    bool stream;

    struct buffer text; /* of the answer, so far */
    size_t counted;     /* bytes in the thread's sum */
    bool reading, finished, closed, given;
    enum failure why; /* NONE: it is whole; streamed: its head is there */

    struct content content; /* of a streamed answer */
    struct body body;
    struct fetched *fetched;    /* what the script has of it; NULL: nothing (any more) */
    struct handle *body_handle; /* lives as long as `fetched` */
};

/* Pushes the box and makes the call in it. */
struct call *call_new(lua_State *L);
/* Everything is read: sends the request, and waits. False: too much is under way. */
bool call_may_begin(const struct call *);
int call_begin(lua_State *L, struct call *);
/* The function on top of the stack makes the body. */
void call_take_source(lua_State *L, struct call *);
void call_close(struct call *);

/* Of a streamed answer: for bind_body.c. */
struct pipe *call_pipe(const struct call *);
struct content *call_content(struct call *);
struct response *call_response(const struct call *);
/* It is sent as the reply of this exchange, which owns it from now on. False: it was given away or read already. */
bool call_give(struct call *, struct exchange *);

/* call_redirect.c: the answer is a redirect that is to be followed, and the request was changed for that. False: it is
 * an answer like others. */
bool call_redirected(struct call *);

void call_kinds_open(lua_State *L);
