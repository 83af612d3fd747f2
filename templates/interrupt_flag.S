/* SPDX-License-Identifier: MIT */
/* CLI, STI, PUSHF, POPF, STAC and CLAC on the virtual flags of struct pv_state.
 *
 * The real IF stays set and the real IOPL and AC stay clear while the guest runs: the host takes
 * interrupts at any time and delivers them when virtual_if is set, and an AC that only means
 * "user memory may be touched" to a kernel would raise alignment faults outside ring 0. */
#include "templates/state.inc"

#define FLAGS_VIRTUAL_HIGH 0x32     /* IF and IOPL, as bits of the second byte */
#define FLAGS_AC_BYTE      0x04     /* AC, as a bit of the third byte */
#define FLAGS_OWN          0x204dd5 /* what POPF takes over: CF PF AF ZF SF TF DF OF NT ID */
#define FLAGS_ALWAYS       0x202    /* IF, and the bit that is always set */

TEMPLATE cli_state, cli, 10, deprivileged
FORM "cli"
    movb  $0, PV_STATE_VIRTUAL_IF(%rip)
END_TEMPLATE

/* An interrupt that comes after the store is delivered by the host at once, one that came before it
 * has set interrupt_pending: none is lost. */
TEMPLATE sti_state, sti, 10, stack, deprivileged
FORM "sti"
    movb  $1, PV_STATE_VIRTUAL_IF(%rip)
    push  %rcx
    movzbl PV_STATE_INTERRUPT_PENDING(%rip), %ecx
    jrcxz 1f
    pop   %rcx
    DOORBELL
    jmp   PV_TAIL
1:  pop   %rcx
END_TEMPLATE

TEMPLATE clac_state, clac, 10, deprivileged
FORM "clac"
    movb  $0, PV_STATE_VIRTUAL_AC(%rip)
END_TEMPLATE

TEMPLATE stac_state, stac, 10, deprivileged
FORM "stac"
    movb  $1, PV_STATE_VIRTUAL_AC(%rip)
END_TEMPLATE

/* PUSHF pushes the real flags; virtual IF and IOPL then replace the real ones on the stack. The
 * arithmetic flags, which that changes, wait in AX (LAHF, SETO): DF, TF and the rest do not change. */
.macro MERGE_SECOND_BYTE flags
    movzbl PV_STATE_VIRTUAL_IOPL(%rip), %ecx
    shl   $3, %ecx
    or    PV_STATE_VIRTUAL_IF(%rip), %cl
    add   %ecx, %ecx
    andb  $~FLAGS_VIRTUAL_HIGH & 0xff, 1+\flags
    or    %cl, 1+\flags
.endm

.macro SAVE_ARITHMETIC_FLAGS /* in AX */
    lahf
    seto  %al
.endm

.macro RESTORE_ARITHMETIC_FLAGS
    add   $0x7f, %al                /* OF again, if it was 1 */
    sahf
.endm

TEMPLATE pushf_state, pushf, 10, stack, deprivileged
FORM "pushfq"
    pushfq
    push  %rax
    push  %rcx
    SAVE_ARITHMETIC_FLAGS
    MERGE_SECOND_BYTE 16(%rsp)
    movzbl PV_STATE_VIRTUAL_AC(%rip), %ecx
    shl   $2, %ecx
    andb  $~FLAGS_AC_BYTE & 0xff, 18(%rsp)
    or    %cl, 18(%rsp)
    RESTORE_ARITHMETIC_FLAGS
    pop   %rcx
    pop   %rax
END_TEMPLATE

TEMPLATE pushf_state16, pushf, 10, stack, deprivileged
FORM "pushf"
    pushfw
    push  %rax
    push  %rcx
    SAVE_ARITHMETIC_FLAGS
    MERGE_SECOND_BYTE 16(%rsp)
    RESTORE_ARITHMETIC_FLAGS
    pop   %rcx
    pop   %rax
END_TEMPLATE

/* POPF replaces all flags, so they may change on the way. virtual_if is stored before
 * interrupt_pending is looked at, as in STI; the doorbell rings when everything else is done. */
TEMPLATE popf_state, popf, 10, stack, deprivileged
FORM "popfq"
    push  %rax
    push  %rcx
    mov   16(%rsp), %rax
    mov   %eax, %ecx
    shr   $12, %ecx
    and   $3, %ecx
    mov   %cl, PV_STATE_VIRTUAL_IOPL(%rip)
    mov   %eax, %ecx
    shr   $18, %ecx
    and   $1, %ecx
    mov   %cl, PV_STATE_VIRTUAL_AC(%rip)
    mov   %eax, %ecx
    shr   $9, %ecx
    and   $1, %ecx
    and   $FLAGS_OWN, %eax
    or    $FLAGS_ALWAYS, %eax
    mov   %rax, 16(%rsp)
    mov   %cl, PV_STATE_VIRTUAL_IF(%rip)
    and   PV_STATE_INTERRUPT_PENDING(%rip), %cl
    jnz   1f
    pop   %rcx
    pop   %rax
    popfq
    jmp   PV_TAIL
1:  pop   %rcx
    pop   %rax
    popfq
    DOORBELL
END_TEMPLATE

TEMPLATE popf_state16, popf, 10, stack, deprivileged
FORM "popf"
    push  %rax
    push  %rcx
    movzwl 16(%rsp), %eax
    mov   %eax, %ecx
    shr   $12, %ecx
    and   $3, %ecx
    mov   %cl, PV_STATE_VIRTUAL_IOPL(%rip)
    mov   %eax, %ecx
    shr   $9, %ecx
    and   $1, %ecx
    and   $FLAGS_OWN & 0xffff, %eax
    or    $FLAGS_ALWAYS, %eax
    mov   %ax, 16(%rsp)
    mov   %cl, PV_STATE_VIRTUAL_IF(%rip)
    and   PV_STATE_INTERRUPT_PENDING(%rip), %cl
    jnz   1f
    pop   %rcx
    pop   %rax
    popfw
    jmp   PV_TAIL
1:  pop   %rcx
    pop   %rax
    popfw
    DOORBELL
END_TEMPLATE

DOORBELL_TEMPLATES cli, cli, "cli"
DOORBELL_TEMPLATES sti, sti, "sti"
DOORBELL_TEMPLATES clac, clac, "clac"
DOORBELL_TEMPLATES stac, stac, "stac"
DOORBELL_TEMPLATES pushf, pushf, "pushfq", "pushf"
DOORBELL_TEMPLATES popf, popf, "popfq", "popf"
