/* SPDX-License-Identifier: MIT */
/* Instructions of features that a host need not offer: to a guest whose CPUID and MSRs do not have the
 * feature they are undefined, and the host says so at the native instruction (kind other). */
#include "templates/template.inc"

/* Virtualization, of either maker, and what stands beside it. */
DOORBELL_TEMPLATES vmx, other, "vmxon mreg", "vmxoff", "vmlaunch", "vmresume", "vmclear mreg", "vmptrld mreg", "vmptrst mreg", "vmread r64, r64", "vmread mreg, r64", "vmwrite r64, r64", "vmwrite r64, mreg", "invept r64, mreg", "invvpid r64, mreg", "vmfunc"
DOORBELL_MEMORY_TEMPLATES vmx, other, "vmxon mlea", "vmclear mlea", "vmptrld mlea", "vmptrst mlea", "vmread mlea, r64", "vmwrite r64, mlea", "invept r64, mlea", "invvpid r64, mlea"
DOORBELL_TEMPLATES svm, other, "vmrun r", "vmload r", "vmsave r", "stgi", "clgi", "skinit eax", "invlpga r, ecx"
DOORBELL_TEMPLATES snp, other, "psmash r", "pvalidate r, ecx, edx", "rmpadjust r, rcx, rdx", "rmpupdate r, rcx"
DOORBELL_TEMPLATES invlpgb, other, "invlpgb r, edx, ecx", "tlbsync"
DOORBELL_TEMPLATES mcommit, other, "mcommit"
DOORBELL_TEMPLATES rdpru, other, "rdpru"

/* Enclaves, trusted execution, system management. */
DOORBELL_TEMPLATES sgx, other, "encls", "enclv", "enclu"
DOORBELL_TEMPLATES smx, other, "getsec"
DOORBELL_TEMPLATES tdx, other, "seamcall", "seamops", "seamret", "tdcall"
DOORBELL_TEMPLATES rsm, other, "rsm"
DOORBELL_TEMPLATES configuration, other, "hreset imm8", "pconfig", "loadiwkey xmm, xmm"

/* Shadow stacks. Where they are off, reading the pointer does nothing at all (SDM 2B, RDSSPD/RDSSPQ). */
TEMPLATE rdssp_off, other, 10, deprivileged
FORMS "rdsspd r32", "rdsspq r64"
    nop
END_TEMPLATE
DOORBELL_TEMPLATES shadow_stack, other, "setssbsy", "saveprevssp", "clrssbsy mreg", "rstorssp mreg", "incsspd r32", "incsspq r64", "rdsspd r32", "rdsspq r64", "wrussd mreg, r32", "wrussq mreg, r64", "wrssd mreg, r32", "wrssq mreg, r64"
DOORBELL_MEMORY_TEMPLATES shadow_stack, other, "clrssbsy mlea", "rstorssp mlea", "wrussd mlea, r32", "wrussq mlea, r64", "wrssd mlea, r32", "wrssq mlea, r64"

/* User interrupts, work queues. */
DOORBELL_TEMPLATES user_interrupt, other, "senduipi r", "uiret", "clui", "stui", "testui"
DOORBELL_TEMPLATES work_queue, other, "enqcmd r, mreg", "enqcmds r, mreg"
DOORBELL_MEMORY_TEMPLATES work_queue, other, "enqcmd r, mlea", "enqcmds r, mlea"
