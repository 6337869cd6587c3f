/* The parsing algorithms of RFC 8941 4.2, one function for each, on a cursor. Nothing is skipped and nothing forgiven:
 * a character out of place fails the whole field.
 *
 * Nothing is decoded either. Who asks for a directive's number or a word needs no unescaped string, so strings stay as
 * they came; parameters and inner lists are walked to see that they are well-formed, and again by who wants them. */
#include "http/structured.h"

#include "http/grammar.h"

enum { INTEGER_DIGITS = 15, DECIMAL_DIGITS = 12, FRACTION_DIGITS = 3 };

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_letter(char c) { return is_lower((char)(c | 0x20)); }
static bool is_key_byte(char c) { return is_lower(c) || byte_is(c, BYTE_DIGIT) || (c && strchr("_-.*", c)); }
static bool is_token_byte(char c) { return byte_is(c, BYTE_TOKEN) || c == ':' || c == '/'; }
static bool is_base64_byte(char c) { return is_letter(c) || byte_is(c, BYTE_DIGIT) || (c && strchr("+/=", c)); }
static bool is_string_byte(char c) { return c >= 0x20 && c < 0x7f; }

/* ---- the cursor */

static bool at_end(const struct sf_reader *r) { return r->at == r->end; }
static bool sees(const struct sf_reader *r, char c) { return !at_end(r) && *r->at == c; }
static struct slice since(const struct sf_reader *r, const char *from) {
    return slice_make(from, (size_t)(r->at - from));
}

static bool take(struct sf_reader *r, char c) {
    if (!sees(r, c)) return false;
    r->at++;
    return true;
}

static struct slice take_while(struct sf_reader *r, bool (*wanted)(char)) {
    const char *from = r->at;
    while (!at_end(r) && wanted(*r->at)) r->at++;
    return since(r, from);
}

static bool is_space(char c) { return c == ' '; }
static bool is_blank(char c) { return c == ' ' || c == '\t'; }
static bool is_digit(char c) { return byte_is(c, BYTE_DIGIT); }

/* ---- bare items (4.2.3.1) */

static bool read_fraction(struct sf_reader *r, struct slice whole, struct sf_value *value) {
    struct slice fraction = take_while(r, is_digit);
    uint64_t thousandths;
    if (whole.n > DECIMAL_DIGITS || fraction.n < 1 || fraction.n > FRACTION_DIGITS) return false;
    if (!slice_to_u64(fraction, &thousandths)) return false;
    for (size_t i = fraction.n; i < FRACTION_DIGITS; i++) thousandths *= 10;
    value->type = SF_DECIMAL;
    value->number = value->number * 1000 + (int64_t)thousandths;
    return true;
}

static bool read_number(struct sf_reader *r, struct sf_value *value) {
    bool negative = take(r, '-');
    struct slice whole = take_while(r, is_digit);
    uint64_t number;
    if (whole.n > INTEGER_DIGITS || !slice_to_u64(whole, &number)) return false;
    value->type = SF_INTEGER;
    value->number = (int64_t)number;
    if (take(r, '.') && !read_fraction(r, whole, value)) return false;
    if (negative) value->number = -value->number;
    return true;
}

static bool read_string(struct sf_reader *r, struct sf_value *value) {
    const char *from = ++r->at;
    value->type = SF_STRING;
    for (; !at_end(r) && *r->at != '"'; r->at++) {
        if (!is_string_byte(*r->at)) return false;
        if (*r->at != '\\') continue;
        r->at++;
        if (!sees(r, '"') && !sees(r, '\\')) return false;
    }
    value->text = since(r, from);
    return take(r, '"');
}

static bool read_token(struct sf_reader *r, struct sf_value *value) {
    value->type = SF_TOKEN;
    value->text = take_while(r, is_token_byte);
    return true;
}

static bool read_bytes(struct sf_reader *r, struct sf_value *value) {
    r->at++;
    value->type = SF_BYTES;
    value->text = take_while(r, is_base64_byte);
    return take(r, ':');
}

static bool read_boolean(struct sf_reader *r, struct sf_value *value) {
    r->at++;
    value->type = SF_BOOLEAN;
    value->number = sees(r, '1');
    return take(r, '1') || take(r, '0');
}

static bool read_bare_item(struct sf_reader *r, struct sf_value *value) {
    if (at_end(r)) return false;
    char c = *r->at;
    if (c == '-' || is_digit(c)) return read_number(r, value);
    if (c == '"') return read_string(r, value);
    if (c == '*' || is_letter(c)) return read_token(r, value);
    if (c == ':') return read_bytes(r, value);
    return c == '?' && read_boolean(r, value);
}

/* ---- what is around them */

static bool read_key(struct sf_reader *r, struct slice *key) {
    if (at_end(r) || (!is_lower(*r->at) && *r->at != '*')) return false;
    *key = take_while(r, is_key_byte);
    return true;
}

static void set_true(struct sf_value *value) { *value = (struct sf_value){ .type = SF_BOOLEAN, .number = 1 }; }

/* One parameter, behind its ";" (4.2.3.2). */
static bool read_parameter(struct sf_reader *r, struct slice *key, struct sf_value *value) {
    take_while(r, is_space);
    if (!read_key(r, key)) return false;
    set_true(value);
    return !take(r, '=') || read_bare_item(r, value);
}

static bool read_parameters(struct sf_reader *r, struct slice *parameters) {
    const char *from = r->at;
    struct slice key;
    struct sf_value value;
    while (take(r, ';'))
        if (!read_parameter(r, &key, &value)) return false;
    *parameters = since(r, from);
    return true;
}

static bool read_item(struct sf_reader *r, struct sf_value *value) {
    *value = (struct sf_value){ 0 };
    return read_bare_item(r, value) && read_parameters(r, &value->parameters);
}

/* Behind its "(" (4.2.1.2). */
static bool read_inner_list(struct sf_reader *r, struct sf_value *value) {
    const char *from = r->at;
    struct sf_value item;
    *value = (struct sf_value){ .type = SF_INNER_LIST };
    for (;;) {
        take_while(r, is_space);
        value->text = since(r, from);
        if (take(r, ')')) return read_parameters(r, &value->parameters);
        if (!read_item(r, &item) || (!sees(r, ' ') && !sees(r, ')'))) return false;
    }
}

static bool read_member(struct sf_reader *r, struct sf_value *value) {
    return take(r, '(') ? read_inner_list(r, value) : read_item(r, value);
}

/* A key and its value, or only parameters: then it is true (4.2.2). */
static bool read_keyed_member(struct sf_reader *r, struct slice *key, struct sf_value *value) {
    if (!read_key(r, key)) return false;
    if (take(r, '=')) return read_member(r, value);
    set_true(value);
    return read_parameters(r, &value->parameters);
}

/* ---- visiting */

void sf_begin(struct sf_reader *r, struct slice text) {
    *r = (struct sf_reader){ .at = text.p, .end = text.n ? text.p + text.n : text.p };
    take_while(r, is_space);
    while (r->end > r->at && is_space(r->end[-1])) r->end--;
}

static bool fail(struct sf_reader *r) {
    r->failed = true;
    return false;
}

/* To the next member: over the comma, which must stand between two (4.2.1). */
static bool go_to_member(struct sf_reader *r) {
    if (r->failed || at_end(r)) return false;
    if (!r->begun) return r->begun = true;
    take_while(r, is_blank);
    if (!take(r, ',')) return fail(r);
    take_while(r, is_blank);
    return at_end(r) ? fail(r) : true;
}

bool sf_member_next(struct sf_reader *r, struct slice *key, struct sf_value *value) {
    return go_to_member(r) && (read_keyed_member(r, key, value) || fail(r));
}

bool sf_list_next(struct sf_reader *r, struct sf_value *value) {
    return go_to_member(r) && (read_member(r, value) || fail(r));
}

bool sf_item_read(struct slice text, struct sf_value *value) {
    struct sf_reader r;
    sf_begin(&r, text);
    return read_item(&r, value) && at_end(&r);
}

bool sf_inner_next(struct slice *rest, struct sf_value *item) {
    struct sf_reader r;
    sf_begin(&r, *rest);
    if (!read_item(&r, item)) return false;
    *rest = slice_make(r.at, (size_t)(r.end - r.at));
    return true;
}

bool sf_parameter_next(struct slice *rest, struct slice *key, struct sf_value *value) {
    struct sf_reader r;
    sf_begin(&r, *rest);
    if (!take(&r, ';') || !read_parameter(&r, key, value)) return false;
    *rest = slice_make(r.at, (size_t)(r.end - r.at));
    return true;
}

/* ---- writing */

bool sf_is_string(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (!is_string_byte(s.p[i])) return false;
    return true;
}

bool sf_is_token(struct slice s) {
    if (!s.n || (!is_letter(*s.p) && *s.p != '*')) return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_token_byte(s.p[i])) return false;
    return true;
}

size_t sf_string_write(char *to, struct slice s) {
    char *at = to;
    *at++ = '"';
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\') *at++ = '\\';
        *at++ = s.p[i];
    }
    *at++ = '"';
    return (size_t)(at - to);
}
