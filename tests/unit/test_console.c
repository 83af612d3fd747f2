/* SPDX-License-Identifier: MIT */
/* The console, on a terminal of its own and on pipes: each test forks a "hvrun" whose guest is a function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include "runtime/console.h"
#include "runtime/devices/uart16550.h"
#include "runtime/vm.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

static struct vm vm;

/* ---- guests: run in the child ---- */

static void guest_open(void)
{
    struct error err = {0};
    vm.wake_fd = eventfd(0, EFD_NONBLOCK);
    if (console_open(&vm, "stdio", &err))
        _exit(99);
    console_attend(&vm); /* as the run does when it begins */
}

static void guest_say(const char *text)
{
    console_write(&vm, (const uint8_t *)text, strlen(text));
}

static void guest_wait(int ms)
{
    struct pollfd p = {.fd = vm.wake_fd, .events = POLLIN};
    poll(&p, 1, ms);
    vm_attend(&vm);
}

/* Says "ready", then gives back every byte plus one. */
static void guest_echo(void)
{
    guest_open();
    guest_say("ready\n");
    while (!vm.shutdown) {
        guest_wait(-1);
        for (int byte; (byte = console_read(&vm)) >= 0;)
            console_write(&vm, &(uint8_t){(uint8_t)(byte + 1)}, 1);
    }
    console_close(&vm);
    _exit(vm.exit_code);
}

static void guest_deaf(void)
{
    guest_open();
    guest_say("ready\n");
    while (!vm.shutdown)
        guest_wait(-1);
    console_close(&vm);
    _exit(vm.exit_code);
}

static void guest_exits(void)
{
    guest_open();
    guest_say("ready\n");
    usleep(200000);
    exit(7);
}

static void guest_aborts(void)
{
    guest_open();
    guest_say("ready\n");
    usleep(200000);
    abort();
}

/* ---- a child with a terminal or pipes ---- */

struct run {
    pid_t child;
    int in, out;  /* to its standard input, from its standard output */
    int terminal; /* the child's end of it, kept open; -1 = pipes */
    struct termios before;
};

static void silence_stderr(void)
{
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    struct rlimit no_core = {0};
    setrlimit(RLIMIT_CORE, &no_core);
}

static struct run on_terminal(void (*guest)(void))
{
    struct run r;
    assert_int_equal(openpty(&r.in, &r.terminal, NULL, NULL, NULL), 0);
    r.out = r.in;
    tcgetattr(r.terminal, &r.before);
    r.child = fork();
    if (!r.child) {
        close(r.in);
        if (login_tty(r.terminal))
            _exit(98);
        silence_stderr();
        guest();
        _exit(97);
    }
    return r;
}

static struct run on_pipes(void (*guest)(void))
{
    struct run r = {.terminal = -1};
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    r.child = fork();
    if (!r.child) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        silence_stderr();
        guest();
        _exit(97);
    }
    close(in[0]), close(out[1]);
    r.in = in[1];
    r.out = out[0];
    return r;
}

/* Reads until `text` came, at most ten seconds; the rest of what came before it is in `got`. */
static char got[4096];
static bool expect(struct run *r, const char *text)
{
    size_t count = 0;
    got[0] = 0;
    while (!strstr(got, text) && count < sizeof got - 1) {
        struct pollfd p = {.fd = r->out, .events = POLLIN};
        if (poll(&p, 1, 10000) <= 0)
            return false;
        ssize_t n = read(r->out, got + count, 1);
        if (n <= 0)
            return false;
        count += (size_t)n;
        got[count] = 0;
    }
    return strstr(got, text);
}

static void type(struct run *r, const char *keys, size_t count)
{
    assert_int_equal(write(r->in, keys, count), count);
}

/* The child's status; kills it after ten seconds. */
static int status_of(struct run *r)
{
    int status = -1;
    for (unsigned i = 0; i < 1000; i++) {
        if (waitpid(r->child, &status, WNOHANG) == r->child)
            return status;
        usleep(10000);
    }
    kill(r->child, SIGKILL);
    waitpid(r->child, &status, 0);
    return -1;
}

static void finish(struct run *r)
{
    if (r->terminal >= 0)
        close(r->terminal);
    else if (r->in >= 0)
        close(r->in);
    close(r->out);
}

static bool terminal_is_as_before(const struct run *r)
{
    struct termios now;
    tcgetattr(r->terminal, &now);
    return now.c_iflag == r->before.c_iflag && now.c_oflag == r->before.c_oflag &&
           now.c_lflag == r->before.c_lflag && now.c_cflag == r->before.c_cflag;
}

#define EXITED(status, code) (WIFEXITED(status) && WEXITSTATUS(status) == (code))

/* ---- on a terminal ---- */

static void test_keys_reach_the_guest_as_they_are(void **state)
{
    (void)state;
    struct run r = on_terminal(guest_echo);
    struct termios raw;
    assert_true(expect(&r, "ready\n")); /* and no carriage return of the terminal's */
    tcgetattr(r.terminal, &raw);
    assert_int_equal(raw.c_lflag & (ECHO | ICANON | ISIG | IEXTEN), 0);
    assert_int_equal(raw.c_iflag & (ICRNL | IXON), 0);
    type(&r, "\x03\r\x11\x13\x1az", 6); /* ^C, return, ^Q, ^S, ^Z */
    assert_true(expect(&r, "{"));
    assert_string_equal(got, "\x04\x0e\x12\x14\x1b{");
    type(&r, "\x01x", 2);
    int status = status_of(&r);
    assert_true(EXITED(status, HVRUN_DONE));
    assert_true(terminal_is_as_before(&r));
    finish(&r);
}

static void test_ctrl_a_is_special(void **state)
{
    (void)state;
    struct run r = on_terminal(guest_echo);
    assert_true(expect(&r, "ready\n"));
    type(&r, "\x01\x01y\x01qz", 6); /* itself, y, nothing, z */
    assert_true(expect(&r, "{"));
    assert_string_equal(got, "\x02z{");
    type(&r, "\x01h", 2);
    assert_true(expect(&r, "Ctrl-A x"));
    type(&r, "\x01", 1);
    usleep(10000);
    type(&r, "x", 1);
    int status = status_of(&r);
    assert_true(EXITED(status, HVRUN_DONE));
    finish(&r);
}

static void test_a_guest_that_does_not_read_can_be_quit(void **state)
{
    (void)state;
    struct run r = on_terminal(guest_deaf);
    assert_true(expect(&r, "ready\n"));
    char keys[1000];
    memset(keys, 'k', sizeof keys);
    for (unsigned i = 0; i < 50; i++)
        type(&r, keys, sizeof keys);
    type(&r, "\x01x", 2);
    int status = status_of(&r);
    assert_true(EXITED(status, HVRUN_DONE));
    finish(&r);
}

static void test_the_terminal_is_set_back_by_exit(void **state)
{
    (void)state;
    struct run r = on_terminal(guest_exits);
    assert_true(expect(&r, "ready\n"));
    assert_false(terminal_is_as_before(&r));
    int status = status_of(&r);
    assert_true(EXITED(status, 7));
    assert_true(terminal_is_as_before(&r));
    finish(&r);
}

static void test_the_terminal_is_set_back_by_abort(void **state)
{
    (void)state;
    struct run r = on_terminal(guest_aborts);
    assert_true(expect(&r, "ready\n"));
    int status = status_of(&r);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_true(terminal_is_as_before(&r));
    finish(&r);
}

static void test_the_terminal_is_set_back_by_fatal_signals(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct run r = on_terminal(guest_deaf);
        assert_true(expect(&r, "ready\n"));
        kill(r.child, signals[i]);
        int status = status_of(&r);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
        assert_true(terminal_is_as_before(&r));
        finish(&r);
    }
}

/* ---- on pipes ---- */

static void test_a_pipe_is_read_to_its_last_byte_and_ctrl_a_is_a_byte(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_echo);
    assert_true(expect(&r, "ready\n"));
    type(&r, "\x01x\x01", 3);
    close(r.in);
    r.in = -1;
    assert_true(expect(&r, "\x02y\x02"));
    kill(r.child, SIGKILL); /* the guest goes on without input */
    waitpid(r.child, NULL, 0);
    finish(&r);
}

static void guest_slow_reader(void)
{
    guest_open();
    usleep(100000); /* the ring is full by now */
    unsigned sum = 0, count = 0;
    while (count < 200000) {
        int byte = console_read(&vm);
        if (byte < 0) {
            guest_wait(-1);
            continue;
        }
        if ((unsigned)byte != (count * 7 & 0xff))
            _exit(1);
        sum += (unsigned)byte;
        count++;
    }
    console_close(&vm);
    _exit(sum ? 0 : 2);
}

static void test_no_input_is_lost_to_a_guest_that_reads_late(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_slow_reader);
    static char bytes[200000];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    for (size_t done = 0; done < sizeof bytes;) {
        ssize_t n = write(r.in, bytes + done, sizeof bytes - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    int status = status_of(&r);
    assert_true(EXITED(status, 0));
    finish(&r);
}

static void guest_at_end_of_input(void)
{
    guest_open();
    struct timeval end, now;
    gettimeofday(&end, NULL);
    for (unsigned rounds = 0;; rounds++) {
        guest_wait(50);
        gettimeofday(&now, NULL);
        if (now.tv_sec * 1000 + now.tv_usec / 1000 - end.tv_sec * 1000 - end.tv_usec / 1000 > 300) {
            struct rusage usage;
            getrusage(RUSAGE_SELF, &usage);
            long ms = usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000 +
                      usage.ru_stime.tv_sec * 1000 + usage.ru_stime.tv_usec / 1000;
            bool spins = ms > 150 || rounds > 50;
            if (vm.shutdown || console_readable(&vm))
                _exit(2);
            console_close(&vm);
            _exit(spins);
        }
    }
}

static void test_the_end_of_input_is_no_error_and_costs_nothing(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_at_end_of_input);
    close(r.in);
    r.in = -1;
    int status = status_of(&r);
    assert_true(EXITED(status, 0));
    finish(&r);
}

static void guest_prompts(void)
{
    guest_open();
    guest_say("one\ntwo");
    usleep(100000); /* the line is out, the rest waits for the engine */
    if (!atomic_load(&vm.attention))
        _exit(1);
    vm_attend(&vm);
    guest_wait(-1);
    console_close(&vm);
    _exit(0);
}

static void test_output_leaves_at_the_end_of_a_line_or_when_the_engine_attends(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_prompts);
    char bytes[16];
    assert_int_equal(read(r.out, bytes, sizeof bytes), 4);
    assert_int_equal(read(r.out, bytes, sizeof bytes), 3);
    assert_memory_equal(bytes, "two", 3);
    type(&r, "y", 1);
    int status = status_of(&r);
    assert_true(EXITED(status, 0));
    finish(&r);
}

static void guest_talks(void)
{
    guest_open();
    for (unsigned i = 0; i < 20000; i++) {
        char line[16];
        snprintf(line, sizeof line, "line %05u\n", i);
        guest_say(line);
    }
    console_close(&vm);
    _exit(vm.shutdown ? vm.exit_code : 0);
}

static void test_a_slow_listener_misses_nothing(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_talks);
    usleep(100000);
    for (unsigned i = 0; i < 20000; i++) {
        char line[16], want[16];
        for (unsigned n = 0; n < 11; n++)
            assert_int_equal(read(r.out, line + n, 1), 1);
        snprintf(want, sizeof want, "line %05u\n", i);
        assert_memory_equal(line, want, 11);
    }
    int status = status_of(&r);
    assert_true(EXITED(status, 0));
    finish(&r);
}

static void test_output_that_nobody_takes_any_more_ends_the_run(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_talks);
    close(r.out);
    r.out = -1;
    int status = status_of(&r);
    assert_true(EXITED(status, HVRUN_HOST));
    close(r.in);
}

static void timed_out(int signal)
{
    (void)signal;
    // NOLINTNEXTLINE(bugprone-signal-handler): made for that
    vm_request_stop(&vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
}

static void guest_talks_in_vain(void)
{
    signal(SIGALRM, timed_out);
    struct itimerval timer = {.it_value = {.tv_usec = 200000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    guest_open();
    for (unsigned i = 0; i < 1000000 && !vm.shutdown; i++) {
        guest_say("is anybody there?\n");
        if (atomic_load(&vm.attention))
            vm_attend(&vm);
    }
    console_close(&vm);
    _exit(vm.exit_code);
}

static void test_a_listener_that_stopped_does_not_keep_the_run_from_ending(void **state)
{
    (void)state;
    struct run r = on_pipes(guest_talks_in_vain);
    int status = status_of(&r);
    assert_true(EXITED(status, HVRUN_TIMEOUT));
    finish(&r);
    r = on_terminal(guest_talks_in_vain);
    status = status_of(&r);
    assert_true(EXITED(status, HVRUN_TIMEOUT));
    finish(&r);
}

/* ---- a file ---- */

static void test_output_goes_to_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/console-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "old and long text", 17), 17);
    struct error err = {0};
    memset(&vm, 0, sizeof vm);
    vm.wake_fd = -1;
    assert_int_equal(console_open(&vm, path, &err), 0);
    guest_say("hello\nworld");
    assert_false(console_readable(&vm));
    assert_int_equal(console_read(&vm), -1);
    console_close(&vm);
    char bytes[32];
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), 11);
    assert_memory_equal(bytes, "hello\nworld", 11);
    close(fd);
    unlink(path);
    guest_say("after the end"); /* harmless */
    console_flush(&vm);
    console_close(&vm);
}

static void test_a_file_that_cannot_be_opened_is_named(void **state)
{
    (void)state;
    struct error err = {0};
    memset(&vm, 0, sizeof vm);
    assert_int_equal(console_open(&vm, "/nowhere/log", &err), -1);
    assert_int_equal(err.code, HVRUN_HOST);
    assert_non_null(strstr(err.text, "/nowhere/log"));
    assert_null(vm.console);
}

static void test_a_full_disk_ends_the_run(void **state)
{
    (void)state;
    struct error err = {0};
    memset(&vm, 0, sizeof vm);
    vm.wake_fd = -1;
    assert_int_equal(console_open(&vm, "/dev/full", &err), 0);
    int shown = dup(STDERR_FILENO);
    silence_stderr();
    guest_say("hello\n");
    dup2(shown, STDERR_FILENO);
    close(shown);
    assert_int_equal(vm.shutdown, SHUTDOWN_HOST_ERROR);
    assert_int_equal(vm.exit_code, HVRUN_HOST);
    console_close(&vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_reach_the_guest_as_they_are),
        cmocka_unit_test(test_ctrl_a_is_special),
        cmocka_unit_test(test_a_guest_that_does_not_read_can_be_quit),
        cmocka_unit_test(test_the_terminal_is_set_back_by_exit),
        cmocka_unit_test(test_the_terminal_is_set_back_by_abort),
        cmocka_unit_test(test_the_terminal_is_set_back_by_fatal_signals),
        cmocka_unit_test(test_a_pipe_is_read_to_its_last_byte_and_ctrl_a_is_a_byte),
        cmocka_unit_test(test_no_input_is_lost_to_a_guest_that_reads_late),
        cmocka_unit_test(test_the_end_of_input_is_no_error_and_costs_nothing),
        cmocka_unit_test(test_output_leaves_at_the_end_of_a_line_or_when_the_engine_attends),
        cmocka_unit_test(test_a_slow_listener_misses_nothing),
        cmocka_unit_test(test_output_that_nobody_takes_any_more_ends_the_run),
        cmocka_unit_test(test_a_listener_that_stopped_does_not_keep_the_run_from_ending),
        cmocka_unit_test(test_output_goes_to_a_file),
        cmocka_unit_test(test_a_file_that_cannot_be_opened_is_named),
        cmocka_unit_test(test_a_full_disk_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
