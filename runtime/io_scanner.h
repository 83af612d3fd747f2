/* SPDX-License-Identifier: MIT */
/* The scanning unit (B6, B7): the shared scanner (ioblock/scan.h) on the code of the live guest. */
#ifndef RUNTIME_IO_SCANNER_H
#define RUNTIME_IO_SCANNER_H

#include "ioblock/scan.h"
#include "runtime/vcpu.h"

/* Scans from the IO instruction at guest-linear `key`, in the vCPU's present mode. Memory is
 * read as it is now, without faults and without marking pages as accessed. */
enum io_scan_result io_scan_guest(struct io_scanner *scanner, struct vcpu *cpu,
                                  const struct io_extent *extent, uint64_t key,
                                  struct io_block *block);

#endif
