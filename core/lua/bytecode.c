/* Reading what lua_dump writes (lundump.c of Lua 5.4): a head that says version, format and sizes, then the functions,
 * each with its instructions, constants, upvalues, inner functions and debug information. Numbers are in seven bits a
 * byte, the high ones first, and the last byte has its top bit set. */
#include "lua/bytecode.h"

struct reader {
    struct arena *arena;
    struct slice rest;
    bool failed;
};

static const char *take(struct reader *r, size_t n) {
    if (n > r->rest.n) r->failed = true;
    if (r->failed) return NULL;
    const char *p = r->rest.p;
    r->rest = slice_skip(r->rest, n);
    return p;
}

static uint8_t take_byte(struct reader *r) {
    const char *p = take(r, 1);
    return p ? (uint8_t)*p : 0;
}

static size_t take_size(struct reader *r) {
    size_t n = 0;
    for (int i = 0; i < 10; i++) {
        uint8_t byte = take_byte(r);
        n = n << 7 | (byte & 0x7f);
        if (byte & 0x80 || r->failed) return n;
    }
    r->failed = true;
    return 0;
}

/* A count of things that take at least a byte each, so that a wrong one cannot ask for memory. */
static unsigned take_count(struct reader *r) {
    size_t n = take_size(r);
    if (n > r->rest.n) r->failed = true;
    return r->failed ? 0 : (unsigned)n;
}

static struct slice take_string(struct reader *r) {
    size_t n = take_size(r);
    if (n == 0) return slice_make(NULL, 0);
    const char *p = take(r, n - 1);
    return slice_make(p, p ? n - 1 : 0);
}

static bool take_exactly(struct reader *r, struct slice expected) {
    const char *p = take(r, expected.n);
    return p && memcmp(p, expected.p, expected.n) == 0;
}

static bool read_head(struct reader *r) {
    const int64_t integer = 0x5678;
    const double number = 370.5;
    return take_exactly(r, SLICE("\x1bLua\x54\x00\x19\x93\r\n\x1a\n")) &&
           take_exactly(r, slice_make((char[]){ sizeof(uint32_t), sizeof integer, sizeof number }, 3)) &&
           take_exactly(r, slice_make((const char *)&integer, sizeof integer)) &&
           take_exactly(r, slice_make((const char *)&number, sizeof number));
}

/* ---- the parts of a function */

static void read_code(struct reader *r, struct proto *p) {
    p->code_count = take_count(r);
    const char *code = take(r, p->code_count * sizeof *p->code);
    p->code = arena_alloc(r->arena, (p->code_count + 1) * sizeof *p->code);
    if (code) memcpy(p->code, code, p->code_count * sizeof *p->code);
}

static struct constant read_constant(struct reader *r) {
    enum { NIL = 0x00, FALSE_ = 0x01, TRUE_ = 0x11, INTEGER = 0x03, NUMBER = 0x13, SHORT = 0x04, LONG = 0x14 };
    struct constant c = { .kind = CONSTANT_NIL };
    const char *bytes;
    switch (take_byte(r)) {
    case NIL: break;
    case FALSE_: c.kind = CONSTANT_FALSE; break;
    case TRUE_: c.kind = CONSTANT_TRUE; break;
    case INTEGER:
        c.kind = CONSTANT_INTEGER;
        if ((bytes = take(r, sizeof c.integer))) memcpy(&c.integer, bytes, sizeof c.integer);
        break;
    case NUMBER:
        c.kind = CONSTANT_NUMBER;
        if ((bytes = take(r, sizeof c.number))) memcpy(&c.number, bytes, sizeof c.number);
        break;
    case SHORT:
    case LONG:
        c.kind = CONSTANT_STRING;
        c.string = take_string(r);
        break;
    default: r->failed = true;
    }
    return c;
}

static void read_constants(struct reader *r, struct proto *p) {
    p->constant_count = take_count(r);
    p->constants = arena_alloc(r->arena, (p->constant_count + 1) * sizeof *p->constants);
    for (unsigned i = 0; i < p->constant_count; i++) p->constants[i] = read_constant(r);
}

static void read_upvalues(struct reader *r, struct proto *p) {
    p->upvalue_count = take_count(r);
    p->upvalues = arena_alloc_zeroed(r->arena, (p->upvalue_count + 1) * sizeof *p->upvalues);
    for (unsigned i = 0; i < p->upvalue_count; i++) {
        p->upvalues[i].in_register = take_byte(r);
        p->upvalues[i].index = take_byte(r);
        take_byte(r); /* the kind: constant, to be closed */
    }
}

/* Lines are differences; one that does not fit a byte is marked, and stands in a list of its own. */
static void read_lines(struct reader *r, struct proto *p) {
    enum { MARK = -0x80 };
    unsigned count = take_count(r), absolute = 0;
    const char *steps = take(r, count);
    p->lines = arena_alloc_zeroed(r->arena, (p->code_count + 1) * sizeof *p->lines);
    if (count != p->code_count) r->failed = true; /* stripped */
    absolute = take_count(r);
    size_t next_at = absolute ? take_size(r) : SIZE_MAX, next_line = absolute ? take_size(r) : 0;
    int line = p->line;
    for (unsigned at = 0; at < count && !r->failed; at++) {
        if ((signed char)steps[at] != MARK) line += (signed char)steps[at];
        else if (at == next_at) {
            line = (int)next_line;
            absolute--;
            next_at = absolute ? take_size(r) : SIZE_MAX;
            next_line = absolute ? take_size(r) : 0;
        } else r->failed = true;
        p->lines[at] = line;
    }
}

static void read_locals(struct reader *r, struct proto *p) {
    p->local_count = take_count(r);
    p->locals = arena_alloc_zeroed(r->arena, (p->local_count + 1) * sizeof *p->locals);
    for (unsigned i = 0; i < p->local_count; i++) {
        p->locals[i].name = take_string(r);
        p->locals[i].from = (unsigned)take_size(r);
        p->locals[i].to = (unsigned)take_size(r);
    }
}

static void read_debug(struct reader *r, struct proto *p) {
    read_lines(r, p);
    read_locals(r, p);
    unsigned names = take_count(r);
    for (unsigned i = 0; i < names; i++) {
        struct slice name = take_string(r);
        if (i < p->upvalue_count) p->upvalues[i].name = name;
    }
}

/* By itself, or by one within it; those are read before. */
static void note_written(struct proto *p) {
    for (unsigned i = 0; i < p->code_count; i++)
        if (op_of(p->code[i]) == OP_SETUPVAL && op_b(p->code[i]) < p->upvalue_count)
            p->upvalues[op_b(p->code[i])].written = true;
    for (unsigned i = 0; i < p->proto_count; i++)
        for (unsigned j = 0; j < p->protos[i]->upvalue_count; j++) {
            const struct upvalue *inner = &p->protos[i]->upvalues[j];
            if (inner->written && !inner->in_register && inner->index < p->upvalue_count)
                p->upvalues[inner->index].written = true;
        }
}

static struct proto *read_function(struct reader *r, const char *file) {
    struct proto *p = arena_alloc_zeroed(r->arena, sizeof *p);
    struct slice source = take_string(r); /* none: that of the function around it */
    if (source.n) source = slice_skip(source, 1);
    p->file = file;
    if (source.n) p->file = arena_printf(r->arena, "%.*s%c", FMT(source), 0).p;
    const char *begin = r->rest.p;
    p->line = (int)take_size(r);
    p->last_line = (int)take_size(r);
    p->parameters = take_byte(r);
    take_byte(r); /* vararg */
    p->registers = take_byte(r);
    read_code(r, p);
    read_constants(r, p);
    read_upvalues(r, p);
    p->proto_count = take_count(r);
    p->protos = arena_alloc_zeroed(r->arena, (p->proto_count + 1) * sizeof(struct proto *));
    for (unsigned i = 0; i < p->proto_count && !r->failed; i++) p->protos[i] = read_function(r, p->file);
    read_debug(r, p);
    p->bytes = slice_make(begin, (size_t)(r->rest.p - begin));
    if (!r->failed) note_written(p);
    return p;
}

struct proto *bytecode_read(struct arena *arena, struct slice dump) {
    struct reader r = { .arena = arena, .rest = dump };
    if (!read_head(&r)) return NULL;
    take_byte(&r); /* how many upvalues the main function has */
    struct proto *p = read_function(&r, "?");
    return r.failed || r.rest.n ? NULL : p;
}

/* ---- instructions */

void op_writes(uint32_t i, unsigned *first, unsigned *end) {
    enum opcode op = op_of(i);
    unsigned a = op_a(i);
    *first = *end = a;
    if (op <= OP_LOADTRUE || (op >= OP_GETUPVAL && op <= OP_SHR) || (op >= OP_UNM && op <= OP_CONCAT)) *end = a + 1;
    switch (op) {
    case OP_SETUPVAL:
    case OP_SETTABUP:
    case OP_SETTABLE:
    case OP_SETI:
    case OP_SETFIELD: *end = a; break;
    case OP_LOADNIL: *end = a + op_b(i) + 1; break;
    case OP_SELF: *end = a + 2; break;
    case OP_TESTSET:
    case OP_CLOSURE: *end = a + 1; break;
    case OP_CALL:
    case OP_TAILCALL:
    case OP_VARARG: *end = REGISTERS; break; /* what lies above is temporary */
    case OP_FORLOOP:
    case OP_FORPREP: *end = a + 4; break;
    case OP_TFORCALL: *first = a + 4, *end = REGISTERS; break;
    case OP_TFORLOOP: *first = a + 2, *end = a + 3; break;
    default: break;
    }
    if (*end > REGISTERS) *end = REGISTERS;
}

int op_target(const struct proto *p, unsigned at, bool *falls) {
    uint32_t i = p->code[at];
    *falls = true;
    switch (op_of(i)) {
    case OP_LFALSESKIP: *falls = false; return (int)at + 2;
    case OP_JMP: *falls = false; return (int)at + 1 + op_sj(i);
    case OP_EQ:
    case OP_LT:
    case OP_LE:
    case OP_EQK:
    case OP_EQI:
    case OP_LTI:
    case OP_LEI:
    case OP_GTI:
    case OP_GEI:
    case OP_TEST:
    case OP_TESTSET: return (int)at + 2;
    case OP_RETURN:
    case OP_RETURN0:
    case OP_RETURN1: *falls = false; return -1;
    case OP_FORLOOP:
    case OP_TFORLOOP: return (int)at + 1 - (int)op_bx(i);
    case OP_FORPREP: return (int)at + 2 + (int)op_bx(i);
    case OP_TFORPREP: *falls = false; return (int)at + 1 + (int)op_bx(i);
    default: return -1;
    }
}

const struct local *proto_local(const struct proto *p, unsigned at, unsigned reg) {
    for (unsigned i = 0; i < p->local_count && p->locals[i].from <= at; i++)
        if (at < p->locals[i].to && reg-- == 0) return &p->locals[i];
    return NULL;
}
