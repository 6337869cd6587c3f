/* What this binary is, for --version, status and metrics. */
#pragma once

#include <stdio.h>

const char *version_text(void); /* "0.1.0" */
const char *version_commit(void);
/* All lines of `moongate --version`. */
void version_write(FILE *);
