/* SPDX-License-Identifier: MIT */
/* A machine under the gdb server, and a client to it. */
#include "tests/unit/gdb_lab.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/gdb_client.h"

__asm__(".pushsection .rodata, \"a\"\n"
        ".global gdb_lab_code, gdb_lab_loop, gdb_lab_read, gdb_lab_call, gdb_lab_back\n"
        ".global gdb_lab_rep, gdb_lab_rep_end, gdb_lab_function, gdb_lab_return, gdb_lab_halt\n"
        ".global gdb_lab_rmw, gdb_lab_fault, gdb_lab_die, gdb_lab_spin, gdb_lab_io, gdb_lab_off\n"
        ".global gdb_lab_code_end, gdb_lab_push\n"
        "gdb_lab_code:   nop\n"
        "                mov $7, %eax\n"
        "gdb_lab_loop:   mov %eax, 0x10(%rdi)\n" /* a write */
        "gdb_lab_read:   mov 0x20(%rdi), %edx\n" /* a read */
        "gdb_lab_rmw:    incl 0x30(%rdi)\n"      /* both */
        "gdb_lab_call:   call gdb_lab_function\n"
        "gdb_lab_back:   mov $3, %ecx\n"
        "gdb_lab_rep:    rep stosb\n"
        "gdb_lab_rep_end:sub $3, %rdi\n"
        "                jmp gdb_lab_loop\n"
        "gdb_lab_function: inc %rbx\n"
        "gdb_lab_return: ret\n"
        "gdb_lab_push:   push %rax\n"
        "                pop %rax\n"
        "                jmp gdb_lab_push\n"
        "gdb_lab_spin:   jmp gdb_lab_spin\n"
        "gdb_lab_halt:   sti\n"
        "                hlt\n"
        "                jmp gdb_lab_halt\n"
        "gdb_lab_fault:  ud2\n"
        "gdb_lab_die:    lidt 0x100(%rdi)\n" /* a limit of 0 */
        "                ud2\n"
        "gdb_lab_io:     out %al, $0xe9\n"
        "                jmp gdb_lab_io\n"
        "gdb_lab_off:    cli\n"
        "                hlt\n"
        "gdb_lab_code_end:\n.popsection\n");
extern const uint8_t gdb_lab_code[], gdb_lab_code_end[];

static void *run(void *context)
{
    struct gdb_lab *lab = context;
    struct error err = {0};
    gdb_run(&lab->vm, &err);
    return NULL;
}

static _Noreturn void give_up(const char *what)
{
    perror(what);
    abort();
}

struct gdb_lab *gdb_lab_create(unsigned vcpus, bool nowait)
{
    struct gdb_lab *lab = calloc(1, sizeof *lab);
    struct error err = {0};
    if (!lab)
        give_up("gdb_lab");
    snprintf(lab->folder, sizeof lab->folder, "/tmp/gdb_lab.XXXXXX");
    if (!mkdtemp(lab->folder))
        give_up(lab->folder);
    snprintf(lab->target, sizeof lab->target, "unix:%s/s", lab->folder);
    lab->vm.config.gdb = lab->target;
    lab->vm.config.gdb_nowait = nowait;
    if (gdb_machine_create(&lab->vm, vcpus, gdb_lab_code, (size_t)(gdb_lab_code_end - gdb_lab_code),
                           &err) < 0)
        give_up(err.text);
    lab->cpu = lab->vm.vcpus[0];
    lab->fd = -1;
    FILE *before = stderr; /* where the server listens is no news here */
    stderr = fopen("/dev/null", "w");
    int opened = gdb_open(&lab->vm, &err);
    fclose(stderr);
    stderr = before;
    if (opened < 0)
        give_up(err.text);
    return lab;
}

static void start(struct gdb_lab *lab)
{
    if (!lab->thread && pthread_create(&lab->thread, NULL, run, lab))
        give_up("thread");
}

void gdb_lab_join(struct gdb_lab *lab)
{
    if (lab->thread)
        pthread_join(lab->thread, NULL);
    lab->thread = 0;
}

void gdb_lab_free(struct gdb_lab *lab)
{
    gdb_lab_disconnect(lab);
    if (lab->thread)
        vm_request_stop(&lab->vm, SHUTDOWN_SIGNAL, HVRUN_SIGTERM);
    gdb_lab_join(lab);
    gdb_close(&lab->vm);
    vm_destroy(&lab->vm);
    rmdir(lab->folder);
    free(lab);
}

void gdb_lab_connect(struct gdb_lab *lab)
{
    start(lab);
    lab->fd = gdb_client_connect(lab->target + 5);
    if (lab->fd < 0)
        give_up("connect");
    lab->acknowledge = true;
    lab->begin = lab->end = 0;
}

void gdb_lab_disconnect(struct gdb_lab *lab)
{
    if (lab->fd >= 0)
        close(lab->fd);
    lab->fd = -1;
}

void gdb_lab_send(struct gdb_lab *lab, const char *bytes, size_t count)
{
    if (!gdb_client_send(lab->fd, bytes, count))
        give_up("send");
}

void gdb_lab_tell_bytes(struct gdb_lab *lab, const char *packet, size_t length)
{
    static char frame[GDB_FRAME_MAX];
    uint8_t sum = 0;
    frame[0] = '$';
    for (size_t n = 0; n < length; n++)
        sum += (uint8_t)(frame[1 + n] = packet[n]);
    snprintf(frame + 1 + length, 4, "#%02x", sum);
    gdb_lab_send(lab, frame, length + 4);
}

void gdb_lab_tell(struct gdb_lab *lab, const char *packet)
{
    gdb_lab_tell_bytes(lab, packet, strlen(packet));
}

/* The next byte, or -1. */
static int next_byte(struct gdb_lab *lab)
{
    if (lab->begin == lab->end) {
        struct pollfd wait = {.fd = lab->fd, .events = POLLIN};
        ssize_t count = -1;
        if (poll(&wait, 1, 10000) == 1)
            count = read(lab->fd, lab->bytes, sizeof lab->bytes);
        if (count <= 0)
            return -1;
        lab->begin = 0;
        lab->end = (size_t)count;
    }
    return lab->bytes[lab->begin++];
}

const char *gdb_lab_hear(struct gdb_lab *lab)
{
    uint8_t sum = 0;
    int byte;
    do
        byte = next_byte(lab);
    while (byte >= 0 && byte != '$');
    lab->length = 0;
    for (byte = next_byte(lab); byte >= 0 && byte != '#'; byte = next_byte(lab)) {
        sum += (uint8_t)byte;
        if (byte == '*') {
            byte = next_byte(lab);
            sum += (uint8_t)byte;
            for (int n = byte - 29; n > 0; n--, lab->length++)
                lab->reply[lab->length] = lab->reply[lab->length - 1];
        } else if (byte == '}') {
            byte = next_byte(lab);
            sum += (uint8_t)byte;
            lab->reply[lab->length++] = (char)(byte ^ 0x20);
        } else {
            lab->reply[lab->length++] = (char)byte;
        }
    }
    lab->reply[lab->length] = '\0';
    char digits[3] = {(char)next_byte(lab), (char)next_byte(lab), 0};
    if (byte < 0)
        return NULL;
    if (strtoul(digits, NULL, 16) != sum)
        give_up("checksum");
    if (lab->acknowledge) /* after D the server may have hung up */
        (void)!gdb_client_send(lab->fd, "+", 1);
    return lab->reply;
}

const char *gdb_lab_ask(struct gdb_lab *lab, const char *packet)
{
    gdb_lab_tell(lab, packet);
    return gdb_lab_hear(lab);
}
