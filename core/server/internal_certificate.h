/* The certificate of `tls = "internal"`: signed by itself, for localhost, made at its first use and kept. */
#pragma once

#include <stdbool.h>

/* PEM with its key, malloc'd. `*kept`: it will be the same after a restart. Any thread. */
char *internal_certificate(bool *kept);
