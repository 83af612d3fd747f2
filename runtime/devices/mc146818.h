/* SPDX-License-Identifier: MIT */
/* What others may ask of the real-time clock. `rtc` is vm->mc146818. */
#ifndef RUNTIME_DEVICES_MC146818_H
#define RUNTIME_DEVICES_MC146818_H

#include <stdint.h>

#define MC146818_INDEX_PORT 0x70u
#define MC146818_REGISTERS  128u

/* Brings the clock up to date: where guest time does not begin at 0. */
void mc146818_attend(void *rtc);

/* The register that port 0x71 stands for: writing it has no other effect than to be kept. */
uint8_t mc146818_index(const void *rtc);
void mc146818_set_index(void *rtc, uint8_t index);

/* For each register what a read gives, and changes nothing, until guest time `until` (in ns): 0x100
 * + its value; 0 if that cannot be said. */
#define MC146818_KNOWN 0x100u
void mc146818_fast(void *rtc, uint64_t until, uint16_t known[MC146818_REGISTERS]);
/* While this number is the same, so is what mc146818_fast gives. */
uint64_t mc146818_version(const void *rtc, uint64_t until);

#endif
