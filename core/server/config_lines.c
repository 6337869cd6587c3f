/* Where in the source a setting stands.
 *
 * Above the lexer (config_lexer.c) a scanner that knows just enough grammar: table constructors, assignments to names
 * and fields, `function a.b()`, `return`, and where blocks begin and end. It makes a tree of nodes, one per key, each
 * with its line: one root for variables, one for what the file returns, and loose ones for tables that are nobody's
 * (arguments, what a function returns). A value that is only a name (`sites = { a, b }`) becomes an alias of that
 * variable's node.
 *
 * A path is looked up from the returned root, through aliases, as far as it goes. Where that ends at something that
 * is not written out (a table that a function made, say), the longest suffix of the path that any chain of keys in
 * the file ends with decides.
 *
 * What this deliberately does not do: scopes (the last variable of a name counts), values, more than one name in an
 * assignment, modules. The running of the config by debug hooks was tried and rejected: constructors have no
 * line per field at run time. */
#include "server/config_lines.h"

#include "base/arena.h"
#include "base/must.h"
#include "server/config_lexer.h"

#include <stdlib.h>

/* A source that nests deeper is scanned flat from there: this runs on what a stranger may have written. */
enum { DEPTH_MAX = 100, ALIAS_HOPS = 8, PATH_KEYS = 16 };

struct key {
    struct slice name; /* p NULL: a list entry */
    size_t index;      /* of a list entry, from 1 */
};

struct node {
    struct key key;
    int line;
    size_t entries; /* list entries so far */
    struct node *up, *first, *last, *next;
    struct node *alias; /* the variable this is another name of; NULL: none */
    struct node *older; /* all nodes, newest first: for the search by suffix */
};

struct config_lines {
    struct arena arena;
    struct node *newest;
    struct node variables, loose;
    struct node *returned; /* NULL: the file returns nothing, its variables are the site */
};

/* ---- the tree */

static struct node *add_node(struct config_lines *lines, struct node *up, struct key key, int line) {
    struct node *node = arena_alloc_zeroed(&lines->arena, sizeof *node);
    if (key.name.p) key.name = arena_copy(&lines->arena, key.name);
    node->key = key;
    node->line = line;
    node->up = up;
    node->older = lines->newest;
    lines->newest = node;
    if (up->last) up->last->next = node;
    else up->first = node;
    up->last = node;
    return node;
}

static bool same_key(const struct key *a, const struct key *b) {
    if (a->name.p && b->name.p) return slice_equal(a->name, b->name);
    return !a->name.p && !b->name.p && a->index == b->index;
}

/* The node that counts for a key: the last, as an assignment overwrites. Looks through aliases. */
static struct node *find_child(const struct node *node, const struct key *key) {
    for (int hops = 0; node && hops < ALIAS_HOPS; hops++, node = node->alias) {
        struct node *found = NULL;
        for (struct node *n = node->first; n; n = n->next)
            if (same_key(&n->key, key)) found = n;
        if (found) return found;
    }
    return NULL;
}

/* ---- the scanner */

struct scanner {
    struct config_lines *lines;
    struct lexer lexer;
    int depth;
};

static void advance_token(struct scanner *s) { lexer_advance(&s->lexer); }
static bool at_mark(const struct scanner *s, const char *mark) { return token_is_mark(&s->lexer.token, mark); }
static bool at_word(const struct scanner *s, const char *word) { return token_is_word(&s->lexer.token, word); }
static bool at_name(const struct scanner *s) { return token_is_name(&s->lexer.token); }
static bool at_end(const struct scanner *s) { return s->lexer.token.kind == TOKEN_END; }

static struct node *add_loose(struct scanner *s) {
    return add_node(s->lines, &s->lines->loose, (struct key){ .index = 0 }, s->lexer.token.line);
}

/* ---- expressions */

static void scan_block(struct scanner *s, bool in_function);
static void scan_value(struct scanner *s, struct node *node);

static bool at_alias_end(const struct scanner *s) {
    return at_end(s) || at_mark(s, ",") || at_mark(s, ";") || at_mark(s, "}") || at_mark(s, ")") ||
           s->lexer.token.kind == TOKEN_NAME;
}

/* `name` or `name.field` and nothing behind it: an alias. Otherwise the names have been passed by. */
static void scan_names(struct scanner *s, struct node *node) {
    struct node *alias = &s->lines->variables;
    while (at_name(s)) {
        struct key key = { .name = s->lexer.token.text };
        alias = alias ? find_child(alias, &key) : NULL;
        advance_token(s);
        if (!at_mark(s, ".") && !at_mark(s, ":")) break;
        advance_token(s);
    }
    if (alias && alias != node && at_alias_end(s)) node->alias = alias;
}

static struct key take_key(struct scanner *s, struct node *table) {
    struct key key = { .index = 0 };
    if (s->lexer.token.kind == TOKEN_NAME && token_is_mark(&s->lexer.ahead, "=")) {
        key.name = s->lexer.token.text;
        advance_token(s);
        advance_token(s);
        return key;
    }
    if (!at_mark(s, "[")) {
        key.index = ++table->entries;
        return key;
    }
    advance_token(s);
    if (s->lexer.token.kind == TOKEN_STRING && token_is_mark(&s->lexer.ahead, "]")) key.name = s->lexer.token.text;
    if (s->lexer.token.kind == TOKEN_NUMBER) key.index = (size_t)strtoul(s->lexer.token.text.p, NULL, 10);
    while (!at_end(s) && !at_mark(s, "=") && !at_mark(s, "}")) advance_token(s);
    if (at_mark(s, "=")) advance_token(s);
    return key;
}

/* The present token is `{`; afterwards it is the one behind `}`. */
static void scan_table(struct scanner *s, struct node *node) {
    advance_token(s);
    if (++s->depth > DEPTH_MAX) {
        s->depth--;
        return;
    }
    while (!at_end(s) && !at_mark(s, "}")) {
        int line = s->lexer.token.line;
        struct key key = take_key(s, node);
        scan_value(s, add_node(s->lines, node, key, line));
        if (!at_mark(s, "}")) advance_token(s); /* a "," or ";", or what is not Lua: go on all the same */
    }
    s->depth--;
    advance_token(s);
}

/* An expression within a constructor, up to the `,`, `;` or `}` that ends it. Its first table is `node`'s. */
static void scan_value(struct scanner *s, struct node *node) {
    bool filled = false;
    int brackets = 0;
    if (at_name(s)) scan_names(s, node);
    while (!at_end(s)) {
        if (brackets == 0 && (at_mark(s, ",") || at_mark(s, ";") || at_mark(s, "}"))) return;
        if (at_mark(s, "{")) {
            scan_table(s, filled ? add_loose(s) : node);
            filled = true;
            continue;
        }
        bool function = at_word(s, "function");
        if (at_mark(s, "(") || at_mark(s, "[")) brackets++;
        if ((at_mark(s, ")") || at_mark(s, "]")) && brackets > 0) brackets--;
        advance_token(s);
        if (function) scan_block(s, true);
    }
}

/* An expression of a statement, whose end nothing marks: only its beginning is looked at. */
static void scan_right_side(struct scanner *s, struct node *node) {
    if (at_name(s)) scan_names(s, node);
    while (at_mark(s, "(")) advance_token(s);
    if (at_mark(s, "{")) scan_table(s, node);
}

/* ---- statements */

/* `local name = …`, the present token is `local`. */
static void scan_local(struct scanner *s) {
    advance_token(s);
    if (!at_name(s)) return; /* `local function` */
    struct node *node =
        add_node(s->lines, &s->lines->variables, (struct key){ .name = s->lexer.token.text }, s->lexer.token.line);
    advance_token(s);
    while (at_mark(s, "<") || token_is_mark(&s->lexer.ahead, ">") || at_mark(s, ">")) advance_token(s); /* <const> */
    if (!at_mark(s, "=")) return;
    advance_token(s);
    scan_right_side(s, node);
}

/* The next key of `a.b["c"][#a + 1]` below `table`; made when it is not there, or when `fresh`. */
static struct node *scan_field(struct scanner *s, struct node *table, struct node **above) {
    struct key key = { .index = 0 };
    int line = s->lexer.token.line;
    if (at_mark(s, ".")) {
        advance_token(s);
        key.name = s->lexer.token.text;
        advance_token(s);
    } else {
        advance_token(s);
        if (s->lexer.token.kind == TOKEN_STRING) key.name = s->lexer.token.text;
        else if (s->lexer.token.kind == TOKEN_NUMBER && token_is_mark(&s->lexer.ahead, "]"))
            key.index = (size_t)strtoul(s->lexer.token.text.p, NULL, 10);
        else key.index = table->entries + 1;
        while (!at_end(s) && !at_mark(s, "]")) advance_token(s);
        advance_token(s);
    }
    *above = table;
    struct node *found = find_child(table, &key);
    if (found) return found;
    if (!key.name.p && key.index == table->entries + 1) table->entries++;
    return add_node(s->lines, table, key, line);
}

/* `a.b.c = …`, `function a.b()`; anything else that begins with a name is passed by. */
static void scan_assignment(struct scanner *s, bool function) {
    struct config_lines *lines = s->lines;
    int line = s->lexer.token.line;
    struct key key = { .name = s->lexer.token.text };
    struct node *above = &lines->variables, *node = find_child(above, &key);
    if (!node && !token_is_mark(&s->lexer.ahead, ".") && !token_is_mark(&s->lexer.ahead, "[") &&
        !token_is_mark(&s->lexer.ahead, "=") && !function) {
        advance_token(s);
        return;
    }
    if (!node) node = add_node(lines, above, key, line);
    advance_token(s);
    while (at_mark(s, ".") || at_mark(s, "[")) node = scan_field(s, node, &above);
    if (function) node->line = line;
    if (!at_mark(s, "=")) return;
    /* Assigned once more: a node of its own, so that the former one's fields do not shine through. */
    if (node->first || node->alias) node = add_node(lines, above, node->key, line);
    node->line = line;
    advance_token(s);
    scan_right_side(s, node);
}

static void scan_return(struct scanner *s, bool in_function) {
    int line = s->lexer.token.line;
    advance_token(s);
    struct node *node = add_node(s->lines, &s->lines->loose, (struct key){ .index = 0 }, line);
    scan_right_side(s, node);
    if (!in_function) s->lines->returned = node;
}

/* One statement, or one token of one. False: the block ends here. */
static bool scan_statement(struct scanner *s, bool in_function) {
    if (at_word(s, "end") || at_word(s, "until")) return false;
    if (at_word(s, "local")) scan_local(s);
    else if (at_word(s, "return")) scan_return(s, in_function);
    else if (at_word(s, "function")) {
        advance_token(s);
        if (at_name(s)) scan_assignment(s, true);
        scan_block(s, true);
    } else if (at_word(s, "do") || at_word(s, "if") || at_word(s, "repeat")) {
        advance_token(s);
        scan_block(s, in_function);
    } else if (at_name(s)) scan_assignment(s, false);
    else if (at_mark(s, "{")) scan_table(s, add_loose(s));
    else {
        if (at_mark(s, ".") || at_mark(s, ":")) advance_token(s); /* a field of something that is no name: `f().x` */
        advance_token(s);
    }
    return true;
}

/* Up to and with the `end` or `until` of this block. */
static void scan_block(struct scanner *s, bool in_function) {
    if (s->depth >= DEPTH_MAX) return;
    s->depth++;
    while (!at_end(s) && scan_statement(s, in_function)) continue;
    s->depth--;
    advance_token(s);
}

struct config_lines *config_lines_create(struct slice source) {
    struct config_lines *lines = must_calloc(1, sizeof *lines);
    arena_init(&lines->arena);
    struct scanner s = { .lines = lines };
    lexer_start(&s.lexer, source);
    while (!at_end(&s)) scan_block(&s, false);
    return lines;
}

void config_lines_destroy(struct config_lines *lines) {
    if (!lines) return;
    arena_fini(&lines->arena);
    free(lines);
}

/* ---- looking up */

/* Takes the first key off a path; false at its end. Keys with other characters than names have stand in ["…"]. */
static bool cut_key(struct slice *path, struct key *key) {
    *key = (struct key){ .index = 0 };
    if (path->n && path->p[0] == '.') *path = slice_skip(*path, 1);
    if (!path->n) return false;
    if (path->p[0] != '[') {
        size_t n = 0;
        while (n < path->n && path->p[n] != '.' && path->p[n] != '[') n++;
        key->name = slice_make(path->p, n);
        *path = slice_skip(*path, n);
        return true;
    }
    struct slice rest = slice_skip(*path, 1);
    bool quoted = rest.n && rest.p[0] == '"';
    if (quoted) rest = slice_skip(rest, 1);
    struct slice text = slice_cut(&rest, quoted ? '"' : ']');
    if (quoted) {
        key->name = text;
        slice_cut(&rest, ']');
    } else {
        uint64_t n = 0;
        slice_to_u64(text, &n);
        key->index = (size_t)n;
    }
    *path = rest.p ? rest : slice_make(path->p, 0);
    return true;
}

/* How many keys at the ends of both agree. */
static size_t common_suffix(const struct node *node, const struct key *keys, size_t count) {
    size_t n = 0;
    while (n < count && node && node->line && same_key(&node->key, &keys[count - 1 - n])) {
        n++;
        node = node->up;
    }
    return n;
}

/* The node that ends like the path; the first in the file among equals. At least one named key must agree: a bare [2]
 * stands everywhere. */
static const struct node *find_by_suffix(const struct config_lines *lines, const struct key *keys, size_t count) {
    const struct node *best = NULL;
    size_t most = keys[count - 1].name.p ? 1 : 2;
    for (const struct node *n = lines->newest; n; n = n->older) {
        size_t common = common_suffix(n, keys, count);
        if (common < most) continue;
        best = n;
        most = common;
    }
    return best;
}

static int line_of(const struct node *node) {
    for (int hops = 0; node->alias && !node->first && hops < ALIAS_HOPS; hops++) node = node->alias;
    return node->line;
}

int config_lines_find(const struct config_lines *lines, const char *path) {
    struct key keys[PATH_KEYS];
    size_t count = 0, depth = 0;
    struct slice rest = slice_of(path);
    while (count < PATH_KEYS && cut_key(&rest, &keys[count])) count++;
    const struct node *node = lines->returned ? lines->returned : &lines->variables;
    for (const struct node *next; depth < count && (next = find_child(node, &keys[depth])); depth++) node = next;
    /* A table that is written out and lacks the key is the place to add it; of another one nothing is known. */
    const struct node *table = node;
    for (int hops = 0; !table->first && table->alias && hops < ALIAS_HOPS; hops++) table = table->alias;
    if (depth == count || (table->first && table->line)) return line_of(node);
    for (size_t n = count; n > depth; n--) {
        const struct node *found = find_by_suffix(lines, keys, n);
        if (found) return line_of(found);
    }
    return line_of(node);
}
