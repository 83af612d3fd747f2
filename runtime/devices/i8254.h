/* SPDX-License-Identifier: MIT */
/* What others may ask of the interval timer. `pit` is vm->i8254. */
#ifndef RUNTIME_DEVICES_I8254_H
#define RUNTIME_DEVICES_I8254_H

#include <stdbool.h>
#include <stdint.h>

#define I8254_PORT 0x40u /* of channel 0 */
#define I8254_HZ   1193182u

/* How the channel that was read last goes on counting, until something else happens to it: reads give bytes of
 * start - (guest time - since) * I8254_HZ / 10^9, rounded down, in 16 bits. */
struct i8254_counter {
    unsigned channel;
    uint64_t since; /* guest time in ns */
    uint16_t start;
    bool stands;    /* it does not count: the value is `start` */
    bool alternate; /* low and high byte in turn; else always the same */
    bool high;      /* the next byte is the high one */
};

/* False: there is none (pit is NULL), it counts in another way, or the next read has an effect of its own. */
bool i8254_counter(void *pit, struct i8254_counter *counter);
/* Reads were answered elsewhere: which byte comes next. */
void i8254_set_high(void *pit, unsigned channel, bool high);

#endif
