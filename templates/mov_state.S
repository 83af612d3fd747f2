/* SPDX-License-Identifier: MIT */
/* MOV from control and debug registers, answered from struct pv_state, and the one MOV to a control
 * register that has no consequence: CR2. The others change what the host must know, and may fault:
 * they are doorbells, and the host keeps the state up to date. */
#include "templates/state.inc"

TEMPLATE mov_from_cr_state, mov_from_cr, 10, deprivileged
FORMS "mov r64, cr0", "mov r64, cr2", "mov r64, cr3", "mov r64, cr4", "mov r64, cr8"
    LOAD_GPR PV_STATE_CR
END_TEMPLATE

TEMPLATE mov_to_cr2_state, mov_to_cr, 10, deprivileged
FORM "mov cr2, r64"
    STORE_GPR PV_STATE_CR2
END_TEMPLATE

/* With DR7.GD (bit 13) set, any access to a debug register is a #DB (SDM 3B 17.2.4): the host's. Bit 13
 * and the two bits above it, which are always clear, are the byte's top three; shifted into CH they are
 * looked at without changing a flag. DR4 and DR5 depend on CR4.DE: doorbell. */
TEMPLATE mov_from_dr_state, mov_from_dr, 10, stack, deprivileged
FORMS "mov r64!rsp, dr0", "mov r64!rsp, dr1", "mov r64!rsp, dr2", "mov r64!rsp, dr3", "mov r64!rsp, dr6", "mov r64!rsp, dr7"
    push  %rcx
    movzbl PV_STATE_DR7+1(%rip), %ecx
    lea   (,%rcx,8), %ecx
    movzbl %ch, %ecx
    jrcxz 1f
    pop   %rcx
    DOORBELL
    jmp   PV_TAIL
1:  pop   %rcx
    LOAD_GPR PV_STATE_DR
END_TEMPLATE
