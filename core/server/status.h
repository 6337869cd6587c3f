/* What the instance says about itself, for `moongate status` and the admin listener's /status. Runs in the keeper's
 * thread. */
#pragma once

#include "base/buffer.h"

struct instance;

/* One JSON object, a newline behind it: pid, version, uptime, generation(s), workers, connections, requests, reloads,
 * listeners, sites with their backends and servers (health, active, connections, failures), Lua memory per worker. */
void status_json(struct instance *, struct buffer *out);
/* Registers the figures of the instance (generation, reloads, restarts) with the metrics. Once, after metrics_open. */
void status_metrics(struct instance *);
