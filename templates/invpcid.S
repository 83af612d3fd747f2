/* SPDX-License-Identifier: MIT */
/* INVPCID: type and descriptor address are in the operand word, or in the frame. */
#include "templates/template.inc"

DOORBELL_TEMPLATES invpcid, invpcid, "invpcid r64, mreg"
DOORBELL_MEMORY_TEMPLATES invpcid, invpcid, "invpcid r64, mlea"
