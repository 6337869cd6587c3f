/* gate.time: dates as HTTP and RFC 3339 write them, and strftime's way for the rest. All in UTC and English, whatever
 * the locale, years 0 to 9999. Times are Unix seconds.
 *
 * Of ISO 8601 this reads the calendar dates, extended ("2026-11-23T07:14:50.5Z") or basic ("20261123T071450Z"). A time
 * without a zone is refused, since nobody knows which was meant; a date alone is its midnight in UTC. Weeks, ordinal
 * days and times without minutes are left out, as RFC 3339 does. */
#include "lua/bind.h"

#include "base/calendar.h"
#include "base/clock.h"
#include "http/date.h"
#include "http/grammar.h"
#include "lua/sandbox.h"

#include <math.h>
#include <stdio.h>

enum { TEXT_MAX = 256, FORMAT_MAX = 256, DIGITS_MAX = 9, ISO_TEXT = 48 };

/* ---- arguments */

/* Now, if it is missing. */
static double time_check(lua_State *L, int arg) {
    if (lua_isnoneornil(L, arg)) return clock_wall();
    if (lua_type(L, arg) != LUA_TNUMBER) luaL_typeerror(L, arg, "number");
    double when = lua_tonumber(L, arg);
    if (!(when >= (double)CALENDAR_FIRST && when < (double)(CALENDAR_LAST + 1)))
        luaL_argerror(L, arg, "Unix seconds of the years 0 to 9999 expected");
    return when;
}

static int fail_time(lua_State *L, const char *what) {
    return fail_world_with(L, "bad_time", "the text is no %s", what);
}

/* ---- HTTP */

static int time_http(lua_State *L) {
    char text[30];
    date_write(text, (time_t)floor(time_check(L, 1)));
    lua_pushlstring(L, text, 29);
    return 1;
}

static int time_parse_http(lua_State *L) {
    int64_t when;
    if (!date_read(slice_trim(string_check(L, 1, TEXT_MAX)), &when)) return fail_time(L, "date of HTTP");
    lua_pushinteger(L, when);
    return 1;
}

/* ---- ISO 8601, RFC 3339 */

/* What is left of a second, in so many parts of it; less than `parts`. */
static unsigned fraction_of(double when, unsigned parts) {
    unsigned n = (unsigned)((when - floor(when)) * parts);
    return n < parts ? n : parts - 1;
}

static int time_iso(lua_State *L) {
    double when = time_check(L, 1), whole = floor(when);
    lua_Integer digits = luaL_optinteger(L, 2, 0);
    if (digits < 0 || digits > DIGITS_MAX) return luaL_argerror(L, 2, "0 to 9 digits expected");
    struct calendar c;
    char text[ISO_TEXT], fraction[DIGITS_MAX + 4] = "";
    calendar_split(&c, (int64_t)whole);
    /* Cut, not rounded: a time must not come out as a later one. */
    if (digits) snprintf(fraction, sizeof fraction, ".%09u", fraction_of(when, 1000000000));
    int n = snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d%.*sZ", (int)c.year, c.month, c.day, c.hour,
                     c.minute, c.second, digits ? (int)digits + 1 : 0, fraction);
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

static bool take_char(struct slice *s, const char *one_of) {
    if (!s->n || !*s->p || !strchr(one_of, *s->p)) return false;
    *s = slice_skip(*s, 1);
    return true;
}

static bool take_number(struct slice *s, size_t digits, int *out) {
    uint64_t value;
    if (s->n < digits || !slice_to_u64(slice_make(s->p, digits), &value)) return false;
    *out = (int)value;
    *s = slice_skip(*s, digits);
    return true;
}

/* The separator that stands in the extended form, and in the basic one does not. */
static bool take_joint(struct slice *s, bool extended, const char *joint) { return !extended || take_char(s, joint); }

static bool take_date(struct slice *s, struct calendar *c, bool *extended) {
    int year;
    if (!take_number(s, 4, &year)) return false;
    c->year = year;
    *extended = s->n && *s->p == '-';
    return take_joint(s, *extended, "-") && take_number(s, 2, &c->month) && take_joint(s, *extended, "-") &&
           take_number(s, 2, &c->day);
}

/* Digits beyond the ninth are below what a double holds. */
static bool take_fraction(struct slice *s, double *fraction) {
    *fraction = 0;
    if (!take_char(s, ".,")) return true;
    double unit = 0.1;
    size_t n = 0;
    for (; n < s->n && byte_is(s->p[n], BYTE_DIGIT); n++) {
        if (n < DIGITS_MAX) *fraction += unit * (s->p[n] - '0');
        unit /= 10;
    }
    *s = slice_skip(*s, n);
    return n > 0;
}

/* Seconds east of UTC: "Z", "+01:00", "+0100", "-08". */
static bool take_zone(struct slice *s, int *offset) {
    int hours, minutes = 0;
    *offset = 0;
    if (take_char(s, "Zz")) return true;
    int sign = s->n && *s->p == '-' ? -1 : 1;
    if (!take_char(s, "+-") || !take_number(s, 2, &hours)) return false;
    if (s->n && (!take_joint(s, *s->p == ':', ":") || !take_number(s, 2, &minutes))) return false;
    *offset = sign * (hours * 3600 + minutes * 60);
    return hours <= 23 && minutes <= 59;
}

static bool read_iso(struct slice s, int64_t *when, double *fraction) {
    struct calendar c = { 0 };
    bool extended;
    int offset = 0;
    *fraction = 0;
    if (!take_date(&s, &c, &extended)) return false;
    if (s.n) {
        if (!take_char(&s, "Tt ") || !take_number(&s, 2, &c.hour) || !take_joint(&s, extended, ":") ||
            !take_number(&s, 2, &c.minute) || !take_joint(&s, extended, ":") || !take_number(&s, 2, &c.second) ||
            !take_fraction(&s, fraction) || !take_zone(&s, &offset))
            return false;
    }
    if (s.n || !calendar_valid(&c)) return false;
    *when = calendar_seconds(&c) - offset;
    return true;
}

static int time_parse_iso(lua_State *L) {
    int64_t when;
    double fraction;
    if (!read_iso(string_check(L, 1, TEXT_MAX), &when, &fraction))
        return fail_time(L, "date and time of ISO 8601 with a zone");
    if (fraction > 0) lua_pushnumber(L, (double)when + fraction);
    else lua_pushinteger(L, when);
    return 1;
}

/* ---- strftime's way */

static const char *const weekdays[] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
static const char *const months[] = { "January", "February", "March",     "April",   "May",      "June",
                                      "July",    "August",   "September", "October", "November", "December" };

enum { PIECE_MAX = 32 };

/* Writes what one conversion stands for; its length, 0 if there is none such. */
static int write_piece(char to[PIECE_MAX], char which, const struct calendar *c, double when) {
    int weekday = calendar_weekday((int64_t)floor(when)), hour12 = c->hour % 12 ? c->hour % 12 : 12;
    switch (which) {
    case 'Y': return snprintf(to, PIECE_MAX, "%04d", (int)c->year);
    case 'y': return snprintf(to, PIECE_MAX, "%02d", (int)(c->year % 100));
    case 'm': return snprintf(to, PIECE_MAX, "%02d", c->month);
    case 'd': return snprintf(to, PIECE_MAX, "%02d", c->day);
    case 'e': return snprintf(to, PIECE_MAX, "%2d", c->day);
    case 'j': return snprintf(to, PIECE_MAX, "%03d", calendar_year_day(c));
    case 'H': return snprintf(to, PIECE_MAX, "%02d", c->hour);
    case 'I': return snprintf(to, PIECE_MAX, "%02d", hour12);
    case 'M': return snprintf(to, PIECE_MAX, "%02d", c->minute);
    case 'S': return snprintf(to, PIECE_MAX, "%02d", c->second);
    case 'f': return snprintf(to, PIECE_MAX, "%06u", fraction_of(when, 1000000));
    case 'p': return snprintf(to, PIECE_MAX, "%s", c->hour < 12 ? "AM" : "PM");
    case 'A': return snprintf(to, PIECE_MAX, "%s", weekdays[weekday]);
    case 'a': return snprintf(to, PIECE_MAX, "%.3s", weekdays[weekday]);
    case 'B': return snprintf(to, PIECE_MAX, "%s", months[c->month - 1]);
    case 'b': return snprintf(to, PIECE_MAX, "%.3s", months[c->month - 1]);
    case 'u': return snprintf(to, PIECE_MAX, "%d", weekday ? weekday : 7);
    case 'w': return snprintf(to, PIECE_MAX, "%d", weekday);
    case 's': return snprintf(to, PIECE_MAX, "%.0f", floor(when));
    case 'F': return snprintf(to, PIECE_MAX, "%04d-%02d-%02d", (int)c->year, c->month, c->day);
    case 'T': return snprintf(to, PIECE_MAX, "%02d:%02d:%02d", c->hour, c->minute, c->second);
    case 'Z': return snprintf(to, PIECE_MAX, "UTC");
    case 'z': return snprintf(to, PIECE_MAX, "+0000");
    case '%': return snprintf(to, PIECE_MAX, "%%");
    default: return 0;
    }
}

static int time_format(lua_State *L) {
    struct slice format = string_check(L, 1, FORMAT_MAX);
    double when = time_check(L, 2);
    struct calendar c;
    luaL_Buffer b;
    calendar_split(&c, (int64_t)floor(when));
    luaL_buffinit(L, &b);
    for (size_t i = 0; i < format.n; i++) {
        char piece[PIECE_MAX];
        if (format.p[i] != '%') {
            luaL_addchar(&b, format.p[i]);
            continue;
        }
        int n = ++i < format.n ? write_piece(piece, format.p[i], &c, when) : 0;
        if (n == 0) return luaL_argerror(L, 1, lua_pushfstring(L, "there is no conversion at byte %d", (int)i));
        luaL_addlstring(&b, piece, (size_t)n);
    }
    luaL_pushresult(&b);
    return 1;
}

void bind_time_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "http", time_http },           { "parse_http", time_parse_http }, { "iso", time_iso },
        { "parse_iso", time_parse_iso }, { "format", time_format },         { NULL, NULL },
    };
    luaL_newlib(L, functions);
    front_make(L, "gate.time");
    lua_setfield(L, -2, "time");
}
