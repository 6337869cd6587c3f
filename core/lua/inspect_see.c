/* Instructions: what each of them does with facts that are known. */
#include "lua/inspect_inside.h"

enum { DEPTH_MOST = 8 };

const char TENTATIVELY[] = "pcall", LATER[] = "gate.spawn";

static struct inspection *of_flow(struct flow *f) { return container_of(f, struct inspection, flow); }

void inspect_needed(struct inspection *in, int line, struct fact f, const char *consequence) {
    if (f.kind == FACT_MISSING) inspect_tell_missing(in, line, visit_is_sure(in->now), f.missing, consequence);
}

void inspect_used(struct inspection *in, int line, struct fact f) {
    if (f.kind == FACT_MISSING) inspect_tell_missing(in, line, false, f.missing, "and its value is used: it is nil");
    if (f.kind == FACT_TABLE) f.table->opaque = true;
}

/* ---- fields and globals */

static void see_field(struct inspection *in, int line, struct fact base, struct fact key) {
    inspect_needed(in, line, base, "and a field of it is used");
    if (base.kind != FACT_OBJECT || key.kind != FACT_STRING) return;
    if (names_object_has(&in->names, base.object, key.string)) return;
    const char *near = names_like_field(&in->names, base.object, key.string);
    inspect_tell(in, line, visit_is_sure(in->now), "%s has no field '%.*s'%s%s%s", base.object->name, FMT(key.string),
                 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

static void keep_field(struct made_table *t, struct slice name, struct fact value) {
    if (t->field_count == TABLE_ITEMS) {
        t->opaque = true;
        return;
    }
    t->fields[t->field_count] = name;
    t->values[t->field_count++] = value;
}

static void see_assigned(struct inspection *in, int line, struct fact base, struct fact key, struct fact value) {
    struct slice name = key.kind == FACT_STRING ? key.string : SLICE("?");
    see_field(in, line, base, key);
    if (base.kind == FACT_TABLE && key.kind == FACT_STRING) keep_field(base.table, name, value);
    else inspect_used(in, line, value);
    if (base.kind == FACT_TABLE && key.kind != FACT_STRING) base.table->opaque = true;
    if (base.kind == FACT_OBJECT && names_object_keeps(base.object, name))
        inspect_tell(in, line, visit_is_sure(in->now), "%s.%.*s is read-only", base.object->name, FMT(name));
    if (base.kind == FACT_LIVE && base.live->front)
        inspect_tell(in, line, visit_is_sure(in->now), "cannot set '%s.%.*s': it is read-only", base.live->path,
                     FMT(name));
}

/* While the file is loaded it may set globals; what has not done so by now, and can still run, will fail. */
static void see_global_set(struct inspection *in, int line, struct slice name) {
    const struct visit *v = in->now;
    if (v->late)
        inspect_tell(
            in, line, visit_is_sure(v) && v->depth == 0, /* what it calls may have run before, and know it */
            "global '%.*s' is set when the file has been loaded: globals are read-only then (use a local, req.ctx or "
            "gate.shared)",
            FMT(name));
    else if (v->scene.outer && !names_is_set(&in->names, name))
        inspect_tell(in, line, false,
                     "global '%.*s' is set in a function that did not run while the file was loaded (a local?)",
                     FMT(name));
}

/* ---- calls */

static const char *const waiting[] = { "gate.all",
                                       "gate.crypto.password_hash",
                                       "gate.crypto.password_verify",
                                       "gate.crypto.pbkdf2",
                                       "gate.crypto.scrypt",
                                       "gate.dns.resolve",
                                       "gate.fetch",
                                       "gate.lock",
                                       "gate.sleep",
                                       "gate.socket.connect",
                                       NULL };

static const char *const blocking[] = { "io.lines",  "io.open",   "io.popen",   "io.read", "io.write",  "io.input",
                                        "io.output", "os.remove", "os.execute", "os.exit", "os.rename", NULL };

static void see_named_backend(struct inspection *in, int line, struct fact name) {
    if (name.kind != FACT_STRING || memmem(name.string.p, name.string.n, "://", 3)) return;
    for (unsigned i = 0; i < in->site_count; i++)
        if (inspect_has_backend(in, i, name.string)) return;
    inspect_tell_backend(in, line, "", name.string);
}

static void see_load(struct inspection *in, int line, const struct fact *arguments, unsigned count) {
    if (count >= 3 && arguments[2].kind == FACT_STRING && slice_equal(arguments[2].string, SLICE("b")))
        inspect_tell(in, line, false, "load: bytecode cannot be checked; text is what is loaded");
}

static void see_live_call(struct inspection *in, int line, const char *path, const struct fact *arguments,
                          unsigned count) {
    const struct visit *v = in->now;
    if (v->callback_of && name_is_one_of(path, waiting))
        inspect_tell(in, line, visit_is_sure(v), "%s waits: cannot wait inside %s", path, v->callback_of);
    if (v->scene.outer && name_is_one_of(path, blocking))
        inspect_tell(in, line, false, "%s blocks its worker, and all who are served by it", path);
    if (strcmp(path, "gate.fetch") == 0 || strcmp(path, "gate.backend") == 0)
        if (count) see_named_backend(in, line, arguments[0]);
    if (strcmp(path, "load") == 0) see_load(in, line, arguments, count);
}

/* What a library function does with a function that it is given. NULL: nothing that matters here. */
static const char *way_of(const char *path) {
    static const char *const tentative[] = { "pcall", "xpcall", NULL };
    static const char *const later[] = { "gate.every", "gate.spawn", NULL };
    static const char *const callbacks[] = { "table.sort", "string.gsub", "load", NULL };
    if (name_is_one_of(path, tentative)) return TENTATIVELY;
    if (name_is_one_of(path, later)) return LATER;
    return name_is_one_of(path, callbacks) ? path : NULL;
}

static void note_way(struct inspection *in, const char *way, struct fact argument) {
    if (argument.kind != FACT_FUNCTION) return;
    struct scene *s = argument.function.made_in;
    struct visit *v = visit_of(s);
    for (unsigned i = 0; i < s->proto->proto_count; i++)
        if (s->proto->protos[i] == argument.function.proto) v->ways[i] = way;
}

static const struct fact *upvalues_of(const struct scene *outer, const struct proto *p) {
    for (unsigned i = 0; i < outer->proto->proto_count; i++)
        if (outer->proto->protos[i] == p) return outer->inside[i];
    return NULL;
}

/* A call of a function of this file whose arguments inspect_tell more than that it is called. */
static void see_known_call(struct inspection *in, struct fact function, const struct fact *arguments, unsigned count) {
    const struct visit *v = in->now;
    const struct proto *p = function.function.proto;
    const struct fact *upvalues = upvalues_of(function.function.made_in, p);
    struct fact known[SCENE_ARGUMENTS];
    arguments_any(known);
    bool tells = v->callback_of || v->late;
    for (unsigned i = 0; i < count && i < p->parameters && i < SCENE_ARGUMENTS; i++) {
        if (arguments[i].kind != FACT_OBJECT && arguments[i].kind != FACT_FUNCTION) continue;
        known[i] = arguments[i];
        tells = true;
    }
    if (!tells || !upvalues || v->depth == DEPTH_MOST) return;
    struct visit like = {
        .callback_of = v->callback_of, .tentative = v->tentative, .late = v->late, .depth = v->depth + 1
    };
    inspect_add_visit(in, p, function.function.made_in, upvalues, known, &like);
}

static void see_call(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    struct fact function = registers[op_a(i)];
    const struct fact *arguments = &registers[op_a(i) + 1];
    unsigned count = op_b(i) ? op_b(i) - 1 : 0;
    inspect_needed(in, line, function, "and it is called");
    for (unsigned j = 0; j < count; j++) inspect_used(in, line, arguments[j]);
    if (function.kind == FACT_FUNCTION) see_known_call(in, function, arguments, count);
    if (function.kind != FACT_LIVE) return;
    see_live_call(in, line, function.live->path, arguments, count);
    const char *way = way_of(function.live->path);
    for (unsigned j = 0; way && j < count; j++) note_way(in, way, arguments[j]);
}

/* ---- instructions */

static void see_list(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    struct fact base = registers[op_a(i)];
    for (unsigned j = 1; j <= op_b(i); j++) inspect_used(in, s->proto->lines[at], registers[op_a(i) + j]);
    if (base.kind != FACT_TABLE) return;
    struct made_table *t = base.table;
    t->item_count = 0;
    if (op_b(i) == 0 || op_b(i) > TABLE_ITEMS || op_c(i)) t->opaque = true;
    else
        for (; t->item_count < op_b(i); t->item_count++)
            t->items[t->item_count] = registers[op_a(i) + t->item_count + 1];
}

/* What a new function holds on to may be changed by it. */
static void see_closure(const struct scene *s, unsigned at, const struct fact *registers) {
    const struct proto *inner = s->proto->protos[op_bx(s->proto->code[at])];
    for (unsigned u = 0; u < inner->upvalue_count; u++) {
        struct fact f = inner->upvalues[u].in_register ? registers[inner->upvalues[u].index] : fact_any();
        if (f.kind == FACT_TABLE) f.table->opaque = true;
    }
}

static void see_operands(struct inspection *in, int line, uint32_t i, const struct fact *registers) {
    enum opcode op = op_of(i);
    if (op == OP_CONCAT) {
        for (unsigned j = 0; j < op_b(i); j++)
            inspect_needed(in, line, registers[op_a(i) + j], "and it is a part of a text");
        return;
    }
    inspect_needed(in, line, registers[op_b(i)], "and it is calculated with");
    if (op >= OP_ADD && op <= OP_SHR) inspect_needed(in, line, registers[op_c(i)], "and it is calculated with");
}

static void see_stored(struct inspection *in, const struct scene *s, unsigned at, const struct fact *registers) {
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    struct fact base = flow_base(s, at, registers), key = flow_key(s, at, registers);
    struct fact value = op_k(i) ? fact_of_constant(&s->proto->constants[op_c(i)]) : registers[op_c(i)];
    if (base.kind != FACT_ENVIRONMENT) {
        see_assigned(in, line, base, key, value);
        return;
    }
    inspect_used(in, line, value);
    if (key.kind == FACT_STRING) see_global_set(in, line, key.string);
}

/* What is read out of a table may be changed behind its back. */
static void see_read(struct inspection *in, int line, struct fact base, struct fact key) {
    see_field(in, line, base, key);
    if (base.kind == FACT_TABLE) base.table->opaque = true;
}

void inspect_see(struct flow *f, struct scene *s, unsigned at, struct fact *registers) {
    struct inspection *in = of_flow(f);
    uint32_t i = s->proto->code[at];
    int line = s->proto->lines[at];
    enum opcode op = op_of(i);
    switch (op) {
    case OP_GETTABUP:
    case OP_GETFIELD:
    case OP_SELF:
    case OP_GETTABLE:
    case OP_GETI: see_read(in, line, flow_base(s, at, registers), flow_key(s, at, registers)); break;
    case OP_SETTABUP:
    case OP_SETFIELD:
    case OP_SETTABLE:
    case OP_SETI: see_stored(in, s, at, registers); break;
    case OP_SETUPVAL: inspect_used(in, line, registers[op_a(i)]); break;
    case OP_SETLIST: see_list(in, s, at, registers); break;
    case OP_CLOSURE: see_closure(s, at, registers); break;
    case OP_CALL:
    case OP_TAILCALL: see_call(in, s, at, registers); break;
    case OP_RETURN:
    case OP_RETURN1: inspect_note_return(in, s, at, registers); break;
    case OP_UNM:
    case OP_BNOT:
    case OP_LEN:
    case OP_CONCAT: see_operands(in, line, i, registers); break;
    default:
        if (op >= OP_ADDI && op <= OP_SHR) see_operands(in, line, i, registers);
    }
}
