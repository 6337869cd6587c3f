/* core/net for specs: mailboxes, helper threads, the resolver. Lua is entered in the thread that runs the loop only. */
#include "module_net.h"

#include "base/clock.h"
#include "net/helpers.h"
#include "net/resolver.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

static const char MAILBOX[] = "moongate_core.mailbox", HELPERS[] = "moongate_core.helpers";
static const char RESOLVER[] = "moongate_core.resolver", QUESTION[] = "moongate_core.question";

enum { STORM_THREADS = 8 };

/* ---- mailboxes */

struct storm;

struct lua_mailbox {
    struct handle handle;
    struct mailbox mailbox;
    struct storm *storm;
};

static void close_mailbox(struct handle *h) { mailbox_close(&((struct lua_mailbox *)h)->mailbox); }

static int loop_mailbox(lua_State *L) {
    struct home *home = home_check(L, 1);
    lua_newtable(L);
    struct lua_mailbox *m = handle_make(L, home, MAILBOX, sizeof *m, -1, close_mailbox);
    mailbox_open(&m->mailbox, &home->loop);
    return 1;
}

/* A letter with a Lua function. */
struct note {
    struct letter letter;
    struct home *home;
    int ref;
};

static void note_on_delivery(struct letter *letter, struct loop *loop) {
    struct note *note = container_of(letter, struct note, letter);
    struct home *home = note->home;
    lua_State *L = home->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, note->ref);
    luaL_unref(L, LUA_REGISTRYINDEX, note->ref);
    free(note);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) home->error = luaL_ref(L, LUA_REGISTRYINDEX);
}

static int mailbox_on_post(lua_State *L) {
    struct lua_mailbox *m = luaL_checkudata(L, 1, MAILBOX);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    struct note *note = calloc(1, sizeof *note);
    note->letter.deliver = note_on_delivery;
    note->home = m->handle.home;
    lua_pushvalue(L, 2);
    note->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    bool posted = mailbox_post(&m->mailbox, &note->letter);
    if (!posted) {
        luaL_unref(L, LUA_REGISTRYINDEX, note->ref);
        free(note);
    }
    lua_pushboolean(L, posted);
    return 1;
}

/* A storm: threads that post numbered letters as fast as they can; the receiver holds each thread's numbers against its
 * count. The letters' numbers are plain memory: a sanitizer sees whether the mailbox really hands them over. */
struct storm_letter {
    struct letter letter;
    struct storm *storm;
    unsigned thread, number;
};

struct storm {
    struct mailbox *mailbox;
    pthread_t threads[STORM_THREADS];
    unsigned thread_count, letters, next[STORM_THREADS];
    unsigned delivered, misplaced;
    atomic_uint refused;
    atomic_uint started;
};

static void storm_on_delivery(struct letter *letter, struct loop *loop) {
    struct storm_letter *l = container_of(letter, struct storm_letter, letter);
    struct storm *s = l->storm;
    if (s->next[l->thread] != l->number) s->misplaced++;
    s->next[l->thread] = l->number + 1;
    s->delivered++;
    free(l);
}

static void *run_storm(void *arg) {
    struct storm *s = arg;
    unsigned thread = atomic_fetch_add(&s->started, 1);
    for (unsigned i = 0; i < s->letters; i++) {
        struct storm_letter *l = calloc(1, sizeof *l);
        l->letter.deliver = storm_on_delivery;
        l->storm = s;
        l->thread = thread;
        l->number = i;
        if (mailbox_post(s->mailbox, &l->letter)) continue;
        atomic_fetch_add(&s->refused, 1);
        free(l);
    }
    return NULL;
}

/* storm(threads, letters) begins one. */
static int mailbox_on_storm(lua_State *L) {
    struct lua_mailbox *m = luaL_checkudata(L, 1, MAILBOX);
    luaL_argcheck(L, !m->storm, 1, "has its storm");
    struct storm *s = m->storm = calloc(1, sizeof *s);
    s->mailbox = &m->mailbox;
    s->thread_count = (unsigned)luaL_checkinteger(L, 2);
    s->letters = (unsigned)luaL_checkinteger(L, 3);
    for (unsigned i = 0; i < s->thread_count; i++) pthread_create(&s->threads[i], NULL, run_storm, s);
    return 0;
}

static int mailbox_on_delivered(lua_State *L) {
    struct lua_mailbox *m = luaL_checkudata(L, 1, MAILBOX);
    lua_pushinteger(L, m->storm->delivered);
    lua_pushinteger(L, m->storm->misplaced);
    return 2;
}

/* Waits for the storm's threads; returns delivered, misplaced, refused. */
static int mailbox_on_join(lua_State *L) {
    struct lua_mailbox *m = luaL_checkudata(L, 1, MAILBOX);
    struct storm *s = m->storm;
    for (unsigned i = 0; i < s->thread_count; i++) pthread_join(s->threads[i], NULL);
    lua_pushinteger(L, s->delivered);
    lua_pushinteger(L, s->misplaced);
    lua_pushinteger(L, atomic_load(&s->refused));
    free(s);
    m->storm = NULL;
    return 3;
}

static const luaL_Reg mailbox_methods[] = {
    { "post", mailbox_on_post },
    { "storm", mailbox_on_storm },
    { "delivered", mailbox_on_delivered },
    { "join", mailbox_on_join },
    { NULL, NULL },
};

/* ---- helpers */

struct lua_helpers {
    struct helpers *helpers;
    sem_t gate; /* what blocked jobs wait for */
};

struct lua_job {
    struct job job;
    struct lua_helpers *all;
    struct home *home;
    int ref;
    bool waits, elsewhere;
    pthread_t asker;
};

static void job_on_work(struct job *j) {
    struct lua_job *job = (struct lua_job *)j;
    if (job->waits) sem_wait(&job->all->gate);
    job->elsewhere = !pthread_equal(job->asker, pthread_self());
    if (!job->job.asker) free(job);
}

static void job_on_done(struct job *j, struct loop *loop) {
    struct lua_job *job = (struct lua_job *)j;
    lua_State *L = job->home->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, job->ref);
    luaL_unref(L, LUA_REGISTRYINDEX, job->ref);
    lua_pushboolean(L, job->elsewhere);
    free(job);
    lua_call(L, 1, 0);
}

static int net_helpers(lua_State *L) {
    struct lua_helpers *all = lua_newuserdatauv(L, sizeof *all, 0);
    sem_init(&all->gate, 0, 0);
    all->helpers = helpers_create();
    luaL_setmetatable(L, HELPERS);
    return 1;
}

static const char *const help_names[] = { "load", "files", NULL };

/* ask(which, waits, mailbox, done(elsewhere)): false if the queue is full. Without a mailbox nobody is told. */
static int helpers_on_ask(lua_State *L) {
    struct lua_helpers *all = luaL_checkudata(L, 1, HELPERS);
    enum help which = (enum help)luaL_checkoption(L, 2, NULL, help_names);
    struct lua_mailbox *m = lua_isnoneornil(L, 4) ? NULL : luaL_checkudata(L, 4, MAILBOX);
    struct lua_job *job = calloc(1, sizeof *job);
    job->job.work = job_on_work;
    job->job.done = job_on_done;
    job->all = all;
    job->waits = lua_toboolean(L, 3);
    job->asker = pthread_self();
    job->ref = LUA_NOREF;
    if (m) {
        job->job.asker = &m->mailbox;
        job->home = m->handle.home;
        lua_pushvalue(L, 5);
        job->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    bool taken = helpers_ask(all->helpers, which, &job->job);
    if (!taken) {
        luaL_unref(L, LUA_REGISTRYINDEX, job->ref);
        free(job);
    }
    lua_pushboolean(L, taken);
    return 1;
}

/* release(n): lets n waiting jobs go on. */
static int helpers_on_release(lua_State *L) {
    struct lua_helpers *all = luaL_checkudata(L, 1, HELPERS);
    for (lua_Integer n = luaL_optinteger(L, 2, 1); n > 0; n--) sem_post(&all->gate);
    return 0;
}

static int helpers_on_destroy(lua_State *L) {
    struct lua_helpers *all = luaL_checkudata(L, 1, HELPERS);
    if (!all->helpers) return 0;
    helpers_destroy(all->helpers);
    all->helpers = NULL;
    sem_destroy(&all->gate);
    return 0;
}

static const luaL_Reg helpers_methods[] = {
    { "ask", helpers_on_ask }, { "release", helpers_on_release }, { "destroy", helpers_on_destroy }, { NULL, NULL }
};

/* ---- the resolver */

struct lua_resolver {
    struct handle handle;
    struct resolver *resolver;
};

struct lua_question {
    struct handle handle;
    struct question *question; /* NULL after the answer */
};

/* The questions under way: a question's own memory is the resolver's. */
static struct lua_question *pending[64];

static void close_resolver(struct handle *h) { resolver_destroy(((struct lua_resolver *)h)->resolver); }

/* loop:resolver(mailbox, nameserver) */
static int loop_resolver(lua_State *L) {
    struct home *home = home_check(L, 1);
    struct lua_mailbox *m = luaL_checkudata(L, 2, MAILBOX);
    const char *nameserver = luaL_optstring(L, 3, NULL);
    lua_newtable(L);
    struct lua_resolver *r = handle_make(L, home, RESOLVER, sizeof *r, -1, close_resolver);
    r->resolver = resolver_create(&m->mailbox, nameserver);
    return 1;
}

static void push_answer(lua_State *L, const struct question *q) {
    lua_createtable(L, (int)q->count, 3);
    for (unsigned i = 0; i < q->count; i++) {
        char text[ADDR_TEXT];
        lua_pushstring(L, addr_ip_text(&q->addrs[i], text).p);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushstring(L, failure_word(q->why));
    lua_setfield(L, -2, "why");
    lua_pushnumber(L, q->ttl);
    lua_setfield(L, -2, "ttl");
}

static void question_on_answer(struct question *q) {
    struct lua_question *found = NULL;
    for (int i = 0; i < 64 && !found; i++) {
        if (!pending[i] || pending[i]->question != q) continue;
        found = pending[i];
        pending[i] = NULL;
    }
    if (!found) return;
    found->question = NULL;
    if (handle_push_method(&found->handle, "call")) {
        push_answer(found->handle.home->L, q);
        handle_run(&found->handle, 1);
    }
    handle_close(&found->handle);
}

static void close_question(struct handle *h) {
    struct lua_question *q = (struct lua_question *)h;
    if (q->question) question_withdraw(q->question);
    for (int i = 0; i < 64; i++)
        if (pending[i] == q) pending[i] = NULL;
    q->question = NULL;
}

/* ask(name, mailbox, on_answer(question, answer)); closing the question withdraws it. */
static int resolver_on_ask(lua_State *L) {
    struct lua_resolver *r = luaL_checkudata(L, 1, RESOLVER);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);
    struct lua_mailbox *m = luaL_checkudata(L, 3, MAILBOX);
    struct lua_question *q = handle_make(L, m->handle.home, QUESTION, sizeof *q, 4, close_question);
    int i = 0;
    while (i < 64 && pending[i]) i++;
    luaL_argcheck(L, i < 64, 1, "too many questions");
    pending[i] = q;
    q->question = question_create(slice_make(name, n), &m->mailbox, question_on_answer);
    resolver_ask(r->resolver, q->question);
    return 1;
}

static const luaL_Reg resolver_methods[] = { { "ask", resolver_on_ask }, { NULL, NULL } };
static const luaL_Reg question_methods[] = { { NULL, NULL } };

/* A keeper in a thread of its own, as when a worker asks another one: runs a loop until it is told to end. */
struct keeper {
    pthread_t thread;
    struct loop loop;
    struct mailbox mailbox;
    struct resolver *resolver;
    struct letter last;
};

static void *run_keeper(void *arg) {
    struct keeper *k = arg;
    loop_run(&k->loop);
    mailbox_close(&k->mailbox);
    resolver_destroy(k->resolver);
    loop_fini(&k->loop);
    return NULL;
}

static void keeper_on_last(struct letter *letter, struct loop *loop) { loop_stop(loop); }

static void close_keeper(struct handle *h) {
    struct lua_resolver *r = (struct lua_resolver *)h;
    struct keeper *k = *(struct keeper **)(r + 1);
    k->last.deliver = keeper_on_last;
    mailbox_post(&k->mailbox, &k->last);
    pthread_join(k->thread, NULL);
    free(k);
}

/* loop:far_resolver(nameserver): its keeper is another thread. */
static int loop_far_resolver(lua_State *L) {
    struct home *home = home_check(L, 1);
    const char *nameserver = luaL_checkstring(L, 2);
    lua_newtable(L);
    struct lua_resolver *r = handle_make(L, home, RESOLVER, sizeof *r + sizeof(struct keeper *), -1, close_keeper);
    struct keeper *k = *(struct keeper **)(r + 1) = calloc(1, sizeof *k);
    loop_init(&k->loop, 0);
    mailbox_open(&k->mailbox, &k->loop);
    r->resolver = k->resolver = resolver_create(&k->mailbox, nameserver);
    pthread_create(&k->thread, NULL, run_keeper, k);
    return 1;
}

const luaL_Reg thread_loop_methods[] = {
    { "mailbox", loop_mailbox }, { "resolver", loop_resolver }, { "far_resolver", loop_far_resolver }, { NULL, NULL }
};
const luaL_Reg thread_functions[] = { { "helpers", net_helpers }, { NULL, NULL } };

void module_open_threads(lua_State *L) {
    module_type(L, MAILBOX, mailbox_methods);
    module_type(L, RESOLVER, resolver_methods);
    module_type(L, QUESTION, question_methods);
    luaL_newmetatable(L, HELPERS);
    lua_createtable(L, 0, 4);
    luaL_setfuncs(L, helpers_methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
