/* Where scripts spend their time: samples of a worker's thread, by the CPU time it uses. While nobody samples, there is
 * nothing of it but a word that meter_leave looks at. */
#pragma once

#include "base/map.h"

struct sampler;

/* Begins in this thread, so many times a second of its CPU time. NULL: there is no timer to be had (ThreadSanitizer's
 * build), or it is sampled already. */
struct sampler *sampler_begin(unsigned hz);
/* In the same thread. What was counted stays until sampler_destroy. */
void sampler_end(struct sampler *);
void sampler_destroy(struct sampler *); /* any thread; NULL is ignored */

/* After the end. Stacks as flame graphs are made of, the outermost first:
 * "example.com;on_request;site.lua:function@3:12;site.lua:check:30;[C]:gate.hash". False: no more. */
bool sampler_next(const struct sampler *, size_t *i, struct slice *stack, uint64_t *count);
/* Samples that fell into no script: the core, or the way out of one. */
uint64_t sampler_outside(const struct sampler *);

/* By budget.c. In a hook of a script that was sampled; and when it was left before its hook came. */
struct lua_State;
void sampler_take(struct lua_State *);
void sampler_miss(void);
