/* One IO block of the report: what a runtime will emulate in one event. */
#include "patchc/report_blocks.h"

#include "patchc/json.h"

static json_t *ports_value(const struct io_block *block, bool *failed)
{
    json_t *ports = json_array();
    for (unsigned k = 0; k < block->port_count; k++)
        json_append(failed, ports, json_integer(block->ports[k]));
    return ports;
}

static json_t *ranges_value(const struct io_block *block, bool *failed)
{
    json_t *ranges = json_array();
    for (unsigned k = 0; k < block->range_count; k++) {
        json_t *range = json_object();
        json_put(failed, range, "address",
                 json_hex(block->key + (uint64_t)block->ranges[k].offset));
        json_put(failed, range, "size", json_integer(block->ranges[k].size));
        json_append(failed, ranges, range);
    }
    return ranges;
}

static json_t *traits_value(const struct io_block *block, bool *failed)
{
    static const struct {
        enum io_block_flag flag;
        const char *name;
    } traits[] = {{IO_BLOCK_LOOP, "loop"}, {IO_BLOCK_STRING, "string"}, {IO_BLOCK_CALL, "call"}};
    json_t *list = json_array();
    for (size_t k = 0; k < sizeof traits / sizeof traits[0]; k++)
        if (block->flags & traits[k].flag)
            json_append(failed, list, json_string(traits[k].name));
    return list;
}

json_t *report_block(const struct image *image, const struct io_block *block, uint64_t site,
                     bool *failed)
{
    json_t *object = json_object();
    uint64_t offset = 0, masked = 0;
    const struct image_symbol *symbol = site ? image_symbol_at(image, site, &offset) : NULL;
    for (unsigned k = 0; k < block->mask_count; k++)
        masked += block->masks[k].size;
    json_put(failed, object, "address", json_hex(block->key));
    json_put(failed, object, "site", site ? json_hex(site) : json_null());
    json_put(failed, object, "symbol", symbol ? json_place(symbol->name, offset) : json_null());
    json_put(failed, object, "size", json_integer(block->size));
    json_put(failed, object, "masked", json_integer((json_int_t)masked));
    json_put(failed, object, "hash", json_hex(block->hash));
    json_put(failed, object, "io_count", json_integer(block->io_count));
    json_put(failed, object, "instructions", json_integer(block->insn_count));
    json_put(failed, object, "ports", ports_value(block, failed));
    json_put(failed, object, "traits", traits_value(block, failed));
    json_put(failed, object, "ranges", ranges_value(block, failed));
    return object;
}
