/* `moongate profile`: samples of all workers (lua/sampler.h) for some seconds, put together and told as folded stacks,
 * a line "STACK COUNT" for each, the most frequent first, at last "(core) COUNT". One at a time. */
#pragma once

struct instance;
struct message;
struct profile;

/* The supervisor's order; takes the descriptor over. "SECONDS HZ". */
void profile_begin(struct instance *, struct message *);
/* The instance stops serving: what there is is told. Before the workers are told to end. NULL is ignored. */
void profile_end(struct profile *);
/* After the workers have ended. NULL is ignored. */
void profile_close(struct profile *);
