/* What the supervisor and the serving process say to each other. Two socket pairs (SOCK_SEQPACKET, so a message is
 * whole or absent) connect them:
 *
 *   orders  the supervisor tells (SETUP, RELOAD, DRAIN, …) and the serving process reports (READY, FAILED, DONE, …).
 *           Nobody waits.
 *   asks    the serving process asks for what needs privilege, one question at a time, and waits for the GRANT (ask.h).
 *
 * The end of either means that the other process is gone. Messages carry text and descriptors; both are the receiver's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum message_kind {
    /* orders, to the serving process */
    MESSAGE_SETUP = 1, /* the first one: text is a struct setup */
    MESSAGE_RELOAD,    /* id: of the command, 0 for a signal; answered by DONE */
    MESSAGE_STATUS,    /* id; answered by DONE with JSON */
    MESSAGE_DRAIN,     /* stop accepting, finish, end */
    MESSAGE_STOP,      /* end now */
    MESSAGE_REOPEN,    /* open the log files anew */
    MESSAGE_TRACE,     /* text: the arguments; a descriptor: whom to tell (onlooker.h) */
    MESSAGE_PROFILE,   /* likewise */
    MESSAGE_CACHE,     /* id; text: an order (cache_orders.h); answered by DONE */
    /* orders, from the serving process */
    MESSAGE_READY,  /* it serves; text: its addresses, ", " between; status: the drain time in milliseconds */
    MESSAGE_FAILED, /* it could not start; text: all errors. It ends by itself */
    MESSAGE_USER,   /* text: the config names this user; it ends by itself, to be started again as him */
    MESSAGE_DONE,   /* id; status 0: done; text: what to print */
    MESSAGE_WATCH,  /* text: the files of the last load, a NUL behind each */
    /* asks */
    MESSAGE_BIND,    /* text: an address; status: how many sockets at least */
    MESSAGE_RELEASE, /* text: an address nobody listens on any more */
    MESSAGE_READ,    /* text: a path */
    MESSAGE_APPEND,  /* text: a log file's path; status 1: it is the error log */
    MESSAGE_GRANT,   /* status 0 and the descriptors, or an errno; text: why not, may be empty */
    MESSAGE_READ_MANY /* text: at most MESSAGE_FDS paths, a NUL behind each. The GRANT's text is an int32_t for each, 0 or
                         an errno; it has the descriptors of those that are 0, in order */
};

enum { MESSAGE_FDS = 128 };

struct message {
    enum message_kind kind;
    uint32_t id;
    int32_t status;
    char *text; /* malloc'd, NUL-terminated behind `size` bytes; never NULL after channel_receive */
    size_t size;
    int fds[MESSAGE_FDS];
    unsigned fd_count;
};

/* Both pairs, close-on-exec; [0] is the supervisor's end. False: errno. */
bool channel_open(int ends[2]);
/* Sends; waits at most a second for room. The message and its descriptors stay the caller's. False: the other side is
 * gone or does not read. From any thread. */
bool channel_send(int fd, const struct message *);
/* Appends a text and a NUL to that of a message; ->text is freed by the caller. */
void message_add_text(struct message *, const char *text);
bool channel_say(int fd, enum message_kind, uint32_t id, int32_t status, const char *text);
enum channel_result { CHANNEL_MESSAGE, CHANNEL_NOTHING, CHANNEL_ENDED };
/* Takes the next message, to be given to message_fini. `wait`: until there is one. */
enum channel_result channel_receive(int fd, bool wait, struct message *);
/* Frees the text and closes the descriptors that are left (those taken over were set to -1). */
void message_fini(struct message *);

/* What a serving process is told at its start. */
struct setup {
    char *file;        /* the config, absolute */
    char *keys;        /* --keys, absolute; NULL: none */
    char *user;        /* to become; NULL: stay who you are */
    bool user_fixed;   /* by --user: the config's `user` does not count */
    bool detached;     /* -D: stderr goes away when ready, if it is a terminal */
    unsigned workers;  /* --workers; 0: not given */
    unsigned restarts; /* how often a serving process has died */
    pid_t supervisor;
};
bool setup_send(int fd, const struct setup *);
/* False: malformed. */
bool setup_read(struct setup *, const struct message *);
void setup_fini(struct setup *);
