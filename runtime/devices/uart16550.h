/* What others may ask of COM1. */
#ifndef RUNTIME_DEVICES_UART16550_H
#define RUNTIME_DEVICES_UART16550_H

/* Console input arrived: takes what the receiver has room for. `uart` is vm->uart. */
void uart16550_attend(void *uart);

#endif
