/* OUT: port, width and DX are in the operand word; the host reads the pushed RAX. */
#include "templates/template.inc"

DOORBELL_TEMPLATES out, out, "out imm8, al", "out imm8, ax", "out imm8, eax", "out dx, al", "out dx, ax", "out dx, eax"
