/* A compiled Lua function taken apart, for who wants to know what a script says without running it (flow.h). What
 * lua_dump writes is no interface that Lua promises, but it is fixed for a minor version, and says in its head which
 * one it is: what does not look like 5.4's is refused, and then nothing is known.
 *
 * Everything lies in the arena, strings in the dump: both must live as long as the prototype. */
#pragma once

#include "base/arena.h"

enum constant_kind { CONSTANT_NIL, CONSTANT_FALSE, CONSTANT_TRUE, CONSTANT_INTEGER, CONSTANT_NUMBER, CONSTANT_STRING };

struct constant {
    enum constant_kind kind;
    union {
        int64_t integer;
        double number;
        struct slice string;
    };
};

/* A variable of an outer function: of a register of the one around it, or itself an upvalue there. */
struct upvalue {
    struct slice name;
    bool in_register;
    uint8_t index;
    bool written; /* by this function or one within it */
};

/* A local variable: the register is the number of locals that live when it begins. Instructions [from, to). */
struct local {
    struct slice name;
    unsigned from, to;
};

struct proto {
    const char *file; /* as the chunk was called, without "@" */
    struct slice
        bytes; /* of the dump, behind the file's name: the same for the same function, dumped by itself or not */
    int line, last_line;
    uint8_t parameters, registers;
    uint32_t *code;
    int *lines; /* parallel to code */
    unsigned code_count;
    struct constant *constants;
    unsigned constant_count;
    struct upvalue *upvalues;
    unsigned upvalue_count;
    struct local *locals;
    unsigned local_count;
    struct proto **protos;
    unsigned proto_count;
};

/* NULL: it is not in the format that is known here, or has no debug information. */
struct proto *bytecode_read(struct arena *, struct slice dump);

/* ---- Instructions. Names and order are Lua's. */

enum opcode {
    OP_MOVE,
    OP_LOADI,
    OP_LOADF,
    OP_LOADK,
    OP_LOADKX,
    OP_LOADFALSE,
    OP_LFALSESKIP,
    OP_LOADTRUE,
    OP_LOADNIL,
    OP_GETUPVAL,
    OP_SETUPVAL,
    OP_GETTABUP,
    OP_GETTABLE,
    OP_GETI,
    OP_GETFIELD,
    OP_SETTABUP,
    OP_SETTABLE,
    OP_SETI,
    OP_SETFIELD,
    OP_NEWTABLE,
    OP_SELF,
    OP_ADDI,
    OP_ADD = 34, /* from here on C is a register, too */
    OP_SHR = 45, /* up to here: arithmetic, which writes A */
    OP_MMBIN,
    OP_MMBINI,
    OP_MMBINK,
    OP_UNM,
    OP_BNOT,
    OP_NOT,
    OP_LEN,
    OP_CONCAT,
    OP_CLOSE,
    OP_TBC,
    OP_JMP,
    OP_EQ,
    OP_LT,
    OP_LE,
    OP_EQK,
    OP_EQI,
    OP_LTI,
    OP_LEI,
    OP_GTI,
    OP_GEI,
    OP_TEST,
    OP_TESTSET,
    OP_CALL,
    OP_TAILCALL,
    OP_RETURN,
    OP_RETURN0,
    OP_RETURN1,
    OP_FORLOOP,
    OP_FORPREP,
    OP_TFORPREP,
    OP_TFORCALL,
    OP_TFORLOOP,
    OP_SETLIST,
    OP_CLOSURE,
    OP_VARARG,
    OP_VARARGPREP,
    OP_EXTRAARG
};

static inline enum opcode op_of(uint32_t i) { return (enum opcode)(i & 0x7f); }
static inline unsigned op_a(uint32_t i) { return i >> 7 & 0xff; }
static inline bool op_k(uint32_t i) { return i >> 15 & 1; }
static inline unsigned op_b(uint32_t i) { return i >> 16 & 0xff; }
static inline unsigned op_c(uint32_t i) { return i >> 24 & 0xff; }
static inline unsigned op_bx(uint32_t i) { return i >> 15; }
static inline int op_sbx(uint32_t i) { return (int)(i >> 15) - 0xffff; }
static inline int op_sj(uint32_t i) { return (int)(i >> 7) - 0xffffff; }

enum { REGISTERS = 256 };
/* The registers that an instruction may write: [*first, *end). */
void op_writes(uint32_t instruction, unsigned *first, unsigned *end);
/* Where it may go on from `at`, beside at + 1; -1: nowhere else. `falls`: whether at + 1 follows at all. */
int op_target(const struct proto *, unsigned at, bool *falls);

/* The local that lives in a register at an instruction; NULL: a temporary. */
const struct local *proto_local(const struct proto *, unsigned at, unsigned reg);
