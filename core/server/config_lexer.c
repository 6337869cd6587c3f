/* Long brackets, comments, strings, words, marks: Lua's lexical grammar (its manual, 3.1) without its errors. */
#include "server/config_lexer.h"

#include <ctype.h>
#include <string.h>

static char peek_char(const struct lexer *l, size_t i) { return i < l->rest.n ? l->rest.p[i] : '\0'; }

static void skip_chars(struct lexer *l, size_t n) {
    for (size_t i = 0; i < n && i < l->rest.n; i++) l->line += l->rest.p[i] == '\n';
    l->rest = slice_skip(l->rest, n < l->rest.n ? n : l->rest.n);
}

/* `[[`, `[=[`, …: the number of `=` signs plus one; 0: it is no long bracket. */
static size_t long_bracket_level(const struct lexer *l, size_t from) {
    if (peek_char(l, from) != '[') return 0;
    size_t i = from + 1;
    while (peek_char(l, i) == '=') i++;
    return peek_char(l, i) == '[' ? i - from : 0;
}

/* Takes a long bracket of that level, returns what stands inside. */
static struct slice take_long_bracket(struct lexer *l, size_t level) {
    skip_chars(l, level + 1);
    for (size_t i = 0; i < l->rest.n; i++) {
        if (l->rest.p[i] != ']') continue;
        size_t j = i + 1;
        while (peek_char(l, j) == '=') j++;
        if (peek_char(l, j) != ']' || j - i != level) continue;
        struct slice text = slice_make(l->rest.p, i);
        skip_chars(l, j + 1);
        return text;
    }
    skip_chars(l, l->rest.n);
    return (struct slice){ NULL, 0 };
}

static void skip_comment(struct lexer *l) {
    size_t level = long_bracket_level(l, 2);
    if (level) {
        skip_chars(l, 2);
        take_long_bracket(l, level);
        return;
    }
    while (l->rest.n && l->rest.p[0] != '\n') skip_chars(l, 1);
}

static void skip_space(struct lexer *l) {
    while (l->rest.n) {
        if (isspace((unsigned char)l->rest.p[0])) skip_chars(l, 1);
        else if (peek_char(l, 0) == '-' && peek_char(l, 1) == '-') skip_comment(l);
        else return;
    }
}

static struct slice take_string(struct lexer *l) {
    char quote = l->rest.p[0];
    skip_chars(l, 1);
    struct slice text = slice_make(l->rest.p, 0);
    while (l->rest.n && l->rest.p[0] != quote && l->rest.p[0] != '\n') skip_chars(l, l->rest.p[0] == '\\' ? 2 : 1);
    text.n = (size_t)(l->rest.p - text.p);
    skip_chars(l, 1);
    return text;
}

static bool is_name_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

static struct slice take_word(struct lexer *l, bool number) {
    size_t n = 0;
    while (is_name_char(peek_char(l, n)) || (number && peek_char(l, n) == '.' && peek_char(l, n + 1) != '.')) n++;
    struct slice text = slice_make(l->rest.p, n);
    skip_chars(l, n);
    return text;
}

/* Marks of two characters matter only so that `==` is not seen as an assignment. */
static struct slice take_mark(struct lexer *l) {
    char c = peek_char(l, 0);
    size_t n = peek_char(l, 1) == '=' && strchr("=~<>", c) ? 2 : 1;
    if (c == ':' && peek_char(l, 1) == ':') n = 2;
    struct slice text = slice_make(l->rest.p, n);
    skip_chars(l, n);
    return text;
}

static struct token read_token(struct lexer *l) {
    skip_space(l);
    struct token t = { .kind = TOKEN_END, .line = l->line };
    if (!l->rest.n) return t;
    char c = l->rest.p[0];
    size_t level = long_bracket_level(l, 0);
    if (level) {
        t.kind = TOKEN_STRING;
        t.text = take_long_bracket(l, level);
    } else if (c == '"' || c == '\'') {
        t.kind = TOKEN_STRING;
        t.text = take_string(l);
    } else if (isdigit((unsigned char)c)) {
        t.kind = TOKEN_NUMBER;
        t.text = take_word(l, true);
    } else if (is_name_char(c)) {
        t.kind = TOKEN_NAME;
        t.text = take_word(l, false);
    } else {
        t.kind = TOKEN_MARK;
        t.text = take_mark(l);
    }
    return t;
}

void lexer_advance(struct lexer *l) {
    l->token = l->ahead;
    l->ahead = read_token(l);
}

void lexer_start(struct lexer *l, struct slice source) {
    *l = (struct lexer){ .rest = source, .line = 1 };
    if (slice_starts_with(source, SLICE("#"))) { /* #!/usr/bin/env … */
        while (l->rest.n && l->rest.p[0] != '\n') skip_chars(l, 1);
    }
    l->ahead = read_token(l);
    lexer_advance(l);
}

bool token_is_mark(const struct token *t, const char *mark) {
    return t->kind == TOKEN_MARK && slice_equal(t->text, slice_of(mark));
}

bool token_is_word(const struct token *t, const char *word) {
    return t->kind == TOKEN_NAME && slice_equal(t->text, slice_of(word));
}

static bool is_keyword(const struct token *t) {
    static const char *const keywords[] = { "and",      "break",  "do",   "else", "elseif", "end",  "false", "for",
                                            "function", "goto",   "if",   "in",   "local",  "nil",  "not",   "or",
                                            "repeat",   "return", "then", "true", "until",  "while" };
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (token_is_word(t, keywords[i])) return true;
    return false;
}

bool token_is_name(const struct token *t) { return t->kind == TOKEN_NAME && !is_keyword(t); }
