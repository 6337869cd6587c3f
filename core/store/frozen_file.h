/* Reads what a frozen map is made of out of a file's text. */
#pragma once

#include "store/frozen.h"

enum frozen_format {
    FROZEN_LINES, /* key, white space, value; a key alone is true; # and empty lines are left out */
    FROZEN_CSV,   /* key,value with quotes as RFC 4180 has them; a key alone is true */
    FROZEN_TSV,   /* key, tab, value; a key alone is true */
    FROZEN_JSON   /* one object, its values anything but null */
};

/* By the ending of its name; "lines" for all others. */
enum frozen_format frozen_format_of(struct slice path);

struct frozen_trouble {
    uint32_t line;
    char what[128];
};

/* Adds all there is to the maker. `numbers`: values of lines, CSV and TSV are numbers, else strings. False: what is
 * wrong. */
bool frozen_read(struct frozen_maker *, struct slice text, enum frozen_format, bool numbers, struct frozen_trouble *);
