/* SPDX-License-Identifier: MIT */
/* A virtual processor: the architectural state that every engine shares, and what the soft engine keeps
 * beside it. The first part is laid out for decoded instructions, which name registers by their byte
 * offset in this structure (offsets below 256). */
#ifndef RUNTIME_VCPU_H
#define RUNTIME_VCPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm;
struct lapic;
struct block;
struct insn;
struct fast;
struct x87_place;

enum {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    REG_ZERO,
    REG_OPERAND, /* a doorbell's frame gives the address of the memory operand */
    REGS
};

/* Segment registers by the processor's numbers, then the system segments. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEGS };

/* The hidden part of a segment register but for the base in use (vcpu.base). */
struct segment {
    uint16_t selector;
    /* RIGHTS_*: the descriptor's bits 40-47 and 52-55 as SDM 3C 24.4.1 packs them */
    uint32_t rights;
    uint32_t limit; /* bytes, granularity applied: the last valid offset */
    uint64_t base;  /* as loaded from the descriptor or MSR */
};
#define RIGHTS_TYPE     0xfu
#define RIGHTS_ACCESSED 0x1u
#define RIGHTS_WRITABLE 0x2u /* data; code: readable */
#define RIGHTS_DOWN     0x4u /* data: expand down; code: conforming */
#define RIGHTS_CODE     0x8u
#define RIGHTS_S        0x10u /* code or data, not system */
#define RIGHTS_DPL(r)   ((r) >> 5 & 3u)
#define RIGHTS_P        0x80u
#define RIGHTS_AVL      0x1000u
#define RIGHTS_L        0x2000u
#define RIGHTS_DB       0x4000u
#define RIGHTS_G        0x8000u
#define RIGHTS_UNUSABLE 0x10000u /* loaded with a null selector */

#define RFLAGS_CF     0x1u
#define RFLAGS_ONE    0x2u
#define RFLAGS_PF     0x4u
#define RFLAGS_AF     0x10u
#define RFLAGS_ZF     0x40u
#define RFLAGS_SF     0x80u
#define RFLAGS_TF     0x100u
#define RFLAGS_IF     0x200u
#define RFLAGS_DF     0x400u
#define RFLAGS_OF     0x800u
#define RFLAGS_IOPL   0x3000u
#define RFLAGS_NT     0x4000u
#define RFLAGS_RF     0x10000u
#define RFLAGS_VM     0x20000u
#define RFLAGS_AC     0x40000u
#define RFLAGS_VIF    0x80000u
#define RFLAGS_VIP    0x100000u
#define RFLAGS_ID     0x200000u
#define RFLAGS_STATUS 0x8d5u /* OF SF ZF AF PF CF */

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u
#define CR4_PKE        0x400000u

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

enum {
    EXC_DE,
    EXC_DB,
    EXC_NMI,
    EXC_BP,
    EXC_OF,
    EXC_BR,
    EXC_UD,
    EXC_NM,
    EXC_DF,
    EXC_TS = 10,
    EXC_NP,
    EXC_SS,
    EXC_GP,
    EXC_PF,
    EXC_MF = 16,
    EXC_AC,
    EXC_MC,
    EXC_XM
};

#define DR6_BD 0x2000ull /* general detect */
#define DR6_BS 0x4000ull /* single step */
#define DR6_BT 0x8000ull /* task switch */
#define DR7_GD 0x2000ull

#define DEBUGCTL_BTF 0x2ull /* TF traps behind branches only */

#define PF_PRESENT  1u
#define PF_WRITE    2u
#define PF_USER     4u
#define PF_RESERVED 8u
#define PF_FETCH    16u
#define PF_KEY      32u

/* x87, SSE and AVX state as XSAVE's standard format lays it out (SDM 1 13.4): always the guest's. */
struct fpu {
    uint8_t legacy[512]; /* the FXSAVE64 image; XMMn at 160 + 16 n; MXCSR at 24 */
    uint8_t header[64];  /* XSTATE_BV as the guest would see it: in-use tracking */
    uint8_t ymm_high[16][16];
} __attribute__((aligned(64)));
#define FPU_XMM(fpu, n) ((fpu)->legacy + 160 + 16 * (n))
#define FPU_MXCSR(fpu)  (*(uint32_t *)((fpu)->legacy + 24))

enum activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI };

/* vcpu.events: what waits between instructions */
#define VCPU_EVENT_INTERRUPT     1u /* the local APIC has one that its priority lets in */
#define VCPU_EVENT_NMI           2u
#define VCPU_EVENT_INIT          4u
#define VCPU_EVENT_SIPI          8u /* vector in vcpu.sipi_vector */
#define VCPU_EVENT_SMI           16u
#define VCPU_EVENT_MACHINE_CHECK 32u

/* Why a debugger's breakpoint or watchpoint stops this vCPU (breakpoints.h): vcpu.stop. */
enum stop_kind { STOP_NONE, STOP_SOFTWARE, STOP_HARDWARE, STOP_WRITE, STOP_READ, STOP_ACCESS };

#define SHADOW_STI   1u /* vcpu.shadow: blocking until the next instruction is done */
#define SHADOW_MOVSS 2u

/* What CPUID leaf 0x80000008 reports, and the walk enforces. */
#define PHYSICAL_BITS 40u
#define LINEAR_BITS   48u
/* Family 15, model 107, stepping 1: CPUID.1.EAX, and RDX after power-on. */
#define VCPU_SIGNATURE 0x60fb1u

/* The TLB (soft/tlb.h): one table for each way of looking at memory. */
enum tlb_mode {
    TLB_KERNEL /* SMAP enforced */,
    TLB_KERNEL_AC /* not enforced */,
    TLB_USER,
    TLB_MODES
};
#define TLB_ENTRIES 1024u
#define TLB_INVALID 1u
#define TLB_CODED                                                                                  \
    2u /* in `write`: may be written, but out of line, for the page holds decoded code */
/* Where the page of a linear address stands. Mixing in higher bits would part pages that are a multiple of 4 MiB from
 * each other, but costs every access 4 % (Linux boots); tlb_victims softens what happens then. */
static inline unsigned tlb_slot(uint64_t linear)
{
    return (unsigned)(linear >> 12) & (TLB_ENTRIES - 1);
}
struct tlb_entry {
    uint64_t read, write, fetch; /* linear page if that access hits, else TLB_INVALID */
    uintptr_t addend;            /* host address = linear address + addend */
};

/* Entries whose slot another page took: two pages that share one and are used in turn would else cost a walk each time. */
#define TLB_VICTIMS 8u
struct tlb_victims {
    uint64_t key[TLB_VICTIMS]; /* linear page | enum tlb_mode | TLB_VICTIM, or 0 */
    struct tlb_entry entry[TLB_VICTIMS];
    bool global[TLB_VICTIMS];
    unsigned next; /* the one to replace, modulo TLB_VICTIMS */
};
#define TLB_VICTIM 4u

/* vcpu.jump_key: what a block depends on besides its address. In bits 48-54, where canonical addresses
 * do not differ from bit 47: RIP ^ key names both. One of the CODE bits is always set, so that a
 * zeroed jump cache hits nothing. */
#define JUMP_KEY_CODE16    (1ull << 48)
#define JUMP_KEY_CODE32    (1ull << 49)
#define JUMP_KEY_CODE64    (1ull << 50)
#define JUMP_KEY_STACK32   (1ull << 51) /* SS.B; clear in 64-bit mode */
#define JUMP_KEY_LONG      (1ull << 52) /* EFER.LMA: compatibility mode differs from legacy mode */
#define JUMP_KEY_USER      (1ull << 53) /* CPL 3: other pages may be fetched from */
#define JUMP_KEY_PROTECTED (1ull << 54) /* CR0.PE and not virtual-8086 mode */
/* No block has this one: while it is in force, every branch comes back to whoever runs the code. */
#define JUMP_KEY_NOWHERE (JUMP_KEY_CODE16 | JUMP_KEY_CODE32 | JUMP_KEY_CODE64)

/* vcpu.vectors */
#define VECTOR_SSE   1u
#define VECTOR_AVX   2u /* XMM registers, too */
#define VECTOR_MXCSR 4u
#define VECTOR_X87   8u  /* MMX registers, too */
#define VECTOR_FPU   16u /* nothing is in a register, but CR0 lets x87 instructions execute */
#define VECTOR_SETS  32u

/* It bounds what translated code knows of RIPs (translator/fast.h): Linux' boot has about 16,000 warm blocks. */
#define JUMP_CACHE_ENTRIES 16384u
#define JUMP_PAGES         1024u
struct jump_entry {
    uint64_t tag; /* RIP ^ vcpu.jump_key */
    struct block *block;
};

struct vcpu {
    /* ---- named by offset in decoded instructions ---- */
    uint64_t r[REGS]; /* r[REG_ZERO] is always 0 */
    /* segment bases as addressing uses them: ES, CS, SS, DS are 0 in 64-bit mode */
    uint64_t base[6];
    /* Status flags as LAHF and SETO leave them in AX: bits 15-8 SF ZF 0 AF 0 PF 1 CF, bits 7-0 OF (0 or 1) */
    uint16_t status;
    uint8_t mode; /* enum tlb_mode in force for explicit accesses */
    uint8_t cpl;
    uint32_t rflags; /* RFLAGS without the status flags (those bits are 0 here); bit 1 set */

    /* ---- soft engine: where execution is ---- */
    uint64_t rip;   /* inside a block: of its first instruction; between blocks: of the next one */
    int64_t budget; /* instructions left in this slice; blocks take theirs on entry */
    int64_t withheld;           /* taken out of budget by vcpu_kick */
    struct block *block;        /* under execution */
    const struct insn *current; /* the instruction that called out of line code */
    struct insn *link;     /* the jump that left the last block: gets a chain to the next one */
    struct tlb_entry *tlb; /* = tlb_table[mode] */
    uint64_t jump_key;  /* mode bits in bits 48-54: what a block depends on besides its address */
    bool one_iteration; /* a REP string instruction does one iteration and comes back */
    bool repeating;     /* a REP string instruction has come back before it was done */
    bool kicked;        /* leave the block after the instruction under execution; see `withheld` */
    /* SHADOW_* and RFLAGS.RF as they were before the instruction under execution */
    uint8_t shadow_before;
    uint32_t resume_before;
    /* the instruction under execution has cleared TF itself (INT n, SYSCALL): no single-step trap */
    bool untrapped;
    /* the block under execution was invalidated: leave it after this instruction */
    bool code_changed;

    /* ---- architectural ---- */
    struct segment segment[SEGS];
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t pdpte[4];   /* PAE paging: the PDPTE registers (tlb_load_pdptes) */
    uint64_t pdpte_from; /* CR3 they were loaded by, + 1; 0 = not loaded */
    uint64_t dr[8];      /* 4 and 5 unused */
    uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset, tsc_aux, pat, misc_enable, mtrr_def_type, debugctl;
    uint64_t mtrr[32];     /* variable and fixed MTRRs, kept for the guest; no effect */
    uint64_t msr_kept[12]; /* MSRs that have no effect, kept for the guest (msr.c) */
    uint64_t random;       /* what RDRAND gives follows from it in a deterministic run */
    uint64_t kvm_wall_clock, kvm_system_time; /* kvmclock.h */
    uint64_t xcr0, xss;
    uint32_t pkru;
    struct fpu fpu;

    enum activity activity;
    uint8_t shadow;   /* SHADOW_* */
    bool nmi_blocked; /* until IRET */
    uint32_t events;  /* VCPU_EVENT_* */
    uint8_t sipi_vector;
    uint64_t pending_db; /* DR6 bits of debug traps that wait for the end of the instruction */
    unsigned index;      /* 0 = boot processor; also the initial APIC id */

    /* the exception on its way: set by cpu_raise before it unwinds */
    struct {
        int vector; /* -1 = none */
        bool has_error;
        uint32_t error;
        uint64_t cr2; /* #PF: goes to CR2 on delivery */
        uint64_t dr6; /* #DB: bits to set */
    } fault;

    struct {
        enum stop_kind kind; /* as long as it is set the vCPU executes nothing more in a slice */
        uint64_t address;    /* guest-linear */
    } stop;

    struct vm *vm;
    struct lapic *lapic;
    struct vmcs *vmcs; /* the VM control structure, or NULL (vmcs.h) */
    /* Instructions must be executed one by one, each with its own event: the vCPU is stepped, or there are breakpoints,
     * watchpoints or exiting controls. Whoever does several at once (IO blocks) asks here and does one. */
    bool unbatched;
    /* exits wanted by the VMM, bit = enum exit_kind: vmcs.exiting during an entry, else 0 */
    uint32_t exiting;
    jmp_buf unwind; /* the engine's loop: cpu_raise jumps here */

    /* ---- translator ---- */
    struct fast *fast; /* what translated code looks into, behind this structure; NULL = none */
    void *host_stack;  /* the stack pointer of who entered translated code */
    uint64_t translator_temp; /* a value within one instruction */
    bool translator_called;   /* by it, for one instruction: it goes on behind that */
    /* VECTOR_*: what of the guest's FP and SIMD state is in the host's registers while translated code runs (in C: what
     * goes there before it runs on), and by any such set whether all of it is: 1 or 0 (translator/vectors.h) */
    uint8_t vectors;
    uint8_t vectors_here[VECTOR_SETS];
    uint8_t vectors_wanted,
        vectors_before; /* what was asked for since they were loaded, and the time before */
    const struct x87_place *x87_last; /* the x87 instruction executed last, since; or NULL */

    /* ---- soft engine: caches ---- */
    struct tlb_entry tlb_table[TLB_MODES][TLB_ENTRIES];
    /* Entries in use, so that a flush touches no others; those of global pages stand in the second. */
    uint64_t tlb_local[TLB_MODES][TLB_ENTRIES / 64], tlb_global[TLB_MODES][TLB_ENTRIES / 64];
    /* Which of those words may be other than 0: bit n is word n of all modes, in order. */
    uint64_t tlb_words_local, tlb_words_global;
    struct tlb_victims victims; /* any flush drops them all */
    /* Where parts of large pages may be in the TLB, in the lower and in the upper half of the addresses: bit = low 6
     * bits of linear >> 21 (2 MiB) or >> 30 (larger). */
    uint64_t tlb_large[2], tlb_huge[2];
    struct jump_entry jump_cache[JUMP_CACHE_ENTRIES];
    /* The same for the jump cache (tlb_enter_jump): entries by whether their page is global, and which
     * pages may have some, as bits at the page number's low bits. */
    uint64_t jump_local[JUMP_CACHE_ENTRIES / 64], jump_global[JUMP_CACHE_ENTRIES / 64];
    uint64_t jump_words_local[JUMP_CACHE_ENTRIES / 4096]; /* which of those words are not 0 */
    uint64_t jump_words_global[JUMP_CACHE_ENTRIES / 4096];
    uint64_t jump_pages_local[JUMP_PAGES / 64], jump_pages_global[JUMP_PAGES / 64];
};

/* Power-on (or, `init`: INIT, which keeps FPU, MSRs that INIT keeps, and waits for SIPI if not vCPU 0) state: SDM 3A 9.1. */
struct vcpu *vcpu_create(struct vm *vm, unsigned index);
void vcpu_destroy(struct vcpu *cpu);
void vcpu_reset(struct vcpu *cpu, bool init);

/* RFLAGS whole. vcpu_set_rflags takes any value; reserved bits are forced. It does not check privileges,
 * and updates what depends on it (mode for AC). */
uint64_t vcpu_rflags(const struct vcpu *cpu);
void vcpu_set_rflags(struct vcpu *cpu, uint64_t rflags);

/* Recomputes all that is derived (mode, tlb, jump_key, base[]) after CPL, CS, CR0, CR4, EFER, RFLAGS.AC or
 * segment bases changed. Call it after any such change; cheap. */
void vcpu_mode_changed(struct vcpu *cpu);

/* Makes the running vCPU come back to the engine's loop before its next block. */
static inline void vcpu_kick(struct vcpu *cpu)
{
    cpu->kicked = true;
    if (cpu->budget > 0) {
        cpu->withheld += cpu->budget;
        cpu->budget = 0;
    }
}

static inline void vcpu_event(struct vcpu *cpu, uint32_t event)
{
    cpu->events |= event;
    vcpu_kick(cpu);
}

static inline bool vcpu_long_mode(const struct vcpu *cpu)
{
    return cpu->efer & EFER_LMA;
}
static inline bool vcpu_code64(const struct vcpu *cpu)
{
    return (cpu->efer & EFER_LMA) && (cpu->segment[SEG_CS].rights & RIGHTS_L);
}
/* The guest-linear address of the next instruction. */
static inline uint64_t vcpu_linear_rip(const struct vcpu *cpu)
{
    return vcpu_code64(cpu) ? cpu->rip : (uint32_t)(cpu->rip + cpu->segment[SEG_CS].base);
}
static inline bool vcpu_protected(const struct vcpu *cpu)
{
    return cpu->cr0 & CR0_PE;
}
static inline bool vcpu_v86(const struct vcpu *cpu)
{
    return cpu->rflags & RFLAGS_VM;
}

/* The CPUID model (cpuid.c): what the guest sees, on every engine. */
struct cpuid_answer {
    uint32_t eax, ebx, ecx, edx;
};
struct cpuid_answer cpuid_answer(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf);
/* True if the answer is the same on every vCPU and at all times: may go into the stub's table. */
bool cpuid_constant(uint32_t leaf, uint32_t subleaf);
/* True if there is such a leaf (others are all zeros); *subleaves: ECX matters there. */
bool cpuid_has_leaf(uint32_t leaf, bool *subleaves);

/* MSRs (msr.c), shared by engines. False: #GP. */
bool msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value);
bool msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value);
/* True if RDMSR always gives *value: may go into the stub's table. */
bool msr_constant(uint32_t msr, uint64_t *value);

#endif
