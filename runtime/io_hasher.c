/* SPDX-License-Identifier: MIT */
/* The hashing unit. */
#include "runtime/io_hasher.h"

#include <string.h>

#include "runtime/memory.h"
#include "runtime/soft/tlb.h"
#include "runtime/vm.h"

const uint8_t *io_guest_code(struct vcpu *cpu, uint64_t address)
{
    const struct tlb_entry *e = &cpu->tlb[tlb_slot(address)];
    uint64_t physical;
    if ((address & ~PAGE_OFFSET) == e->fetch)
        return (const uint8_t *)(address + e->addend);
    if (!tlb_peek(cpu, address, &physical))
        return NULL;
    return memory_at(&cpu->vm->memory, physical, PAGE_SIZE - (physical & PAGE_OFFSET));
}

size_t io_guest_read(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    struct vcpu *cpu = context;
    size_t done = 0;
    while (done < size) {
        uint64_t at = address + done;
        if (!vcpu_code64(cpu))
            at = (uint32_t)at;
        size_t part = PAGE_SIZE - (at & PAGE_OFFSET);
        if (part > size - done)
            part = size - done;
        const uint8_t *from = io_guest_code(cpu, at);
        if (!from)
            break;
        memcpy(bytes + done, from, part);
        done += part;
    }
    return done;
}

enum io_match io_hash(struct vcpu *cpu, const struct io_block *block, uint64_t key,
                      struct io_bytes *read)
{
    uint8_t masked[IO_BLOCK_BYTES_MAX];
    if (!io_block_read(block, key, io_guest_read, cpu, read->bytes))
        return IO_UNREADABLE;
    read->all = io_block_hash_all(block, read->bytes);
    const uint8_t *hashed = read->bytes;
    if (block->mask_count) { /* hashing changes them */
        memcpy(masked, read->bytes, block->size);
        hashed = masked;
    }
    return io_block_hash(block, (uint8_t *)hashed) == block->hash ? IO_MATCH : IO_DIFFERENT;
}
