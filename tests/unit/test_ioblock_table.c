/* SPDX-License-Identifier: MIT */
/* The IO-block table: what is packed is read back, and hostile tables do no harm (B2, B9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "ioblock/table.h"

#include <cmocka.h>

#define BASE 0xffffffff81000000ull

static struct io_block simple_block(uint64_t key)
{
    struct io_block block = {.key = key,
                             .hash = key * 3,
                             .exit = 4,
                             .size = 6,
                             .insn_count = 3,
                             .io_count = 2,
                             .range_count = 2,
                             .mask_count = 1,
                             .port_count = 2,
                             .flags = IO_BLOCK_MASKED | IO_BLOCK_LOOP};
    block.ports[0] = 0x3f8;
    block.ports[1] = 0x3fd;
    block.ranges[0] = (struct io_range){0, 2};
    block.ranges[1] = (struct io_range){16, 4};
    block.masks[0] = (struct io_mask){2, 4};
    return block;
}

struct packed {
    uint8_t *bytes;
    size_t size;
    struct io_table_header *header;
    struct io_table_entry *entries;
    struct io_table_range *ranges;
    struct io_table_mask *masks;
};

/* `count` blocks, `distance` bytes apart. */
static struct packed pack(unsigned count, uint64_t distance)
{
    struct io_block *blocks = calloc(count + 1u, sizeof *blocks);
    struct packed p = {0};
    struct error err = {0};
    for (unsigned k = 0; k < count; k++)
        blocks[k] = simple_block(BASE + k * distance);
    p.bytes = io_table_pack(blocks, count, &p.size, &err);
    assert_non_null(p.bytes);
    free(blocks);
    p.header = (struct io_table_header *)p.bytes;
    p.entries = (struct io_table_entry *)(p.header + 1);
    p.ranges = (struct io_table_range *)(p.entries + count);
    p.masks = (struct io_table_mask *)(p.ranges + p.header->range_count);
    return p;
}

static void assert_ignored(const struct packed *p, uint32_t ignored)
{
    struct io_table table;
    struct error err = {0};
    assert_int_equal(io_table_read("image", p->bytes, p->size, &table, &err), 0);
    assert_int_equal(table.ignored, ignored);
    assert_int_equal(table.entry_count, p->header->entry_count - ignored);
    for (uint32_t k = 0; k < table.entry_count; k++) {
        struct io_block block;
        io_table_block(&table, k, &block);
        assert_true(io_block_valid(&block));
    }
    io_table_free(&table);
}

static void assert_refused(const uint8_t *bytes, size_t size)
{
    struct io_table table;
    struct error err = {0};
    assert_int_equal(io_table_read("image", bytes, size, &table, &err), -1);
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "image: IO-block table"));
    io_table_free(&table); /* nothing to free: harmless */
}

/* ---- what it is for ---- */
static void B9_what_is_packed_is_read_back(void **state)
{
    (void)state;
    struct packed p = pack(100, 64);
    struct io_table table;
    assert_int_equal(io_table_read("image", p.bytes, p.size, &table, NULL), 0);
    assert_int_equal(table.entry_count, 100);
    assert_int_equal(table.ignored, 0);
    for (uint32_t k = 0; k < 100; k++) {
        struct io_block block, expected = simple_block(BASE + 64 * k);
        int64_t index = io_table_find(&table, BASE + 64 * k, 0);
        assert_int_equal(index, k);
        memset(&block, 0, sizeof block);
        io_table_block(&table, (uint32_t)index, &block);
        assert_memory_equal(&block, &expected, sizeof block);
    }
    assert_int_equal(io_table_find(&table, BASE + 1, 0), -1);
    assert_int_equal(io_table_find(&table, BASE - 1, 0), -1);
    assert_int_equal(io_table_find(&table, BASE + 6400, 0), -1);
    assert_int_equal(io_table_find(&table, 0, 0), -1);
    io_table_free(&table);
    free(p.bytes);
}

static void B9_the_same_blocks_give_the_same_bytes_at_any_alignment(void **state)
{
    (void)state;
    struct packed p = pack(10, 64), q = pack(10, 64);
    struct io_table table;
    assert_int_equal(p.size, q.size);
    assert_memory_equal(p.bytes, q.bytes, p.size);
    uint8_t *odd = malloc(p.size + 1);
    memcpy(odd + 1, p.bytes, p.size);
    assert_int_equal(io_table_read("image", odd + 1, p.size, &table, NULL), 0);
    assert_int_equal(table.entry_count, 10);
    io_table_free(&table);
    free(odd);
    free(p.bytes);
    free(q.bytes);
}

static void B9_a_relocated_guest_finds_its_blocks(void **state)
{
    (void)state;
    struct packed p = pack(1000, 0x1234);
    struct io_table table;
    assert_int_equal(io_table_read("image", p.bytes, p.size, &table, NULL), 0);
    uint64_t delta = 37 * (uint64_t)IO_TABLE_ALIGN, identity = 0x1000000 - BASE;
    assert_int_equal(io_table_find(&table, BASE + 0x1234 + delta, delta), 1);
    assert_int_equal(io_table_find(&table, BASE + 0x1234 + identity, identity), 1);
    for (uint32_t k = 0; k < 1000; k++) { /* the distance is not known yet */
        uint32_t cursor = 0;
        bool found = false;
        int64_t index;
        while ((index = io_table_candidate(&table, BASE + k * 0x1234ull + delta, &cursor)) >= 0)
            found |= index == k;
        assert_true(found);
    }
    uint32_t cursor = 0;
    assert_int_equal(io_table_candidate(&table, BASE + delta + 1, &cursor), -1);
    io_table_free(&table);
    free(p.bytes);
}

static void B9_blocks_that_cannot_stand_in_a_table_are_not_packed(void **state)
{
    (void)state;
    struct io_block blocks[2] = {simple_block(BASE), simple_block(BASE)};
    struct error err = {0};
    size_t size;
    assert_null(io_table_pack(blocks, 2, &size, &err)); /* twice */
    assert_int_equal(err.code, EXIT_INPUT);
    blocks[1].key += 64;
    blocks[1].guard_count = 1; /* learned from a live guest */
    assert_null(io_table_pack(blocks, 2, &size, NULL));
    blocks[1].guard_count = 0;
    blocks[1].size++;
    assert_null(io_table_pack(blocks, 2, &size, NULL));
}

static void an_empty_table_is_a_table(void **state)
{
    (void)state;
    struct packed p = pack(0, 0);
    struct io_table table;
    uint32_t cursor = 0;
    assert_int_equal(io_table_read("image", p.bytes, p.size, &table, NULL), 0);
    assert_int_equal(io_table_find(&table, BASE, 0), -1);
    assert_int_equal(io_table_candidate(&table, BASE, &cursor), -1);
    io_table_free(&table);
    free(p.bytes);
}

/* ---- hostile ones ---- */
static void a_table_of_any_other_size_or_header_is_refused(void **state)
{
    (void)state;
    struct packed p = pack(3, 64);
    for (size_t size = 0; size < p.size; size++)
        assert_refused(p.bytes, size);
    for (size_t k = 0; k < offsetof(struct io_table_header, base); k++) {
        p.bytes[k] ^= 0x80;
        assert_refused(p.bytes, p.size);
        p.bytes[k] ^= 0x80;
    }
    p.header->base++;
    assert_refused(p.bytes, p.size);
    p.header->base--;
    p.header->bits = 32;
    assert_refused(p.bytes, p.size);
    p.header->bits = 64;
    p.header->entry_count = p.header->range_count = p.header->mask_count = UINT32_MAX;
    assert_refused(p.bytes, p.size);
    free(p.bytes);
}

static void entries_whose_pieces_lie_outside_are_ignored(void **state)
{
    (void)state;
    struct packed p = pack(8, 64);
    p.entries[0].first_range = p.header->range_count - 1;
    p.entries[1].first_range = UINT32_MAX;
    p.entries[2].first_mask = p.header->mask_count;
    p.entries[3].range_count = IO_BLOCK_RANGES_MAX + 1;
    p.entries[4].mask_count = UINT16_MAX;
    p.entries[5].port_count = IO_BLOCK_PORTS_MAX + 1;
    p.entries[6].range_count = 0;
    assert_ignored(&p, 7);
    free(p.bytes);
}

static void entries_whose_ranges_overlap_or_reach_too_far_are_ignored(void **state)
{
    (void)state;
    struct packed p = pack(12, 64);
    p.ranges[2 * 0 + 1].offset = 1;          /* overlaps */
    p.ranges[2 * 1 + 1].offset = 2;          /* touches: would be one range */
    p.ranges[2 * 2 + 1].offset = -100;       /* out of order */
    p.ranges[2 * 3].size = 0;                /* empty */
    p.ranges[2 * 4 + 1].size = 0xffffffffu;  /* past any segment */
    p.ranges[2 * 5 + 1].offset = 0x7fffffff; /* past the end of the address space */
    p.ranges[2 * 6].offset = 4;              /* does not hold its key */
    p.entries[7].size = 7;                   /* sizes do not add up */
    p.masks[8].position = 4;                 /* a mask beyond the end */
    p.masks[9].size = 0;
    p.masks[10].size = UINT16_MAX;
    assert_ignored(&p, 11);
    free(p.bytes);
}

static void entries_with_impossible_counts_or_flags_are_ignored(void **state)
{
    (void)state;
    struct packed p = pack(8, 64);
    p.entries[0].io_count = 0;
    p.entries[1].io_count = 4; /* of three instructions */
    p.entries[2].insn_count = 0;
    p.entries[3].insn_count = 7; /* in six bytes */
    p.entries[4].flags = 0xc0;
    p.entries[5].exit = INT32_MIN;
    p.entries[6].flags |= IO_BLOCK_GUARD; /* the table has none */
    assert_ignored(&p, 7);
    free(p.bytes);
}

static void entries_out_of_order_are_ignored(void **state)
{
    (void)state;
    struct packed p = pack(5, 64);
    p.entries[1].offset = p.entries[0].offset;
    p.entries[3].offset = 1;
    assert_ignored(&p, 2);
    p.entries[0].offset = UINT64_MAX; /* then none is above it */
    assert_ignored(&p, 4);
    free(p.bytes);
}

/* B3: what is found by a collision is still not the block: its bytes decide. */
static void B3_collisions_by_design_cost_a_bounded_search(void **state)
{
    (void)state;
    struct packed p = pack(1000, IO_TABLE_ALIGN); /* all have the same residue */
    struct io_table table;
    uint32_t cursor = 0, count = 0;
    assert_int_equal(io_table_read("image", p.bytes, p.size, &table, NULL), 0);
    assert_int_equal(table.entry_count, 1000);
    while (io_table_candidate(&table, BASE, &cursor) >= 0)
        count++;
    assert_int_equal(count, IO_TABLE_CANDIDATES);
    io_table_free(&table);
    free(p.bytes);
}

static void millions_of_entries_are_cut_to_a_bound(void **state)
{
    (void)state;
    const uint32_t count = 2000000;
    struct io_table_header header = {.version = IO_TABLE_VERSION,
                                     .header_size = sizeof header,
                                     .base = BASE,
                                     .entry_count = count,
                                     .range_count = 1,
                                     .bits = 64};
    struct io_table table;
    size_t size =
        sizeof header + count * sizeof(struct io_table_entry) + sizeof(struct io_table_range);
    uint8_t *bytes = calloc(1, size);
    memcpy(header.magic, IO_TABLE_MAGIC, sizeof header.magic);
    memcpy(bytes, &header, sizeof header);
    struct io_table_entry *entries = (struct io_table_entry *)(bytes + sizeof header);
    for (uint32_t k = 0; k < count; k++)
        entries[k] = (struct io_table_entry){
            .offset = 2ull * k, .size = 2, .range_count = 1, .insn_count = 1, .io_count = 1};
    memcpy(bytes + size - sizeof(struct io_table_range), &(struct io_table_range){0, 2},
           sizeof(struct io_table_range));
    assert_int_equal(io_table_read("image", bytes, size, &table, NULL), 0);
    assert_int_equal(table.entry_count, IO_TABLE_ENTRIES_MAX);
    assert_int_equal(table.ignored, count - IO_TABLE_ENTRIES_MAX);
    assert_int_equal(io_table_find(&table, BASE + 200, 0), 100);
    io_table_free(&table);
    free(bytes);
}

static void any_flipped_byte_is_survived(void **state)
{
    (void)state;
    struct packed p = pack(20, 64);
    for (size_t at = 0; at < p.size; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            struct io_table table;
            p.bytes[at] ^= (uint8_t)(1u << bit);
            if (io_table_read("image", p.bytes, p.size, &table, NULL) == 0) {
                assert_int_equal(table.entry_count + table.ignored, 20);
                for (uint32_t k = 0; k < table.entry_count; k++) {
                    struct io_block block;
                    io_table_block(&table, k, &block);
                    assert_true(io_block_valid(&block));
                }
                io_table_free(&table);
            }
            p.bytes[at] ^= (uint8_t)(1u << bit);
        }
    free(p.bytes);
}

/* ---- hashes (B3) ---- */
static void B3_the_hash_is_xxh3_of_the_unmasked_bytes(void **state)
{
    (void)state;
    struct io_block block = simple_block(BASE);
    uint8_t bytes[IO_BLOCK_BYTES_MAX] = {0xe6, 0x20, 1, 2, 3, 4};
    static const uint8_t zeroed[] = {0xe6, 0x20, 0, 0, 0, 0};
    assert_true(io_block_hash_all(&block, bytes) == XXH3_64bits(bytes, 6));
    assert_true(io_block_hash(&block, bytes) == XXH3_64bits(zeroed, 6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(B9_what_is_packed_is_read_back),
        cmocka_unit_test(B9_the_same_blocks_give_the_same_bytes_at_any_alignment),
        cmocka_unit_test(B9_a_relocated_guest_finds_its_blocks),
        cmocka_unit_test(B9_blocks_that_cannot_stand_in_a_table_are_not_packed),
        cmocka_unit_test(an_empty_table_is_a_table),
        cmocka_unit_test(a_table_of_any_other_size_or_header_is_refused),
        cmocka_unit_test(entries_whose_pieces_lie_outside_are_ignored),
        cmocka_unit_test(entries_whose_ranges_overlap_or_reach_too_far_are_ignored),
        cmocka_unit_test(entries_with_impossible_counts_or_flags_are_ignored),
        cmocka_unit_test(entries_out_of_order_are_ignored),
        cmocka_unit_test(B3_collisions_by_design_cost_a_bounded_search),
        cmocka_unit_test(millions_of_entries_are_cut_to_a_bound),
        cmocka_unit_test(any_flipped_byte_is_survived),
        cmocka_unit_test(B3_the_hash_is_xxh3_of_the_unmasked_bytes),
    };
    return cmocka_run_group_tests_name("ioblock_table", tests, NULL, NULL);
}
