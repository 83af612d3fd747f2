/* SPDX-License-Identifier: MIT */
/* Any bytes as an IO-block table: it is refused with one error line, or every entry that is
 * accepted is a valid block, is found by its address, and packs again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int holds)
{
    if (!holds)
        abort();
}

static void check_entry(const struct io_table *table, uint32_t index)
{
    static uint8_t bytes[IO_BLOCK_BYTES_MAX];
    struct io_block block;
    uint32_t cursor = 0, candidates = 0;
    io_table_block(table, index, &block);
    expect(io_block_valid(&block));
    expect(io_table_find(table, block.key, 0) == index);
    expect(io_table_find(table, block.key + IO_TABLE_ALIGN, IO_TABLE_ALIGN) == index);
    while (io_table_candidate(table, block.key + 5 * IO_TABLE_ALIGN, &cursor) >= 0)
        candidates++;
    expect(candidates > 0 && candidates <= IO_TABLE_CANDIDATES);
    (void)io_block_hash_all(&block, bytes);
    (void)io_block_hash(&block, bytes);
}

static void check_packing(const struct io_table *table)
{
    struct io_block *blocks = malloc((table->entry_count + 1ull) * sizeof *blocks);
    struct io_table again;
    size_t size;
    expect(blocks != NULL);
    for (uint32_t k = 0; k < table->entry_count; k++)
        io_table_block(table, k, &blocks[k]);
    uint8_t *packed = io_table_pack(blocks, table->entry_count, &size, NULL);
    if (packed) { /* keys may wrap around the end of the address space: then they do not ascend */
        expect(io_table_read("again", packed, size, &again, NULL) == 0);
        expect(again.entry_count == table->entry_count && again.ignored == 0);
        io_table_free(&again);
    }
    free(packed);
    free(blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct io_table table;
    struct error err = {0};
    if (io_table_read("fuzz", data, size, &table, &err)) {
        expect(err.code && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    for (uint32_t k = 0; k < table.entry_count && k < 1000; k++)
        check_entry(&table, k);
    check_packing(&table);
    io_table_free(&table);
    return 0;
}
