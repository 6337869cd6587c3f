/* Conditions, ranges, and structured fields. */
#include "module_rules.h"

#include "http/conditions.h"
#include "http/ranges.h"
#include "http/structured.h"

/* ---- entity tags and conditions */

static bool check_etag(lua_State *L, int index, struct etag *etag) {
    return etag_parse(module_check_slice(L, index), etag);
}

/* parts.etag(text) -> opaque, weak; nil: it is none */
static int parts_etag(lua_State *L) {
    struct etag etag;
    if (!check_etag(L, 1, &etag)) return 0;
    module_push_slice(L, etag.opaque);
    lua_pushboolean(L, etag.weak);
    return 2;
}

/* parts.etags_match(a, b) -> strongly, weakly */
static int parts_etags_match(lua_State *L) {
    struct etag a, b;
    luaL_argcheck(L, check_etag(L, 1, &a) && check_etag(L, 2, &b), 1, "no entity tag");
    lua_pushboolean(L, etag_matches_strong(&a, &b));
    lua_pushboolean(L, etag_matches_weak(&a, &b));
    return 2;
}

/* parts.validators(response) -> any, Last-Modified is strong */
static int parts_validators(lua_State *L) {
    struct arena arena;
    struct headers response;
    arena_init(&arena);
    rules_read_fields(L, 1, &response, &arena);
    lua_pushboolean(L, validator_present(&response));
    lua_pushboolean(L, last_modified_is_strong(&response));
    arena_fini(&arena);
    return 2;
}

/* parts.condition({ method =, request =, status =, response =, received = })
 *     -> by cache, by origin, for origin, range allowed */
static int parts_condition(lua_State *L) {
    static const char *const results[] = { "go_on", "not_modified", "failed" };
    struct arena arena;
    struct slice method = rules_slice(L, "method");
    struct request request = { .method = method.p ? method_of(method) : METHOD_GET };
    struct headers response;
    int status = (int)rules_integer(L, "status", 200);
    arena_init(&arena);
    rules_field_fields(L, "request", &request.headers, &arena);
    rules_field_fields(L, "response", &response, &arena);
    lua_pushstring(L, results[condition_of_cache(&request, status, &response, rules_integer(L, "received", 0))]);
    lua_pushstring(L, results[condition_of_origin(&request, status, &response)]);
    lua_pushboolean(L, condition_is_for_origin(&request.headers));
    lua_pushboolean(L, condition_allows_range(&request.headers, &response));
    arena_fini(&arena);
    return 4;
}

/* ---- ranges */

static void push_range(lua_State *L, struct byte_range r) {
    lua_createtable(L, 2, 0);
    lua_pushinteger(L, (lua_Integer)r.first);
    lua_seti(L, -2, 1);
    lua_pushinteger(L, (lua_Integer)r.last);
    lua_seti(L, -2, 2);
}

static struct byte_range check_range(lua_State *L, int index) {
    struct byte_range r;
    lua_geti(L, index, 1);
    lua_geti(L, index, 2);
    r.first = (uint64_t)luaL_checkinteger(L, -2);
    r.last = (uint64_t)luaL_checkinteger(L, -1);
    lua_pop(L, 2);
    return r;
}

/* parts.ranges(request, length) -> "none" | "some" | "unsatisfiable", { { first, last }… } */
static int parts_ranges(lua_State *L) {
    static const char *const results[] = { "none", "some", "unsatisfiable" };
    struct arena arena;
    struct headers request;
    struct byte_ranges ranges;
    arena_init(&arena);
    rules_read_fields(L, 1, &request, &arena);
    lua_pushstring(L, results[ranges_of(&ranges, &request, (uint64_t)luaL_checkinteger(L, 2))]);
    lua_newtable(L);
    for (uint32_t i = 0; i < ranges.count; i++) {
        push_range(L, ranges.list[i]);
        lua_seti(L, -2, i + 1);
    }
    arena_fini(&arena);
    return 2;
}

/* parts.form(request) -> "none" | "from" | "suffix" | "many", first, last */
static int parts_form(lua_State *L) {
    static const char *const forms[] = { "none", "from", "suffix", "many" };
    struct arena arena;
    struct headers request;
    struct byte_range range = { 0, 0 };
    arena_init(&arena);
    rules_read_fields(L, 1, &request, &arena);
    lua_pushstring(L, forms[ranges_form_of(&request, &range)]);
    lua_pushinteger(L, (lua_Integer)range.first);
    lua_pushinteger(L, (lua_Integer)range.last);
    arena_fini(&arena);
    return 3;
}

/* A length, nil: not known. */
static uint64_t opt_length(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? LENGTH_UNKNOWN : (uint64_t)luaL_checkinteger(L, index);
}

/* parts.content_range({ first, last }, length), parts.content_range(nil, length): not satisfied */
static int parts_content_range(lua_State *L) {
    char text[CONTENT_RANGE_BYTES];
    size_t n = lua_isnil(L, 1) ? content_range_write_unsatisfied(text, opt_length(L, 2))
                               : content_range_write(text, check_range(L, 1), opt_length(L, 2));
    lua_pushlstring(L, text, n);
    return 1;
}

/* parts.read_content_range(response) -> { first, last }, length or nil; nil: none */
static int parts_read_content_range(lua_State *L) {
    struct arena arena;
    struct headers response;
    struct byte_range range;
    uint64_t length;
    arena_init(&arena);
    rules_read_fields(L, 1, &response, &arena);
    bool is = content_range_of(&response, &range, &length);
    arena_fini(&arena);
    if (!is) return 0;
    push_range(L, range);
    if (length == LENGTH_UNKNOWN) return 1;
    lua_pushinteger(L, (lua_Integer)length);
    return 2;
}

/* parts.multipart({ boundary =, type =, length = }, { { first, last }… }, body) -> type, message, announced size */
static int parts_multipart(lua_State *L) {
    struct multipart m = {
        .boundary = rules_slice(L, "boundary"),
        .content_type = rules_slice(L, "type"),
        .length = (uint64_t)rules_integer(L, "length", 0),
    };
    struct slice body = module_check_slice(L, 3);
    struct byte_ranges ranges = { 0 };
    struct buffer type = { 0 }, out = { 0 };
    for (lua_Integer i = 1; i <= luaL_len(L, 2); i++) {
        lua_geti(L, 2, i);
        struct byte_range r = check_range(L, lua_gettop(L));
        lua_pop(L, 1);
        ranges.list[ranges.count++] = r;
        multipart_part_write(&out, &m, r);
        buffer_append(&out, body.p + r.first, r.last - r.first + 1);
    }
    multipart_end_write(&out, &m);
    multipart_type_write(&type, &m);
    module_push_buffer(L, &type);
    module_push_buffer(L, &out);
    lua_pushinteger(L, (lua_Integer)multipart_size(&m, &ranges));
    buffer_fini(&type);
    buffer_fini(&out);
    return 3;
}

/* parts.extents({ { first, last }… }, wanted, length) -> the extents, all added, missing or nil, complete */
static int parts_extents(lua_State *L) {
    struct extents e = { 0 };
    struct byte_range missing;
    bool added = true;
    for (lua_Integer i = 1; i <= luaL_len(L, 1); i++) {
        lua_geti(L, 1, i);
        added = extents_add(&e, check_range(L, lua_gettop(L))) && added;
        lua_pop(L, 1);
    }
    struct byte_range wanted = check_range(L, 2);
    lua_newtable(L);
    for (uint32_t i = 0; i < e.count; i++) {
        push_range(L, e.list[i]);
        lua_seti(L, -2, i + 1);
    }
    lua_pushboolean(L, added);
    if (extents_missing(&e, wanted, &missing)) push_range(L, missing);
    else lua_pushnil(L);
    lua_pushboolean(L, extents_complete(&e, (uint64_t)luaL_checkinteger(L, 3)));
    return 4;
}

static int parts_combines(lua_State *L) {
    struct arena arena;
    struct headers stored, response;
    arena_init(&arena);
    rules_read_fields(L, 1, &stored, &arena);
    rules_read_fields(L, 2, &response, &arena);
    lua_pushboolean(L, partial_combines(&stored, &response));
    arena_fini(&arena);
    return 1;
}

/* ---- structured fields */

static const char *const type_names[] = { "integer", "decimal", "string", "token", "bytes", "boolean", "inner" };

static void push_value(lua_State *L, const struct sf_value *value);

static void push_inner(lua_State *L, struct slice rest) {
    struct sf_value item;
    lua_newtable(L);
    for (lua_Integer i = 1; sf_inner_next(&rest, &item); i++) {
        push_value(L, &item);
        lua_seti(L, -2, i);
    }
}

static void push_bare(lua_State *L, const struct sf_value *value) {
    switch (value->type) {
    case SF_INTEGER:
    case SF_DECIMAL: lua_pushinteger(L, value->number); break;
    case SF_BOOLEAN: lua_pushboolean(L, value->number != 0); break;
    case SF_INNER_LIST: push_inner(L, value->text); break;
    default: module_push_slice(L, value->text);
    }
}

/* { type, value, parameter = { type, value }… } */
static void push_value(lua_State *L, const struct sf_value *value) {
    struct slice rest = value->parameters, key;
    struct sf_value parameter;
    lua_newtable(L);
    lua_pushstring(L, type_names[value->type]);
    lua_seti(L, -2, 1);
    push_bare(L, value);
    lua_seti(L, -2, 2);
    while (sf_parameter_next(&rest, &key, &parameter)) {
        module_push_slice(L, key);
        push_value(L, &parameter);
        lua_settable(L, -3);
    }
}

/* parts.dictionary(text) -> { key = value… }; nil: malformed */
static int parts_dictionary(lua_State *L) {
    struct sf_reader reader;
    struct slice key;
    struct sf_value value;
    sf_begin(&reader, module_check_slice(L, 1));
    lua_newtable(L);
    while (sf_member_next(&reader, &key, &value)) {
        module_push_slice(L, key);
        push_value(L, &value);
        lua_settable(L, -3);
    }
    return !reader.failed;
}

static int parts_list(lua_State *L) {
    struct sf_reader reader;
    struct sf_value value;
    sf_begin(&reader, module_check_slice(L, 1));
    lua_newtable(L);
    for (lua_Integer i = 1; sf_list_next(&reader, &value); i++) {
        push_value(L, &value);
        lua_seti(L, -2, i);
    }
    return !reader.failed;
}

static int parts_item(lua_State *L) {
    struct sf_value value;
    if (!sf_item_read(module_check_slice(L, 1), &value)) return 0;
    push_value(L, &value);
    return 1;
}

/* parts.word(text) -> is a token, as a string or nil */
static int parts_word(lua_State *L) {
    struct slice s = module_check_slice(L, 1);
    luaL_Buffer text;
    lua_pushboolean(L, sf_is_token(s));
    if (!sf_is_string(s)) return 1;
    char *to = luaL_buffinitsize(L, &text, sf_string_size(s));
    luaL_pushresultsize(&text, sf_string_write(to, s));
    return 2;
}

int module_parts_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "etag", parts_etag },
        { "etags_match", parts_etags_match },
        { "validators", parts_validators },
        { "condition", parts_condition },
        { "ranges", parts_ranges },
        { "form", parts_form },
        { "content_range", parts_content_range },
        { "read_content_range", parts_read_content_range },
        { "multipart", parts_multipart },
        { "extents", parts_extents },
        { "combines", parts_combines },
        { "dictionary", parts_dictionary },
        { "list", parts_list },
        { "item", parts_item },
        { "word", parts_word },
        { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
