/* SPDX-License-Identifier: MIT */
/* Two machines' states compared field by field. */
#include <inttypes.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "image/image.h"
#include "image/terminal.h"
#include "runtime/cpuid.h"
#include "runtime/lockstep.h"
#include "runtime/vm.h"

#define MEMORY_LINES 16u
#define ACCESSED                                                                                   \
    0x6000000060ull /* accessed and dirty, of one wide page-table entry or two narrow ones */

void lockstep_copy(struct vm *to, const struct vm *from)
{
    struct vcpu *v = to->vcpus[0];
    const struct vcpu *u = from->vcpus[0];
    memcpy(to->memory.host, from->memory.host, from->memory.size);
    memcpy(v->r, u->r, sizeof v->r);
    v->rip = u->rip;
    v->cpl = u->cpl;
    memcpy(&v->segment, &u->segment,
           offsetof(struct vcpu, activity) - offsetof(struct vcpu, segment));
    v->activity = u->activity;
    v->shadow = u->shadow;
    v->nmi_blocked = u->nmi_blocked;
    v->pending_db = u->pending_db;
    vcpu_set_rflags(v, vcpu_rflags(u));
    vcpu_mode_changed(v);
}

/* ---- vCPUs ---- */
static unsigned differ(const char *name, uint64_t a, uint64_t b, FILE *stream)
{
    if (a == b)
        return 0;
    fprintf(stream, "  %-14s %016" PRIx64 ", %016" PRIx64 "\n", name, a, b);
    return 1;
}

static unsigned compare_general(const struct vcpu *a, const struct vcpu *b, uint64_t undefined,
                                FILE *stream)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    unsigned count = differ("rip", a->rip, b->rip, stream);
    for (unsigned n = 0; n < 16; n++)
        count += differ(names[n], a->r[n], b->r[n], stream);
    return count +
           differ("rflags", vcpu_rflags(a) & ~undefined, vcpu_rflags(b) & ~undefined, stream);
}

static unsigned compare_segments(const struct vcpu *a, const struct vcpu *b, FILE *stream)
{
    static const char *const names[SEGS] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    static const char *const parts[] = {" selector", " rights", " limit", " base"};
    unsigned count = 0;
    for (unsigned n = 0; n < SEGS; n++) {
        const struct segment *s = &a->segment[n], *t = &b->segment[n];
        bool null = vcpu_protected(a) && !vcpu_v86(a) && n != SEG_CS && !(s->selector & ~3);
        bool unusable = null || (s->rights & RIGHTS_UNUSABLE && t->rights & RIGHTS_UNUSABLE);
        const uint64_t left[] = {s->selector, s->rights, s->limit, s->base};
        const uint64_t right[] = {t->selector, t->rights, t->limit, t->base};
        /* of one that cannot be used only the selector can be seen, and of FS and GS the base */
        for (unsigned k = 0; k < 4; k++) {
            char name[16];
            snprintf(name, sizeof name, "%s%s", names[n], parts[k]);
            bool seen = !unusable || k == 0 || (k == 3 && (n == SEG_FS || n == SEG_GS));
            if (seen)
                count += differ(name, left[k], right[k], stream);
        }
    }
    return count;
}

static const struct {
    const char *name;
    uint16_t offset, size;
} fields[] = {
#define FIELD(field)                                                                               \
    {                                                                                              \
#field, offsetof(struct vcpu, field), sizeof((struct vcpu *)0)->field                      \
    }
    FIELD(gdt_base),    FIELD(gdt_limit),    FIELD(idt_base), FIELD(idt_limit),
    FIELD(cr0),         FIELD(cr2),          FIELD(cr3),      FIELD(cr4),
    FIELD(dr[0]),       FIELD(dr[1]),        FIELD(dr[2]),    FIELD(dr[3]),
    FIELD(dr[6]),       FIELD(dr[7]),        FIELD(efer),     FIELD(star),
    FIELD(lstar),       FIELD(cstar),        FIELD(fmask),    FIELD(kernel_gs_base),
    FIELD(sysenter_cs), FIELD(sysenter_esp), FIELD(pat),      FIELD(sysenter_eip),
    FIELD(xcr0),        FIELD(pkru),         FIELD(shadow),   FIELD(nmi_blocked),
#undef FIELD
};

/* What XSAVE stores, but for XSTATE_BV, the last x87 instruction's addresses and opcode, and MXCSR's mask: processors
 * are not alike there. */
static unsigned compare_fpu(const struct fpu *a, const struct fpu *b, FILE *stream)
{
    unsigned count = 0;
    for (unsigned at = 0; at < 416; at += 2) {
        bool counts = at < 6 || (at >= 24 && at < 28) || at >= 32;
        uint16_t left, right;
        char name[24];
        memcpy(&left, a->legacy + at, 2);
        memcpy(&right, b->legacy + at, 2);
        snprintf(name, sizeof name, "FXSAVE+%u", at);
        if (counts)
            count += differ(name, left, right, stream);
    }
    for (unsigned n = 0; n < 32; n++) {
        uint64_t left, right;
        char name[24];
        memcpy(&left, a->ymm_high[n / 2] + n % 2 * 8, 8);
        memcpy(&right, b->ymm_high[n / 2] + n % 2 * 8, 8);
        snprintf(name, sizeof name, "ymm%u+%u", n / 2, 16 + n % 2 * 8);
        count += differ(name, left, right, stream);
    }
    return count;
}

unsigned lockstep_compare(const struct vcpu *a, const struct vcpu *b, bool all, uint64_t undefined,
                          FILE *stream)
{
    unsigned count = compare_general(a, b, undefined, stream);
    if (!all)
        return count;
    count += compare_segments(a, b, stream);
    for (size_t n = 0; n < sizeof fields / sizeof fields[0]; n++) {
        uint64_t left = 0, right = 0;
        memcpy(&left, (const char *)a + fields[n].offset, fields[n].size);
        memcpy(&right, (const char *)b + fields[n].offset, fields[n].size);
        count += differ(fields[n].name, left, right, stream);
    }
    return count + compare_fpu(&a->fpu, &b->fpu, stream);
}

/* ---- memory ---- */
static bool is_image(const uint64_t *images, uint64_t at)
{
    return images && images[at >> 10] >> (at >> 4 & 63) & 1;
}

/* The bits of the 8 bytes there that do not count. */
static uint64_t ignored(const uint64_t *images, uint64_t at)
{
    uint64_t block = at & ~15ull, mask = images ? ACCESSED : 0;
    bool upper = at & 8;
    if (is_image(images, block)) /* opcode and address of the last x87 instruction */
        mask |= upper ? ~0ull : 0xffff000000000000;
    if (block >= 16 && is_image(images, block - 16)) /* that of its operand; MXCSR's mask */
        mask |= upper ? 0xffffffff00000000 : ~0ull;
    if (block >= 512 && is_image(images, block - 512) && !upper) /* XSTATE_BV */
        mask |= XSTATE_X87 | XSTATE_SSE | XSTATE_AVX;
    return mask;
}

unsigned lockstep_compare_memory(const struct vm *a, const struct vm *b, const uint64_t *images,
                                 FILE *stream)
{
    unsigned count = 0;
    for (uint64_t page = 0; page < a->memory.size && count < MEMORY_LINES; page += PAGE_SIZE) {
        if (memcmp(a->memory.host + page, b->memory.host + page, PAGE_SIZE) == 0)
            continue;
        for (uint64_t at = page; at < page + PAGE_SIZE && count < MEMORY_LINES; at += 8) {
            uint64_t left, right;
            char name[24];
            memcpy(&left, a->memory.host + at, 8);
            memcpy(&right, b->memory.host + at, 8);
            if (!((left ^ right) & ~ignored(images, at)))
                continue;
            snprintf(name, sizeof name, "RAM %" PRIx64, at);
            count += differ(name, left, right, stream);
        }
    }
    return count;
}

/* ---- instructions ---- */
unsigned lockstep_print_instruction(const struct vm *vm, uint64_t address, unsigned bits,
                                    const uint8_t *bytes, unsigned available, FILE *stream)
{
    ZydisDisassembledInstruction d;
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    uint64_t offset;
    char name[128];
    const struct image_symbol *symbol =
        vm->image ? image_symbol_at(vm->image, address, &offset) : NULL;
    bool known =
        ZYAN_SUCCESS(ZydisDisassembleIntel(modes[bits >> 5], address, bytes, available, &d));
    unsigned length = known ? d.info.length : available ? 1 : 0;
    fprintf(stream, "  0x%" PRIx64 " ", address);
    if (symbol)
        fprintf(stream, "%s+0x%" PRIx64 " ", terminal_copy(name, sizeof name, symbol->name),
                offset);
    for (unsigned n = 0; n < length; n++)
        fprintf(stream, "%02x", bytes[n]);
    fprintf(stream, " %s\n", known ? d.text : "(undefined)");
    return length ? length : 1;
}
