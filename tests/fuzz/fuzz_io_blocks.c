/* SPDX-License-Identifier: MIT */
/* IO blocks under hostile code and hostile tables: whatever both say, the host process must neither
 * crash nor hang, and every slice ends.
 *
 * The input: a byte of options, two bytes that say how long the code is, the code, then an
 * IO-block table. By option the table's hashes are made to fit the code, so that what it claims
 * is executed. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/io_lab.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define CODE_MAX 1024u
#define SLICES   40u
#define SLICE    500

enum {
    OPTION_MODE = 3,
    OPTION_FIT = 4,
    OPTION_COMPATIBILITY = 8,
    OPTION_USER = 16,
    OPTION_IF = 32
};

static size_t read_guest(void *context, uint64_t address, uint8_t *to, size_t size)
{
    return io_guest_read(context, address, to, size);
}

static void fit(struct io_lab *lab, struct io_table *table)
{
    uint8_t read[IO_BLOCK_BYTES_MAX];
    struct io_block block;
    for (uint32_t k = 0; k < table->entry_count; k++) {
        io_table_block(table, k, &block);
        if (io_block_read(&block, block.key, read_guest, lab->cpu, read))
            table->entries[k].hash = io_block_hash(&block, read);
    }
}

static void load_table(struct io_lab *lab, const uint8_t *bytes, size_t size, bool fitting)
{
    struct io_blocks *io = lab->vm->io_blocks;
    struct error err = {0};
    if (!io || io_table_read("fuzz", bytes, size, &io->table, &err))
        return;
    io->has_table = true;
    if (fitting)
        fit(lab, &io->table);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 4)
        return 0;
    unsigned options = bytes[0];
    size_t code = (size_t)(bytes[1] | bytes[2] << 8) % (CODE_MAX + 1);
    bytes += 3;
    size -= 3;
    if (code > size)
        code = size;
    struct io_lab *lab = io_lab_open((enum io_blocks_mode)(options & OPTION_MODE), NULL);
    io_lab_write(lab, ONE_INSN_CODE, bytes, code);
    load_table(lab, bytes + code, size - code, options & OPTION_FIT);
    lab->seed = size;
    lab->interrupt_at = 3;
    lab->nmi_at = 7;
    one_insn_mode(lab->cpu, options & OPTION_COMPATIBILITY ? ONE_INSN_COMPAT32 : ONE_INSN_64,
                  options & OPTION_USER);
    lab->cpu->rflags |= RFLAGS_IOPL | (options & OPTION_IF ? RFLAGS_IF : 0);
    lab->cpu->r[RSI] = lab->cpu->r[RDI] = ONE_INSN_DATA;
    lab->cpu->r[RCX] = 5;
    lab->cpu->r[RDX] = LAB_PORT;
    io_lab_run(lab, SLICE, SLICES);
    if (lab->vm->soft->executed > SLICES * (SLICE + 4096)) {
        dprintf(2, "fuzz_io_blocks: slices do not end\n");
        abort();
    }
    io_lab_close(lab);
    return 0;
}
