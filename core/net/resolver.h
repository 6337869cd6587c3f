/* Names to addresses without blocking: c-ares, one channel, in the keeper's loop. Workers ask through mailboxes.
 * Answers are kept for their TTL (bounded 1 s to 1 h; failures 1 s), and /etc/hosts counts. */
#pragma once

#include "base/failure.h"
#include "net/addr.h"
#include "net/dns_answer.h"
#include "net/mailbox.h"

struct resolver;

/* The answer to a question, delivered in the asker's loop. `count` addresses (port 0), at most 16, none twice, IPv4
 * first and each family in ascending order, so that an unchanged answer looks unchanged; 0 and NAME_NOT_FOUND or
 * NAME_FAILED. A question for records of another kind gets `records` instead, NULL when there are none; they are the
 * question's reference. The question is the asker's memory; it may be withdrawn before the answer. */
struct question {
    struct letter letter; /* internal */
    struct mailbox *asker;
    char name[256];
    enum record_kind kind; /* RECORD_ADDRESS, unless it is set before it is asked */
    void (*on_answer)(struct question *);
    void *with; /* the asker's */
    enum failure why;
    unsigned count;
    struct addr addrs[16];
    struct records *records;
    double ttl; /* seconds the answer holds */
    bool withdrawn;
    struct resolver *resolver; /* internal */
    struct question *next;     /* internal: the next one that waits for the same name */
};

/* `nameserver`: "127.0.0.1:5353" instead of the system's, for tests (no search domains, and less patience); NULL:
 * /etc/resolv.conf, read again when it has changed. Created and destroyed in the keeper's thread or while it does
 * not run, and destroyed before its loop: who still waits is answered NAME_FAILED. Nobody may ask a destroyed one;
 * questions that are in the keeper's mailbox by then are answered too. */
struct resolver *resolver_create(struct mailbox *keeper, const char *nameserver);
void resolver_destroy(struct resolver *); /* NULL is ignored */
/* From any worker's thread. on_answer never runs inside this call, and always in the asker's loop. A name that no host
 * can have (characters other than letters, digits, "-", "_", ".") is NAME_NOT_FOUND without being asked for; an IP is
 * its own answer, if addresses are asked for. `question` is malloc'd by question_create and freed by the resolver after
 * on_answer ran, or after a withdrawn question has come back. */
struct question *question_create(struct slice name, struct mailbox *asker, void (*on_answer)(struct question *));
void resolver_ask(struct resolver *, struct question *);
void question_withdraw(struct question *); /* on_answer will not be called */
