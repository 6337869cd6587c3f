/* Who the serving process is, and what the privileged supervisor grants it (DESIGN 3: the config is a program, so it
 * never runs with more rights than `user` has). */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* The user a root-started Moongate becomes when nobody says otherwise. */
#define PRIVILEGE_DEFAULT_USER "nobody"

/* Started as root: there is something to give up. */
bool privilege_present(void);
/* Is there such a user? */
bool privilege_user_exists(const char *name);
/* Why root does not become that user when a config names him; NULL: he does. */
const char *privilege_user_wrong(const char *name);
/* The name of who we are, or the number. In a static buffer. */
const char *privilege_own_name(void);
/* Becomes that user with his groups, for good: no_new_privs, no way back. False and `*why` (static) if it cannot. */
bool privilege_drop(const char *name, const char **why);

/* Opens what a serving process without privilege asked for; -1 with errno. In the supervisor.
 *
 * grant_read: a regular file that is the config itself, a .lua file below its directory or below the
 * directories of Moongate's own Lua, or anything below `keys`. Links count as what they lead to.
 * grant_append: a regular file (made if need be, 0640) whose name ends in .log or that lies below /var/log. */
struct grant_places {
    char config[PATH_MAX], keys[PATH_MAX]; /* real paths; empty: there is none */
    char directory[PATH_MAX];              /* of the config as it is named, real */
};
/* Where those places are now; `keys` may be NULL. */
void grant_places_find(struct grant_places *, const char *config, const char *keys);
int grant_read(const char *path, const struct grant_places *);
int grant_append(const char *path);
