/* SPDX-License-Identifier: MIT */
/* The hashing unit (B3): a block's bytes as they are in guest memory, hashed and compared. */
#ifndef RUNTIME_IO_HASHER_H
#define RUNTIME_IO_HASHER_H

#include "ioblock/ioblock.h"
#include "runtime/vcpu.h"

/* The host address of code at guest-linear `address`, as this vCPU sees it: by the TLB, else by
 * the page tables; without faults, without marking pages as accessed. It is RAM up to the end of
 * the page. NULL: not mapped, or not RAM. */
const uint8_t *io_guest_code(struct vcpu *cpu, uint64_t address);

/* An io_read_fn of such code; `context` is the vCPU. */
size_t io_guest_read(void *context, uint64_t address, uint8_t *bytes, size_t size);

struct io_bytes {
    uint8_t bytes[IO_BLOCK_BYTES_MAX]; /* of all ranges: what there is to decode */
    uint64_t all;                      /* hash of all of them */
};

enum io_match {
    IO_MATCH,      /* these are the block's bytes (B4) */
    IO_DIFFERENT,  /* they are not (B6) */
    IO_UNREADABLE, /* some are not mapped */
};

/* Reads a block entered at guest-linear `key` and compares it with its hash. */
enum io_match io_hash(struct vcpu *cpu, const struct io_block *block, uint64_t key,
                      struct io_bytes *read);

#endif
