/* The host's handlers of doorbells, one for each kind of routine that may ring (D5): found by the routine's index, given
 * the operands that patchc recorded, never the instruction's bytes (D10). */
#include "runtime/soft/access.h"
#include "runtime/soft/engine.h"
#include "runtime/stub.h"

/* Raises the emulated instruction's fault: at the instruction in the routine, which carries the exception-table
 * entry, with the guest's registers as they were. */
static _Noreturn void raise_there(struct doorbell *bell, int vector, bool has_error)
{
    struct vcpu *cpu = bell->cpu;
    cpu->r[RAX] = bell->rax;
    cpu_raise_at(cpu, bell->i, bell->native, vector, has_error);
}

static uint64_t pair(uint64_t high, uint64_t low)
{
    return high << 32 | (uint32_t)low;
}

static void bell_cpuid(struct doorbell *bell)
{
    struct vcpu *cpu = bell->cpu;
    struct cpuid_answer a = cpuid_answer(cpu, (uint32_t)bell->rax, (uint32_t)cpu->r[RCX]);
    bell->rax = a.eax;
    cpu->r[RBX] = a.ebx;
    cpu->r[RCX] = a.ecx;
    cpu->r[RDX] = a.edx;
}

static void bell_rdmsr(struct doorbell *bell)
{
    uint64_t value;
    if (!msr_read(bell->cpu, (uint32_t)bell->cpu->r[RCX], &value))
        raise_there(bell, EXC_GP, true);
    bell->rax = (uint32_t)value;
    bell->cpu->r[RDX] = value >> 32;
}

static void bell_wrmsr(struct doorbell *bell)
{
    if (!msr_write(bell->cpu, (uint32_t)bell->cpu->r[RCX], pair(bell->cpu->r[RDX], bell->rax)))
        raise_there(bell, EXC_GP, true);
}

static uint16_t port(const struct doorbell *bell)
{
    uint32_t operand = bell->routine->operand;
    return operand & PV_OPERAND_DX ? (uint16_t)bell->cpu->r[RDX] : PV_OPERAND_PORT(operand);
}

static unsigned width(const struct doorbell *bell)
{
    unsigned bytes = PV_OPERAND_WIDTH(bell->routine->operand);
    return bytes == 1 || bytes == 2 ? bytes : 4;
}

static void bell_in(struct doorbell *bell)
{
    unsigned bytes = width(bell);
    uint64_t value = bus_in(&bell->cpu->vm->bus, port(bell), bytes);
    uint64_t kept = bytes == 4 ? 0 : bell->rax & ~0ull << 8 * bytes;
    bell->cpu->vm->stats.io_instructions++;
    bell->cpu->vm->stats.io_events++;
    bell->rax = kept | value;
}

static void bell_out(struct doorbell *bell)
{
    unsigned bytes = width(bell);
    bell->cpu->vm->stats.io_instructions++;
    bell->cpu->vm->stats.io_events++;
    bus_out(&bell->cpu->vm->bus, port(bell), bytes,
            (uint32_t)(bell->rax & (0xffffffffu >> (32 - 8 * bytes))));
}

/* STI; HLT as one: nothing comes between (hvstub.h). */
static void bell_hlt(struct doorbell *bell)
{
    if (bell->routine->flags & PV_ROUTINE_STI)
        bell->cpu->rflags |= RFLAGS_IF;
    stats_exit(&bell->cpu->vm->stats, EXIT_KIND_HLT, insn_rip(bell->cpu, bell->i));
    bell->cpu->activity = ACTIVITY_HLT;
}

/* Caches are coherent with everything here. */
static void bell_nothing(struct doorbell *bell)
{
    (void)bell;
}

static void bell_rdtsc(struct doorbell *bell)
{
    struct vcpu *cpu = bell->cpu;
    uint64_t tsc = clock_now(&cpu->vm->clock) + cpu->tsc_offset;
    bell->rax = (uint32_t)tsc;
    cpu->r[RDX] = tsc >> 32;
}

static void bell_rdtscp(struct doorbell *bell)
{
    bell_rdtsc(bell);
    bell->cpu->r[RCX] = (uint32_t)bell->cpu->tsc_aux;
}

doorbell_fn *const doorbell_handlers[PV_KINDS] = {
    [PV_KIND_CPUID] = bell_cpuid,    [PV_KIND_RDMSR] = bell_rdmsr,  [PV_KIND_WRMSR] = bell_wrmsr,
    [PV_KIND_IN] = bell_in,          [PV_KIND_OUT] = bell_out,      [PV_KIND_HLT] = bell_hlt,
    [PV_KIND_WBINVD] = bell_nothing, [PV_KIND_INVD] = bell_nothing, [PV_KIND_RDTSC] = bell_rdtsc,
    [PV_KIND_RDTSCP] = bell_rdtscp,
};
