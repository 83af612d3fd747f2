/* SPDX-License-Identifier: MIT */
/* A machine that has loaded a patched image, made by hand. */
#include "tests/unit/stub_guest.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/site.h"
#include "patchc/template.h"
#include "runtime/soft/engine.h"
#include "tests/unit/code_runner.h"

#define PML4  0x1000u
#define PDPT  0x2000u
#define PD    0x3000u
#define GDT   0x4000u
#define FLAGS 7u /* present, writable, user */

/* Offsets in the image */
#define HEADER   0x0u
#define ROUTINES 0x400u
#define PATCHES  0x1000u
#define TABLE    0x1800u
#define CPUID    0x2000u
#define MSRS     0x7000u
#define STATE    0x9040u
#define SLOTS    0x20000u

static struct template_set *templates; /* read once */

/* ---- memory and processor ---- */
static uint8_t *at(struct stub_guest *g, uint64_t physical)
{
    return g->vm.memory.host + physical;
}

static void put(struct stub_guest *g, uint64_t physical, uint64_t value)
{
    memcpy(at(g, physical), &value, 8);
}

static void fill_tables(struct stub_guest *g)
{
    put(g, PML4, PDPT | FLAGS);
    put(g, PML4 + 8 * 511, PDPT | FLAGS);
    put(g, PDPT, PD | FLAGS);
    put(g, PDPT + 8 * 510, PD | FLAGS);
    for (uint64_t n = 0; n < 2; n++)
        put(g, PD + 8 * n, n << 21 | FLAGS | 0x80); /* 2 MiB pages: 4 MiB, twice */
    put(g, GDT + 8, 0x00af9b000000ffff);
    put(g, GDT + 16, 0x00cf93000000ffff);
    for (uint64_t n = 0; n < 256; n++) {
        uint64_t handler = STUB_GUEST_HANDLER + 16 * n;
        put(g, STUB_GUEST_IDT + 16 * n,
            handler >> 16 << 48 | 0x8eull << 40 | 8u << 16 | (handler & 0xffff));
        *at(g, handler) = 0xf4;
    }
}

static void set_up_processor(struct stub_guest *g)
{
    struct vcpu *cpu = g->cpu = g->vm.vcpus[0];
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->gdt_base = GDT;
    cpu->gdt_limit = 0xff;
    cpu->idt_base = STUB_GUEST_IDT;
    cpu->idt_limit = 0xfff;
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG | CR0_WP;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE;
    for (int s = SEG_ES; s <= SEG_GS; s++)
        cpu->segment[s] = (struct segment){16, 0x93 | RIGHTS_G | RIGHTS_DB, 0xffffffff, 0};
    cpu->segment[SEG_CS] = (struct segment){8, 0x9b | RIGHTS_G | RIGHTS_L, 0xffffffff, 0};
    cpu->r[RSP] = STUB_GUEST_STACK;
    vcpu_set_rflags(cpu, 2);
    vcpu_mode_changed(cpu);
}

/* ---- the image ---- */
static void set_up_image(struct stub_guest *g, bool with_state)
{
    g->segments[0] = (struct image_segment){.type = PT_LOAD,
                                            .vaddr = STUB_GUEST_LINEAR,
                                            .paddr = STUB_GUEST_PHYSICAL,
                                            .file_size = STUB_GUEST_SIZE,
                                            .mem_size = STUB_GUEST_SIZE};
    g->segments[1] =
        (struct image_segment){.type = PT_NOTE, .file_size = sizeof g->note_bytes, .align = 4};
    g->image = (struct image){.name = "guest",
                              .bytes = g->note_bytes,
                              .size = sizeof g->note_bytes,
                              .elf_class = 64,
                              .machine = EM_X86_64,
                              .segments = g->segments,
                              .segment_count = 2};
    g->note = (struct pv_note){.abi_version = PV_ABI_VERSION,
                               .header_address = STUB_GUEST_LINEAR + HEADER};
    g->header = (void *)at(g, STUB_GUEST_PHYSICAL + HEADER);
    g->routines = (void *)at(g, STUB_GUEST_PHYSICAL + ROUTINES);
    g->patches = (void *)at(g, STUB_GUEST_PHYSICAL + PATCHES);
    g->table = (void *)at(g, STUB_GUEST_PHYSICAL + TABLE);
    g->state = with_state ? (void *)at(g, STUB_GUEST_PHYSICAL + STATE) : NULL;
    *g->header = (struct pv_header){.magic = PV_HEADER_MAGIC,
                                    .abi_version = PV_ABI_VERSION,
                                    .header_size = sizeof *g->header,
                                    .doorbell_port = PV_DOORBELL_PORT,
                                    .routine_info_offset = ROUTINES,
                                    .patch_info_offset = PATCHES,
                                    .routine_table_offset = TABLE,
                                    .cpuid_table_offset = CPUID,
                                    .msr_table_offset = MSRS,
                                    .state_offset = with_state ? STATE : 0,
                                    .state_size = with_state ? sizeof *g->state : 0};
}

struct stub_guest *stub_guest_open(bool with_state)
{
    return stub_guest_open_on(&soft_engine, with_state);
}

struct stub_guest *stub_guest_open_on(const struct engine *engine, bool with_state)
{
    struct stub_guest *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->vm.config = (struct vm_config){
        .memory = 4 << 20, .smp = 1, .deterministic = true, .engine = engine->name};
    g->vm.engine = engine;
    if (!templates)
        templates = template_set_open(&g->err);
    if (!templates || vm_create(&g->vm, &g->err))
        abort();
    fill_tables(g);
    set_up_processor(g);
    set_up_image(g, with_state);
    return g;
}

void stub_guest_close(struct stub_guest *g)
{
    vm_destroy(&g->vm);
    free(g);
}

uint64_t stub_guest_linear(int index, unsigned offset)
{
    return STUB_GUEST_LINEAR + SLOTS + (uint64_t)index * STUB_GUEST_SLOT + offset;
}

uint8_t *stub_guest_at(struct stub_guest *g, int index, unsigned offset)
{
    return at(g, stub_guest_linear(index, offset) - STUB_GUEST_LINEAR + STUB_GUEST_PHYSICAL);
}

static int64_t from_header(int index, unsigned offset)
{
    return (int64_t)(stub_guest_linear(index, offset) - STUB_GUEST_LINEAR);
}

static void put_window(struct stub_guest *g, int index, enum pv_form form)
{
    uint8_t *window = stub_guest_at(g, index, SLOT_WINDOW);
    memset(window, 0x90, 16);
    window[16] = 0xf4;
    if (form == PV_FORM_BREAK)
        memcpy(window, (uint8_t[]){0x0f, 0xb9, 0x40, (uint8_t)index}, 4);
    else
        code_put_jump(window, stub_guest_at(g, index, SLOT_LINK));
}

/* Decodes text like "0f a2" into bytes and the instruction that they are. */
static void decode(const char *hex, uint8_t bytes[16], ZydisDecodedInstruction *instruction,
                   ZydisDecodedOperand *operands)
{
    ZydisDecoder decoder;
    size_t count = 0;
    for (const char *p = hex; *p && count < 16; p += p[2] ? 3 : 2)
        bytes[count++] = (uint8_t)strtoul(p, NULL, 16);
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, count, instruction, operands)) ||
        instruction->length != count)
        abort();
}

static void put_code(struct stub_guest *g, int index, const struct template *t,
                     const struct template_values *values, const uint8_t *native, unsigned length)
{
    uint8_t *link = stub_guest_at(g, index, SLOT_LINK);
    uint8_t *emulation = stub_guest_at(g, index, SLOT_EMULATION);
    memcpy(link, (uint8_t[]){0xe9, 0, 0, 0, 0}, 5);
    memcpy(link + 5, native, length);
    code_put_jump(link + 5 + length, stub_guest_at(g, index, SLOT_WINDOW + 16));
    if (template_fill(t, values, stub_guest_linear(index, SLOT_EMULATION), emulation, &g->err))
        abort();
    code_put_jump(emulation + template_size(t), link + 5 + length);
}

static void describe(struct stub_guest *g, int index, const struct template *t, enum pv_form form,
                     unsigned tail, uint32_t operand)
{
    g->table[index] = stub_guest_linear(index, SLOT_LINK);
    g->patches[index] = (struct pv_patch){.window_offset = from_header(index, SLOT_WINDOW),
                                          .trampoline_offset = from_header(index, SLOT_LINK),
                                          .window_size = 16,
                                          .trampoline_size = 0x100,
                                          .first_routine = (uint32_t)index,
                                          .routine_count = 1,
                                          .form = (uint8_t)form};
    g->routines[index] = (struct pv_routine){.site_offset = from_header(index, SLOT_WINDOW),
                                             .link_offset = from_header(index, SLOT_LINK),
                                             .native_offset = from_header(index, SLOT_LINK + 5),
                                             .emulation_offset = from_header(index, SLOT_EMULATION),
                                             .tail_offset = from_header(index, tail),
                                             .emulation_size = (uint32_t)template_size(t),
                                             .kind = (uint16_t)template_kind(t),
                                             .form = (uint8_t)form,
                                             .flags = (uint8_t)template_flags(t),
                                             .operand = operand,
                                             .patch = (uint32_t)index};
}

int stub_guest_add(struct stub_guest *g, const char *hex, const char *name, enum pv_form form)
{
    static const struct template_available everything = {
        .context = ~0u, .state = true, .cpuid = true, .msr = true, .deprivileged = true};
    int index = (int)g->header->routine_count++;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t native[16];
    decode(hex, native, &instruction, operands);
    const struct template *t =
        template_find(templates, name, &instruction, operands, &everything, NULL);
    if (!t || index >= STUB_GUEST_ROUTINES)
        abort();
    unsigned tail = SLOT_LINK + 5 + instruction.length;
    const struct template_values values = {.instruction = &instruction,
                                           .operands = operands,
                                           .address = stub_guest_linear(index, SLOT_WINDOW),
                                           .index = (uint32_t)index,
                                           .native = stub_guest_linear(index, SLOT_LINK + 5),
                                           .tail = stub_guest_linear(index, tail),
                                           .next = stub_guest_linear(index, SLOT_WINDOW + 16),
                                           .state = STUB_GUEST_LINEAR + STATE,
                                           .cpuid_table = STUB_GUEST_LINEAR + CPUID,
                                           .msr_table = STUB_GUEST_LINEAR + MSRS};
    put_window(g, index, form);
    put_code(g, index, t, &values, native, instruction.length);
    describe(g, index, t, form, tail, template_operand(&instruction, operands));
    g->header->patch_count++;
    return index;
}

int stub_guest_attach(struct stub_guest *g)
{
    struct {
        Elf64_Nhdr header;
        char name[12];
        struct pv_note note;
    } note = {{sizeof PV_NOTE_NAME, sizeof(struct pv_note), PV_NOTE_TYPE}, PV_NOTE_NAME, g->note};
    _Static_assert(sizeof note <= sizeof g->note_bytes, "room for the note");
    g->err = (struct error){0};
    memcpy(g->note_bytes, &note, sizeof note);
    return stub_attach(&g->vm, &g->image, &g->err);
}

bool stub_guest_run(struct stub_guest *g, int index)
{
    g->cpu->rip = stub_guest_linear(index, SLOT_WINDOW);
    g->cpu->activity = ACTIVITY_ACTIVE;
    soft_run(g->cpu, 1000);
    return g->cpu->activity == ACTIVITY_HLT &&
           g->cpu->rip == stub_guest_linear(index, SLOT_WINDOW + 17);
}

uint64_t stub_guest_exits(const struct stub_guest *g)
{
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < EXIT_KINDS_IN_TOTAL; kind++)
        sum += g->vm.stats.exits[kind];
    return sum;
}
