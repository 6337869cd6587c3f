/* The one way across threads (DESIGN 3): a lock-free queue of letters and an ev_async. Any thread posts; the
 * letters are delivered in the owner's gather phase, in the order of posting by one thread. */
#pragma once

#include "net/loop.h"

#include <stdatomic.h>

struct letter {
    struct letter *_Atomic next;
    /* Runs in the receiver's thread and owns the letter from then on. */
    void (*deliver)(struct letter *, struct loop *);
};

struct mailbox {
    struct letter *_Atomic head; /* newest first; turned round on delivery */
    atomic_uint posting;         /* threads inside mailbox_post: mailbox_close waits for them */
    ev_async bell;
    struct loop *loop;
};

void mailbox_open(struct mailbox *, struct loop *); /* in the owner's thread, or before it starts */
/* In the owner's thread: refuses from now on, delivers what is left. The loop may end afterwards; the mailbox's own
 * memory must stay as long as anybody might still post to it. Idempotent. */
void mailbox_close(struct mailbox *);
/* False if the mailbox is closed: the letter stays the caller's. */
bool mailbox_post(struct mailbox *, struct letter *);
