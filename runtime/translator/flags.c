/* SPDX-License-Identifier: MIT */
/* Where the guest's flags are: the host's or, on hosts without BMI2, the vCPU's (as LAHF and SETO give them), while
 * look-ups change the host's.
 *
 * They go to the vCPU before a look-up, if they are not there yet, and come back only before an instruction that needs
 * them there (liveness.c): in most blocks they are set anew before that. Exits know where they are.
 *
 * The other way without BMI2 would be to touch no flag: LEA shifts to the left, and a store and a load two bytes on
 * are a shift by 16 to the right. On a Zen 3 that takes 12 % longer for multi-word arithmetic, half as long again where
 * each load gives the next one's address, and as long as this for a copy. */
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
