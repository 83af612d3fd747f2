/* SPDX-License-Identifier: MIT */
/* Raw mode. What ends a process without coming back to main: exit (atexit sets the terminal back), and
 * signals whose action is the default (a handler sets it back, then the signal strikes again).
 * Signals that somebody handles already are theirs: they lead to a normal end.
 *
 * Job control: keys cannot stop the process, since they are the guest's, but others can (kill -TSTP). The terminal is set
 * back before and taken again after that. A shell that continues a process in the background and brings it to the
 * foreground later tells nobody: who reads input asks (raw_terminal_attend). */
#include "runtime/raw_terminal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static const int fatal_signals[] = {SIGHUP,  SIGINT,  SIGQUIT,   SIGILL,  SIGTRAP, SIGABRT, SIGBUS,
                                    SIGFPE,  SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM, SIGTERM,
                                    SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS};
#define SIGNALS (sizeof fatal_signals / sizeof *fatal_signals)

static struct {
    int fd;
    int wake;    /* eventfd of who reads input */
    pid_t group; /* this process's */
    struct termios before;
    atomic_bool wanted; /* raw while this process is in the foreground */
    bool raw;           /* we made it so, and `before` is how it was */
    atomic_flag busy;   /* somebody changes `raw` or the terminal */
} terminal = {.busy = ATOMIC_FLAG_INIT};

/* ---- one change at a time ---- */

/* With all signals blocked whoever holds it goes on: a signal's handler can wait for another thread. And a terminal's
 * settings can be changed where SIGTTOU would stop us. */
static void begin(sigset_t *mask)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, mask);
    while (atomic_flag_test_and_set(&terminal.busy))
        ;
}

static void end(const sigset_t *mask)
{
    atomic_flag_clear(&terminal.busy);
    pthread_sigmask(SIG_SETMASK, mask, NULL);
}

/* ---- taking and giving back ---- */

static bool in_background(void)
{
    pid_t foreground = tcgetpgrp(terminal.fd);
    return foreground >= 0 && foreground != terminal.group;
}

/* Raw for those in the foreground. `again`: even if it is raw already, since others had it. */
static void take(bool again)
{
    struct termios raw;
    if ((terminal.raw && !again) || !atomic_load(&terminal.wanted) || in_background() ||
        (!terminal.raw && tcgetattr(terminal.fd, &terminal.before)))
        return;
    raw = terminal.before;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    terminal.raw = !tcsetattr(terminal.fd, TCSANOW, &raw) || terminal.raw;
}

/* After a stop, in the foreground or in the background. */
static void take_again(void)
{
    const uint64_t one = 1;
    sigset_t mask;
    int saved = errno;
    begin(&mask);
    take(true);
    end(&mask);
    if (write(terminal.wake, &one, sizeof one) < 0) {
        /* its count is full: it wakes all the same */
    }
    errno = saved;
}

void raw_terminal_leave(void)
{
    sigset_t mask;
    int saved = errno;
    if (atomic_exchange(&terminal.wanted, false)) {
        begin(&mask);
        if (terminal.raw && !in_background())
            tcsetattr(terminal.fd, TCSANOW, &terminal.before);
        terminal.raw = false;
        end(&mask);
    }
    errno = saved;
}

bool raw_terminal_attend(void)
{
    sigset_t mask;
    if (in_background())
        return false;
    begin(&mask);
    take(false);
    end(&mask);
    return true;
}

/* ---- signals ---- */

static void on_fatal_signal(int signal)
{
    raw_terminal_leave();
    raise(signal); /* SA_RESETHAND: the default action now */
}

static void on_continue(int signal)
{
    (void)signal;
    take_again(); /* SIGSTOP gave us no occasion to set it back: a shell may have */
}

static void on_stop(int signal);
static const struct {
    int signal;
    void (*handler)(int);
} job_control[] = {{SIGTSTP, on_stop}, {SIGCONT, on_continue}};

static void on_stop(int signal)
{
    struct sigaction stop = {.sa_handler = SIG_DFL}, ours;
    sigset_t this, mask;
    int saved = errno;
    bool wanted = atomic_load(&terminal.wanted);
    raw_terminal_leave();
    sigemptyset(&this);
    sigaddset(&this, signal);
    sigaction(signal, &stop, &ours);
    raise(signal);
    pthread_sigmask(SIG_UNBLOCK, &this, &mask); /* here we stand until SIGCONT */
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(signal, &ours, NULL);
    atomic_store(&terminal.wanted, wanted);
    take_again();
    errno = saved;
}

/* Leaves a signal alone that somebody handles or ignores. */
static void catch_signal(int signal, void (*handler)(int), int flags)
{
    const struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct sigaction now;
    if (!sigaction(signal, NULL, &now) && now.sa_handler == SIG_DFL)
        sigaction(signal, &action, NULL);
}

static void catch_signals(void)
{
    for (size_t i = 0; i < SIGNALS; i++)
        catch_signal(fatal_signals[i], on_fatal_signal, (int)(SA_RESETHAND | SA_NODEFER));
    for (size_t i = 0; i < sizeof job_control / sizeof *job_control; i++)
        catch_signal(job_control[i].signal, job_control[i].handler, SA_RESTART);
}

bool raw_terminal_enter(int fd, int wake)
{
    static bool at_exit;
    if (atomic_load(&terminal.wanted) || tcgetpgrp(fd) < 0)
        return false;
    terminal.fd = fd;
    terminal.wake = wake;
    terminal.group = getpgrp();
    if (!at_exit)
        at_exit = !atexit(raw_terminal_leave);
    catch_signals();
    atomic_store(&terminal.wanted, true);
    raw_terminal_attend();
    return true;
}
