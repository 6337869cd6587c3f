/* Commands that run a config without serving it (check, explain): as whom. */
#pragma once

#include "server/cli.h"

/* Calls `work(with)`, which runs the config `args->file`, and returns its exit status; EXIT_FAILED if that file or the
 * one of --keys does not exist, which is said. `file:line` in what it prints leads there from where the caller stands.
 */
int as_user(const struct cli_args *args, int (*work)(const void *with), const void *with);
