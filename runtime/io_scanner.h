/* The scanning unit (B6, B7): the shared scanner (ioblock/scan.h) on the code of the live guest. */
#ifndef RUNTIME_IO_SCANNER_H
#define RUNTIME_IO_SCANNER_H

#include "ioblock/scan.h"
#include "runtime/vcpu.h"

/* Where indirect branches and returns were seen to go: the guest itself is the oracle. Several targets of one branch
 * are several of these. */
struct io_seen {
    unsigned count;
    struct {
        uint64_t branch, target; /* guest-linear */
    } at[IO_BLOCK_GUARDS_MAX];
};

/* Notes a target. False: it was known, or there is no room. */
bool io_seen_add(struct io_seen *seen, uint64_t branch, uint64_t target);

/* Scans from the IO instruction at guest-linear `key`, in the vCPU's present mode. `seen` may be NULL. */
enum io_scan_result io_scan_guest(struct io_scanner *scanner, struct vcpu *cpu,
                                  const struct io_extent *extent, const struct io_seen *seen,
                                  uint64_t key, struct io_block *block);

#endif
