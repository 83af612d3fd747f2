/* SPDX-License-Identifier: MIT */
/* What others may ask of COM1. `uart` is vm->uart everywhere. */
#ifndef RUNTIME_DEVICES_UART16550_H
#define RUNTIME_DEVICES_UART16550_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART16550_PORT  0x3f8u
#define UART16550_PORTS 8u

/* Console input arrived: takes what the receiver has room for. */
void uart16550_attend(void *uart);

/* Which accesses need not come here, until something else happens to the device: what a guest can
 * be told beforehand. Bit n stands for register n. */
struct uart16550_fast {
    uint8_t value[UART16550_PORTS];
    uint8_t read; /* a read gives value[n] and changes nothing */
    uint8_t same; /* writing value[n] once more changes nothing */
    bool send;    /* a byte written to register 0 is sent, and that is all; it may be told later */
    bool send_interrupts; /* but then an interrupt comes, which the guest waits for */
    /* Writing the interrupt enables and reading the interrupt identification may be told later,
     * too. The first read gives value[], and is uart16550_acknowledge; then it is `identified`. */
    bool later;
    uint8_t identified;
    /* Input waits for the guest to listen, for which its reads of the line status are looked at:
     * that one is in `read` all the same. */
    bool input_waits;
};
#define UART16550_IER 1u /* those three registers */
#define UART16550_IIR 2u
#define UART16550_LSR 5u
void uart16550_fast(void *uart, struct uart16550_fast *fast);

/* The guest has read the interrupt identification. */
void uart16550_acknowledge(void *uart);
/* It has written the interrupt enables, perhaps more than once; this was the last. */
void uart16550_enable(void *uart, uint8_t value);

/* Sends bytes that the guest wrote while `send` held. */
void uart16550_send(void *uart, const uint8_t *bytes, size_t count);

#endif
