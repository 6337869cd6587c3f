/* HTTP dates, read and written by hand: strftime and strptime follow the locale, and timegm takes what is no date (31
 * February). Days are counted from 1 March, so that the leap day comes last and months have a formula
 * (Hinnant, "chrono-compatible low-level date algorithms"). */
#include "http/date.h"

#include "base/clock.h"

static const char weekdays[7][10] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

struct date {
    long year;
    int month, day; /* 1.. */
    int hour, minute, second;
};

static long days_of(const struct date *d) {
    long year = d->year - (d->month <= 2);
    long era = (year >= 0 ? year : year - 399) / 400;
    long year_of_era = year - era * 400;
    long day_of_year = (153 * (d->month + (d->month > 2 ? -3 : 9)) + 2) / 5 + d->day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void set_day(struct date *d, long days) {
    days += 719468;
    long era = (days >= 0 ? days : days - 146096) / 146097;
    long day_of_era = days - era * 146097;
    long year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    long day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    long month = (5 * day_of_year + 2) / 153;
    d->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    d->month = (int)(month < 10 ? month + 3 : month - 9);
    d->year = year_of_era + era * 400 + (d->month <= 2);
}

static void write_two(char *to, int n) {
    to[0] = (char)('0' + n / 10 % 10);
    to[1] = (char)('0' + n % 10);
}

void date_write(char to[30], time_t when) {
    long days = when / 86400, seconds = when % 86400;
    if (seconds < 0) seconds += 86400, days--;
    struct date d = { .hour = (int)(seconds / 3600),
                      .minute = (int)(seconds / 60 % 60),
                      .second = (int)(seconds % 60) };
    set_day(&d, days);
    if (d.year < 0 || d.year > 9999) d.year = d.year < 0 ? 0 : 9999;
    long weekday = (days % 7 + 11) % 7; /* 1 January 1970 was a Thursday */

    memcpy(to, "Sun, 00 Jan 0000 00:00:00 GMT", 30);
    memcpy(to, weekdays[weekday], 3);
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

static bool take_month(struct slice *s, struct date *d) {
    if (s->n < 3) return false;
    for (d->month = 1; d->month <= 12; d->month++)
        if (memcmp(s->p, months + 3 * (d->month - 1), 3) == 0) break;
    *s = slice_skip(*s, 3);
    return d->month <= 12;
}

static bool take_time(struct slice *s, struct date *d) {
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
static bool read_fixdate(struct slice s, struct date *d) {
    int year;
    if (!take_weekday(&s, false) || !take_text(&s, ", ") || !take_digits(&s, 2, &d->day) || !take_text(&s, " ") ||
        !take_month(&s, d) || !take_text(&s, " ") || !take_digits(&s, 4, &year) || !take_text(&s, " ") ||
        !take_time(&s, d) || !take_text(&s, " GMT"))
        return false;
    d->year = year;
    return s.n == 0;
}

/* A year of two digits that seems more than 50 years ahead is in the past (RFC 9110 5.6.7). */
static long full_year(int two_digits) {
    struct date today = { 0 };
    set_day(&today, (long)(clock_second() / 86400));
    long year = today.year / 100 * 100 + two_digits;
    return year > today.year + 50 ? year - 100 : year;
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" */
static bool read_rfc850(struct slice s, struct date *d) {
    int year;
    if (!take_weekday(&s, true) || !take_text(&s, ", ") || !take_digits(&s, 2, &d->day) || !take_text(&s, "-") ||
        !take_month(&s, d) || !take_text(&s, "-") || !take_digits(&s, 2, &year) || !take_text(&s, " ") ||
        !take_time(&s, d) || !take_text(&s, " GMT"))
        return false;
    d->year = full_year(year);
    return s.n == 0;
}

/* "Sun Nov  6 08:49:37 1994" */
static bool read_asctime(struct slice s, struct date *d) {
    int year;
    if (!take_weekday(&s, false) || !take_text(&s, " ") || !take_month(&s, d) || !take_text(&s, " ")) return false;
    if (take_text(&s, " ") ? !take_digits(&s, 1, &d->day) : !take_digits(&s, 2, &d->day)) return false;
    if (!take_text(&s, " ") || !take_time(&s, d) || !take_text(&s, " ") || !take_digits(&s, 4, &year)) return false;
    d->year = year;
    return s.n == 0;
}

static int days_in_month(const struct date *d) {
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = d->year % 4 == 0 && (d->year % 100 != 0 || d->year % 400 == 0);
    return days[d->month - 1] + (d->month == 2 && leap);
}

/* 60 is a leap second. */
static bool date_exists(const struct date *d) {
    return d->day >= 1 && d->day <= days_in_month(d) && d->hour <= 23 && d->minute <= 59 && d->second <= 60;
}

/* What is before 1970 is 1970: callers ask only whether it has passed, and -1 must stay free. */
time_t date_parse(struct slice s) {
    struct date d;
    if (!read_fixdate(s, &d) && !read_rfc850(s, &d) && !read_asctime(s, &d)) return -1;
    if (!date_exists(&d)) return -1;
    long when = days_of(&d) * 86400 + d.hour * 3600 + d.minute * 60 + d.second;
    return when < 0 ? 0 : when;
}
