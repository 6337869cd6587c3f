/* Sizes and times as operators write them, and which known name an unknown one was probably meant to be.
 *
 * Numbers are read here and not by strtod, which takes hexadecimal, "inf", and a comma in some locales. */
#include "server/settings.h"

#include <math.h>
#include <stdio.h>

/* The digits at the front, with a fraction if `fraction`; returns how many bytes they are, 0 if there are none. */
static size_t parse_digits(struct slice s, bool fraction, double *out) {
    double n = 0, place = 1;
    size_t i = 0, digits = 0;
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++, digits++) n = n * 10 + (s.p[i] - '0');
    if (!digits || digits > 15) return 0;
    *out = n;
    if (!fraction || i + 1 >= s.n || s.p[i] != '.') return i;
    size_t point = i++;
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) *out += (s.p[i] - '0') * (place /= 10);
    return i > point + 1 ? i : 0;
}

struct unit {
    const char *name;
    double factor;
};

/* From small to large; an empty name: no unit. */
static const struct unit size_units[] = { { "", 1 }, { "K", 1024 }, { "M", 1048576 }, { "G", 1073741824 } };
static const struct unit time_units[] = { { "ms", 0.001 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
enum { UNITS = 4 };

static bool parse_with_unit(struct slice text, const struct unit units[UNITS], bool fraction, double *out) {
    size_t n = parse_digits(text, fraction, out);
    if (!n) return false;
    struct slice rest = slice_skip(text, n);
    for (int i = 0; i < UNITS; i++) {
        if (!slice_equal(rest, slice_of(units[i].name))) continue;
        *out *= units[i].factor;
        return true;
    }
    return false;
}

bool size_parse(struct slice text, uint64_t *bytes) {
    double n;
    /* 2^53 and less are exact; nobody means more. */
    if (!parse_with_unit(text, size_units, false, &n) || n > 9007199254740992.0) return false;
    *bytes = (uint64_t)n;
    return true;
}

bool seconds_parse(struct slice text, double *seconds) { return parse_with_unit(text, time_units, true, seconds); }

static char *write_with_unit(double n, const struct unit units[UNITS], char to[UNIT_TEXT]) {
    int i = UNITS - 1;
    while (i > 0 && (n < units[i].factor || n / units[i].factor != floor(n / units[i].factor))) i--;
    snprintf(to, UNIT_TEXT, "%.14g%s", n / units[i].factor, units[i].name);
    return to;
}

char *size_write(double bytes, char to[UNIT_TEXT]) { return write_with_unit(bytes, size_units, to); }

char *seconds_write(double seconds, char to[UNIT_TEXT]) {
    if (seconds == 0) {
        to[0] = '0';
        to[1] = '\0';
        return to;
    }
    return write_with_unit(seconds, time_units, to);
}

/* ---- names */

enum { NAME_LENGTH = 32 };

static int min3(int a, int b, int c) {
    int low = a < b ? a : b;
    return low < c ? low : c;
}

/* Insertions, deletions, changes, and swaps of neighbours (optimal string alignment) that make one of the other. */
static int edit_distance(struct slice a, struct slice b) {
    int d[NAME_LENGTH + 1][NAME_LENGTH + 1];
    for (size_t i = 0; i <= a.n; i++) d[i][0] = (int)i;
    for (size_t j = 0; j <= b.n; j++) d[0][j] = (int)j;
    for (size_t i = 1; i <= a.n; i++) {
        for (size_t j = 1; j <= b.n; j++) {
            int change = d[i - 1][j - 1] + (a.p[i - 1] != b.p[j - 1]);
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, change);
            bool swapped = i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[a.n][b.n];
}

/* A beginning of four letters or more counts like two slips: "max_conn" is max_connections. */
static int name_distance(struct slice name, struct slice known) {
    struct slice shorter = name.n < known.n ? name : known, longer = name.n < known.n ? known : name;
    int distance = edit_distance(name, known);
    return shorter.n >= 4 && slice_starts_with(longer, shorter) && distance > 2 ? 2 : distance;
}

const char *settings_nearest(struct slice name, uint32_t places, bool hooks) {
    const char *nearest = NULL;
    if (name.n > NAME_LENGTH) return NULL;
    int limit = 1 + (int)name.n / 4;
    for (const struct setting *row = settings_table; row->name; row++) {
        if (!(places >> row->place & 1) || (hooks && row->type != SETTING_HOOK)) continue;
        int distance = name_distance(name, slice_of(row->name));
        if (distance > limit || distance >= (int)name.n) continue;
        nearest = row->name;
        limit = distance - 1;
    }
    return nearest;
}
