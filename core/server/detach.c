/* Going to the background only when everything serves, so that the exit status of the start means something. */
#include "server/detach.h"

#include "server/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the parent: waits for the child's byte, or for its end. */
static int await_ready(pid_t pid, int fd) {
    char byte;
    ssize_t n;
    do n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1) return EXIT_OK;
    int status = 0;
    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status)) return WEXITSTATUS(status);
    return EXIT_FAILED;
}

int detach_begin(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) exit(cli_fail(EXIT_FAILED, "%s", strerror(errno)));
    pid_t pid = fork();
    if (pid < 0) exit(cli_fail(EXIT_FAILED, "%s", strerror(errno)));
    if (pid > 0) {
        close(ends[1]);
        _exit(await_ready(pid, ends[0]));
    }
    close(ends[0]);
    setsid();
    return ends[1];
}

void detach_ready(int fd) {
    ssize_t told = write(fd, "", 1);
    (void)told; /* who waited may be gone */
    close(fd);
}

void detach_stdio(void) {
    struct stat st;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (fstat(STDERR_FILENO, &st) != 0 || !S_ISREG(st.st_mode)) dup2(null, STDERR_FILENO);
    close(null);
}
