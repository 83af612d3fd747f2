/* SPDX-License-Identifier: MIT */
/* Segment registers. Reads are answered from struct pv_state: the real selectors of a deprivileged
 * guest are the host's. Loads look into the guest's descriptor tables: the host's work. */
#include "templates/state.inc"

TEMPLATE mov_segment_state, mov_segment, 10, deprivileged
FORMS "mov r32, sreg", "mov r64, sreg"
    LOAD_GPR_ZERO_EXTENDED16 PV_STATE_SELECTOR
END_TEMPLATE

TEMPLATE mov_segment_state16, mov_segment, 10, deprivileged
FORM "mov r16, sreg"
    LOAD_GPR16 PV_STATE_SELECTOR
END_TEMPLATE

TEMPLATE mov_segment_state_memory, mov_segment, 10, stack, deprivileged
FORM "mov m, sreg"
    STORE_MEMORY16 PV_STATE_SELECTOR
END_TEMPLATE

/* The doorbell's handler tells stores, loads and operands apart by the operand word. */
DOORBELL_TEMPLATES mov_segment, mov_segment, "mov sreg, r", "mov sreg, mreg", "mov r!rsp, sreg", "mov mreg, sreg"
DOORBELL_MEMORY_TEMPLATES mov_segment, mov_segment, "mov sreg, mlea", "mov mlea, sreg"
BARE_RSP_TEMPLATE mov_segment, mov_segment, "mov sp, sreg", "mov esp, sreg", "mov rsp, sreg"

TEMPLATE push_segment_state, push_segment, 10, stack, deprivileged
FORM "push sreg w64"
    lea   -8(%rsp), %rsp
    push  %rax
    movzwl PV_STATE_SELECTOR(%rip), %eax
    mov   %rax, 8(%rsp)
    pop   %rax
END_TEMPLATE

TEMPLATE push_segment_state16, push_segment, 10, stack, deprivileged
FORM "push sreg w16"
    lea   -2(%rsp), %rsp
    push  %rax
    movzwl PV_STATE_SELECTOR(%rip), %eax
    mov   %ax, 8(%rsp)
    pop   %rax
END_TEMPLATE

DOORBELL_TEMPLATES push_segment, push_segment, "push sreg"
DOORBELL_TEMPLATES pop_segment, pop_segment, "pop sreg"

DOORBELL_TEMPLATES load_far, load_far, "lss r!rsp, mreg", "lfs r!rsp, mreg", "lgs r!rsp, mreg"
DOORBELL_MEMORY_TEMPLATES load_far, load_far, "lss r!rsp, mlea", "lfs r!rsp, mlea", "lgs r!rsp, mlea"
BARE_RSP_TEMPLATE load_far, load_far, "lss sp, mreg", "lss esp, mreg", "lss rsp, mreg", "lfs sp, mreg", "lfs esp, mreg", "lfs rsp, mreg", "lgs sp, mreg", "lgs esp, mreg", "lgs rsp, mreg"
BARE_RSP_MEMORY_TEMPLATE load_far, load_far, "lss sp, mlea", "lss esp, mlea", "lss rsp, mlea", "lfs sp, mlea", "lfs esp, mlea", "lfs rsp, mlea", "lgs sp, mlea", "lgs esp, mlea", "lgs rsp, mlea"
