/* News that any thread may bring to a task of one worker: the body it reads has grown, what it waited for is there.
 *
 * In the worker's own thread it is a wake; from others a letter, one at a time however often it is told. Whoever tells
 * must have been kept from it before the owner closes; a letter on its way then finds nobody, and that is all. */
#pragma once

#include "net/mailbox.h"

struct news;

struct news *news_open(struct loop *, struct mailbox *, struct task *); /* in the loop's thread */
void news_tell(struct news *);                                          /* in any thread */
void news_close(struct news *); /* in the loop's thread: the task is not woken any more. NULL is ignored */
