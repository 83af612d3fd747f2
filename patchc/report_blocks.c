/* SPDX-License-Identifier: MIT */
/* One IO block of the report: what a runtime will emulate in one event. */
#include "patchc/report_blocks.h"

#include "patchc/json.h"

static void add_number(struct json_text *text, const char *key, uint64_t number)
{
    json_text_key(text, key);
    json_text_number(text, number);
}

static void add_ports(struct json_text *text, const struct io_block *block)
{
    json_text_key(text, "ports");
    json_text_add(text, "[");
    for (unsigned k = 0; k < block->port_count; k++) {
        json_text_add(text, k ? "," : "");
        json_text_number(text, block->ports[k]);
    }
    json_text_add(text, "]");
}

static void add_traits(struct json_text *text, const struct io_block *block)
{
    static const struct {
        enum io_block_flag flag;
        const char *name;
    } traits[] = {{IO_BLOCK_LOOP, "loop"}, {IO_BLOCK_STRING, "string"}, {IO_BLOCK_CALL, "call"}};
    bool first = true;
    json_text_key(text, "traits");
    json_text_add(text, "[");
    for (size_t k = 0; k < sizeof traits / sizeof traits[0]; k++)
        if (block->flags & traits[k].flag) {
            json_text_add(text, first ? "" : ",");
            json_text_string(text, traits[k].name);
            first = false;
        }
    json_text_add(text, "]");
}

static void add_ranges(struct json_text *text, const struct io_block *block)
{
    json_text_key(text, "ranges");
    json_text_add(text, "[");
    for (unsigned k = 0; k < block->range_count; k++) {
        json_text_add(text, k ? ",{" : "{");
        json_text_key(text, "address");
        json_text_hex(text, block->key + (uint64_t)block->ranges[k].offset);
        add_number(text, "size", block->ranges[k].size);
        json_text_add(text, "}");
    }
    json_text_add(text, "]");
}

/* Where it was: unknown to who sees only the patched image. */
static void add_site(struct json_text *text, const struct image *image, uint64_t site)
{
    uint64_t offset = 0;
    const struct image_symbol *symbol = site ? image_symbol_at(image, site, &offset) : NULL;
    json_text_key(text, "site");
    if (site)
        json_text_hex(text, site);
    else
        json_text_string(text, NULL);
    json_text_key(text, "symbol");
    if (symbol)
        json_text_value(text, json_place(symbol->name, offset));
    else
        json_text_string(text, NULL);
}

void report_block(struct json_text *text, const struct image *image, const struct io_block *block,
                  uint64_t site)
{
    uint64_t masked = 0;
    for (unsigned k = 0; k < block->mask_count; k++)
        masked += block->masks[k].size;
    json_text_add(text, "{");
    json_text_key(text, "address");
    json_text_hex(text, block->key);
    add_site(text, image, site);
    add_number(text, "size", block->size);
    add_number(text, "masked", masked);
    json_text_key(text, "hash");
    json_text_hex(text, block->hash);
    add_number(text, "io_count", block->io_count);
    add_number(text, "instructions", block->insn_count);
    add_ports(text, block);
    add_traits(text, block);
    add_ranges(text, block);
    json_text_add(text, "}");
}
