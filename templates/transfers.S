/* SPDX-License-Identifier: MIT */
/* What changes the code segment, the privilege level or the stack along with RIP: the host goes on where
 * the guest would, not at the routine's tail. */
#include "templates/template.inc"

/* With the user's RSP, or about to be: nothing can be pushed. */
.macro BARE_TEMPLATE name, kind, forms:vararg
TEMPLATE \name\()_bare, \kind, 90, bare
FORMS \forms
    BARE_DOORBELL
END_TEMPLATE
.endm

BARE_TEMPLATE sysret, sysret, "sysret"
BARE_TEMPLATE sysexit, sysexit, "sysexit"

DOORBELL_TEMPLATES iret, iret, "iret", "iretd", "iretq"
DOORBELL_TEMPLATES swapgs, swapgs, "swapgs"
DOORBELL_TEMPLATES syscall, syscall, "syscall"
DOORBELL_TEMPLATES sysenter, sysenter, "sysenter"
DOORBELL_TEMPLATES int, int, "int imm8"

DOORBELL_TEMPLATES ret_far, ret_far, "ret far", "ret far imm16"
DOORBELL_TEMPLATES jmp_far, jmp_far, "jmp far mreg"
DOORBELL_MEMORY_TEMPLATES jmp_far, jmp_far, "jmp far mlea"
DOORBELL_TEMPLATES call_far, call_far, "call far mreg"
DOORBELL_MEMORY_TEMPLATES call_far, call_far, "call far mlea"
