/* SPDX-License-Identifier: MIT */
/* COM1: a 16550A UART (National Semiconductor PC16550D data sheet, sections 6 and 8) whose line is
 * the console. Sending takes no time: the transmitter is always empty, and says so as soon as asked
 * to.
 *
 * The far end sends only to a guest that listens: one with the receive interrupt on, or one that
 * keeps reading the line status without writing; and it waits a little while the guest sets the
 * port up. Otherwise what a user types, or a script pipes in, before the guest is ready would be
 * thrown away with the FIFO. */
#include "runtime/devices/uart16550.h"

#include <stdlib.h>

#include "runtime/console.h"
#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define FIFO 16

enum { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };
_Static_assert(IER_DLM == UART16550_IER && IIR_FCR == UART16550_IIR && LSR == UART16550_LSR,
               "uart16550.h");

#define IER_RX       0x01
#define IER_THRE     0x02
#define IER_LINE     0x04
#define IER_MODEM    0x08
#define IIR_MODEM    0x00
#define IIR_NONE     0x01
#define IIR_THRE     0x02
#define IIR_RX       0x04
#define IIR_LINE     0x06
#define IIR_TIMEOUT  0x0c
#define IIR_FIFOS    0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB     0x80
#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define LSR_DR       0x01
#define LSR_OE       0x02
#define LSR_ERRORS   0x1e
#define LSR_EMPTY    0x60 /* THRE, TEMT */
#define MSR_CTS      0x10
#define MSR_DSR      0x20
#define MSR_RI       0x40
#define MSR_DCD      0x80

/* Reads of the line status without a write after which the guest is taken to wait for input. A
 * Linux kernel that only writes reads it once or twice a byte. */
#define POLLS_LISTENING 16

/* Guest time in ns that the far end waits after the guest has cleared its FIFOs, and after it has
 * turned the receive interrupt on. Linux turns it on to see whether the bit is there; to set the
 * port up it clears the FIFOs, turns the interrupt on, and then turns the FIFOs on, which clears
 * them once more. */
#define WAIT_FIFOS     5000000ull
#define WAIT_INTERRUPT 100000ull

struct uart16550 {
    struct vm *vm;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint16_t divisor;
    uint8_t line_errors; /* of the LSR, cleared by reading it */
    uint8_t modem;       /* the MSR: lines in bits 7-4, deltas in bits 3-0 */
    uint8_t fifo[FIFO];  /* receiver; only the first entry if FIFOs are off */
    unsigned head, count;
    bool thre_waiting; /* the transmitter-empty interrupt has not been looked at */
    bool timed_out;    /* bytes below the trigger level have waited long enough */
    bool level;        /* of the interrupt line */
    unsigned polls;
    struct timer timeout;
    struct timer settled; /* while armed, the far end waits */
};

static const struct uart16550 power_on = {
    .divisor = 12, /* 9600 baud */
    .modem = MSR_CTS | MSR_DSR | MSR_DCD,
};

static unsigned trigger(const struct uart16550 *u)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* The source with the highest priority (table 5 of the data sheet), without the FIFO bits. */
static uint8_t source(const struct uart16550 *u)
{
    if (u->ier & IER_LINE && u->line_errors)
        return IIR_LINE;
    if (u->ier & IER_RX && u->count >= trigger(u))
        return IIR_RX;
    if (u->ier & IER_RX && u->count && u->timed_out)
        return IIR_TIMEOUT;
    if (u->ier & IER_THRE && u->thre_waiting)
        return IIR_THRE;
    if (u->ier & IER_MODEM && u->modem & 0x0f)
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC, OUT2 lets the interrupt through to the controller. */
static void update_line(struct uart16550 *u)
{
    bool level = u->mcr & MCR_OUT2 && source(u) != IIR_NONE;
    if (level != u->level) {
        u->level = level;
        irq_set(u->vm, IRQ_COM1, level);
    }
}

/* The receiver's timeout is four characters' time without one coming in or being read. */
static void restart_timeout(struct uart16550 *u)
{
    u->timed_out = false;
    if (u->fcr & FCR_ENABLE && u->count && u->count < trigger(u)) {
        uint64_t bit = (u->divisor ? u->divisor : 1u) * 16ull * 1000000000ull / 1843200;
        clock_arm(&u->vm->clock, &u->timeout, clock_now(&u->vm->clock) + 4 * 10 * bit);
    } else {
        clock_cancel(&u->vm->clock, &u->timeout);
    }
}

static void fire_timeout(void *device, uint64_t now)
{
    struct uart16550 *u = device;
    (void)now;
    u->timed_out = true;
    update_line(u);
}

static unsigned room(const struct uart16550 *u)
{
    return (u->fcr & FCR_ENABLE ? FIFO : 1) - u->count;
}

static void receive(struct uart16550 *u, uint8_t byte)
{
    if (room(u)) {
        u->fifo[(u->head + u->count++) % FIFO] = byte;
    } else {
        u->line_errors |= LSR_OE;
        if (!(u->fcr & FCR_ENABLE)) /* the shift register overwrites the one that was not read */
            u->fifo[u->head] = byte;
    }
}

static void clear_receiver(struct uart16550 *u)
{
    u->head = u->count = 0;
    restart_timeout(u);
}

/* Takes input while the guest listens and has room. */
static void pull(struct uart16550 *u)
{
    bool listening = u->ier & IER_RX || u->polls >= POLLS_LISTENING;
    if (!listening || u->settled.armed || u->mcr & MCR_LOOP || !room(u) || !console_readable(u->vm))
        return;
    while (room(u)) {
        int byte = console_read(u->vm);
        if (byte < 0)
            break;
        receive(u, (uint8_t)byte);
    }
    restart_timeout(u);
}

void uart16550_attend(void *uart)
{
    struct uart16550 *u = uart;
    pull(u);
    update_line(u);
}

/* Keeps the far end from sending for `span` ns at least. */
static void wait(struct uart16550 *u, uint64_t span)
{
    uint64_t end = clock_now(&u->vm->clock) + span;
    if (!u->settled.armed || u->settled.deadline < end)
        clock_arm(&u->vm->clock, &u->settled, end);
}

static void fire_settled(void *device, uint64_t now)
{
    (void)now;
    uart16550_attend(device);
}

static void transmit(struct uart16550 *u, uint8_t byte)
{
    if (u->mcr & MCR_LOOP) {
        receive(u, byte & 0xff >> (3 - (u->lcr & 3)));
        restart_timeout(u);
    } else {
        console_write(u->vm, &byte, 1);
    }
    u->thre_waiting = true;
    u->polls = u->polls > 2 ? u->polls - 2 : 0;
}

void uart16550_send(void *uart, const uint8_t *bytes, size_t count)
{
    struct uart16550 *u = uart;
    if (!count)
        return;
    console_write(u->vm, bytes, count);
    u->thre_waiting = true;
    u->polls = u->polls > 2 * count ? u->polls - 2 * (unsigned)count : 0;
    update_line(u);
}

static uint8_t take_byte(struct uart16550 *u)
{
    uint8_t byte = u->fifo[u->head];
    if (u->count) {
        u->head = (u->head + 1) % FIFO;
        u->count--;
    }
    restart_timeout(u);
    pull(u);
    return byte;
}

/* The modem's lines, or in loopback the modem control outputs (data sheet 8.6.4), with their
 * deltas. */
static void update_modem(struct uart16550 *u)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;
    if (u->mcr & MCR_LOOP)
        lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = (u->modem ^ lines) & 0xf0;
    if (changed & lines & MSR_RI) /* only its trailing edge counts */
        changed &= (uint8_t)~MSR_RI;
    u->modem = lines | (u->modem & 0x0f) | changed >> 4;
}

static void write_fcr(struct uart16550 *u, uint8_t value)
{
    bool toggled = (value ^ u->fcr) & FCR_ENABLE;
    u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0; /* other bits need the enable bit */
    if (toggled || (value & (FCR_ENABLE | FCR_CLEAR_RX)) == (FCR_ENABLE | FCR_CLEAR_RX))
        clear_receiver(u);
    else
        restart_timeout(u);
    if (toggled || value & FCR_CLEAR_RX)
        wait(u, WAIT_FIFOS);
}

static void write_ier(struct uart16550 *u, uint8_t value)
{
    if (value & ~u->ier & IER_THRE)
        u->thre_waiting = true; /* the transmitter is empty */
    if (value & ~u->ier & IER_RX)
        wait(u, WAIT_INTERRUPT);
    u->ier = value & 0x0f;
    if (!(u->ier & IER_RX))
        u->polls = 0;
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned width)
{
    struct uart16550 *u = device;
    uint8_t value = 0;
    (void)width;
    switch (offset) {
    case RBR_THR_DLL:
        value = u->lcr & LCR_DLAB ? (uint8_t)u->divisor : take_byte(u);
        break;
    case IER_DLM:
        value = u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
        break;
    case IIR_FCR:
        value = source(u);
        if (value == IIR_THRE)
            u->thre_waiting = false;
        value |= u->fcr & FCR_ENABLE ? IIR_FIFOS : 0;
        break;
    case LCR:
        value = u->lcr;
        break;
    case MCR:
        value = u->mcr;
        break;
    case LSR:
        u->polls += u->polls < POLLS_LISTENING;
        pull(u);
        value = LSR_EMPTY | u->line_errors | (u->count ? LSR_DR : 0);
        u->line_errors = 0;
        break;
    case MSR:
        value = u->modem;
        u->modem &= 0xf0;
        break;
    case SCR:
        value = u->scr;
        break;
    }
    update_line(u);
    return value;
}

void uart16550_acknowledge(void *uart)
{
    struct uart16550 *u = uart;
    if (source(u) == IIR_THRE)
        u->thre_waiting = false;
    update_line(u);
}

void uart16550_enable(void *uart, uint8_t value)
{
    struct uart16550 *u = uart;
    u->ier &= ~IER_THRE; /* it may have been off between: then the line fell and rose */
    update_line(u);
    write_ier(u, value);
    update_line(u);
}

static void uart_write(void *device, uint64_t offset, unsigned width, uint64_t wide)
{
    struct uart16550 *u = device;
    uint8_t value = (uint8_t)wide;
    (void)width;
    switch (offset) {
    case RBR_THR_DLL:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff00) | value;
        else
            transmit(u, value);
        break;
    case IER_DLM:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)(value << 8 | (u->divisor & 0xff));
        else
            write_ier(u, value);
        break;
    case IIR_FCR:
        write_fcr(u, value);
        break;
    case LCR:
        u->lcr = value;
        break;
    case MCR:
        u->mcr = value & 0x1f;
        update_modem(u);
        break;
    case SCR:
        u->scr = value;
        break;
    default: /* LSR, MSR: read only */
        break;
    }
    update_line(u);
}

static uint8_t identification(const struct uart16550 *u)
{
    return source(u) | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

void uart16550_fast(void *uart, struct uart16550_fast *fast)
{
    const struct uart16550 *u = uart;
    bool divisor = u->lcr & LCR_DLAB;
    *fast = (struct uart16550_fast){
        .value = {[IER_DLM] = divisor ? u->divisor >> 8 : u->ier,
                  [IIR_FCR] = identification(u),
                  [LCR] = u->lcr,
                  [MCR] = u->mcr,
                  [LSR] = LSR_EMPTY | (u->count ? LSR_DR : 0),
                  [MSR] = u->modem,
                  [SCR] = u->scr},
        .read = 1u << IER_DLM | 1u << LCR | 1u << MCR | 1u << SCR,
        .same = 1u << LCR | 1u << MCR | 1u << SCR,
        /* The transmitter's interrupt comes when they are sent, as on a device that takes its
         * time. */
        .send = !divisor && !(u->mcr & MCR_LOOP),
        .send_interrupts = u->ier & IER_THRE,
        .later = !divisor,
        .input_waits = console_readable(u->vm),
    };
    struct uart16550 then = *u;
    then.thre_waiting &= source(u) != IIR_THRE;
    fast->identified = identification(&then);
    if (!u->line_errors)
        fast->read |= 1u << LSR;
    if (!(u->modem & 0x0f))
        fast->read |= 1u << MSR;
}

static void uart_reset(void *device)
{
    struct uart16550 *u = device;
    struct vm *vm = u->vm;
    clock_cancel(&vm->clock, &u->timeout);
    clock_cancel(&vm->clock, &u->settled);
    if (u->level)
        irq_set(vm, IRQ_COM1, false);
    *u = power_on;
    u->vm = vm;
    u->timeout.fire = fire_timeout;
    u->settled.fire = fire_settled;
    u->timeout.context = u->settled.context = u;
}

static void *uart_create(struct vm *vm, struct error *err)
{
    struct uart16550 *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    u->vm = vm;
    uart_reset(u);
    const struct bus_window window = {.name = "uart16550",
                                      .first = UART16550_PORT,
                                      .count = UART16550_PORTS,
                                      .read = uart_read,
                                      .write = uart_write,
                                      .device = u,
                                      .widest = 1};
    if (bus_add_ports(&vm->bus, &window, err)) {
        free(u);
        return NULL;
    }
    vm->uart = u;
    return u;
}

const struct device_type uart16550_device = {
    .name = "uart16550", .create = uart_create, .reset = uart_reset};
