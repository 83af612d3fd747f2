/* SPDX-License-Identifier: MIT */
/* Descriptor-table registers. Stores are answered from struct pv_state; loads are the host's. */
#include "templates/state.inc"

/* The limit and the lower bytes of the base first, then the rest: ten bytes. */
.macro STORE_TABLE_REGISTER field
    push  %rax
    push  %rcx
    PV_LEA_TO %rax, 16
    mov   \field(%rip), %rcx
    .byte PV_SEGMENT
    mov   %rcx, (%rax)
    movzwl \field+8(%rip), %ecx
    .byte PV_SEGMENT
    mov   %cx, 8(%rax)
    pop   %rcx
    pop   %rax
.endm

TEMPLATE sgdt_state, sgdt, 10, stack, deprivileged
FORM "sgdt m"
    STORE_TABLE_REGISTER PV_STATE_GDTR
END_TEMPLATE

TEMPLATE sidt_state, sidt, 10, stack, deprivileged
FORM "sidt m"
    STORE_TABLE_REGISTER PV_STATE_IDTR
END_TEMPLATE

SELECTOR_TEMPLATES sldt, sldt, PV_STATE_LDTR
SELECTOR_TEMPLATES str, str, PV_STATE_TR

DOORBELL_TEMPLATES sgdt, sgdt, "sgdt mreg"
DOORBELL_MEMORY_TEMPLATES sgdt, sgdt, "sgdt mlea"
DOORBELL_TEMPLATES sidt, sidt, "sidt mreg"
DOORBELL_MEMORY_TEMPLATES sidt, sidt, "sidt mlea"
DOORBELL_TEMPLATES sldt, sldt, "sldt r!rsp", "sldt mreg"
DOORBELL_MEMORY_TEMPLATES sldt, sldt, "sldt mlea"
BARE_RSP_TEMPLATE sldt, sldt, "sldt sp", "sldt esp", "sldt rsp"
DOORBELL_TEMPLATES str, str, "str r!rsp", "str mreg"
DOORBELL_MEMORY_TEMPLATES str, str, "str mlea"
BARE_RSP_TEMPLATE str, str, "str sp", "str esp", "str rsp"

DOORBELL_TEMPLATES lgdt, lgdt, "lgdt mreg"
DOORBELL_MEMORY_TEMPLATES lgdt, lgdt, "lgdt mlea"
DOORBELL_TEMPLATES lidt, lidt, "lidt mreg"
DOORBELL_MEMORY_TEMPLATES lidt, lidt, "lidt mlea"
DOORBELL_TEMPLATES lldt, lldt, "lldt r", "lldt mreg"
DOORBELL_MEMORY_TEMPLATES lldt, lldt, "lldt mlea"
DOORBELL_TEMPLATES ltr, ltr, "ltr r", "ltr mreg"
DOORBELL_MEMORY_TEMPLATES ltr, ltr, "ltr mlea"
