/* An exchange: one client's request and the answer it gets, from head to log line. The story is in exchange.c, step
 * by step. */
#pragma once

#include "proxy/caching.h"
#include "proxy/client.h"
#include "proxy/content.h"

enum response_source { SOURCE_NONE, SOURCE_BACKEND, SOURCE_CACHE, SOURCE_REPLY, SOURCE_ERROR };

enum exchange_step {
    STEP_TAKE_HEAD,
    STEP_FIND_SITE,
    STEP_ON_REQUEST,
    STEP_CACHE_KEY,
    STEP_LOOK_UP,
    STEP_FETCH,
    STEP_AWAIT_HEAD,
    STEP_ON_ERROR,
    STEP_ON_RESPONSE,
    STEP_SEND_HEAD,
    STEP_BODY,
    STEP_ON_LOG,
    STEP_TUNNEL,
    STEP_LOG,
    STEP_DONE
};

enum { REQUEST_ID_SIZE = 16 };

struct exchange {
    struct task task;
    struct subject subject;
    struct list node; /* in worker->exchanges */
    struct grave grave;
    struct stream *stream;         /* NULL once the client is gone, or the answer is complete */
    struct generation *generation; /* a reference, NULL before STEP_FIND_SITE */
    struct site *site;             /* NULL: none found yet: errors are answered without policy */
    struct arena arena;
    uint8_t step;      /* enum exchange_step */
    bool hook_running; /* the present step waits for a hook */
    bool client_left;
    bool request_sent; /* the fetch has begun: `req` is read-only */
    bool head_sent;    /* the response head has left: `res` is read-only */
    bool error_hook_ran;
    bool body_done;               /* the answer was handed over whole */
    char id[REQUEST_ID_SIZE + 1]; /* hex */

    struct request request;
    bool target_changed;           /* a script assigned path, query, args, host */
    struct slice named_scheme;     /* what HTTP/2 says of its target, anything; p NULL: nothing */
    bool forward;                  /* it names its own target, on a site that is a forward proxy (proxy/forward.h) */
    struct slice received_host;    /* the Host field as it came, or the host of an absolute target; p NULL: none */
    struct addr client_addr;       /* the real client: behind trusted proxies, what they say */
    bool client_trusted;           /* the peer is one of trusted_proxies */
    struct slice forwarded_scheme; /* "http" or "https", as seen by the real client */
    struct pipe request_body;      /* state PIPE_ENDED and total 0 when there is none */
    bool expects_continue;         /* the client waits for a 100 that we have not passed on */
    bool wants_body;               /* a script or buffer_body wants it before the fetch */
    bool body_given;               /* a script made it the body of a fetch of its own: nothing is left to forward */

    struct content request_content, response_content;

    struct fetch *fetch; /* NULL: none (yet) */
    struct fetch_waiter fetch_waiter;
    struct response response; /* the final answer; headers writable until head_sent */
    enum response_source source;
    struct pipe *reply_body;                /* of a reply or an error page, in the arena; NULL: none was made */
    struct pipe *body;                      /* where the answer's body comes from; NULL: none */
    struct slice backend_name, server_name; /* of the fetch, noted when it goes: for the log line; p NULL: none */
    unsigned tries;                         /* likewise */
    enum failure failure;                   /* what went wrong first, NONE */
    enum failure pending_failure;           /* found in an event, dealt with when it advances */
    const char *failed_hook;
    struct error_info error;
    struct slice cache_key;                        /* what the hook made of it; p NULL: the default, the target */
    bool cache_bypass, cache_refresh, cache_stale; /* what policy said (req.cache) */
    struct purging *purging;                       /* NULL: it is no PURGE that had to wait */
    struct caching *caching; /* in the arena; NULL: the site does not cache, or it is not asked yet */

    uint64_t max_body; /* of the request: the site's, or what a script says, if that is less */

    double began, fetch_began, first_byte, ended; /* loop time, seconds; 0: not yet */
    uint64_t bytes_in, bytes_out;                 /* content */
    struct tunnel *tunnel;
    struct site_metrics *metrics;    /* NULL before a site is found */
    struct slice site_name;          /* outlives the generation, for the log line */
    struct list ties;                /* what policy holds as long as it lasts, its body or tunnel included */
    uint32_t watcher;                /* whose `watched` is (trace.c): an old one's means nothing */
    void *watched;                   /* a watcher's notes; NULL: none */
    struct deadline total;           /* timeouts.total; in STEP_TAKE_HEAD: for the handshake that early data overtook */
    struct pipe_watch buffer_watch;  /* buffer_body */
    struct pipe_watch content_watch; /* the head waits for what stages make of the body */
    struct pipe_reader drop;         /* reads away a request body nobody wants */
};

/* By the stream: begins an exchange whose head was just read into `request` (whose slices lie in `arena`), which are
 * taken over by the returned object; then the loop advances it. */
struct exchange *exchange_create(struct stream *);
void exchange_begin(struct exchange *);
/* The head itself was bad: only the error page is sent. What could be read of it stands in `request`. */
void exchange_begin_failed(struct exchange *, enum failure);
/* By the stream: the head did not come whole yet; the object is given back. */
void exchange_forget(struct exchange *);
/* By the stream: the client left (FIN too early, RST, failed write). It is closed already. */
void exchange_client_left(struct exchange *);
/* By the stream: its request body is malformed, too large, or stopped coming. */
void exchange_request_failed(struct exchange *, enum failure);
/* By the stream: `n` more bytes of the request's content have come. False: that is too much, and it failed. */
bool exchange_count_in(struct exchange *, size_t n);
/* Is it known already that the request's content is, or will be, more than max_body? */
bool exchange_body_is_too_large(const struct exchange *);
/* By the stream: the answer has been written into the conn completely. */
void exchange_body_sent(struct exchange *);
/* By the stream: the body pipe failed in the middle. */
void exchange_body_failed(struct exchange *, enum failure);
/* For scripts: the whole request body is wanted before anything else (sends 100 Continue when the client waits for
 * it), up to `max` bytes held. Watch exchange->request_body. */
void exchange_want_body(struct exchange *, size_t max);
void exchange_wake(struct exchange *);
/* Its answer, as policy may change it: pointers into it. */
static inline struct answer answer_of(struct exchange *x) {
    return (struct answer){ .response = &x->response,
                            .content = &x->response_content,
                            .body = &x->body,
                            .made = &x->reply_body,
                            .watch = &x->content_watch,
                            .arena = &x->arena,
                            .gone = &x->head_sent };
}
/* By tunnel.c: the tunnel is over, its bytes are counted. */
void exchange_tunnel_ended(struct exchange *);
/* The policy of its generation ends now (worker_let_go). */
void exchange_let_go(struct exchange *);
const char *exchange_source_name(enum response_source); /* "backend", "cache", "reply", "error" */

/* ---- by caching.c and fill.c */

/* The request takes the form in which it is sent. Once. */
void exchange_finish_request(struct exchange *);
/* To its client, if it waits for a head and understands that. */
void exchange_pass_informational(struct exchange *, const struct response *);
/* What the log line and `res` tell of the fetch that brought the answer. */
void exchange_note_fetch(struct exchange *, const struct fetch *);
/* The fetch was made for its fill, and is its own from now on; it has a head, a reply or a failure. False: it waits for
 * none any more. */
bool exchange_takes_fetch(struct exchange *, struct fetch *);
