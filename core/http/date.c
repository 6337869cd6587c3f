/* HTTP dates, read and written by hand: strftime and strptime follow the locale. */
#include "http/date.h"

#include "base/calendar.h"
#include "base/clock.h"

static const char weekdays[7][10] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static void write_two(char *to, int n) {
    to[0] = (char)('0' + n / 10 % 10);
    to[1] = (char)('0' + n % 10);
}

void date_write(char to[30], time_t when) {
    struct calendar d;
    if (when < CALENDAR_FIRST) when = CALENDAR_FIRST;
    if (when > CALENDAR_LAST) when = CALENDAR_LAST;
    calendar_split(&d, when);

    memcpy(to, "Sun, 00 Jan 0000 00:00:00 GMT", 30);
    memcpy(to, weekdays[calendar_weekday(when)], 3);
    write_two(to + 5, d.day);
    memcpy(to + 8, months + 3 * (d.month - 1), 3);
    write_two(to + 12, (int)(d.year / 100));
    write_two(to + 14, (int)(d.year % 100));
    write_two(to + 17, d.hour);
    write_two(to + 20, d.minute);
    write_two(to + 23, d.second);
}

struct slice date_now(void) {
    static _Thread_local char text[30];
    static _Thread_local time_t made = -1;
    time_t now = (time_t)clock_second();
    if (now != made) {
        date_write(text, now);
        made = now;
    }
    return slice_make(text, 29);
}

/* ---- reading: each take_ function takes its part off the front, or says false */

static bool take_text(struct slice *s, const char *text) {
    struct slice wanted = slice_of(text);
    if (!slice_starts_with(*s, wanted)) return false;
    *s = slice_skip(*s, wanted.n);
    return true;
}

static bool take_digits(struct slice *s, size_t n, int *out) {
    uint64_t value;
    if (s->n < n || !slice_to_u64(slice_make(s->p, n), &value)) return false;
    *out = (int)value;
    *s = slice_skip(*s, n);
    return true;
}

static bool take_month(struct slice *s, struct calendar *d) {
    if (s->n < 3) return false;
    for (d->month = 1; d->month <= 12; d->month++)
        if (memcmp(s->p, months + 3 * (d->month - 1), 3) == 0) break;
    *s = slice_skip(*s, 3);
    return d->month <= 12;
}

static bool take_time(struct slice *s, struct calendar *d) {
    return take_digits(s, 2, &d->hour) && take_text(s, ":") && take_digits(s, 2, &d->minute) && take_text(s, ":") &&
           take_digits(s, 2, &d->second);
}

static bool take_weekday(struct slice *s, bool whole) {
    for (int i = 0; i < 7; i++) {
        struct slice name = slice_of(weekdays[i]);
        if (!whole) name.n = 3;
        if (!slice_starts_with(*s, name)) continue;
        *s = slice_skip(*s, name.n);
        return true;
    }
    return false;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool read_fixdate(struct slice s, struct calendar *d) {
    int year;
    if (!take_weekday(&s, false) || !take_text(&s, ", ") || !take_digits(&s, 2, &d->day) || !take_text(&s, " ") ||
        !take_month(&s, d) || !take_text(&s, " ") || !take_digits(&s, 4, &year) || !take_text(&s, " ") ||
        !take_time(&s, d) || !take_text(&s, " GMT"))
        return false;
    d->year = year;
    return s.n == 0;
}

/* A year of two digits that seems more than 50 years ahead is in the past (RFC 9110 5.6.7). */
static int64_t full_year(int two_digits) {
    struct calendar today;
    calendar_split(&today, clock_second());
    int64_t year = today.year / 100 * 100 + two_digits;
    return year > today.year + 50 ? year - 100 : year;
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" */
static bool read_rfc850(struct slice s, struct calendar *d) {
    int year;
    if (!take_weekday(&s, true) || !take_text(&s, ", ") || !take_digits(&s, 2, &d->day) || !take_text(&s, "-") ||
        !take_month(&s, d) || !take_text(&s, "-") || !take_digits(&s, 2, &year) || !take_text(&s, " ") ||
        !take_time(&s, d) || !take_text(&s, " GMT"))
        return false;
    d->year = full_year(year);
    return s.n == 0;
}

/* "Sun Nov  6 08:49:37 1994" */
static bool read_asctime(struct slice s, struct calendar *d) {
    int year;
    if (!take_weekday(&s, false) || !take_text(&s, " ") || !take_month(&s, d) || !take_text(&s, " ")) return false;
    if (take_text(&s, " ") ? !take_digits(&s, 1, &d->day) : !take_digits(&s, 2, &d->day)) return false;
    if (!take_text(&s, " ") || !take_time(&s, d) || !take_text(&s, " ") || !take_digits(&s, 4, &year)) return false;
    d->year = year;
    return s.n == 0;
}

bool date_read(struct slice s, int64_t *when) {
    struct calendar d;
    if (!read_fixdate(s, &d) && !read_rfc850(s, &d) && !read_asctime(s, &d)) return false;
    if (!calendar_valid(&d)) return false;
    *when = calendar_seconds(&d);
    return true;
}

time_t date_parse(struct slice s) {
    int64_t when;
    if (!date_read(s, &when)) return -1;
    return when < 0 ? 0 : when;
}
