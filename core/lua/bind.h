/* What the bindings share, beyond engine.h: what scripts know of an exchange, objects with fixed fields, units,
 * options.
 *
 * All that a script hands over is hostile until it is checked: tables are read raw, so that no metatable can lie;
 * memory is owned by an arena or a userdata before anything can raise; what is copied into an exchange is counted and
 * bounded. */
#pragma once

#include "lua/bindings.h"
#include "lua/engine.h"
#include "lua/run.h"

/* ---- Objects
 *
 * An object is a handle: either the engine's, whose pointer ends with its subject, or one that carries its own memory
 * (object_new), whose pointer is itself. */

/* One field of an object. Getters push one value. Setters find the value at index 3; NULL: read-only. */
struct field {
    const char *name;
    void (*get)(lua_State *L, void *object);
    void (*set)(lua_State *L, void *object);
};

/* handle_kind_open, and the names of `fields` (ended by a NULL name; may be NULL) go into the metamethods'
 * UPVALUE_NAMES. */
void object_kind_open(lua_State *L, const struct handle_kind *, const struct field *fields, const luaL_Reg *metamethods,
                      const luaL_Reg *methods);
/* A userdata of `size` bytes that begins with a struct handle and is zero behind it. */
void *object_new(lua_State *L, const struct handle_kind *, size_t size, int uservalues);
/* Metamethods of objects that have fields: __index and __newindex for an object and its own table of fields. `what`:
 * "req". */
int object_index(lua_State *L, void *object, const struct field *fields, const char *what);
int object_newindex(lua_State *L, void *object, const struct field *fields, const char *what);
/* Raises "WHAT has no field 'x' (did you mean 'y'?)" for the key at index 2; names are the keys of
 * UPVALUE_NAMES. */
int object_unknown(lua_State *L, const char *what);

/* The handle at `arg` if it is alive, else NULL; its kind is the caller's to look at, and tells handles from userdata
 * of others: none can begin with the address of one of our kinds. Much cheaper than a comparison of metatables. */
static inline struct handle *handle_at(lua_State *L, int arg) {
    struct handle *h = lua_touserdata(L, arg);
    return h && lua_rawlen(L, arg) >= sizeof *h && h->pointer ? h : NULL;
}
static inline void *object_self(lua_State *L, int arg, const struct handle_kind *kind) {
    struct handle *h = handle_at(L, arg);
    return h && h->kind == kind ? h->pointer : handle_check(L, arg, kind);
}

/* Did you mean: the candidate that is most like a name, if one is. */
struct likeness {
    struct slice name;
    const char *best; /* NULL: none so far */
    unsigned distance;
};
struct likeness likeness_begin(struct slice name);
void likeness_try(struct likeness *, const char *candidate);

/* ---- What scripts know of one exchange, beside what is in it. In its arena, made with `req`; handles of its objects
 * point at it. In on_store there is a second one behind `res`, made with that. */

enum side { SIDE_REQUEST, SIDE_RESPONSE, SIDE_FETCHED };

/* A body and the strands that wait for it (bind_body.c). */
struct body {
    enum side side;
    struct exchange *exchange;   /* SIDE_REQUEST, SIDE_RESPONSE */
    const struct answer *answer; /* SIDE_RESPONSE */
    struct call *call;           /* SIDE_FETCHED (call.h) */
    struct pipe_watch watch;
    struct list waits;
};
void body_init(struct body *, enum side, struct exchange *, const struct answer *, struct call *);
/* It ends, or another takes its place: who waits for it is woken, and finds that out. */
void body_leave(struct body *);

struct view {
    struct exchange *exchange;
    struct subject *subject; /* whose handles `res` and its parts are */
    struct storing *storing; /* whose response `res` stands for; NULL: for the exchange's */
    struct answer answer;
    size_t written;        /* bytes scripts have written into the exchange */
    struct body bodies[2]; /* by enum side */
};

struct view *view_of(lua_State *L, struct subject *);
struct view *view_create(struct subject *); /* in its exchange's arena */
/* Raise when it is too late to assign: its fetch has begun, its head has left. */
void view_check_request(lua_State *L, const struct view *);
void view_check_response(lua_State *L, const struct view *);
/* Counts `n` bytes; raises when scripts have written too much into this exchange. */
void view_charge(lua_State *L, struct view *, size_t n);
/* Copies into the exchange's arena, counted. */
struct slice view_copy(lua_State *L, struct view *, struct slice);

/* ---- Pieces of one object that another pushes */

void request_headers_push(lua_State *L, struct view *);
void response_headers_push(lua_State *L, struct view *);
/* A read-only copy that stands for itself. */
void headers_copy_push(lua_State *L, const struct headers *);
void args_push(lua_State *L, struct view *);
void cookies_push(lua_State *L, struct view *);
void body_push(lua_State *L, struct view *, enum side); /* nil: there is none */
extern const struct handle_kind body_kind;              /* its pointer is a struct body */
/* The body at `arg` is to be the body of a fetch, which reads its pipe from now on: how it is framed, and its coding
 * (p NULL: none). Raises if it was sent on already. */
struct pipe *body_flow_check(lua_State *L, int arg, struct framing *, struct slice *coding);
bool body_is_fetched(lua_State *L, int index);
/* The fetched body at `index` becomes that of a reply for the exchange. False: it was read or sent already. */
bool body_give(lua_State *L, int index, struct exchange *, struct reply *);
/* Sets the response's body to the string at index 3 (nil: an empty one). */
void body_assign(lua_State *L, struct view *);
void client_push(lua_State *L, struct view *);
void client_tls_push(lua_State *L, struct view *); /* nil: the client speaks no TLS, or has left */
void request_cache_push(lua_State *L, struct view *);
void response_cache_push(lua_State *L, struct view *); /* nil: the site has no cache, or it was not reached */
void bind_client_open(lua_State *L);
void bind_client_tls_open(lua_State *L);
void bind_base64_open(lua_State *L);
int url_query_filter(lua_State *L); /* gate.url.query_filter */
void bind_query_filter_open(lua_State *L);

/* "host" or "host:port" for the forwarded request and its Host field; `arg` is where it stands. */
void request_assign_host(lua_State *L, struct view *, int arg);
/* Of `s` what cannot stand in a path (or, with `query`, in a query) percent-encoded; escapes stay. In the arena. */
struct slice target_encode(struct arena *, struct slice s, bool query);

/* Visits the lines of a table name -> string, number or list of these, raw, after checks: names are tokens, values
 * clean, none is the core's own. Raises, naming `what`. The slices are valid only during the visit. */
void header_table_each(lua_State *L, int index, const char *what,
                       void (*visit)(void *with, struct slice name, struct slice value), void *with);

/* The backend of that name, and its site: of the site whose script calls, else the only one of all sites; raises if
 * there is none. */
struct backend *backend_named(lua_State *L, struct slice name, struct site **site);
/* The name a handle of gate.backend stands for; p NULL: `arg` is no such handle. */
struct slice backend_name_at(lua_State *L, int arg);

/* ---- TLS to servers (bind_tls.c) */

struct tls_trust;
struct lua_trust {
    struct handle handle;
    struct tls_trust *trust; /* a reference, the userdata's */
    struct slice name;       /* within the userdata's user value; p NULL: the host's own */
};
/* What stands at `index`: what gate.tls made, or a table of its options, of which it makes one. Pushes it, so that it
 * lives as long as it is on the stack. Raises, naming `what`, if it is neither, or wrong. */
const struct lua_trust *trust_check(lua_State *L, int index, const char *what);

/* ---- Arguments */

static inline struct slice text_check(lua_State *L, int arg) {
    size_t n;
    const char *p = luaL_checklstring(L, arg, &n);
    return slice_make(p, n);
}

/* A string and no number, of at most `max` bytes; a step is spent for every 8 of them. */
struct slice string_check(lua_State *L, int arg, size_t max);

/* "500ms", "10s", "1m", "1h" or a number of seconds, finite and not negative; bytes with K, M, G. False: it is none. */
bool seconds_read(lua_State *L, int index, double *seconds);
bool size_read(lua_State *L, int index, uint64_t *bytes);
/* The same for an argument that may be missing. */
double seconds_opt(lua_State *L, int arg, double missing);
uint64_t size_opt(lua_State *L, int arg, uint64_t missing);
/* How a value that was not expected is named: a number as it is, a text in quotes, cut short, others by their type.
 * Pushed. */
const char *value_name_push(lua_State *L, int index);

/* Raises unless `arg` is nil or a table whose keys are all in `names` (ended by NULL). `what`: "gate.fetch". */
void options_check(lua_State *L, int arg, const char *what, const char *const names[]);
/* Pushes one option, raw; its type. LUA_TNIL when there is no table. */
int option_push(lua_State *L, int arg, const char *name);
