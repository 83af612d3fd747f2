/* SPDX-License-Identifier: MIT */
/* The console. The vCPU thread writes through a small buffer that goes out at the end of a line, when it is
 * full, or when the engine attends. A reader thread takes input into a ring: one writer, one reader, no
 * lock. */
#include "runtime/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/raw_terminal.h"
#include "runtime/vm.h"

#define OUTPUT_SIZE 4096u
#define RING_SIZE   16384u /* a power of two */
#define ESCAPE      0x01   /* Ctrl-A */
#define STUCK_MS    100    /* how often a writer that waits looks whether it should give up */
#define AWAY_MS     200    /* how often a process in the background looks whether it still is */

struct console {
    struct vm *vm;

    /* output: the vCPU thread's */
    int out;
    const char *name; /* for messages */
    bool out_opened;  /* ours alone: it does not block, and we close it */
    bool socket;      /* output is one */
    bool broken;      /* nobody takes output any more */
    size_t out_count; /* bytes waiting in `output` */
    uint8_t output[OUTPUT_SIZE];

    /* input: head is the reader thread's, tail the vCPU thread's; both only count up */
    bool reads;   /* there is input to read, and so a thread once the run has begun */
    bool reading; /* the thread exists */
    int in;
    bool in_opened;
    bool
        terminal; /* input is a raw terminal: Ctrl-A is special, reading pauses only in the background */
    bool escaped; /* Ctrl-A was the last key */
    pthread_t thread;
    int control; /* eventfd: there is room again, the process goes on after a stop, or `closing` */
    atomic_bool closing;
    atomic_bool full; /* the thread waits for room */
    atomic_uint head, tail;
    uint8_t ring[RING_SIZE];
};

static const char help[] = "\r\nCtrl-A x       quit\r\nCtrl-A h       this help\r\n"
                           "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

/* ---- output ---- */

/* Waits until output can go on. False if the run was told to end: then the rest is not waited for. */
static bool wait_for_output(struct console *c)
{
    struct pollfd p = {.fd = c->out, .events = POLLOUT};
    while (atomic_load(&c->vm->stop_request) == SHUTDOWN_NONE)
        if (poll(&p, 1, STUCK_MS) > 0)
            return true;
    return poll(&p, 1, 0) > 0;
}

static void output_failed(struct console *c)
{
    int error = errno;
    c->broken = c->vm->output_lost = true;
    raw_terminal_leave(); /* for the message */
    fprintf(stderr, "hvrun: %s: cannot write the guest's output: %s\n", c->name, strerror(error));
    vm_stop(c->vm, SHUTDOWN_HOST_ERROR, HVRUN_HOST);
}

/* Never waits, but on what is neither ours nor a socket (see reopen). */
static ssize_t write_some(const struct console *c, const uint8_t *bytes, size_t count)
{
    return c->socket ? send(c->out, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL)
                     : write(c->out, bytes, count);
}

void console_flush(struct vm *vm)
{
    struct console *c = vm->console;
    if (!c)
        return;
    for (size_t done = 0; done < c->out_count && !c->broken;) {
        if (!c->out_opened && !wait_for_output(c))
            break;
        ssize_t n = write_some(c, c->output + done, c->out_count - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN) {
            if (!wait_for_output(c))
                break;
        } else if (errno != EINTR) {
            output_failed(c);
        }
    }
    c->out_count = 0;
}

void console_write(struct vm *vm, const uint8_t *bytes, size_t count)
{
    struct console *c = vm->console;
    if (!c || c->broken)
        return;
    for (size_t i = 0; i < count; i++) {
        if (!c->out_count)
            vm_wake(vm); /* so that the engine attends soon, if no end of line comes */
        c->output[c->out_count++] = bytes[i];
        if (bytes[i] == '\n' || c->out_count == OUTPUT_SIZE)
            console_flush(vm);
    }
}

/* ---- input: the vCPU thread's side ---- */

bool console_readable(struct vm *vm)
{
    struct console *c = vm->console;
    return c && atomic_load_explicit(&c->head, memory_order_acquire) !=
                    atomic_load_explicit(&c->tail, memory_order_relaxed);
}

static void signal_thread(struct console *c)
{
    const uint64_t one = 1;
    while (write(c->control, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

int console_read(struct vm *vm)
{
    struct console *c = vm->console;
    if (!console_readable(vm))
        return -1;
    unsigned tail = atomic_load_explicit(&c->tail, memory_order_relaxed);
    uint8_t byte = c->ring[tail % RING_SIZE];
    atomic_store(&c->tail, tail + 1);
    if (atomic_load(&c->full) && atomic_exchange(&c->full, false))
        signal_thread(c);
    return byte;
}

/* ---- input: the reader thread ---- */

static unsigned ring_room(struct console *c)
{
    return RING_SIZE - (atomic_load(&c->head) - atomic_load(&c->tail));
}

/* Bytes for which there is no room are dropped: only a terminal's, see reader. */
static void put(struct console *c, uint8_t byte)
{
    unsigned head = atomic_load_explicit(&c->head, memory_order_relaxed);
    if (!ring_room(c))
        return;
    c->ring[head % RING_SIZE] = byte;
    atomic_store_explicit(&c->head, head + 1, memory_order_release);
}

static void key(struct console *c, uint8_t byte)
{
    if (!c->terminal) {
        put(c, byte);
    } else if (!c->escaped) {
        c->escaped = byte == ESCAPE;
        if (!c->escaped)
            put(c, byte);
    } else {
        c->escaped = false;
        if (byte == 'x')
            vm_request_stop(c->vm, SHUTDOWN_QUIT, HVRUN_DONE);
        else if (byte == ESCAPE)
            put(c, byte);
        else if (byte == 'h' || byte == '?') {
            if (write(c->in, help, sizeof help - 1) < 0) {
                /* then there is nobody to read it */
            }
        }
    }
}

/* True if input may be read. A pipe waits while the ring is full; at a terminal somebody may want to
 * quit a guest that does not read, so keys are always read. */
static bool may_read(struct console *c)
{
    if (c->terminal || ring_room(c))
        return true;
    atomic_store(&c->full, true);
    return ring_room(c); /* the guest may have read between the two looks */
}

/* Waits for input, for room for it, or for the end: true if there is input that may be read now. */
static bool wait_for_input(struct console *c)
{
    bool away = c->terminal && !raw_terminal_attend();
    struct pollfd p[] = {{.fd = c->control, .events = POLLIN},
                         {.fd = !away && may_read(c) ? c->in : -1, .events = POLLIN}};
    uint64_t count;
    if (poll(p, 2, away ? AWAY_MS : -1) <= 0)
        return false;
    if (p[0].revents && read(c->control, &count, sizeof count) < 0)
        return false;
    return p[1].revents && (!c->terminal || raw_terminal_attend());
}

static void *reader(void *context)
{
    struct console *c = context;
    uint8_t bytes[256];
    while (!atomic_load(&c->closing)) {
        if (!wait_for_input(c))
            continue;
        unsigned room = ring_room(c);
        size_t want = c->terminal || room > sizeof bytes ? sizeof bytes : room;
        ssize_t n = read(c->in, bytes, want);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            break; /* end of input: the guest goes on without */
        for (ssize_t i = 0; i < n; i++)
            key(c, bytes[i]);
        if (n > 0)
            vm_wake(c->vm);
    }
    return NULL;
}

/* ---- opening and closing ---- */

/* Standard input and output may be shared with others, who expect them to block. A terminal or a pipe is
 * opened once more, so that ours does not: neither a reader of our output that stopped nor somebody who
 * takes the input first may keep the run from ending. Returns `fd` itself where that is not possible. */
static int reopen(int fd, int flags)
{
    struct stat st;
    char path[32];
    if (fstat(fd, &st) || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
        return fd;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own < 0 ? fd : own;
}

static int open_file(struct console *c, const char *path, struct error *err)
{
    struct stat st;
    c->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0666);
    if (c->out < 0)
        return fail(err, HVRUN_HOST, "%s: cannot write it: %s; check --serial", path,
                    strerror(errno));
    c->out_opened = true;
    if (!fstat(c->out, &st) && !S_ISREG(st.st_mode))
        fcntl(c->out, F_SETFL, O_NONBLOCK);
    return 0;
}

static int open_input(struct console *c, struct error *err)
{
    c->control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->control < 0)
        return fail(err, HVRUN_HOST, "eventfd: %s", strerror(errno));
    c->terminal = raw_terminal_enter(STDIN_FILENO, c->control);
    c->in = reopen(STDIN_FILENO, c->terminal ? O_RDWR : O_RDONLY);
    c->in_opened = c->in != STDIN_FILENO;
    c->reads = true;
    return 0;
}

static void start_reader(struct console *c)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&c->thread, NULL, reader, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->reading = !failed;
    c->reads = false;
    if (!failed)
        return;
    raw_terminal_leave();
    fprintf(stderr, "hvrun: thread for console input: %s\n", strerror(failed));
    vm_stop(c->vm, SHUTDOWN_HOST_ERROR, HVRUN_HOST);
}

void console_attend(struct vm *vm)
{
    if (vm->console && vm->console->reads)
        start_reader(vm->console);
    console_flush(vm);
}

int console_open(struct vm *vm, const char *target, struct error *err)
{
    struct sigaction now;
    struct console *c = calloc(1, sizeof *c);
    if (!c)
        return fail(err, HVRUN_HOST, "no memory for the console");
    c->vm = vm;
    c->control = -1;
    vm->console = c;
    /* output that nobody reads any more is an error of write, not a signal */
    if (!sigaction(SIGPIPE, NULL, &now) && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    int failed;
    c->name = strcmp(target, "stdio") ? target : "standard output";
    if (strcmp(target, "stdio")) {
        failed = open_file(c, target, err);
    } else {
        struct stat st;
        bool writable = (fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) != O_RDONLY;
        c->out = writable ? reopen(STDOUT_FILENO, O_WRONLY) : STDOUT_FILENO;
        c->out_opened = c->out != STDOUT_FILENO;
        c->socket = !fstat(c->out, &st) && S_ISSOCK(st.st_mode);
        failed = vm->config.no_input ? 0 : open_input(c, err);
    }
    if (failed)
        console_close(vm);
    return failed;
}

void console_close(struct vm *vm)
{
    struct console *c = vm->console;
    if (!c)
        return;
    console_flush(vm);
    if (c->reading) {
        atomic_store(&c->closing, true);
        signal_thread(c);
        pthread_join(c->thread, NULL);
    }
    if (c->terminal)
        raw_terminal_leave();
    if (c->control >= 0)
        close(c->control);
    if (c->in_opened)
        close(c->in);
    if (c->out_opened)
        close(c->out);
    vm->console = NULL;
    free(c);
}
