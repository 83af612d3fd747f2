/* The ABI between a patched image and a runtime: what patchc writes and hvrun reads.
 *
 * A patched image is an ELF file that carries an ELF note (name "Patchvisor", type PV_NOTE_TYPE)
 * whose descriptor is a struct pv_note. The note leads to the stub header in guest memory and to
 * the parts of the file that no guest loads (original bytes, IO-block table).
 *
 * All fields are little-endian. Every offset named `..._offset` below is in bytes, relative to the
 * guest-linear address of struct pv_header, signed, unless its comment says "file". A runtime
 * treats all of it as hostile input: the file may be forged, and the guest can write its memory. */
#ifndef HVSTUB_HVSTUB_H
#define HVSTUB_HVSTUB_H

#include <stdint.h>

#define PV_NOTE_NAME "Patchvisor" /* 11 bytes with its NUL */
#define PV_NOTE_TYPE 0x5056u      /* not 18: QEMU takes any note of that type for the PVH entry */
#define PV_ABI_VERSION 1u
#define PV_HEADER_MAGIC "PVSTUB\r\n" /* 8 bytes, no NUL */

/* pv_note.flags */
#define PV_IMAGE_NEEDS_RUNTIME 1u /* the image contains break patches: it does not boot without one */

struct pv_note {
    uint32_t abi_version;
    uint32_t flags;
    uint64_t header_address;    /* guest-linear, as linked (before any relocation) */
    uint64_t header_file;       /* file offset of struct pv_header */
    uint64_t original_file;     /* file offset of struct pv_original */
    uint64_t original_size;     /* bytes */
    uint64_t io_table_file;     /* file offset of the IO-block table; 0 = none */
    uint64_t io_table_size;     /* bytes */
    uint64_t output_xxh3;       /* XXH3_64bits of the whole patched file with this field zero */
};

/* What `patchc restore` needs. Followed by `run_count` struct pv_original_run, then the runs' bytes,
 * concatenated in the same order. Runs are sorted by offset and do not overlap.
 * The patched file is: the original's [0, tail_offset) with runs replaced, then what patchc added
 * (added_size bytes), then the original's [tail_offset, original size) with runs replaced and with
 * `tail_insert_size` new bytes inserted at the original's offset `tail_insert_at`. */
struct pv_original {
    uint64_t size;              /* bytes of the original ELF */
    uint64_t xxh3;              /* XXH3_64bits of the original ELF */
    uint64_t tail_offset;       /* original file offset */
    uint64_t added_size;        /* bytes */
    uint64_t tail_insert_at;    /* original file offset; >= tail_offset */
    uint64_t tail_insert_size;  /* bytes; may be 0 */
    uint64_t run_count;
};

struct pv_original_run {
    uint64_t offset;            /* original file offset */
    uint64_t size;              /* bytes, > 0 */
};

/* The header, 64-byte aligned, in memory that the guest maps wherever its patched code runs. */
struct pv_header {
    char magic[8];              /* PV_HEADER_MAGIC */
    uint32_t abi_version;
    uint32_t header_size;       /* bytes of this struct */
    uint32_t features;          /* PV_FEATURE_* */
    uint32_t routine_count;     /* entries of both tables below */
    int64_t routine_table_offset; /* uint64_t[routine_count]: guest-linear addresses (relocated with the guest) */
    int64_t routine_info_offset;  /* struct pv_routine[routine_count] */
    int64_t patch_info_offset;    /* struct pv_patch[patch_count], sorted by window address */
    uint32_t patch_count;
    uint32_t doorbell_port;     /* PV_DOORBELL_PORT */
    int64_t cpuid_table_offset; /* struct pv_cpuid_table; 0 = none */
    int64_t msr_table_offset;   /* struct pv_msr_table; 0 = none */
    int64_t state_offset;       /* struct pv_state, writable by the guest; 0 = none */
    uint32_t state_size;        /* bytes available there */
    uint32_t reserved;
};

/* pv_header.features: what the image carries */
#define PV_FEATURE_STATE 1u     /* a writable state page */
#define PV_FEATURE_CPUID 2u     /* a CPUID table */
#define PV_FEATURE_MSR 4u       /* an MSR shadow table */

/* One emulation routine: the code that stands for one guest instruction.
 *
 *   link:    jmp rel32         rel32 == 0: inactive, falls through to the native path;
 *                              activated by a runtime: rel32 = emulation_offset - (link_offset + 5)
 *   native:  the original instruction (or the alternatives' region that holds it)
 *   tail:    displaced instructions that follow it, then a jump back to the guest
 *   ...
 *   emulation: the filled template, then jmp rel32 to tail
 *
 * A runtime links a routine before the first guest instruction, and only where that is profitable. */
struct pv_routine {
    int64_t site_offset;        /* the instruction's original place */
    int64_t link_offset;
    int64_t native_offset;      /* the original instruction in the routine (carries its exception-table entry) */
    int64_t emulation_offset;   /* 0 = the routine has no emulation path */
    int64_t tail_offset;
    uint32_t emulation_size;    /* bytes, up to but without the closing jmp to tail */
    uint16_t kind;              /* enum pv_kind */
    uint8_t form;               /* enum pv_form */
    uint8_t flags;              /* PV_ROUTINE_* */
    uint32_t operand;           /* kind-specific: port of IN/OUT with immediate; control register number; … */
    uint32_t patch;             /* index into the patch table */
};

#define PV_ROUTINE_STACK 1u     /* the emulation path pushes to the guest's stack */
#define PV_ROUTINE_STATE 2u     /* it reads or writes struct pv_state */
#define PV_ROUTINE_DOORBELL 4u  /* it may ring the doorbell: a host handler is needed */
#define PV_ROUTINE_TABLE 8u     /* answered from the CPUID or MSR table */
#define PV_ROUTINE_DEPRIVILEGED 16u /* emulation is right only for a deprivileged guest, with a state page per vCPU */
#define PV_ROUTINE_BARE 64u         /* rings the bare doorbell: only for engines that own UD1 */
#define PV_ROUTINE_STI 128u         /* the site is preceded by STI, which is part of the routine (both paths) */
#define PV_ROUTINE_REPLACEMENT 32u  /* stands for an instruction in .altinstr_replacement, which the guest copies */

/* One patch: a window of original code that was replaced, and the trampoline that stands for it. */
struct pv_patch {
    int64_t window_offset;      /* first replaced byte */
    int64_t trampoline_offset;  /* where the patch leads; ends with a jump to window end unless its last instruction never falls through */
    int64_t island_offset;      /* form branch: the jmp rel32 in padding; form call: the call entry; else 0 */
    uint32_t window_size;       /* bytes */
    uint32_t trampoline_size;   /* bytes up to the emulation paths */
    uint32_t first_routine;     /* routines of one patch are consecutive, in window order */
    uint16_t routine_count;
    uint8_t form;               /* enum pv_form */
    uint8_t flags;              /* PV_PATCH_* */
};

/* The window stands in .altinstr_replacement, code that the kernel copies at boot: its bytes are
 * untouched. Instead the alternatives' entries that named it name island_offset, a five-byte
 * `call T` (the kernel fixes its displacement when it copies it; T = trampoline, ends with
 * jmp __x86_return_thunk) or, for a site without a stack, `jmp T` (T ends with a jump back to the
 * end of the alternative's place). Several windows with equal bytes share one trampoline and its routines. */
#define PV_PATCH_REPLACEMENT 1u
/* No site in it: moved to make room for a neighbour's island (routine_count 0). */
#define PV_PATCH_EVICTED 2u

enum pv_form { PV_FORM_NONE, PV_FORM_JUMP, PV_FORM_CALL, PV_FORM_BRANCH, PV_FORM_BREAK, PV_FORMS };

/* Displaced code in a trampoline. An instruction is its original bytes with RIP-relative displacements
 * and rel32 corrected; short branches are widened (loop and jrcxz: `e3 02 eb 05 e9 rel32`); a jump label
 * is always five bytes. A direct call that ends the window is `lea -8(%rsp),%rsp; push %rax;
 * lea END(%rip),%rax; mov %rax,8(%rsp); pop %rax; jmp TARGET`, END = window end, so that the stack holds
 * the original return address; other calls are calls. An alternatives' region moves whole, grown
 * to five bytes with NOPs where its replacement became a call. `sti` moves with the instruction that follows when
 * that is a site (sti; hlt): one routine whose native path is both, nothing between them.
 * A branch to an instruction inside a window goes to that instruction's displaced copy. */

/* What a site holds, by form (the rest of the window is filled with INT3, 0xCC):
 *   jump    e9 rel32           to the trampoline
 *   call    e8 rel32           to its call entry: lea 8(%rsp),%rsp; jmp *routine_table[index](%rip);
 *                              the trampoline then begins with ENDBR64
 *   branch  eb rel8            to its island: e9 rel32 to the trampoline
 *   break   PV_BREAK_*         the runtime takes the routine from routine_table[index]
 * routine_table[index] of a patch's first routine is the trampoline; of its further routines, their
 * link. A runtime activates nothing to make a form work: only break needs a runtime. */

/* Break on the soft engine: UD1 with the index in displacement and ModRM.reg.
 *   index < 2048: 0f b9 (40 | (index >> 8) << 3) (index & 0xff)                 4 bytes
 *   else:         0f b9 80 imm32(index)                                        7 bytes
 * UD1 has no other use in the guests supported (Linux' static-call marker is 0f b9 cc, mod 11).
 * Under KVM an image with break patches is refused. */
#define PV_BREAK_SHORT_LIMIT 2048u

/* The doorbell: mov $index, %eax; out %eax, $PV_DOORBELL_PORT. The host finds its handler by
 * index: routine_info[index].kind. The routine has pushed the guest's RAX first (at (%rsp) when
 * the doorbell rings) and pops it afterwards; a handler that changes RAX writes it there. All
 * other registers are the guest's own. */
#define PV_DOORBELL_PORT 0xe4u

/* The bare doorbell: the break encoding above inside a routine, for sites that have no stack (entry
 * code) and on engines that own UD1. All registers are the guest's own. Always the 7-byte form. */

/* Kinds of routine: stable numbers, host handlers are indexed by them. */
enum pv_kind {
    PV_KIND_NATIVE_ONLY, /* no emulation path */
    PV_KIND_CPUID, PV_KIND_RDMSR, PV_KIND_WRMSR, PV_KIND_IN, PV_KIND_OUT, PV_KIND_INS, PV_KIND_OUTS,
    PV_KIND_HLT, PV_KIND_WBINVD, PV_KIND_INVD, PV_KIND_XSETBV, PV_KIND_RDPMC, PV_KIND_RDTSC,
    PV_KIND_RDTSCP, PV_KIND_MONITOR, PV_KIND_MWAIT, PV_KIND_MOV_TO_CR, PV_KIND_MOV_FROM_CR,
    PV_KIND_MOV_TO_DR, PV_KIND_MOV_FROM_DR, PV_KIND_CLTS, PV_KIND_LMSW, PV_KIND_SMSW,
    PV_KIND_CLI, PV_KIND_STI, PV_KIND_PUSHF, PV_KIND_POPF, PV_KIND_IRET, PV_KIND_SYSRET,
    PV_KIND_SYSEXIT, PV_KIND_SWAPGS, PV_KIND_SGDT, PV_KIND_SIDT, PV_KIND_SLDT, PV_KIND_STR,
    PV_KIND_LGDT, PV_KIND_LIDT, PV_KIND_LLDT, PV_KIND_LTR, PV_KIND_INVLPG, PV_KIND_INVPCID,
    PV_KIND_LAR, PV_KIND_LSL, PV_KIND_VERR, PV_KIND_VERW, PV_KIND_STAC, PV_KIND_CLAC,
    PV_KIND_XSAVES, PV_KIND_XRSTORS, PV_KIND_MOV_SEGMENT, PV_KIND_OTHER, PV_KINDS
};

/* CPUID table: filled by the runtime, read by the CPUID template. Constant leaves only. */
#define PV_CPUID_ENTRIES 128u
struct pv_cpuid_table {
    /* class_of[top byte of the leaf]: 0 = not in the table, 1 = 0x000000xx, 2 = 0x400000xx, 3 = 0x800000xx */
    uint8_t class_of[256];
    /* entry_of[class - 1][low byte]: 0 = ask the host (native path), else entry number */
    uint8_t entry_of[3][256];
    struct {
        uint32_t eax, ebx, ecx, edx;
    } entry[PV_CPUID_ENTRIES]; /* entry 0 is never used */
};

/* State in guest memory. Per vCPU where PV_ROUTINE_DEPRIVILEGED routines are active: the runtime maps a
 * page of its own there for each vCPU. Offset 0..63 of the page that holds it is never used by the stub
 * (Linux' .data_nosave keeps in_suspend there). */
struct pv_state {
    uint8_t virtual_if;         /* deprivileged: RFLAGS.IF as the guest sees it, 0 or 1 */
    uint8_t interrupt_pending;  /* deprivileged: STI must ring the doorbell */
    uint8_t virtual_iopl;       /* deprivileged: RFLAGS.IOPL as the guest sees it */
    uint8_t reserved0[5];
    uint64_t cr[16];            /* deprivileged: virtual control registers, by number */
    uint64_t dr[8];
    uint64_t kernel_gs_base;    /* deprivileged: the other GS base, for SWAPGS */
    uint8_t gdtr[10], idtr[10]; /* deprivileged: limit (2 bytes), base (8 bytes) */
    uint16_t ldtr, tr;          /* deprivileged: selectors */
    uint8_t reserved1[8];
    uint8_t reserved2[512];     /* device fast paths */
};

#endif
