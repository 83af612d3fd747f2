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

/* Which accesses need not come here, until something else happens to the device: what a guest can be told beforehand.
 * Bit n stands for register n. */
struct uart16550_fast {
    uint8_t value[UART16550_PORTS];
    uint8_t read; /* a read gives value[n] and changes nothing */
    uint8_t same; /* writing value[n] once more changes nothing */
    bool send;    /* a byte written to register 0 is sent, and that is all; it may be told later */
    /* Input waits for the guest to listen, for which its reads of the line status and its writes of the interrupt
     * enables are looked at: they are in `read` and `same` all the same. */
    bool input_waits;
};
#define UART16550_IER 1u /* those two registers */
#define UART16550_LSR 5u
void uart16550_fast(void *uart, struct uart16550_fast *fast);

/* Sends bytes that the guest wrote while `send` held. */
void uart16550_send(void *uart, const uint8_t *bytes, size_t count);

#endif
