/* gate.lock(name, { timeout =, ttl = }): one holder at a time, of all workers and generations (store/lock.h).
 *
 *     local lock <close>, word = gate.lock("rebuild", { timeout = 5, ttl = 30 })
 *     if not lock then return gate.reply(503, word) end
 *
 * What a script holds is given back at the end of its scope, by :release(), at the end of the run that took it,
 * however that ends (a late script is killed without its <close> handlers), or when its ttl has passed, whichever is
 * first. The claim therefore does not lie in the handle, which the collector may take, but in a ticket that the run
 * is tied to.
 *
 * The line lets somebody else's thread tell us that the lock is ours: by a letter. A ticket that is given up while
 * that letter is under way stays until it has come. */
#include "lua/run.h"
#include "lua/bind.h"
#include "lua/sandbox.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "store/lock.h"

#include <stdlib.h>

static const double TIMEOUT_DEFAULT = 5, TTL_DEFAULT = 30, SECONDS_MAX = 86400;

struct lock_handle;

struct ticket {
    struct claim claim;
    struct letter letter;
    struct worker *worker;
    struct lock_handle *handle; /* NULL: collected */
    struct tie tie;
    struct wait wait;
    struct deadline deadline; /* of the wait, then of the ttl */
    double ttl;
    bool waits;     /* a strand does */
    bool holds;     /* the lock is ours, and we know */
    bool posted;    /* the letter was sent: written under the lines' mutex, read after lock_leave or on arrival */
    bool forgotten; /* it is only there for its letter */
    char name[LOCK_NAME_MOST + 1];
};

struct lock_handle {
    struct handle handle;
    struct ticket *ticket; /* NULL: given back */
};

/* ---- a ticket's life */

/* Gives back or stops waiting; the memory goes. */
static void ticket_end(struct ticket *t) {
    lock_leave(&t->claim);
    list_remove(&t->tie.node);
    deadline_fini(&t->deadline);
    if (t->handle) t->handle->ticket = NULL;
    t->handle = NULL;
    t->forgotten = true;
    if (!t->posted) free(t);
}

static void tie_on_end(struct tie *tie) { ticket_end(container_of(tie, struct ticket, tie)); }

static void wait_cancelled(struct wait *w) { ticket_end(container_of(w, struct ticket, wait)); }

/* The ttl begins when the script knows. */
static void begin_to_hold(struct ticket *t) {
    t->holds = true;
    t->waits = false;
    deadline_set(&t->deadline, t->ttl + clock_monotonic() - loop_now(&t->worker->loop));
}

static void letter_on_arrival(struct letter *letter, struct loop *loop) {
    (void)loop;
    struct ticket *t = container_of(letter, struct ticket, letter);
    t->posted = false;
    if (t->forgotten) {
        free(t);
        return;
    }
    t->holds = true;
    deadline_clear(&t->deadline);
    wait_done(&t->wait);
}

/* In any thread. Nobody claims in a worker whose mailbox is closed: its runs have ended before. */
static void claim_granted(struct claim *c) {
    struct ticket *t = container_of(c, struct ticket, claim);
    t->posted = true;
    must(mailbox_post(&t->worker->mailbox, &t->letter));
}

static void count_expired(const struct ticket *t) {
    struct metric *expired = metric_get(METRIC_COUNTER, "moongate_locks_expired_total",
                                        "Locks that were held longer than their ttl", SLICE(""));
    metric_add(expired, (int)t->worker->index, 1);
    log_warn("the lock '%s' was held for %g s: its ttl has passed, it is free again", t->name, t->ttl);
}

static void ticket_on_time(struct deadline *d) {
    struct ticket *t = container_of(d, struct ticket, deadline);
    if (t->waits) {
        wait_done(&t->wait);
        return;
    }
    count_expired(t);
    ticket_end(t);
}

/* ---- self */

static void lock_collect(void *pointer) {
    struct lock_handle *h = pointer;
    if (h->ticket) h->ticket->handle = NULL;
}

static const struct handle_kind kind = { .name = "moongate.lock", .collect = lock_collect };

static struct lock_handle *lock_self(lua_State *L) { return object_self(L, 1, &kind); }

static struct ticket *ticket_new(lua_State *L, struct slice name, double ttl) {
    struct lock_handle *h = object_new(L, &kind, sizeof *h, 0);
    struct ticket *t = h->ticket = must_calloc(1, sizeof *t);
    t->handle = h;
    t->worker = state_of(L)->worker;
    t->ttl = ttl;
    t->claim.granted = claim_granted;
    t->claim.owner[0] = run_of(L);
    t->claim.owner[1] = run_of(L)->current;
    t->letter.deliver = letter_on_arrival;
    t->wait.cancel = wait_cancelled;
    t->tie.ended = tie_on_end;
    deadline_init(&t->deadline, &t->worker->loop, ticket_on_time);
    memcpy(t->name, name.p, name.n);
    run_tie(L, &t->tie);
    return t;
}

/* ---- taking one */

static double seconds_option(lua_State *L, const char *name, double missing) {
    double seconds = missing;
    if (option_push(L, 2, name) != LUA_TNIL && (!seconds_read(L, -1, &seconds) || seconds > SECONDS_MAX))
        luaL_error(L, "gate.lock: %s is seconds, a day at most, a number or such as \"500ms\"", name);
    lua_pop(L, 1);
    return seconds;
}

static struct slice name_check(lua_State *L) {
    if (lua_type(L, 1) != LUA_TSTRING) luaL_typeerror(L, 1, "string");
    struct slice name = text_check(L, 1);
    if (name.n == 0 || name.n > LOCK_NAME_MOST || memchr(name.p, 0, name.n))
        luaL_argerror(L, 1, "a name has 1 to 255 bytes");
    return name;
}

/* The handle is on top. */
static int lock_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct ticket *t = (struct ticket *)context;
    if (!t->holds) {
        ticket_end(t);
        return fail_world(L, FAIL_TIMEOUT);
    }
    begin_to_hold(t);
    return 1;
}

static int claim_lock(lua_State *L, struct slice name, double ttl, double timeout) {
    struct ticket *t = ticket_new(L, name, ttl);
    switch (lock_claim(&t->claim, name, timeout > 0)) {
    case CLAIM_HOLDS: begin_to_hold(t); return 1;
    case CLAIM_WAITS:
        t->waits = true;
        deadline_set(&t->deadline, timeout + clock_monotonic() - loop_now(&t->worker->loop));
        return wait_begin(L, &t->wait, (lua_KContext)t, lock_k);
    case CLAIM_BUSY: ticket_end(t); return fail_world_with(L, "locked", "somebody else holds the lock");
    case CLAIM_FULL:
        ticket_end(t);
        return fail_world_with(L, failure_word(FAIL_OVERLOADED), "there are too many locks, or too many who wait");
    case CLAIM_IS_OWN: ticket_end(t); break;
    }
    return luaL_error(L, "gate.lock: the lock '%s' is held here already", name.p);
}

static double ttl_check(lua_State *L) {
    double ttl = seconds_option(L, "ttl", TTL_DEFAULT);
    if (ttl == 0) luaL_error(L, "gate.lock: ttl is more than 0 seconds");
    return ttl;
}

/* gate.lock(name, { timeout =, ttl = }): it is called as a table's __call, hence the first argument. */
static int gate_lock(lua_State *L) {
    static const char *const names[] = { "timeout", "ttl", NULL };
    lua_settop(L, 3);
    lua_remove(L, 1);
    struct slice name = name_check(L);
    options_check(L, 2, "gate.lock", names);
    double timeout = seconds_option(L, "timeout", TIMEOUT_DEFAULT), ttl = ttl_check(L);
    wait_check(L);
    return claim_lock(L, name, ttl, timeout);
}

/* gate.lock.try(name, { ttl = }): does not wait. */
static int lock_try(lua_State *L) {
    static const char *const names[] = { "ttl", NULL };
    lua_settop(L, 2);
    struct slice name = name_check(L);
    options_check(L, 2, "gate.lock.try", names);
    double ttl = ttl_check(L);
    subject_check(L, "gate.lock.try");
    return claim_lock(L, name, ttl, 0);
}

/* ---- methods */

/* lock:release(): was it still held? Also what <close> does. */
static int lock_release(lua_State *L) {
    struct lock_handle *h = lock_self(L);
    lua_pushboolean(L, h->ticket != NULL);
    if (h->ticket) ticket_end(h->ticket);
    return 1;
}

static int lock_held(lua_State *L) {
    lua_pushboolean(L, lock_self(L)->ticket != NULL);
    return 1;
}

static int lock_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, lock_self(L), none, "a lock");
}

static int lock_newindex(lua_State *L) { return luaL_error(L, "a lock has no fields to assign"); }

static const luaL_Reg methods[] = { { "release", lock_release }, { "held", lock_held }, { NULL, NULL } };
static const luaL_Reg metamethods[] = {
    { "__index", lock_index }, { "__newindex", lock_newindex }, { "__close", lock_release }, { NULL, NULL }
};

void bind_lock_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "try", lock_try }, { NULL, NULL } };
    object_kind_open(L, &kind, NULL, metamethods, methods);
    luaL_newlib(L, functions);
    functions_name(L, "gate.lock");
    front_make(L, "gate.lock");
    lua_getmetatable(L, -1);
    lua_pushcfunction(L, gate_lock);
    lua_setfield(L, -2, "__call");
    lua_pop(L, 1);
    lua_setfield(L, -2, "lock");
}
