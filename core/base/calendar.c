/* The calendar by hand: strftime follows the locale, and timegm takes what is no date (31 February). Days are counted
 * from 1 March, so that the leap day comes last and months have a formula (Hinnant, "chrono-compatible low-level date
 * algorithms"). */
#include "base/calendar.h"

enum { DAY = 86400, DAYS_TO_1970 = 719468, DAYS_OF_400_YEARS = 146097 };

static int64_t days_of(const struct calendar *c) {
    int64_t year = c->year - (c->month <= 2);
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (c->month + (c->month > 2 ? -3 : 9)) + 2) / 5 + c->day - 1;
    return era * DAYS_OF_400_YEARS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           DAYS_TO_1970;
}

/* Rounded down, also before 1970. */
static int64_t day_number(int64_t when) { return when / DAY - (when % DAY < 0); }

static void set_day(struct calendar *c, int64_t days) {
    days += DAYS_TO_1970;
    int64_t era = (days >= 0 ? days : days - (DAYS_OF_400_YEARS - 1)) / DAYS_OF_400_YEARS;
    int64_t day_of_era = days - era * DAYS_OF_400_YEARS;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    c->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    c->month = (int)(month < 10 ? month + 3 : month - 9);
    c->year = year_of_era + era * 400 + (c->month <= 2);
}

static int days_in_month(const struct calendar *c) {
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = c->year % 4 == 0 && (c->year % 100 != 0 || c->year % 400 == 0);
    return days[c->month - 1] + (c->month == 2 && leap);
}

bool calendar_valid(const struct calendar *c) {
    return c->month >= 1 && c->month <= 12 && c->day >= 1 && c->day <= days_in_month(c) && c->hour >= 0 &&
           c->hour <= 23 && c->minute >= 0 && c->minute <= 59 && c->second >= 0 && c->second <= 60;
}

int64_t calendar_seconds(const struct calendar *c) {
    return days_of(c) * DAY + c->hour * 3600 + c->minute * 60 + c->second;
}

void calendar_split(struct calendar *c, int64_t when) {
    int64_t days = day_number(when), rest = when - days * DAY;
    set_day(c, days);
    c->hour = (int)(rest / 3600);
    c->minute = (int)(rest / 60 % 60);
    c->second = (int)(rest % 60);
}

/* 1 January 1970 was a Thursday. */
int calendar_weekday(int64_t when) { return (int)((day_number(when) % 7 + 11) % 7); }

int calendar_year_day(const struct calendar *c) {
    struct calendar first = { .year = c->year, .month = 1, .day = 1 };
    return (int)(days_of(c) - days_of(&first)) + 1;
}
