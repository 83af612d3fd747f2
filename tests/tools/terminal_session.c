/* SPDX-License-Identifier: MIT */
/* A terminal, the shell at it, and whoever types: runs a program in the foreground of a new terminal and takes the steps
 * that are its arguments.
 *
 *   terminal_session [-b] STEP... -- PROGRAM ARGUMENT...      (-b: in the background)
 *
 *   say=TEXT     until TEXT is on the screen, after what was waited for before
 *   type=KEYS    keys of the keyboard
 *   raw cooked   until the terminal's settings are others than before, or the same
 *   resize       another size
 *   signal=N     to the program
 *   stopped      until it is stopped; the shell takes the terminal
 *   take give    the shell takes the terminal, or gives it to the program, and tells nobody
 *   go           SIGCONT
 *   running      it is neither stopped nor ended now, nor a little later
 *   hangup       the terminal goes away
 *   ended=CODE   until it has ended so; 128 + N by signal N
 *
 * Exit status 0 if every step was taken within ten seconds, 1 with a message otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 10000
#define TURN_MS     20
#define LITTLE_MS   300

static struct {
    int keys, screen; /* the terminal's two ends; keys -1: it has gone away */
    pid_t program;
    int status;
    bool ended, stopped;
    struct termios before;
    size_t seen, read; /* of `text` */
    char text[1 << 20];
} session;

/* ---- what the program does ---- */

static void look(int ms)
{
    struct pollfd p = {.fd = session.keys, .events = POLLIN};
    size_t room = sizeof session.text - 1 - session.read;
    if (poll(&p, 1, ms) > 0 && session.keys >= 0) {
        ssize_t count = read(session.keys, session.text + session.read, room ? room : 1);
        session.read += count > 0 && room ? (size_t)count : 0;
    }
    int status;
    if (!session.ended &&
        waitpid(session.program, &status, WNOHANG | WUNTRACED | WCONTINUED) == session.program) {
        session.stopped = WIFSTOPPED(status);
        session.ended = WIFEXITED(status) || WIFSIGNALED(status);
        session.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

static bool settings_are_as_before(void)
{
    struct termios now;
    return tcgetattr(session.screen, &now) == 0 && now.c_iflag == session.before.c_iflag &&
           now.c_oflag == session.before.c_oflag && now.c_cflag == session.before.c_cflag &&
           now.c_lflag == session.before.c_lflag &&
           !memcmp(now.c_cc, session.before.c_cc, sizeof now.c_cc);
}

/* ---- steps: true once taken ---- */

static bool say(const char *text)
{
    const char *found =
        memmem(session.text + session.seen, session.read - session.seen, text, strlen(text));
    if (found)
        session.seen = (size_t)(found - session.text) + strlen(text);
    return found;
}

static bool type(const char *keys)
{
    return write(session.keys, keys, strlen(keys)) == (ssize_t)strlen(keys);
}

static bool raw(const char *unused)
{
    (void)unused;
    return !settings_are_as_before();
}

static bool cooked(const char *unused)
{
    (void)unused;
    return settings_are_as_before();
}

static bool resize(const char *unused)
{
    static unsigned short turn;
    turn++;
    const struct winsize size = {.ws_row = 20 + turn, .ws_col = 70 + turn};
    (void)unused;
    return ioctl(session.keys, TIOCSWINSZ, &size) == 0;
}

static bool send_signal(const char *number)
{
    return kill(session.program, atoi(number)) == 0;
}

static bool take(const char *unused)
{
    (void)unused;
    return tcsetpgrp(session.screen, getpgrp()) == 0;
}

static bool give(const char *unused)
{
    (void)unused;
    return tcsetpgrp(session.screen, session.program) == 0;
}

static bool stopped(const char *unused)
{
    return session.stopped && take(unused);
}

static bool go(const char *unused)
{
    (void)unused;
    session.stopped = false;
    return kill(session.program, SIGCONT) == 0;
}

static bool running(const char *unused)
{
    (void)unused;
    for (int ms = 0; ms < LITTLE_MS; ms += TURN_MS) {
        look(0);
        usleep(TURN_MS * 1000);
    }
    return !session.stopped && !session.ended;
}

static bool hangup(const char *unused)
{
    (void)unused;
    int keys = session.keys;
    session.keys = -1;
    return close(keys) == 0;
}

static bool ended(const char *code)
{
    return session.ended && session.status == atoi(code);
}

static const struct {
    const char *name;
    bool (*taken)(const char *argument);
    bool once; /* not tried again */
} steps[] = {
    {"say", say, false},         {"type", type, true},
    {"raw", raw, false},         {"cooked", cooked, false},
    {"resize", resize, true},    {"signal", send_signal, true},
    {"stopped", stopped, false}, {"take", take, true},
    {"give", give, true},        {"go", go, true},
    {"running", running, true},  {"hangup", hangup, true},
    {"ended", ended, false},
};

static bool step_is_taken(const char *step)
{
    size_t length = strcspn(step, "="), n = 0;
    while (n < sizeof steps / sizeof *steps &&
           (strncmp(steps[n].name, step, length) || steps[n].name[length]))
        n++;
    if (n == sizeof steps / sizeof *steps) {
        fprintf(stderr, "there is no step %s\n", step);
        exit(2);
    }
    for (int ms = 0; ms < PATIENCE_MS; ms += TURN_MS) {
        look(ms ? TURN_MS : 0);
        if (steps[n].taken(step[length] ? step + length + 1 : ""))
            return true;
        if (steps[n].once)
            return false;
    }
    return false;
}

/* ---- the shell ---- */

static void start(char **command, bool background)
{
    session.program = fork();
    if (session.program == 0) {
        setpgid(0, 0);
        if (!background)
            tcsetpgrp(session.screen, getpgrp());
        signal(SIGTTOU, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            dup2(session.screen, fd);
        close(session.screen);
        close(session.keys);
        execvp(command[0], command);
        _exit(127);
    }
    setpgid(session.program, session.program);
}

static int run_session(char **step, char **command, bool background)
{
    int code = 0;
    setsid();
    signal(SIGTTOU, SIG_IGN); /* a shell may take its terminal from the background */
    signal(SIGHUP, SIG_IGN);
    if (openpty(&session.keys, &session.screen, NULL, NULL, NULL) ||
        ioctl(session.screen, TIOCSCTTY, 0) || tcgetattr(session.screen, &session.before))
        return perror("no terminal"), 1;
    fcntl(session.keys, F_SETFL, O_NONBLOCK);
    start(command, background);
    for (; !code && step < command - 1; step++)
        if (!step_is_taken(*step)) {
            fprintf(stderr, "not taken: %s; %s %d; the screen:\n%.*s\n", *step,
                    session.ended     ? "ended"
                    : session.stopped ? "stopped"
                                      : "running",
                    session.status, (int)session.read, session.text);
            code = 1;
        }
    if (!session.ended)
        kill(session.program, SIGKILL);
    return code;
}

int main(int argc, char **argv)
{
    bool background = argc > 1 && !strcmp(argv[1], "-b");
    char **step = argv + 1 + background, **command = step;
    while (*command && strcmp(*command, "--"))
        command++;
    if (argc < 3 || !*command || !command[1]) {
        fprintf(stderr, "usage: terminal_session [-b] STEP... -- PROGRAM ARGUMENT...\n");
        return 2;
    }
    /* a session is for a process that leads no group */
    pid_t leader = fork();
    int status;
    if (leader == 0)
        _exit(run_session(step, command + 1, background));
    if (leader < 0 || waitpid(leader, &status, 0) < 0)
        return perror("fork"), 2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
