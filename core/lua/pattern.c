/* A matcher for Lua's patterns, by backtracking, as they are defined. Each comparison of a byte is a step; so is
 * every byte of a set that is looked through, and 64 bytes of a back reference. Repetitions of a single class are
 * loops; what follows them, and captures, are recursion, limited in depth. Malformed patterns raise Lua's own
 * messages, when the matcher comes to the malformed place. */
#include "lua/pattern.h"

#include "lua/engine.h"

#include <ctype.h>

/* One single-character class of the pattern, and how often it may occur. */
struct piece {
    const char *class, *class_end; /* class_end: behind it */
    char suffix;                   /* one of ?*+-, or 0 */
    const char *rest;              /* of the pattern, behind piece and suffix */
};

static const char *match_here(struct matching *m, const char *s, const char *p);

/* ---- Reading the pattern */

/* Behind the set that begins at the '[' before `p`. */
static const char *set_end(struct matching *m, const char *p) {
    if (p < m->pattern_end && *p == '^') p++;
    for (bool first = true;; first = false) {
        if (p >= m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
        char c = *p++;
        if (c == ']' && !first) return p;
        if (c == '%') p++;
        budget_spend(m->L, 1);
    }
}

static const char *class_end(struct matching *m, const char *p) {
    char c = *p++;
    if (c == '[') return set_end(m, p);
    if (c != '%') return p;
    if (p >= m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 1;
}

static struct piece read_piece(struct matching *m, const char *p) {
    struct piece piece = { .class = p, .class_end = class_end(m, p) };
    piece.rest = piece.class_end;
    if (piece.rest < m->pattern_end && strchr("?*+-", *piece.rest) && *piece.rest) piece.suffix = *piece.rest++;
    return piece;
}

/* ---- Single characters */

static bool in_letter_class(unsigned char c, unsigned char class) {
    bool in;
    switch (tolower(class)) {
    case 'a': in = isalpha(c); break;
    case 'c': in = iscntrl(c); break;
    case 'd': in = isdigit(c); break;
    case 'g': in = isgraph(c); break;
    case 'l': in = islower(c); break;
    case 'p': in = ispunct(c); break;
    case 's': in = isspace(c); break;
    case 'u': in = isupper(c); break;
    case 'w': in = isalnum(c); break;
    case 'x': in = isxdigit(c); break;
    case 'z': in = c == '\0'; break; /* of Lua 5.1; still understood */
    default: return class == c;
    }
    return isupper(class) ? !in : in;
}

/* `set` stands at '[', `end` behind ']'. */
static bool in_set(struct matching *m, unsigned char c, const char *set, const char *end) {
    const unsigned char *p = (const unsigned char *)set + 1, *last = (const unsigned char *)end - 1;
    bool wanted = true;
    if (*p == '^') {
        wanted = false;
        p++;
    }
    budget_spend(m->L, (size_t)(last - p) / 8);
    while (p < last) {
        if (*p == '%') {
            if (in_letter_class(c, p[1])) return wanted;
            p += 2;
        } else if (p + 2 < last && p[1] == '-') {
            if (p[0] <= c && c <= p[2]) return wanted;
            p += 3;
        } else if (*p++ == c) return wanted;
    }
    return !wanted;
}

static bool fits(struct matching *m, const char *s, const struct piece *piece) {
    if (s >= m->subject_end) return false;
    budget_spend(m->L, 1);
    unsigned char c = (unsigned char)*s;
    switch (*piece->class) {
    case '.': return true;
    case '%': return in_letter_class(c, (unsigned char)piece->class[1]);
    case '[': return in_set(m, c, piece->class, piece->class_end);
    default: return (unsigned char)*piece->class == c;
    }
}

/* ---- Repetition */

static const char *match_most(struct matching *m, const char *s, const struct piece *piece) {
    ptrdiff_t n = 0;
    while (fits(m, s + n, piece)) n++;
    for (; n >= 0; n--) {
        const char *end = match_here(m, s + n, piece->rest);
        if (end) return end;
    }
    return NULL;
}

static const char *match_fewest(struct matching *m, const char *s, const struct piece *piece) {
    for (;; s++) {
        const char *end = match_here(m, s, piece->rest);
        if (end) return end;
        if (!fits(m, s, piece)) return NULL;
    }
}

static const char *match_optional(struct matching *m, const char *s, const struct piece *piece) {
    const char *end = fits(m, s, piece) ? match_here(m, s + 1, piece->rest) : NULL;
    return end ? end : match_here(m, s, piece->rest);
}

/* ---- Captures */

static const char *begin_capture(struct matching *m, const char *s, const char *p, ptrdiff_t kind) {
    if (m->captures >= PATTERN_CAPTURES) luaL_error(m->L, "too many captures");
    m->capture[m->captures++] = (struct pattern_capture){ s, kind };
    const char *end = match_here(m, s, p);
    if (!end) m->captures--;
    return end;
}

static const char *end_capture(struct matching *m, const char *s, const char *p) {
    int i = m->captures - 1;
    while (i >= 0 && m->capture[i].n != CAPTURE_OPEN) i--;
    if (i < 0) luaL_error(m->L, "invalid pattern capture");
    m->capture[i].n = s - m->capture[i].p;
    const char *end = match_here(m, s, p);
    if (!end) m->capture[i].n = CAPTURE_OPEN;
    return end;
}

/* Behind the text that an earlier capture holds, if it stands at `s` again. */
static const char *match_again(struct matching *m, const char *s, char digit) {
    int i = digit - '1';
    if (i < 0 || i >= m->captures || m->capture[i].n == CAPTURE_OPEN)
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    if (m->capture[i].n == CAPTURE_PLACE) return NULL;
    size_t n = (size_t)m->capture[i].n;
    if ((size_t)(m->subject_end - s) < n) return NULL;
    budget_spend(m->L, 1 + n / 64);
    return memcmp(m->capture[i].p, s, n) == 0 ? s + n : NULL;
}

/* ---- %b and %f */

static const char *match_balance(struct matching *m, const char *s, const char *p) {
    if (m->pattern_end - p < 2) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->subject_end || *s != p[0]) return NULL;
    for (size_t open = 1; ++s < m->subject_end;) {
        budget_spend(m->L, 1);
        if (*s == p[1]) {
            if (--open == 0) return s + 1;
        } else if (*s == p[0]) open++;
    }
    return NULL;
}

/* `p` stands at the set behind %f, `end` behind the set: the byte before is not in it, this one is. */
static bool at_frontier(struct matching *m, const char *s, const char *p, const char *end) {
    unsigned char before = s == m->subject.p ? '\0' : (unsigned char)s[-1];
    unsigned char here = s == m->subject_end ? '\0' : (unsigned char)*s;
    return !in_set(m, before, p, end) && in_set(m, here, p, end);
}

/* ---- The whole */

/* A '%' that is more than a class: moves on `*s` and `*p`. False: no match. */
static bool match_special(struct matching *m, const char **s, const char **p) {
    const char *at = *p + 2;
    if ((*p)[1] == 'b') {
        *s = match_balance(m, *s, at);
        *p = at + 2;
        return *s;
    }
    if ((*p)[1] == 'f') {
        if (at >= m->pattern_end || *at != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
        *p = set_end(m, at + 1);
        return at_frontier(m, *s, at, *p);
    }
    *s = match_again(m, *s, (*p)[1]);
    *p = at;
    return *s;
}

static bool is_special(const struct matching *m, const char *p) {
    return *p == '%' && p + 1 < m->pattern_end && (p[1] == 'b' || p[1] == 'f' || isdigit((unsigned char)p[1]));
}

static const char *match_piece(struct matching *m, const char *s, const struct piece *piece) {
    switch (piece->suffix) {
    case '?': return match_optional(m, s, piece);
    case '+': return fits(m, s, piece) ? match_most(m, s + 1, piece) : NULL;
    case '*': return match_most(m, s, piece);
    default: return match_fewest(m, s, piece);
    }
}

/* The end of a match of the pattern from `p` on at `s`. */
static const char *match_steps(struct matching *m, const char *s, const char *p) {
    while (p < m->pattern_end) {
        if (*p == '(') {
            bool place = p + 1 < m->pattern_end && p[1] == ')';
            return begin_capture(m, s, p + (place ? 2 : 1), place ? CAPTURE_PLACE : CAPTURE_OPEN);
        }
        if (*p == ')') return end_capture(m, s, p + 1);
        if (*p == '$' && p + 1 == m->pattern_end) return s == m->subject_end ? s : NULL;
        if (is_special(m, p)) {
            if (!match_special(m, &s, &p)) return NULL;
            continue;
        }
        struct piece piece = read_piece(m, p);
        if (piece.suffix) return match_piece(m, s, &piece);
        if (!fits(m, s, &piece)) return NULL;
        s++;
        p = piece.rest;
    }
    return s;
}

static const char *match_here(struct matching *m, const char *s, const char *p) {
    if (m->depth == 0) luaL_error(m->L, "pattern too complex");
    m->depth--;
    const char *end = match_steps(m, s, p);
    m->depth++;
    return end;
}

void matching_init(struct matching *m, lua_State *L, struct slice subject, struct slice pattern, bool anchors) {
    m->L = L;
    m->subject = subject;
    m->subject_end = subject.p + subject.n;
    m->anchored = anchors && pattern.n && *pattern.p == '^';
    m->pattern = pattern.p + m->anchored;
    m->pattern_end = pattern.p + pattern.n;
    m->captures = 0;
}

const char *matching_at(struct matching *m, const char *from) {
    m->captures = 0;
    m->depth = PATTERN_DEPTH;
    return match_here(m, from, m->pattern);
}

const char *matching_search(struct matching *m, const char **from) {
    for (;; ++*from) {
        const char *end = matching_at(m, *from);
        if (end || m->anchored || *from >= m->subject_end) return end;
        budget_spend(m->L, 1);
    }
}

void matching_push(struct matching *m, int index, const char *from, const char *to) {
    if (index >= m->captures) {
        if (index != 0) luaL_error(m->L, "invalid capture index %%%d", index + 1);
        lua_pushlstring(m->L, from, (size_t)(to - from));
        return;
    }
    const struct pattern_capture *c = &m->capture[index];
    if (c->n == CAPTURE_OPEN) luaL_error(m->L, "unfinished capture");
    if (c->n == CAPTURE_PLACE) lua_pushinteger(m->L, c->p - m->subject.p + 1);
    else lua_pushlstring(m->L, c->p, (size_t)c->n);
}

int matching_push_all(struct matching *m, bool whole, const char *from, const char *to) {
    int n = m->captures == 0 && whole ? 1 : m->captures;
    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++) matching_push(m, i, from, to);
    return n;
}

bool pattern_is_plain(struct slice pattern) {
    for (size_t i = 0; i < pattern.n; i++)
        if (pattern.p[i] && strchr("^$*+?.([%-", pattern.p[i])) return false;
    return true;
}
