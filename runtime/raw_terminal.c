/* SPDX-License-Identifier: MIT */
/* Raw mode. What ends a process without coming back to main: exit (atexit sets the terminal back), and
 * signals whose action is the default (a handler sets it back, then the signal strikes again).
 * Signals that somebody handles already are theirs: they lead to a normal end. */
#include "runtime/raw_terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static const int fatal_signals[] = {SIGHUP,  SIGINT,  SIGQUIT,   SIGILL,  SIGTRAP, SIGABRT, SIGBUS,
                                    SIGFPE,  SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM, SIGTERM,
                                    SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS};
#define SIGNALS (sizeof fatal_signals / sizeof *fatal_signals)

static struct {
    int fd;
    struct termios before;
    atomic_bool raw;
    bool ours[SIGNALS]; /* the handler is on_fatal_signal */
} terminal;

void raw_terminal_leave(void)
{
    int saved = errno;
    if (atomic_exchange(&terminal.raw, false))
        tcsetattr(terminal.fd, TCSANOW, &terminal.before);
    errno = saved;
}

static void on_fatal_signal(int signal)
{
    raw_terminal_leave();
    raise(signal); /* SA_RESETHAND: the default action now */
}

static void catch_signals(void)
{
    for (size_t i = 0; i < SIGNALS; i++) {
        struct sigaction now;
        terminal.ours[i] = !sigaction(fatal_signals[i], NULL, &now) && now.sa_handler == SIG_DFL;
        if (terminal.ours[i]) {
            struct sigaction action = {.sa_handler = on_fatal_signal,
                                       .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
            sigaction(fatal_signals[i], &action, NULL);
        }
    }
}

bool raw_terminal_enter(int fd)
{
    static bool at_exit;
    struct termios raw;
    if (atomic_load(&terminal.raw) || tcgetattr(fd, &terminal.before) || tcgetpgrp(fd) != getpgrp())
        return false;
    terminal.fd = fd;
    raw = terminal.before;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (!at_exit)
        at_exit = !atexit(raw_terminal_leave);
    catch_signals();
    atomic_store(&terminal.raw, true);
    if (tcsetattr(fd, TCSANOW, &raw)) {
        atomic_store(&terminal.raw, false);
        return false;
    }
    return true;
}
