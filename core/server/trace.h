/* `moongate trace`: what policy does with live exchanges. While somebody traces, each worker has an observer
 * (proxy/hook.h), which takes notes (proxy/note.h) of the exchanges that the filter wants, and tells each, when it is
 * over, as one line of JSON. Nobody traces: worker->observer is NULL, and there is nothing of this.
 *
 * Bounded: so many exchanges at a time and begun in a second per worker, and so many bytes that nobody has read yet
 * (onlooker.h); what is too much is counted as dropped. One trace at a time. */
#pragma once

struct instance;
struct message;
struct trace;

/* The supervisor's order; takes the descriptor over. "COUNT SECONDS SECRETS EXPRESSION", 0: no limit. */
void trace_begin(struct instance *, struct message *);
/* The instance stops serving, or nobody looks on any more. Before the workers are told to end. NULL is ignored. */
void trace_end(struct trace *, const char *why);
/* After the workers have ended. NULL is ignored. */
void trace_close(struct trace *);
