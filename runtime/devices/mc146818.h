/* What others may ask of the real-time clock. `rtc` is vm->mc146818. */
#ifndef RUNTIME_DEVICES_MC146818_H
#define RUNTIME_DEVICES_MC146818_H

#include <stdint.h>

#define MC146818_INDEX_PORT 0x70u

/* The register that port 0x71 stands for: writing it has no other effect than to be kept. */
uint8_t mc146818_index(const void *rtc);
void mc146818_set_index(void *rtc, uint8_t index);

#endif
