/* SPDX-License-Identifier: MIT */
/* SMSW: CR0 as far as the operand holds it; to memory always 16 bits (SDM 2B, SMSW). */
#include "templates/state.inc"

TEMPLATE smsw_state, smsw, 10, deprivileged
FORM "smsw r64"
    LOAD_GPR PV_STATE_CR0
END_TEMPLATE

TEMPLATE smsw_state32, smsw, 10, deprivileged
FORM "smsw r32"
    LOAD_GPR32 PV_STATE_CR0
END_TEMPLATE

TEMPLATE smsw_state16, smsw, 10, deprivileged
FORM "smsw r16"
    LOAD_GPR16 PV_STATE_CR0
END_TEMPLATE

TEMPLATE smsw_state_memory, smsw, 10, stack, deprivileged
FORM "smsw m"
    STORE_MEMORY16 PV_STATE_CR0
END_TEMPLATE

DOORBELL_TEMPLATES smsw, smsw, "smsw r!rsp", "smsw mreg"
DOORBELL_MEMORY_TEMPLATES smsw, smsw, "smsw mlea"
BARE_RSP_TEMPLATE smsw, smsw, "smsw sp", "smsw esp", "smsw rsp"
