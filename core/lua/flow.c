/* The analysis: a forward one, over Lua's own bytecode, with a lattice of three storeys (nothing known yet, one fact,
 * anything), so it ends after few rounds. States are kept only where branches lead; between two of those the walk
 * carries one along.
 *
 * Parsing the source instead was the alternative. It would have taken a parser and the rules of scope; the compiler
 * has both, and what it wrote says exactly what will run. */
#include "lua/flow.h"

#include "lua/names.h"

enum { FACTS_MOST = 1 << 20, SPARE_REGISTERS = 8 };

/* ---- facts */

struct fact fact_any(void) {
    return (struct fact){ .kind = FACT_ANY };
}

static struct fact fact_boolean(bool b) { return (struct fact){ .kind = FACT_BOOLEAN, .boolean = b }; }

bool fact_equal(struct fact a, struct fact b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case FACT_BOOLEAN: return a.boolean == b.boolean;
    case FACT_INTEGER: return a.integer == b.integer;
    case FACT_NUMBER: return a.number == b.number;
    case FACT_STRING: return slice_equal(a.string, b.string);
    case FACT_LIVE: return a.live == b.live;
    case FACT_MISSING: return a.missing == b.missing;
    case FACT_OBJECT: return a.object == b.object;
    case FACT_FUNCTION: return a.function.proto == b.function.proto && a.function.made_in == b.function.made_in;
    case FACT_TABLE: return a.table == b.table;
    default: return true;
    }
}

enum truth fact_truth(struct fact f) {
    switch (f.kind) {
    case FACT_NIL:
    case FACT_MISSING: return TRUTH_FALSE;
    case FACT_BOOLEAN: return f.boolean ? TRUTH_TRUE : TRUTH_FALSE;
    case FACT_NONE:
    case FACT_ANY:
    case FACT_OBJECT: return TRUTH_UNKNOWN; /* client.tls may be nil */
    default: return TRUTH_TRUE;
    }
}

struct fact fact_of_constant(const struct constant *c) {
    switch (c->kind) {
    case CONSTANT_NIL: return (struct fact){ .kind = FACT_NIL };
    case CONSTANT_FALSE:
    case CONSTANT_TRUE: return fact_boolean(c->kind == CONSTANT_TRUE);
    case CONSTANT_INTEGER: return (struct fact){ .kind = FACT_INTEGER, .integer = c->integer };
    case CONSTANT_NUMBER: return (struct fact){ .kind = FACT_NUMBER, .number = c->number };
    default: return (struct fact){ .kind = FACT_STRING, .string = c->string };
    }
}

static struct fact join(struct fact a, struct fact b) {
    if (a.kind == FACT_NONE) return b;
    return fact_equal(a, b) ? a : fact_any();
}

/* ---- one instruction */

static struct made_table *table_at(struct flow *f, struct scene *s, unsigned at) {
    for (struct made_table *t = s->tables; t; t = t->next)
        if (t->at == at) return t;
    struct made_table *t = arena_alloc_zeroed(f->arena, sizeof *t);
    t->items = arena_alloc_zeroed(f->arena, TABLE_ITEMS * sizeof *t->items);
    t->values = arena_alloc_zeroed(f->arena, TABLE_ITEMS * sizeof *t->values);
    t->at = at;
    t->next = s->tables;
    return s->tables = t;
}

static struct fact field_of(struct flow *f, struct fact base, struct fact key) {
    if (key.kind != FACT_STRING) return fact_any();
    if (base.kind == FACT_ENVIRONMENT) return names_global(f->names, key.string);
    return names_field(f->names, base, key.string);
}

struct fact flow_base(const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    switch (op_of(i)) {
    case OP_GETTABUP: return s->upvalues[op_b(i)];
    case OP_SETTABUP: return s->upvalues[op_a(i)];
    case OP_SETTABLE:
    case OP_SETI:
    case OP_SETFIELD: return registers[op_a(i)];
    default: return registers[op_b(i)];
    }
}

struct fact flow_key(const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    const struct constant *k = s->proto->constants;
    switch (op_of(i)) {
    case OP_GETTABUP:
    case OP_GETFIELD: return fact_of_constant(&k[op_c(i)]);
    case OP_SETTABUP:
    case OP_SETFIELD: return fact_of_constant(&k[op_b(i)]);
    case OP_SELF: return op_k(i) ? fact_of_constant(&k[op_c(i)]) : registers[op_c(i)];
    case OP_GETTABLE: return registers[op_c(i)];
    case OP_SETTABLE: return registers[op_b(i)];
    default: return fact_any(); /* by a number */
    }
}

static unsigned register_count(const struct proto *p) {
    unsigned n = p->registers + SPARE_REGISTERS;
    return n < REGISTERS ? n : REGISTERS;
}

static void forget_written(const struct proto *p, uint32_t i, struct fact *registers) {
    unsigned first, end;
    op_writes(i, &first, &end);
    for (unsigned r = first; r < end && r < register_count(p); r++) registers[r] = fact_any();
}

/* What the instruction leaves in its first register, when that can be told. */
static struct fact result_of(struct flow *f, struct scene *s, unsigned at, const struct fact *registers) {
    const struct proto *p = s->proto;
    uint32_t i = p->code[at];
    switch (op_of(i)) {
    case OP_MOVE: return registers[op_b(i)];
    case OP_LOADI: return (struct fact){ .kind = FACT_INTEGER, .integer = op_sbx(i) };
    case OP_LOADF: return (struct fact){ .kind = FACT_NUMBER, .number = op_sbx(i) };
    case OP_LOADK: return fact_of_constant(&p->constants[op_bx(i)]);
    case OP_LOADFALSE:
    case OP_LFALSESKIP: return fact_boolean(false);
    case OP_LOADTRUE: return fact_boolean(true);
    case OP_GETUPVAL: return s->upvalues[op_b(i)];
    case OP_GETTABUP:
    case OP_GETTABLE:
    case OP_GETFIELD:
    case OP_SELF: return field_of(f, flow_base(s, at, registers), flow_key(s, at, registers));
    case OP_NEWTABLE: return (struct fact){ .kind = FACT_TABLE, .table = table_at(f, s, at) };
    case OP_CLOSURE: return (struct fact){ .kind = FACT_FUNCTION, .function = { p->protos[op_bx(i)], s } };
    case OP_CALL: return names_call(f->names, registers[op_a(i)], &registers[op_a(i) + 1], op_b(i) - 1);
    case OP_NOT: {
        enum truth truth = fact_truth(registers[op_b(i)]);
        return truth == TRUTH_UNKNOWN ? fact_any() : fact_boolean(truth == TRUTH_FALSE);
    }
    default: return fact_any();
    }
}

static void step(struct flow *f, struct scene *s, unsigned at, struct fact *registers) {
    uint32_t i = s->proto->code[at];
    unsigned first, end, a = op_a(i);
    op_writes(i, &first, &end);
    if (first == end) return;
    struct fact self = op_of(i) == OP_SELF ? registers[op_b(i)] : fact_any();
    struct fact result = first == a ? result_of(f, s, at, registers) : fact_any();
    forget_written(s->proto, i, registers);
    if (op_of(i) == OP_LOADNIL) {
        for (unsigned r = first; r < end; r++) registers[r].kind = FACT_NIL;
        return;
    }
    registers[first] = result;
    if (op_of(i) == OP_SELF) registers[a + 1] = self;
}

/* ---- branches */

/* Of a conditional instruction: whether it goes on to the next one (a jump), as far as that is known. */
static enum truth goes_on(const struct scene *s, uint32_t i, const struct fact *registers) {
    enum truth truth = TRUTH_UNKNOWN;
    switch (op_of(i)) {
    case OP_TEST: truth = fact_truth(registers[op_a(i)]); break;
    case OP_TESTSET: truth = fact_truth(registers[op_b(i)]); break;
    case OP_EQK: {
        struct fact f = registers[op_a(i)];
        if (s->proto->constants[op_b(i)].kind != CONSTANT_NIL) return TRUTH_UNKNOWN;
        if (f.kind == FACT_MISSING || f.kind == FACT_NIL) truth = TRUTH_TRUE;
        else if (fact_truth(f) == TRUTH_TRUE) truth = TRUTH_FALSE;
        break;
    }
    default: return TRUTH_UNKNOWN;
    }
    if (truth == TRUTH_UNKNOWN) return truth;
    return (truth == TRUTH_TRUE) == op_k(i) ? TRUTH_TRUE : TRUTH_FALSE;
}

struct walk {
    struct flow *flow;
    struct scene *scene;
    bool *due; /* by instruction: its state has changed; NULL: this is the visit */
    struct fact registers[REGISTERS];
};

static void arrive(struct walk *w, unsigned at) {
    if (!w->due) return;
    struct scene *s = w->scene;
    unsigned n = register_count(s->proto);
    struct fact *state = s->states[at];
    if (!state) {
        state = s->states[at] = arena_alloc_zeroed(w->flow->arena, n * sizeof *state);
        w->due[at] = true;
    }
    for (unsigned r = 0; r < n; r++) {
        struct fact joined = join(state[r], w->registers[r]);
        if (fact_equal(joined, state[r])) continue;
        state[r] = joined;
        w->due[at] = true;
    }
}

/* Is the local that lives in this register still what it is now whenever a function made here looks at it? */
static bool is_settled(const struct scene *s, unsigned at, unsigned reg) {
    const struct proto *p = s->proto;
    const struct local *l = proto_local(p, at, reg);
    if (!l) l = proto_local(p, at + 1, reg); /* a local function that knows itself */
    if (!l) return false;
    for (unsigned i = l->from; i < l->to && i < p->code_count; i++) {
        unsigned first, end;
        op_writes(p->code[i], &first, &end);
        if (first <= reg && reg < end && i != at) return false;
        if (op_of(p->code[i]) != OP_CLOSURE) continue;
        const struct proto *inner = p->protos[op_bx(p->code[i])];
        for (unsigned u = 0; u < inner->upvalue_count; u++)
            if (inner->upvalues[u].in_register && inner->upvalues[u].index == reg && inner->upvalues[u].written)
                return false;
    }
    return true;
}

static struct fact captured(const struct scene *s, unsigned at, const struct upvalue *u, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    if (!u->in_register) return u->written ? fact_any() : s->upvalues[u->index];
    if (!is_settled(s, at, u->index)) return fact_any();
    if (u->index == op_a(i) && !proto_local(s->proto, at, u->index))
        return (struct fact){ .kind = FACT_FUNCTION, .function = { s->proto->protos[op_bx(i)], (struct scene *)s } };
    return registers[u->index];
}

static void capture(struct walk *w, unsigned at) {
    struct scene *s = w->scene;
    unsigned index = op_bx(s->proto->code[at]);
    const struct proto *inner = s->proto->protos[index];
    struct fact *upvalues = arena_alloc_zeroed(w->flow->arena, (inner->upvalue_count + 1) * sizeof *upvalues);
    for (unsigned u = 0; u < inner->upvalue_count; u++)
        upvalues[u] = captured(s, at, &inner->upvalues[u], w->registers);
    s->inside[index] = upvalues;
}

/* From a place where branches lead, to the next one, or to where it ends. */
static void walk(struct walk *w, unsigned at) {
    struct scene *s = w->scene;
    const struct proto *p = s->proto;
    memcpy(w->registers, s->states[at], register_count(p) * sizeof *w->registers);
    for (;;) {
        uint32_t i = p->code[at];
        bool falls;
        if (!w->due) {
            if (op_of(i) == OP_CLOSURE) capture(w, at);
            w->flow->see(w->flow, s, at, w->registers);
        }
        int target = op_target(p, at, &falls);
        enum truth next = goes_on(s, i, w->registers);
        if (op_of(i) != OP_TESTSET) step(w->flow, s, at, w->registers);
        if (target >= 0 && next != TRUTH_TRUE) arrive(w, (unsigned)target);
        if (op_of(i) == OP_TESTSET) w->registers[op_a(i)] = w->registers[op_b(i)]; /* only on the way to the jump */
        if (!falls || next == TRUTH_FALSE || ++at >= p->code_count) return;
        if (!s->branches[at]) continue;
        arrive(w, at);
        return;
    }
}

/* ---- the whole */

static unsigned mark_branches(struct flow *f, struct scene *s) {
    const struct proto *p = s->proto;
    unsigned count = 1;
    s->branches = arena_alloc_zeroed(f->arena, p->code_count + 4);
    s->branches[0] = true;
    for (unsigned at = 0; at < p->code_count; at++) {
        bool falls;
        int target = op_target(p, at, &falls);
        if (target < 0 || (unsigned)target >= p->code_count || s->branches[target]) continue;
        s->branches[target] = true;
        count++;
    }
    return count;
}

static void begin(struct walk *w) {
    const struct proto *p = w->scene->proto;
    for (unsigned r = 0; r < register_count(p); r++) w->registers[r] = fact_any();
    for (unsigned r = 0; r < p->parameters && r < SCENE_ARGUMENTS; r++) w->registers[r] = w->scene->arguments[r];
    arrive(w, 0);
}

bool flow_run(struct flow *f, struct scene *s) {
    const struct proto *p = s->proto;
    unsigned branches = mark_branches(f, s);
    if (p->code_count == 0 || (uint64_t)branches * register_count(p) > FACTS_MOST) return false;
    s->states = arena_alloc_zeroed(f->arena, (p->code_count + 4) * sizeof(struct fact *));
    s->inside = arena_alloc_zeroed(f->arena, (p->proto_count + 1) * sizeof(struct fact *));
    struct walk w = { .flow = f, .scene = s, .due = arena_alloc_zeroed(f->arena, p->code_count + 4) };
    begin(&w);
    for (bool any = true; any;) {
        any = false;
        for (unsigned at = 0; at < p->code_count; at++) {
            if (!w.due[at]) continue;
            w.due[at] = false;
            any = true;
            walk(&w, at);
        }
    }
    return true;
}

void flow_visit(struct flow *f, struct scene *s) {
    struct walk w = { .flow = f, .scene = s };
    for (unsigned at = 0; at < s->proto->code_count; at++)
        if (s->states[at]) walk(&w, at);
}
