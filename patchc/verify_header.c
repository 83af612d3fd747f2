/* SPDX-License-Identifier: MIT */
/* The stub header and its tables: where they are, and that they agree with each other. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/verify_internal.h"

/* Reads `count` elements of `size` bytes at header + offset into a malloc'd array and claims them.
 */
static void *read_table(struct verify *v, int64_t offset, uint64_t count, size_t size,
                        const char *what)
{
    uint64_t address = v->base + (uint64_t)offset, bytes = count * size; /* 32 bits times < 64 */
    const uint8_t *from = image_at(&v->after, address, bytes);
    if (!from || offset == 0) {
        verify_mismatch(v, "header: %s of %" PRIu64 " entries at 0x%" PRIx64 " is not in the image",
                        what, count, address);
        return NULL;
    }
    verify_claim(v, address, bytes, CLAIM_PADDING, what);
    void *copy = malloc(bytes + 1);
    if (copy)
        memcpy(copy, from, bytes);
    else
        v->out_of_memory = true;
    return copy;
}

/* Claims memory that the runtime fills: zero in the image. */
static void claim_zero(struct verify *v, uint64_t address, uint64_t size, const char *what)
{
    if (!verify_claim(v, address, size, CLAIM_PADDING, what))
        return;
    const uint8_t *bytes = image_at(&v->after, address, size);
    for (uint64_t i = 0; i < size; i++)
        if (bytes[i]) {
            verify_mismatch(v, "address 0x%" PRIx64 ": %s is filled before the guest starts",
                            address + i, what);
            return;
        }
}

/* Tables that the runtime fills: all zero in the image, there exactly if their feature is. */
static void check_runtime_table(struct verify *v, int64_t offset, uint64_t size, uint32_t feature,
                                const char *what)
{
    if ((offset != 0) != ((v->header.features & feature) != 0))
        verify_mismatch(v, "header: features 0x%x, but %s %s", v->header.features,
                        offset ? "there is a" : "there is no", what);
    if (!offset)
        return;
    uint64_t address = v->base + (uint64_t)offset;
    if (address % 64)
        verify_mismatch(v, "header: %s at 0x%" PRIx64 " is not aligned to 64 bytes", what, address);
    claim_zero(v, address, size, what);
}

/* The state lies in writable memory that the file leaves zero, in a page of which the stub does not
 * touch the first 64 bytes. */
static void check_state(struct verify *v)
{
    const struct pv_header *h = &v->header;
    if ((h->state_offset != 0) != ((h->features & PV_FEATURE_STATE) != 0))
        verify_mismatch(v, "header: features 0x%x, state offset 0x%" PRIx64, h->features,
                        (uint64_t)h->state_offset);
    if (!h->state_offset) {
        if (h->state_size)
            verify_mismatch(v, "header: no state page, but it has %u bytes", h->state_size);
        return;
    }
    uint64_t address = v->base + (uint64_t)h->state_offset;
    uint64_t in_page = address & 0xfff;
    bool linux_image = v->tables_before.present;
    if ((linux_image && in_page < 64) || in_page + h->state_size != 0x1000 ||
        h->state_size < sizeof(struct pv_state))
        verify_mismatch(v, "header: state at 0x%" PRIx64 " of %u bytes is not the rest of a page",
                        address, h->state_size);
    bool writable = false;
    for (size_t i = 0; i < v->after.segment_count; i++) {
        const struct image_segment *s = &v->after.segments[i];
        writable |= s->type == 1 && (s->flags & 2) && address >= s->vaddr &&
                    address - s->vaddr < s->mem_size &&
                    h->state_size <= s->mem_size - (address - s->vaddr);
    }
    const struct image_section *section = image_section_at(&v->before, address);
    if (!writable ||
        (v->tables_before.present && (!section || strcmp(section->name, ".data_nosave") != 0)))
        verify_mismatch(v, "header: state at 0x%" PRIx64 " is in memory of something else",
                        address);
}

static void check_fields(struct verify *v)
{
    const struct pv_header *h = &v->header;
    if (v->base % 64)
        verify_mismatch(v, "header at 0x%" PRIx64 " is not aligned to 64 bytes", v->base);
    if (h->abi_version != PV_ABI_VERSION || h->header_size != sizeof *h)
        verify_mismatch(v, "header: ABI version %u, %u bytes", h->abi_version, h->header_size);
    if (h->doorbell_port != PV_DOORBELL_PORT)
        verify_mismatch(v, "header: doorbell port 0x%x", h->doorbell_port);
    if (h->features & ~(PV_FEATURE_STATE | PV_FEATURE_CPUID | PV_FEATURE_MSR) || h->reserved)
        verify_mismatch(v, "header: features 0x%x, reserved field 0x%x", h->features, h->reserved);
    check_state(v);
    check_runtime_table(v, h->cpuid_table_offset, sizeof(struct pv_cpuid_table), PV_FEATURE_CPUID,
                        "CPUID table");
    check_runtime_table(v, h->msr_table_offset, sizeof(struct pv_msr_table), PV_FEATURE_MSR,
                        "MSR table");
}

bool verify_dead_routine(const struct verify *v, uint32_t index)
{
    static const struct pv_routine none;
    return memcmp(&v->routines[index], &none, sizeof none) == 0 && v->routine_table[index] == 0;
}

/* One patch of the table: its routines come behind those of the patches before it (*next is the
 * first of them), or it shares those of another. */
static void check_patch_order(struct verify *v, uint32_t index, uint32_t *next)
{
    const struct pv_patch *p = &v->patches[index];
    uint32_t count = v->header.routine_count;
    bool copied = p->flags & PV_PATCH_REPLACEMENT;
    if (index && (p[-1].window_offset > p->window_offset ||
                  (p[-1].window_offset == p->window_offset &&
                   !(copied && (p[-1].flags & PV_PATCH_REPLACEMENT)))))
        verify_mismatch(v, "patch %u: the table is not sorted by window", index);
    if (p->first_routine > count || p->routine_count > count - p->first_routine) {
        verify_mismatch(v, "patch %u: routines %u to %u of %u", index, p->first_routine,
                        p->first_routine + p->routine_count, count);
        return;
    }
    if (p->routine_count == 0 ? p->first_routine == 0
                              : copied && v->routines[p->first_routine].patch != index)
        return;
    bool in_order = p->first_routine >= *next;
    for (; in_order && *next < p->first_routine; ++*next)
        in_order = verify_dead_routine(v, *next);
    if (!in_order)
        verify_mismatch(v, "patch %u: its first routine is %u, and %u comes next", index,
                        p->first_routine, *next);
    *next = p->first_routine + p->routine_count;
}

/* Patches are sorted; routines belong to patches, consecutively, none left over. A routine for
 * which there was no room is all zero. */
static void check_order(struct verify *v)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < v->header.patch_count; i++)
        check_patch_order(v, i, &next);
    for (uint32_t i = 0; i < v->header.routine_count; i++) {
        const struct pv_routine *r = &v->routines[i];
        const struct pv_patch *p = r->patch < v->header.patch_count ? &v->patches[r->patch] : NULL;
        if (!verify_dead_routine(v, i) &&
            (!p || i < p->first_routine || i - p->first_routine >= p->routine_count))
            verify_mismatch(v, "routine %u: is not one of patch %u", i, r->patch);
    }
}

bool verify_header(struct verify *v)
{
    const struct pv_note *note = &v->record.note;
    v->base = note->header_address;
    if (!v->base && !note->header_file)
        return true; /* nothing was patched */
    const uint8_t *bytes = image_at(&v->after, v->base, sizeof v->header);
    uint64_t offset;
    if (!bytes || memcmp(bytes, PV_HEADER_MAGIC, 8) != 0) {
        verify_mismatch(v, "note: there is no stub header at 0x%" PRIx64, v->base);
        return false;
    }
    if (!image_offset(&v->after, v->base, sizeof v->header, &offset) || offset != note->header_file)
        verify_mismatch(v, "note: the header at 0x%" PRIx64 " is not at file offset 0x%" PRIx64,
                        v->base, note->header_file);
    memcpy(&v->header, bytes, sizeof v->header);
    verify_claim(v, v->base, sizeof v->header, CLAIM_PADDING, "header");
    check_fields(v);
    const struct pv_header *h = &v->header;
    v->patches =
        read_table(v, h->patch_info_offset, h->patch_count, sizeof *v->patches, "patch table");
    v->routines = read_table(v, h->routine_info_offset, h->routine_count, sizeof *v->routines,
                             "routine information");
    v->routine_table = read_table(v, h->routine_table_offset, h->routine_count,
                                  sizeof *v->routine_table, "routine table");
    if (!v->patches || !v->routines || !v->routine_table)
        return false;
    size_t before = v->mismatches;
    check_order(v);
    return v->mismatches == before;
}
