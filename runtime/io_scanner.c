/* SPDX-License-Identifier: MIT */
/* The scanning unit. */
#include "runtime/io_scanner.h"

#include "runtime/io_hasher.h"
#include "runtime/soft/decode.h"

enum io_scan_result io_scan_guest(struct io_scanner *scanner, struct vcpu *cpu,
                                  const struct io_extent *extent, uint64_t key,
                                  struct io_block *block)
{
    const struct io_code code = {
        .bits = vcpu_code_bits(cpu), .context = cpu, .read = io_guest_read};
    return io_scan(scanner, &code, extent, key, block);
}
