/* SPDX-License-Identifier: MIT */
/* Where the guest's flags are: the host's, or the vCPU's, as LAHF and SETO give them, while the host's are changed: by
 * look-ups on hosts without BMI2, and by the interpreter's functions.
 *
 * They go to the vCPU before a look-up, if they are not there yet, and come back only before an instruction that needs
 * them in the host's (liveness.c): in most blocks they are set anew before that. Exits know where they are. Compared
 * with look-ups that keep the flags, on a Zen 3: a boot takes 1 % more cycles, multi-word arithmetic 7 %, a copy 13 %.
 *
 * Without BMI2 a look-up could keep them, too: LEA shifts to the left, and a store and a load two bytes on are a shift
 * by 16 to the right. That takes 12 % longer than this for multi-word arithmetic, half as long again where each load
 * gives the next one's address, and as long for a copy. */
#include "runtime/translator/translation.h"

static void emit_status(struct emit *e, bool store)
{
    struct host_insn insn = {.operand16 = store,
                             .map = store ? 0 : 1,
                             .opcode = store ? 0x89 : 0xb7, /* mov; movzwl */
                             .reg = RAX,
                             .rm = RM_MEMORY(RSP, OF_VCPU(status))};
    emit_insn(e, &insn, false);
}
void emit_load_status(struct emit *e)
{
    emit_status(e, false);
}
void emit_store_status(struct emit *e)
{
    emit_status(e, true);
}

void flags_to_vcpu(struct generator *g)
{
    struct emit *e = &g->emit;
    if (g->flags_saved)
        return;
    emit_mov(e, TEMP_COUNT, RAX);
    emit_flags_to_rax(e);
    emit_store_status(e);
    emit_mov(e, RAX, TEMP_COUNT);
    g->flags_saved = true;
}

void flags_to_host(struct generator *g)
{
    struct emit *e = &g->emit;
    if (!g->flags_saved)
        return;
    emit_mov(e, TEMP_COUNT, RAX);
    emit_load_status(e);
    emit_flags_from_rax(e);
    emit_mov(e, RAX, TEMP_COUNT);
    g->flags_saved = false;
}
