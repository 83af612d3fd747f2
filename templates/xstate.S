/* SPDX-License-Identifier: MIT */
/* XGETBV, XSAVES, XRSTORS. XSETBV is in xsetbv.S. */
#include "templates/state.inc"

/* Only XCR0 is kept here. XINUSE (ECX = 1) changes as the guest computes, and any other ECX faults
 * with RDX as it was. */
TEMPLATE xgetbv_state, xgetbv, 10, stack, deprivileged
FORM "xgetbv"
    push  %rcx
    mov   %ecx, %ecx
    jrcxz 1f
    pop   %rcx
    DOORBELL
    jmp   PV_TAIL
1:  pop   %rcx
    mov   PV_STATE_XCR0(%rip), %eax
    mov   PV_STATE_XCR0+4(%rip), %edx
END_TEMPLATE

DOORBELL_TEMPLATES xgetbv, xgetbv, "xgetbv"
DOORBELL_TEMPLATES xsaves, xsaves, "xsaves mreg", "xsaves64 mreg"
DOORBELL_MEMORY_TEMPLATES xsaves, xsaves, "xsaves mlea", "xsaves64 mlea"
DOORBELL_TEMPLATES xrstors, xrstors, "xrstors mreg", "xrstors64 mreg"
DOORBELL_MEMORY_TEMPLATES xrstors, xrstors, "xrstors mlea", "xrstors64 mlea"
