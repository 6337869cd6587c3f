/* Dates of the Gregorian calendar in UTC, and the seconds since 1970 that they stand for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct calendar {
    int64_t year;
    int month, day; /* 1.. */
    int hour, minute, second;
};

/* Four digits of a year: what scripts and HTTP can write. */
static const int64_t CALENDAR_FIRST = -62167219200, CALENDAR_LAST = 253402300799;

/* Is there such a day and time? Second 60 is a leap second. */
bool calendar_valid(const struct calendar *);
int64_t calendar_seconds(
    const struct calendar *); /* only of a valid one; those of a leap second are the next minute's */
void calendar_split(struct calendar *, int64_t when);
int calendar_weekday(int64_t when);             /* 0: Sunday */
int calendar_year_day(const struct calendar *); /* 1 for 1 January */
