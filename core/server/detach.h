/* `run -D`: leaving the terminal that started us. */
#pragma once

/* Forks. The parent does not return: it ends with 0 when the child says that it is ready, else with the child's
 * status. The child is the leader of a new session, and gets the descriptor to say it with. */
int detach_begin(void);
/* In the child: says so. */
void detach_ready(int fd);
/* stdin, stdout and, unless it is a file, stderr become /dev/null: whoever reads a pipe from us sees its end. */
void detach_stdio(void);
