/* What the registers of a function hold, as far as it can be told without running it: constants, globals and what lies
 * in them, functions of the same file, the arguments of hooks. What is not sure is FACT_ANY.
 *
 * A scene is a function in one situation: where it was made, with what arguments. flow_run finds what holds whenever
 * an instruction is reached, over all ways that lead there; a branch whose condition is known is not taken. flow_visit
 * then walks the instructions that can be reached. */
#pragma once

#include "lua/bytecode.h"

struct live;        /* a value of the loaded state (names.h) */
struct object_kind; /* a kind of object that hooks get (names.h) */
struct names;
struct scene;

enum { TABLE_ITEMS = 16, SCENE_ARGUMENTS = 6 };

/* A table that a constructor in this function makes. */
struct made_table {
    struct made_table *next;
    unsigned at; /* its instruction */
    bool opaque; /* somebody else knows it: what it holds is not sure */
    unsigned item_count, field_count;
    struct fact *items; /* TABLE_ITEMS */
    struct slice fields[TABLE_ITEMS];
    struct fact *values; /* of the fields */
};

enum fact_kind {
    FACT_NONE, /* no way leads here, yet */
    FACT_ANY,
    FACT_NIL,
    FACT_BOOLEAN,
    FACT_INTEGER,
    FACT_NUMBER,
    FACT_STRING,
    FACT_ENVIRONMENT, /* _ENV of the file */
    FACT_LIVE,
    FACT_MISSING, /* nil: there is no such global, or no such field of a library */
    FACT_OBJECT,
    FACT_FUNCTION, /* of this file */
    FACT_TABLE
};

struct fact {
    enum fact_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string;
        const struct live *live;
        const char *missing; /* "gate.fecth"; one pointer for each name */
        const struct object_kind *object;
        struct {
            const struct proto *proto;
            struct scene *made_in;
        } function;
        struct made_table *table;
    };
};

struct scene {
    const struct proto *proto;
    struct scene *outer;         /* where the function was made; NULL: the file itself */
    const struct fact *upvalues; /* parallel to the prototype's */
    struct fact arguments[SCENE_ARGUMENTS];

    /* by flow_run and flow_visit */
    struct fact **states;       /* by instruction: the registers when it is reached; NULL: no branch leads here */
    bool *branches;             /* by instruction: one does */
    const struct fact **inside; /* by inner function: its upvalues; NULL: it is never made */
    struct made_table *tables;
};

struct flow {
    struct arena *arena;
    struct names *names;
    void (*see)(struct flow *, struct scene *, unsigned at, struct fact *registers);
};

/* False: the function is too large to be looked at. */
bool flow_run(struct flow *, struct scene *);
void flow_visit(struct flow *, struct scene *);

/* Of an instruction that reads or writes a field: the table and its key. */
struct fact flow_base(const struct scene *, unsigned at, const struct fact *registers);
struct fact flow_key(const struct scene *, unsigned at, const struct fact *registers);

struct fact fact_any(void);
bool fact_equal(struct fact, struct fact);
enum truth { TRUTH_UNKNOWN, TRUTH_FALSE, TRUTH_TRUE };
enum truth fact_truth(struct fact);
struct fact fact_of_constant(const struct constant *);
