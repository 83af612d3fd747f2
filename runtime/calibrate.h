/* SPDX-License-Identifier: MIT */
/* hvrun --calibrate: what one exit costs on this machine. */
#ifndef RUNTIME_CALIBRATE_H
#define RUNTIME_CALIBRATE_H

#include "image/error.h"
#include "runtime/vm.h"

/* Measures the engines that config->engine names (auto: all that this host has) with a guest of its own, prints a
 * table on stdout and, with config->stats, writes it there as JSON. 0, or -1 with *err. */
int calibrate(const struct vm_config *config, struct error *err);

#endif
