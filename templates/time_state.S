/* SPDX-License-Identifier: MIT */
/* RDTSC and RDTSCP with the guest's offset, RDPID: what hardware virtualization would have added.
 *
 * The 64-bit sum without a flag: BSWAP of a half and then of the whole moves EDX into the upper half,
 * and back. */
#include "templates/state.inc"

.macro ADD_TSC_OFFSET
    bswap %edx
    bswap %rdx                      /* EDX << 32 */
    lea   (%rax,%rdx), %rax
    mov   PV_STATE_TSC_OFFSET(%rip), %rdx
    lea   (%rax,%rdx), %rdx
    mov   %edx, %eax
    bswap %rdx
    bswap %edx                      /* RDX >> 32 */
.endm

TEMPLATE rdtsc_offset, rdtsc, 10, deprivileged
FORM "rdtsc"
    rdtsc
    ADD_TSC_OFFSET
END_TEMPLATE

TEMPLATE rdtscp_offset, rdtscp, 10, deprivileged
FORM "rdtscp"
    rdtscp
    ADD_TSC_OFFSET
    mov   PV_STATE_TSC_AUX(%rip), %ecx
END_TEMPLATE

TEMPLATE rdpid_state, rdpid, 10, deprivileged
FORM "rdpid r64"
    LOAD_GPR32 PV_STATE_TSC_AUX
END_TEMPLATE

DOORBELL_TEMPLATES rdpid, rdpid, "rdpid r64!rsp"
BARE_RSP_TEMPLATE rdpid, rdpid, "rdpid rsp"
