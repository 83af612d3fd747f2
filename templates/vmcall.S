/* SPDX-License-Identifier: MIT */
/* VMCALL and VMMCALL: the hypervisor's ABI passes registers, and which of the two it was is in the
 * operand word. Only where the native instruction would not reach the runtime. */
#include "templates/template.inc"

DOORBELL_TEMPLATES vmcall, vmcall, "vmcall", "vmmcall"
