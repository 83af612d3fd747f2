/* The scanning unit. */
#include "runtime/io_scanner.h"

#include "runtime/io_hasher.h"
#include "runtime/soft/decode.h"

struct live { /* what the scanner's questions are answered from */
    struct vcpu *cpu;
    const struct io_seen *seen;
};

bool io_seen_add(struct io_seen *seen, uint64_t branch, uint64_t target)
{
    for (unsigned k = 0; k < seen->count; k++)
        if (seen->at[k].branch == branch && seen->at[k].target == target)
            return false;
    if (seen->count == IO_BLOCK_GUARDS_MAX)
        return false;
    seen->at[seen->count].branch = branch;
    seen->at[seen->count++].target = target;
    return true;
}

static size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct live *live = context;
    return io_guest_read(live->cpu, address, bytes, size);
}

static unsigned seen_targets(void *context, const struct io_branch *branch, uint64_t *targets,
                             unsigned room)
{
    const struct live *live = context;
    unsigned count = 0;
    for (unsigned k = 0; live->seen && k < live->seen->count && count < room; k++)
        if (live->seen->at[k].branch == branch->address)
            targets[count++] = live->seen->at[k].target;
    return count;
}

enum io_scan_result io_scan_guest(struct io_scanner *scanner, struct vcpu *cpu,
                                  const struct io_extent *extent, const struct io_seen *seen,
                                  uint64_t key, struct io_block *block)
{
    struct live live = {cpu, seen};
    const struct io_code code = {.bits = vcpu_code_bits(cpu),
                                 .context = &live,
                                 .read = read_code,
                                 .targets = seen_targets};
    return io_scan(scanner, &code, extent, key, block);
}
