/* Active health checks: the keeper asks every server of a backend that has `health` set, once an interval, and takes
 * those that fail `fall` times in a row out of the choice until they pass `rise` times. What it learns lies in struct
 * server, so it outlives reloads. */
#pragma once

#include "proxy/worker.h"

struct health;

/* Begins checking all backends of a generation; NULL when none wants it. In the keeper's thread. */
struct health *health_start(struct worker *, struct generation *);
void health_stop(struct health *); /* NULL is ignored */
