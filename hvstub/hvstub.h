/* SPDX-License-Identifier: MIT */
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

/* Also read by the templates' assembler: constants it needs have no suffix, C stands under this guard. */
#define PV_DOORBELL_PORT 0xe4

/* Offsets in struct pv_cpuid_entry and struct pv_msr_entry, and the scale of their tables. */
#define PV_CPUID_NEGATED_LEAF    0
#define PV_CPUID_NEGATED_SUBLEAF 4
#define PV_CPUID_SUBLEAVES       8
#define PV_CPUID_EAX             16
#define PV_CPUID_EBX             20
#define PV_CPUID_ECX             24
#define PV_CPUID_EDX             28
#define PV_MSR_NEGATED           0
#define PV_MSR_EAX               8
#define PV_MSR_EDX               12

/* Device fast paths (struct pv_port). */
#define PV_PORT_IN_VALUE    0
#define PV_PORT_IN_PIT      1
#define PV_PORT_IN_CMOS     2
#define PV_PORT_IN_KEPT     3
#define PV_PORT_IN_ONCE     4
#define PV_PORT_OUT_POSTED  0
#define PV_PORT_OUT_SAME    1
#define PV_PORT_OUT_NOTHING 2
#define PV_PORT_OUT_KEPT    3
#define PV_PORT_OUT_WRITTEN 4
#define PV_PORT_VALUE       2 /* offsets in struct pv_port */
#define PV_PORT_KIND        3
#define PV_RING_SLOTS       1024
#define PV_CMOS_INDEX_PORT  0x70

/* The one MSR that has a place in the state page. */
#define PV_MSR_TSC_DEADLINE 0x6e0

#ifndef __ASSEMBLER__

#include <stdint.h>

#define PV_NOTE_NAME    "Patchvisor" /* 11 bytes with its NUL */
#define PV_NOTE_TYPE    0x5056u /* not 18: QEMU takes any note of that type for the PVH entry */
#define PV_ABI_VERSION  3u
#define PV_HEADER_MAGIC "PVSTUB\r\n" /* 8 bytes, no NUL */

/* pv_note.flags */
/* the image contains break patches: it does not boot without one */
#define PV_IMAGE_NEEDS_RUNTIME 1u

struct pv_note {
    uint32_t abi_version;
    uint32_t flags;
    /* guest-linear, as linked (before any relocation); 0 = no site was patched, there is no stub */
    uint64_t header_address;
    uint64_t header_file;   /* file offset of struct pv_header */
    uint64_t original_file; /* file offset of struct pv_original */
    uint64_t original_size; /* bytes */
    uint64_t io_table_file; /* file offset of the IO-block table; 0 = none */
    uint64_t io_table_size; /* bytes */
    uint64_t output_xxh3;   /* XXH3_64bits of the whole patched file with this field zero */
};

/* What `patchc restore` needs. Followed by `run_count` struct pv_original_run, then the runs' bytes,
 * concatenated in the same order. Runs are sorted by offset and do not overlap.
 * The patched file is: the original's [0, tail_offset) with runs replaced, then what patchc added
 * (added_size bytes), then the original's [tail_offset, original size) with runs replaced and with
 * `tail_insert_size` new bytes inserted at the original's offset `tail_insert_at`. */
struct pv_original {
    uint64_t size;             /* bytes of the original ELF */
    uint64_t xxh3;             /* XXH3_64bits of the original ELF */
    uint64_t tail_offset;      /* original file offset */
    uint64_t added_size;       /* bytes */
    uint64_t tail_insert_at;   /* original file offset; >= tail_offset */
    uint64_t tail_insert_size; /* bytes; may be 0 */
    uint64_t run_count;
};

struct pv_original_run {
    uint64_t offset; /* original file offset */
    uint64_t size;   /* bytes, > 0 */
};

/* The header, 64-byte aligned, in memory that the guest maps wherever its patched code runs. */
struct pv_header {
    char magic[8]; /* PV_HEADER_MAGIC */
    uint32_t abi_version;
    uint32_t header_size;   /* bytes of this struct */
    uint32_t features;      /* PV_FEATURE_* */
    uint32_t routine_count; /* entries of both tables below */
    /* uint64_t[routine_count]: guest-linear addresses (relocated with the guest) */
    int64_t routine_table_offset;
    int64_t routine_info_offset; /* struct pv_routine[routine_count] */
    int64_t patch_info_offset;   /* struct pv_patch[patch_count], sorted by window address */
    uint32_t patch_count;
    uint32_t doorbell_port;     /* PV_DOORBELL_PORT */
    int64_t cpuid_table_offset; /* struct pv_cpuid_table; 0 = none */
    int64_t msr_table_offset;   /* struct pv_msr_table; 0 = none */
    int64_t state_offset;       /* struct pv_state, writable by the guest; 0 = none */
    uint32_t state_size;        /* bytes available there */
    uint32_t reserved;
};

/* pv_header.features: what the image carries */
#define PV_FEATURE_STATE 1u /* a writable state page */
#define PV_FEATURE_CPUID 2u /* a CPUID table */
#define PV_FEATURE_MSR   4u /* an MSR shadow table */

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
    int64_t site_offset; /* the instruction's original place */
    int64_t link_offset;
    /* the original instruction in the routine (carries its exception-table entry) */
    int64_t native_offset;
    int64_t emulation_offset; /* 0 = the routine has no emulation path */
    int64_t tail_offset;
    uint32_t emulation_size; /* bytes, up to but without the closing jmp to tail */
    uint16_t kind;           /* enum pv_kind */
    uint8_t form;            /* enum pv_form */
    uint8_t flags;           /* PV_ROUTINE_* */
    uint32_t operand;        /* kind-specific: PV_OPERAND_* */
    uint32_t patch;          /* index into the patch table */
};

#define PV_ROUTINE_STACK    1u /* the emulation path pushes to the guest's stack */
#define PV_ROUTINE_STATE    2u /* it reads or writes struct pv_state */
#define PV_ROUTINE_DOORBELL 4u /* it may ring the doorbell: a host handler is needed */
#define PV_ROUTINE_TABLE    8u /* answered from the CPUID or MSR table */
/* emulation is right only for a deprivileged guest, with a state page per vCPU */
#define PV_ROUTINE_DEPRIVILEGED 16u
#define PV_ROUTINE_BARE         64u /* rings the bare doorbell: only for engines that own UD1 */
#define PV_ROUTINE_STI          128u /* preceded by STI: the native path is both; else the host does both */
/* stands for an instruction in .altinstr_replacement, which the guest copies */
#define PV_ROUTINE_REPLACEMENT 32u

/* One patch: a window of original code that was replaced, and the trampoline that stands for it. */
struct pv_patch {
    int64_t window_offset; /* first replaced byte */
    /* where the patch leads; ends with a jump to window end unless its last instruction never
     * falls through */
    int64_t trampoline_offset;
    /* form branch: the jmp rel32 in padding; form call: the call entry; else 0 */
    int64_t island_offset;
    uint32_t window_size;     /* bytes */
    uint32_t trampoline_size; /* bytes up to the emulation paths */
    uint32_t first_routine;   /* routines of one patch are consecutive, in window order */
    uint16_t routine_count;
    uint8_t form;  /* enum pv_form */
    uint8_t flags; /* PV_PATCH_* */
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
 *                              the trampoline then begins with ENDBR64. Where the code also runs
 *                              at a low identity address, an entry of 56 bytes instead, which adds
 *                              its own distance from where it was linked to the table's address
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

/* The doorbell: push %rax; mov $index, %eax; out %eax, $PV_DOORBELL_PORT; pop %rax. The host finds
 * its handler by index: routine_info[index].kind; what the handler must know of the instruction's
 * operands is in routine_info[index].operand. When the doorbell rings, the guest's RAX is at (%rsp);
 * a handler that changes RAX writes it there. The guest's RSP is the present one + 8. All other
 * registers are the guest's own.
 * With PV_OPERAND_MEMORY the frame is 16 bytes: RAX at (%rsp), the linear address of the memory
 * operand at 8(%rsp); the guest's RSP is the present one + 16.
 * To inject a fault of the emulated instruction, a handler restores RAX and RSP and sets RIP to
 * native_offset: that address carries the exception-table entry.
 *
 * A routine with PV_ROUTINE_STATE and a memory operand that it writes itself (SGDT, SIDT, SLDT, STR, SMSW, MOV
 * from a segment register) may fault on that operand. Then RCX is at (%rsp), RAX at 8(%rsp), and the guest's RSP is
 * the present one + 16: a host that sees a fault with RIP in the emulation path, at an instruction that is no
 * doorbell, restores them and delivers the fault with RIP = native_offset, as above.
 *
 * PV_ROUTINE_STATE with PV_ROUTINE_DOORBELL: the routine rings only for what it could not do on struct pv_state.
 *   STI, POPF           all is done; an interrupt that waited can be delivered (interrupt_pending)
 *   MOV_FROM_DR         DR7.GD is set: #DB before the access
 *   XGETBV              ECX is not 0
 * PV_ROUTINE_STATE without PV_ROUTINE_DEPRIVILEGED: the device fast paths below; what they do not know goes
 * to the native path with everything as it was.
 * With PV_ROUTINE_TABLE and PV_ROUTINE_DOORBELL, CPUID rings for a leaf that the table does not have; RBX and
 * RDX, which are results, are then no longer the guest's. */

/* The bare doorbell: 0f b9 81 imm32(index), UD1 with (%rcx) as base so that it is never taken for a
 * break. For sites that have no stack (entry code), and on engines that own UD1. All registers are
 * the guest's own. With PV_OPERAND_MEMORY it rings twice, and between the two only RAX changes:
 * `bare; lea <memory operand>, %rax; bare`. At the first ring the host keeps RAX, at the second RAX
 * is the address and the host gives RAX back; no interrupt or NMI may be delivered between them. */

/* struct pv_routine.operand, as far as the kind needs it. Register numbers are the processor's
 * (RAX 0 … R15 15; ES 0, CS 1, SS 2, DS 3, FS 4, GS 5).
 *   IN, OUT             PORT (or DX), WIDTH
 *   INS, OUTS           WIDTH, REP, ADDRESS32, SEGMENT (OUTS)
 *   MONITOR             ADDRESS32, SEGMENT
 *   MOV_TO/FROM_CR, DR  REGISTER: number of the control or debug register; GPR
 *   MOV_SEGMENT         REGISTER: number of the segment register; GPR or memory; WIDTH; STORE
 *   LAR, LSL            REGISTER: destination; GPR or memory: source; WIDTH of the destination
 *   INVPCID             REGISTER: type; memory
 *   LMSW SMSW SLDT STR LLDT LTR VERR VERW   GPR or memory; WIDTH
 *   INVLPG SGDT SIDT LGDT LIDT XSAVES XRSTORS   memory; WIDTH
 *   PUSHF POPF IRET SYSRET SYSEXIT XSAVES XRSTORS   WIDTH
 *   VMCALL              REGISTER: 0 VMCALL, 1 VMMCALL
 *   INT                 PORT: the vector
 *   JMP_FAR CALL_FAR    memory; WIDTH of the offset
 *   RET_FAR             PORT: bytes to release; WIDTH
 *   PUSH_SEGMENT POP_SEGMENT   REGISTER: number of the segment register; WIDTH
 *   LOAD_FAR            REGISTER: destination + 16 * number of the segment register; memory; WIDTH of the destination
 *   RDPID               GPR
 * A memory operand that is one register alone has BASE and the register's number as GPR; any other
 * has MEMORY and its address is in the doorbell's frame; with SEGMENT, the base of FS or GS is to be
 * added to that. */
#define PV_OPERAND_REGISTER(operand) ((operand)&0xffu)
#define PV_OPERAND_GPR(operand)      ((operand) >> 8 & 0xffu)
#define PV_OPERAND_PORT(operand)     ((operand)&0xffffu)
#define PV_OPERAND_DX                0x10000u /* the port is in DX */
#define PV_OPERAND_REP               0x20000u
#define PV_OPERAND_ADDRESS32         0x40000u  /* 32-bit addresses: ECX, ESI, EDI */
#define PV_OPERAND_BASE              0x80000u  /* memory operand: address in GPR */
#define PV_OPERAND_MEMORY            0x100000u /* memory operand: address at 8(%rsp) */
#define PV_OPERAND_STORE             0x200000u /* MOV_SEGMENT: out of the segment register */
#define PV_OPERAND_WIDTH(operand)    ((operand) >> 24 & 0xfu) /* bytes */
#define PV_OPERAND_SEGMENT(operand)  ((operand) >> 28 & 0x7u) /* 4 FS, 5 GS; else none */

/* Kinds of routine: stable numbers, host handlers are indexed by them. */
enum pv_kind {
    PV_KIND_NATIVE_ONLY, /* no emulation path */
    PV_KIND_CPUID,
    PV_KIND_RDMSR,
    PV_KIND_WRMSR,
    PV_KIND_IN,
    PV_KIND_OUT,
    PV_KIND_INS,
    PV_KIND_OUTS,
    PV_KIND_HLT,
    PV_KIND_WBINVD,
    PV_KIND_INVD,
    PV_KIND_XSETBV,
    PV_KIND_RDPMC,
    PV_KIND_RDTSC,
    PV_KIND_RDTSCP,
    PV_KIND_MONITOR,
    PV_KIND_MWAIT,
    PV_KIND_MOV_TO_CR,
    PV_KIND_MOV_FROM_CR,
    PV_KIND_MOV_TO_DR,
    PV_KIND_MOV_FROM_DR,
    PV_KIND_CLTS,
    PV_KIND_LMSW,
    PV_KIND_SMSW,
    PV_KIND_CLI,
    PV_KIND_STI,
    PV_KIND_PUSHF,
    PV_KIND_POPF,
    PV_KIND_IRET,
    PV_KIND_SYSRET,
    PV_KIND_SYSEXIT,
    PV_KIND_SWAPGS,
    PV_KIND_SGDT,
    PV_KIND_SIDT,
    PV_KIND_SLDT,
    PV_KIND_STR,
    PV_KIND_LGDT,
    PV_KIND_LIDT,
    PV_KIND_LLDT,
    PV_KIND_LTR,
    PV_KIND_INVLPG,
    PV_KIND_INVPCID,
    PV_KIND_LAR,
    PV_KIND_LSL,
    PV_KIND_VERR,
    PV_KIND_VERW,
    PV_KIND_STAC,
    PV_KIND_CLAC,
    PV_KIND_XSAVES,
    PV_KIND_XRSTORS,
    PV_KIND_MOV_SEGMENT,
    PV_KIND_OTHER, /* of a feature that CPUID need not offer (VMX, SVM, SGX, shadow stacks …): #UD */
    PV_KIND_VMCALL,
    PV_KIND_XGETBV,
    PV_KIND_SYSCALL,
    PV_KIND_SYSENTER,
    PV_KIND_INT,
    PV_KIND_JMP_FAR,
    PV_KIND_CALL_FAR,
    PV_KIND_RET_FAR,
    PV_KIND_PUSH_SEGMENT,
    PV_KIND_POP_SEGMENT,
    PV_KIND_LOAD_FAR,
    PV_KIND_RDPID,
    PV_KINDS
};

/* CPUID table: filled by the runtime (hvstub/cpuid_table.h), read by the CPUID template. Constant
 * leaves only; what is not there goes to the native path.
 *
 * The answer to a leaf stands in entry[((leaf & 0xff) + (leaf >> 8 & 0xff) & 0xff) + (leaf >> 24)] if that
 * entry's negated_leaf is -leaf: found with LEA, MOVZX and BSWAP alone, confirmed with LEA and JRCXZ, so
 * that no flag changes. (Kernels look for their hypervisor at every 256th leaf from 0x40000000 on: each of
 * those has an entry of its own.) Where `subleaves` is not 0, ECX matters: it is the byte offset (from the table) of an
 * entry e > 0, and the answer stands in entry[e + (ECX & 0xff)] if that one's negated_leaf and
 * negated_subleaf fit. Such entries share the array's gaps: e <= 256, so no look-up leaves it. */
#define PV_CPUID_ENTRIES 512u
struct pv_cpuid_entry {
    uint32_t negated_leaf;
    uint32_t negated_subleaf;
    uint32_t subleaves;
    uint32_t used; /* for the runtime; the template does not read it */
    uint32_t eax, ebx, ecx, edx;
};

struct pv_cpuid_table { /* 64-byte aligned */
    struct pv_cpuid_entry entry[PV_CPUID_ENTRIES];
};

/* MSR table: constant MSRs, filled by the runtime, read by the RDMSR template. The answer to MSR n
 * stands in entry[n & 0xff] if that entry's negated is -n. */
#define PV_MSR_ENTRIES 256u
struct pv_msr_entry {
    uint32_t negated;
    uint32_t used; /* for the runtime; the template does not read it */
    uint32_t eax, edx;
};

struct pv_msr_table { /* 64-byte aligned */
    struct pv_msr_entry entry[PV_MSR_ENTRIES];
};

/* Device fast paths: byte accesses to ports that need no host. The host fills the tables, brings them
 * up to date whenever a device has changed, before guest code runs again, and takes an entry out
 * before it would be wrong. port_in[n] and port_out[n] stand for one port whose low byte is n: the one
 * that plus `negated` is 0 in 16 bits. An entry is read with one 32-bit load. All else is native.
 *   IN    PV_PORT_IN_VALUE    gives `value`
 *         PV_PORT_IN_PIT      the counter in pv_state.pit
 *         PV_PORT_IN_CMOS     the low byte of pv_state.cmos[n], where n are the low seven bits of
 *                             port_out[PV_CMOS_INDEX_PORT].value, if the high byte is not 0
 *         PV_PORT_IN_KEPT     what was written last: the value in port_out
 *         PV_PORT_IN_ONCE     gives `value` and leaves that of pv_state.once_after in its place, by CMPXCHG of the entry;
 *                             native if port_out of the port before it is PV_PORT_OUT_WRITTEN
 *   OUT   PV_PORT_OUT_POSTED  the byte goes to the ring: the device would only send it
 *         PV_PORT_OUT_SAME    writing the byte whose negative is `value` would change nothing
 *         PV_PORT_OUT_NOTHING no byte would
 *         PV_PORT_OUT_KEPT    the byte is stored in the entry's value, where the host finds it; kind becomes
 *         PV_PORT_OUT_WRITTEN which is the same, until the host has looked */
struct pv_port {
    uint16_t negated;
    uint8_t value;
    uint8_t kind; /* PV_PORT_IN_* or PV_PORT_OUT_* */
};

/* The ring of posted bytes. A slot of 0 is empty (so that byte goes native). The guest takes ring_lock by
 * XCHG of 1, puts the byte into the slot at ring_tail, if that one is empty, steps ring_tail and stores 0
 * in the lock. Whoever finds the lock taken (an NMI, another vCPU) or the ring full takes the native path.
 * The host empties slots in order, from where it stopped to the first empty one, before any other access
 * to a device, at least every millisecond, and when the guest stops running. It reads neither ring_tail
 * nor ring_lock: a slot that is not empty is all it needs, so it may come at any instruction. */

/* A counter that runs with the time-stamp counter: at TSC cycle t it has counted
 * ((t + negated_base) * scale) >> 64 since it stood at `start`. The host moves the base on before the
 * product is less exact than the device. `version` changes with any other field; a reader looks at it before
 * and after, and goes native if it changed.
 *   pit  one channel of the 8254, going down, 16 bits. A read adds `step` to version, by CMPXCHG: bit 0
 *        says whether the next read gives the high byte, and step is 1 if bytes come in turn, else 2
 *   pm   the ACPI timer, going up, 24 bits; read with IN EAX, DX if DX + negated_port is 0 in 32 bits */
struct pv_counter {
    uint64_t negated_base;
    uint64_t scale;
    uint32_t start;
    uint32_t version;
    uint32_t step;
    uint32_t negated_port;
};

/* The deadline of the local APIC's timer, IA32_TSC_DEADLINE, of the vCPU that runs. A host that looks at this page from
 * time to time (before any other access to a device, and when the guest stops running) gives in `limit` the
 * time-stamp counter by which it will have looked: a later deadline need not be told before that. The
 * guest puts such a one, which is not 0, into `posted`; the host takes it, leaves 0, and does as if it had been written
 * to the MSR. All others are native. So that none is lost if the host looks, and sets a new limit, between any
 * two instructions, the guest compares after it has posted; if the deadline was too early it takes it
 * back (XCHG), and goes native only if it got it. A limit of ~0 says that this is not offered. */
struct pv_deadline {
    uint64_t posted;
    uint64_t limit;
};

/* State in guest memory. Per vCPU where PV_ROUTINE_DEPRIVILEGED routines are active: the runtime maps a
 * page of its own there for each vCPU. Else all vCPUs share it, and only the device fast paths are used. Offset 0..63
 * of the page that holds it is never used by the stub (Linux' .data_nosave keeps in_suspend there).
 *
 * A deprivileged guest kernel runs with the real IF set, the real IOPL and AC clear, and CR4.TSD clear. What the
 * host changes for the guest (doorbells, events it delivers, IRET and its kind) it also changes here; when it
 * enters the guest's kernel it stores the selectors that user code left. */
struct pv_state {
    uint8_t virtual_if; /* deprivileged: RFLAGS.IF as the guest sees it, 0 or 1 */
    /* deprivileged: STI must ring the doorbell; not 0: an interrupt waits for IF */
    uint8_t interrupt_pending;
    uint8_t virtual_iopl; /* deprivileged: RFLAGS.IOPL as the guest sees it, 0 to 3 */
    uint8_t virtual_ac;   /* deprivileged: RFLAGS.AC as the guest's kernel sees it, 0 or 1 */
    uint8_t reserved0[4];
    uint64_t cr[16]; /* deprivileged: virtual control registers, by number */
    uint64_t dr[8];
    uint64_t kernel_gs_base;    /* deprivileged: the other GS base, for SWAPGS */
    uint8_t gdtr[10], idtr[10]; /* deprivileged: limit (2 bytes), base (8 bytes) */
    uint16_t ldtr, tr;          /* deprivileged: selectors */
    uint16_t selector[6];       /* deprivileged: of ES, CS, SS, DS, FS, GS */
    uint32_t tsc_aux;           /* deprivileged: IA32_TSC_AUX, for RDTSCP and RDPID */
    uint64_t tsc_offset;        /* deprivileged: added to the real time-stamp counter */
    uint64_t xcr0;              /* deprivileged: for XGETBV */

    struct pv_port port_in[256], port_out[256];
    struct pv_counter pit, pm;
    struct pv_deadline deadline;
    uint16_t cmos[128];
    uint16_t ring_tail; /* the guest's next slot */
    uint8_t ring_lock;
    uint8_t reserved1;
    uint32_t once_after; /* a value, where it stands in an entry: << 16 */
    uint8_t ring[PV_RING_SLOTS];
};

#endif /* __ASSEMBLER__ */
#endif
