/* Linux' own kind of timer (SIGEV_THREAD_ID): the others signal the process, which is any thread. The handler is
 * installed at each start, since that changes nothing when it is installed already. */
#include "lua/cpu_timer.h"

#include "base/must.h"

#include <string.h>
#include <unistd.h>

static void install_handler(int number, void (*on_signal)(int, siginfo_t *, void *)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    must(sigaction(number, &action, NULL) == 0);
}

bool cpu_timer_start(timer_t *timer, int number, void (*on_signal)(int, siginfo_t *, void *), void *with,
                     long tick_ns) {
#if defined(__SANITIZE_THREAD__)
    (void)timer, (void)number, (void)on_signal, (void)with, (void)tick_ns, (void)install_handler;
    return false;
#else
    install_handler(SIGRTMIN + number, on_signal);
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + number;
    event.sigev_value.sival_ptr = with;
    event._sigev_un._tid = gettid();
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, timer) != 0) return false;
    const struct timespec tick = { 0, tick_ns };
    const struct itimerspec every = { tick, tick };
    if (timer_settime(*timer, 0, &every, NULL) == 0) return true;
    timer_delete(*timer);
    return false;
#endif
}

void cpu_timer_stop(timer_t timer) { timer_delete(timer); }
