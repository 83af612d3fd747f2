/* SPDX-License-Identifier: MIT */
/* The host side of a patched image's stub: finding, checking, linking, and the way from an index to
 * a handler. */
#include "runtime/stub.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/patched_note.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* ---- finding and checking ---- */
/* The guest-physical address of guest-linear [linear, linear + size) by the segment that loads
 * it. */
static bool physical_of(const struct vm *vm, const struct image *image, uint64_t linear,
                        uint64_t size, uint64_t *physical)
{
    for (size_t k = 0; k < image->segment_count; k++) {
        const struct image_segment *s = &image->segments[k];
        if (s->type != 1 /* PT_LOAD */ || linear < s->vaddr || linear - s->vaddr >= s->mem_size ||
            size > s->mem_size - (linear - s->vaddr))
            continue;
        *physical = s->paddr + (linear - s->vaddr);
        return memory_at(&vm->memory, *physical, size) != NULL;
    }
    return false;
}

struct attach { /* one attachment, under way */
    struct vm *vm;
    const struct image *image;
    struct stub *stub;
    struct pv_header header;
    struct error *err;
};

static int bad(const struct attach *a, const char *what, uint64_t where)
{
    return fail(a->err, HVRUN_IMAGE,
                "%s: stub at 0x%" PRIx64 ": %s; --no-patch runs the image without it",
                a->image->name, where, what);
}

/* Copies `size` bytes at header + offset out of guest memory. */
static bool fetch(const struct attach *a, int64_t offset, void *to, uint64_t size,
                  uint64_t *physical)
{
    uint64_t at;
    if (!physical_of(a->vm, a->image, a->stub->header_linear + (uint64_t)offset, size, &at))
        return false;
    if (physical)
        *physical = at;
    return to ? memory_read(&a->vm->memory, at, to, size) : true;
}

/* The offset of an element of a table; it wraps, as addresses do. */
static int64_t nth(int64_t table_offset, uint32_t index, size_t size)
{
    return (int64_t)((uint64_t)table_offset + (uint64_t)index * size);
}

#define ROUTINES_MAX (1u << 20)

static int check_header(struct attach *a, const struct pv_note *note)
{
    struct stub *stub = a->stub;
    stub->header_linear = note->header_address;
    if (note->abi_version != PV_ABI_VERSION)
        return fail(a->err, HVRUN_IMAGE,
                    "%s: patched for stub ABI %u, this hvrun has %u; patch it again",
                    a->image->name, note->abi_version, PV_ABI_VERSION);
    if (!fetch(a, 0, &a->header, sizeof a->header, &stub->header_physical))
        return bad(a, "the header is outside the loaded image", note->header_address);
    const struct pv_header *h = &a->header;
    if (memcmp(h->magic, PV_HEADER_MAGIC, sizeof h->magic) != 0 ||
        h->abi_version != PV_ABI_VERSION || h->header_size != sizeof *h)
        return bad(a, "no valid header", note->header_address);
    if (h->routine_count > ROUTINES_MAX || h->patch_count > ROUTINES_MAX ||
        h->doorbell_port != PV_DOORBELL_PORT)
        return bad(a, "impossible header", note->header_address);
    stub->routine_count = h->routine_count;
    if (!fetch(a, h->routine_table_offset, NULL, 8ull * h->routine_count, &stub->table_physical))
        return bad(a, "the routine table is outside the loaded image", note->header_address);
    return 0;
}

static int copy_routine(struct attach *a, uint32_t index)
{
    struct pv_routine r;
    struct pv_patch patch;
    const struct pv_header *h = &a->header;
    if (!fetch(a, nth(h->routine_info_offset, index, sizeof r), &r, sizeof r, NULL))
        return bad(a, "a routine's description is outside the loaded image",
                   a->stub->header_linear);
    if (r.kind >= PV_KINDS || r.form >= PV_FORMS || r.patch >= h->patch_count ||
        !fetch(a, nth(h->patch_info_offset, r.patch, sizeof patch), &patch, sizeof patch, NULL))
        return bad(a, "impossible description of a routine", a->stub->header_linear);
    a->stub->routines[index] = (struct stub_routine){.site_offset = r.site_offset,
                                                     .native_offset = r.native_offset,
                                                     .window_offset = patch.window_offset,
                                                     .emulation_offset = r.emulation_offset,
                                                     .tail_offset = r.tail_offset,
                                                     .emulation_size = r.emulation_size,
                                                     .operand = r.operand,
                                                     .kind = r.kind,
                                                     .form = r.form,
                                                     .flags = r.flags};
    return 0;
}

/* ---- linking ---- */
/* The rule of profit: the native instruction costs one event of this engine; so does a doorbell.
 * What is answered in the guest costs none. --link all links whatever works, to show that it
 * does. */
static bool wanted(const struct vm *vm, const struct stub_routine *r, bool table, bool state)
{
    bool rings = r->flags & PV_ROUTINE_DOORBELL;
    if (!r->emulation_offset || (rings && !doorbell_has_handler(r->kind, r->operand)))
        return false;
    /* For a deprivileged guest: but a look-up that asks the host instead of going native is as
     * right for others. */
    if (r->flags & PV_ROUTINE_DEPRIVILEGED && !(r->flags & PV_ROUTINE_TABLE && rings))
        return false;
    if (r->flags & PV_ROUTINE_TABLE && !table)
        return false;
    if (r->flags & PV_ROUTINE_STATE && !state)
        return false;
    if (r->flags & PV_ROUTINE_BARE && !vm->engine->takes_turns) /* UD1 is the guest's */
        return false;
    if (vm->engine->links)
        return vm->engine->links(vm, r);
    if (r->flags & (PV_ROUTINE_TABLE | PV_ROUTINE_STATE))
        return true;
    if (!vm->config.link_all)
        return false;
    /* Without a stack, a doorbell with a memory operand is two, between which no interrupt may
     * come: left alone. */
    if (r->flags & PV_ROUTINE_BARE && r->operand & PV_OPERAND_MEMORY)
        return false;
    return true;
}

static int link_routine(struct attach *a, uint32_t index)
{
    struct stub_routine *r = &a->stub->routines[index];
    const struct pv_header *h = &a->header;
    bool table = r->kind == PV_KIND_CPUID ? h->cpuid_table_offset != 0 : h->msr_table_offset != 0;
    if (!wanted(a->vm, r, table, h->state_offset != 0))
        return 0;
    struct pv_routine info;
    if (!fetch(a, nth(h->routine_info_offset, index, sizeof info), &info, sizeof info, NULL))
        return bad(a, "a routine's description has changed", a->stub->header_linear);
    uint64_t physical;
    uint8_t link[5];
    static const uint8_t inactive[5] = {0xe9, 0, 0, 0, 0};
    int64_t distance = (int64_t)((uint64_t)r->emulation_offset - ((uint64_t)info.link_offset + 5));
    if (!fetch(a, info.link_offset, link, sizeof link, &physical) ||
        memcmp(link, inactive, sizeof link) != 0)
        return bad(a, "a routine's link is not where its description says",
                   a->stub->header_linear + (uint64_t)info.link_offset);
    if (!fetch(a, r->emulation_offset, NULL, r->emulation_size, NULL) ||
        distance != (int32_t)distance)
        return bad(a, "a routine's emulation is outside the loaded image",
                   a->stub->header_linear + (uint64_t)info.link_offset);
    int32_t rel32 = (int32_t)distance;
    memory_write(&a->vm->memory, physical + 1, &rel32, sizeof rel32);
    r->linked = true;
    a->stub->linked_count++;
    return 0;
}

/* ---- tables ---- */
static int fill_tables(struct attach *a)
{
    const struct pv_header *h = &a->header;
    struct memory *memory = &a->vm->memory;
    uint64_t physical;
    union {
        struct pv_cpuid_table cpuid;
        struct pv_msr_table msr;
    } *table = malloc(sizeof *table);
    if (!table)
        return fail(a->err, HVRUN_HOST, "stub: out of memory");
    int result = 0;
    if (h->cpuid_table_offset) {
        stub_fill_cpuid(a->vm, &table->cpuid);
        if (!fetch(a, h->cpuid_table_offset, NULL, sizeof table->cpuid, &physical) ||
            !memory_write(memory, physical, &table->cpuid, sizeof table->cpuid))
            result = bad(a, "the CPUID table is outside the loaded image", a->stub->header_linear);
    }
    if (h->msr_table_offset) {
        stub_fill_msrs(&table->msr);
        if (!fetch(a, h->msr_table_offset, NULL, sizeof table->msr, &physical) ||
            !memory_write(memory, physical, &table->msr, sizeof table->msr))
            result = bad(a, "the MSR table is outside the loaded image", a->stub->header_linear);
    }
    free(table);
    return result;
}

static int find_state(struct attach *a)
{
    const struct pv_header *h = &a->header;
    struct stub *stub = a->stub;
    if (!h->state_offset)
        return 0;
    if (h->state_size < sizeof(struct pv_state) ||
        !fetch(a, h->state_offset, NULL, h->state_size, &stub->state_physical) ||
        stub->state_physical % 64) {
        stub->state_physical = 0;
        return bad(a, "the state page is outside the loaded image, too small, or not aligned",
                   stub->header_linear);
    }
    stub->state_size = h->state_size;
    stub_devices_start(a->vm);
    return 0;
}

static int attach(struct attach *a, const struct pv_note *note)
{
    struct stub *stub = a->stub;
    if (check_header(a, note) < 0)
        return -1;
    stub->routines = calloc(stub->routine_count + 1, sizeof *stub->routines);
    if (!stub->routines)
        return fail(a->err, HVRUN_HOST, "stub: out of memory");
    for (uint32_t k = 0; k < stub->routine_count; k++)
        if (copy_routine(a, k) < 0)
            return -1;
    if (fill_tables(a) < 0 || find_state(a) < 0)
        return -1;
    for (uint32_t k = 0; k < stub->routine_count; k++)
        if (link_routine(a, k) < 0)
            return -1;
    return 0;
}

int stub_attach(struct vm *vm, const struct image *image, struct error *err)
{
    struct pv_note note;
    if (!patched_note_find(image, &note, NULL, NULL) || !note.header_address)
        return 0; /* not patched, or nothing in it was */
    if (vm->config.no_patch) {
        if (note.flags & PV_IMAGE_NEEDS_RUNTIME)
            return fail(
                err, HVRUN_IMAGE,
                "%s: has break patches, which do nothing without the stub; leave out --no-patch",
                image->name);
        return 0;
    }
    if (note.flags & PV_IMAGE_NEEDS_RUNTIME && !vm->engine->takes_turns)
        return fail(
            err, HVRUN_IMAGE,
            "%s: has break patches, which only the software processor runs; use --engine soft",
            image->name);
    vm->stub = calloc(1, sizeof *vm->stub);
    if (!vm->stub)
        return fail(err, HVRUN_HOST, "stub: out of memory");
    struct attach a = {.vm = vm, .image = image, .stub = vm->stub, .err = err};
    return attach(&a, &note);
}

void stub_detach(struct vm *vm)
{
    if (!vm->stub)
        return;
    vm->bus.before = NULL;
    vm->bus.after = NULL;
    vm->bus.after_mmio = NULL;
    for (uint32_t k = 0; vm->stub->routines && k < vm->stub->routine_count; k++)
        free(vm->stub->routines[k].block);
    free(vm->stub->routines);
    free(vm->stub);
    vm->stub = NULL;
}

/* ---- run time ---- */
/* At its linked address, or, early in a boot, at the identity address: told apart by where the code
 * lies in the image. */
uint64_t stub_header_for(const struct stub *stub, uint64_t rip, int64_t offset)
{
    uint64_t linked = stub->header_linear + (uint64_t)offset,
             identity = stub->header_physical + (uint64_t)offset;
    uint64_t from_linked = rip > linked ? rip - linked : linked - rip;
    uint64_t from_identity = rip > identity ? rip - identity : identity - rip;
    return from_identity < from_linked ? stub->header_physical : stub->header_linear;
}

uint64_t stub_site(const struct stub *stub, uint64_t rip)
{
    for (uint32_t k = 0; k < stub->routine_count; k++) {
        const struct stub_routine *r = &stub->routines[k];
        uint64_t offset = rip - stub_header_for(stub, rip, r->native_offset);
        bool emulation =
            r->emulation_offset && offset - (uint64_t)r->emulation_offset < r->emulation_size;
        /* STI and its site are one native path; the exit is at its second byte */
        if (emulation || offset - (uint64_t)r->native_offset < (r->flags & PV_ROUTINE_STI ? 2 : 1))
            return stub->header_linear + (uint64_t)r->site_offset;
    }
    return rip;
}
