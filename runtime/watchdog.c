/* What ends a run from outside. Signal handlers only ask: the engine ends the run. */
#include "runtime/watchdog.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "runtime/vm.h"

static struct vm *watched;

static void on_signal(int number)
{
    struct vm *vm = watched;
    if (!vm)
        return;
    if (number == SIGALRM)
        vm_request_stop(vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    else
        vm_request_stop(vm, SHUTDOWN_SIGNAL, number == SIGINT ? HVRUN_SIGINT : HVRUN_SIGTERM);
}

static const int signals[] = {SIGALRM, SIGINT, SIGTERM, SIGHUP};

int watchdog_start(struct vm *vm, struct error *err)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    watched = vm;
    for (size_t n = 0; n < sizeof signals / sizeof signals[0]; n++)
        if (sigaction(signals[n], &action, NULL) < 0)
            return fail(err, HVRUN_HOST, "signal %d: %s", signals[n], strerror(errno));
    double seconds = vm->config.timeout;
    if (seconds > 0) {
        struct itimerval timer = {
            .it_value = {(time_t)seconds,
                         (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
        if (timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0)
            timer.it_value.tv_usec = 1;
        if (setitimer(ITIMER_REAL, &timer, NULL) < 0)
            return fail(err, HVRUN_HOST, "timer: %s", strerror(errno));
    }
    return 0;
}

void watchdog_stop(struct vm *vm)
{
    struct itimerval none = {0};
    (void)vm;
    setitimer(ITIMER_REAL, &none, NULL);
    watched = NULL;
}
