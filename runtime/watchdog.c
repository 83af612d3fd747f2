/* SPDX-License-Identifier: MIT */
/* What ends a run from outside. Signal handlers only ask: the engine ends the run. */
#include "runtime/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "runtime/vm.h"

static struct vm *watched;

static const int signals[] = {SIGALRM, SIGINT, SIGTERM, SIGHUP};
#define SIGNALS (sizeof signals / sizeof signals[0])

static struct sigaction before[SIGNALS];

_Static_assert(HVRUN_SIGINT == 128 + SIGINT && HVRUN_SIGTERM == 128 + SIGTERM, "as a shell does");

static void on_signal(int number)
{
    struct vm *vm = watched;
    if (!vm)
        return;
    if (number == SIGALRM)
        vm_request_stop(vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    else
        vm_request_stop(vm, SHUTDOWN_SIGNAL, 128 + number);
}

/* Who started us may have blocked the signals or, with nohup, asked not to be hung up on. */
static int catch_signals(struct error *err)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigset_t wanted;
    sigemptyset(&action.sa_mask);
    sigemptyset(&wanted);
    for (size_t n = 0; n < SIGNALS; n++) {
        if (sigaction(signals[n], NULL, &before[n]) < 0 ||
            (!(signals[n] == SIGHUP && before[n].sa_handler == SIG_IGN) &&
             sigaction(signals[n], &action, NULL) < 0))
            return fail(err, HVRUN_HOST, "signal %d: %s", signals[n], strerror(errno));
        sigaddset(&wanted, signals[n]);
    }
    if (pthread_sigmask(SIG_UNBLOCK, &wanted, NULL))
        return fail(err, HVRUN_HOST, "signals cannot be unblocked");
    return 0;
}

int watchdog_start(struct vm *vm, struct error *err)
{
    watched = vm;
    return catch_signals(err);
}

int watchdog_set_timer(const struct vm *vm, struct error *err)
{
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

void watchdog_stop(void)
{
    struct itimerval none = {0};
    if (!watched)
        return;
    setitimer(ITIMER_REAL, &none, NULL);
    for (size_t n = 0; n < SIGNALS; n++)
        sigaction(signals[n], &before[n], NULL);
    watched = NULL;
}
