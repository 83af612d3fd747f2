/* SPDX-License-Identifier: MIT */
/* The leader's side of lockstep: it is stepped, and where its follower can be looked at the two are compared. */
#include "runtime/lockstep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <Zydis/Zydis.h>

#include "runtime/dump.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/trace.h"
#include "runtime/vmcs.h"

#define HISTORY  24u    /* instructions shown of those before a difference */
#define FACTS    16384u /* decoded instructions kept */
#define ACCESSES 64u    /* of one instruction */
#define PATIENCE 20000u /* instructions that an interrupt waits for a good place */
#define STRETCH                                                                                    \
    10000000u        /* instructions from one comparison to the next, if there is a good place */
#define PASSES   8u  /* how often a good place has been passed since the last point, at most */
#define ALL      64u /* points from one comparison of the whole vCPU to the next */
#define MEMORY_S 2.0 /* seconds from one comparison of memory to the next */

/* What has to be known of an instruction. */
enum insn_kind { PLAIN, GIVEN /* its result is not the guest's alone */, MSR, SAVES /* x87 */ };
struct facts {
    uint64_t address;
    uint8_t bits, available; /* bits 0: empty */
    uint8_t length, kind;
    uint8_t bytes[TRACE_BYTES];
    uint16_t undefined, defined; /* status flags that it leaves so */
    uint32_t passes;             /* executions since point number `point` */
    uint64_t point;
};

struct lockstep {
    struct vm *vm;
    struct vmcs *vmcs;
    struct vcpu *cpu;
    struct lockstep_follower *follower;
    FILE *stream;
    struct bus_access accesses[ACCESSES]; /* of the present instruction */
    unsigned count;
    bool there;         /* the follower stands where the leader does */
    bool differs;       /* told */
    uint64_t since;     /* instructions executed since it last did */
    uint64_t waiting;   /* … while an interrupt waited */
    uint64_t undefined; /* status flags that nobody can rely on */
    uint64_t executed, points;
    double memory_at; /* when memory was last compared */
    ZydisDecoder decoders[3];
    struct facts *facts;
    uint64_t *images; /* where x87 state was stored: a bit for each 16 bytes of memory */
    struct facts history[HISTORY]; /* a ring: the last one is at (executed - 1) % HISTORY */
};

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- instructions ---- */
static enum insn_kind classify(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_CPUID:
        return GIVEN;
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
        return MSR;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        return SAVES;
    default:
        return PLAIN;
    }
}

static void find_facts(const struct lockstep *l, struct facts *f)
{
    ZydisDecodedInstruction insn;
    f->kind = PLAIN;
    f->undefined = f->defined = f->length = 0;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&l->decoders[f->bits >> 5], NULL, f->bytes,
                                                    f->available, &insn)))
        return;
    f->length = insn.length;
    f->kind = (uint8_t)classify(insn.mnemonic);
    const ZydisAccessedFlags *flags = insn.cpu_flags; /* numbered as in RFLAGS */
    if (!flags)
        return;
    f->undefined = flags->undefined & RFLAGS_STATUS;
    f->defined = (flags->modified | flags->set_0 | flags->set_1) & RFLAGS_STATUS;
}

static void count_pass(const struct lockstep *l, struct facts *f)
{
    if (f->point != l->points)
        f->passes = 0;
    f->point = l->points;
    f->passes++;
}

/* The instruction that the leader is at. */
static const struct facts *look(struct lockstep *l)
{
    uint64_t address = vcpu_linear_rip(l->cpu);
    uint8_t bits = (uint8_t)vcpu_code_bits(l->cpu), bytes[TRACE_BYTES] = {0};
    uint8_t available = (uint8_t)trace_fetch(l->vmcs, address, bytes);
    struct facts *f = &l->facts[(address ^ address >> 14) % FACTS];
    if (f->bits == bits && f->address == address && f->available == available &&
        memcmp(f->bytes, bytes, sizeof bytes) == 0) {
        count_pass(l, f);
        return f;
    }
    *f = (struct facts){.address = address, .bits = bits, .available = available};
    memcpy(f->bytes, bytes, sizeof bytes);
    find_facts(l, f);
    count_pass(l, f);
    return f;
}

/* Where its memory operand is, guest-linear. */
static uint64_t operand_address(const struct lockstep *l, const struct facts *f)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&l->decoders[f->bits >> 5], f->bytes, f->available,
                                             &insn, operands)) ||
        operands[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return 0;
    const ZydisDecodedOperandMem *m = &operands[0].mem;
    uint64_t address = (uint64_t)m->disp.value;
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        address += l->cpu->rip + insn.length;
    else if (m->base)
        address += l->cpu->r[ZydisRegisterGetId(m->base) & 15];
    if (m->index)
        address += l->cpu->r[ZydisRegisterGetId(m->index) & 15] * m->scale;
    if (insn.address_width < 64)
        address &= (1ull << insn.address_width) - 1;
    return address + (m->segment ? l->cpu->base[(unsigned)ZydisRegisterGetId(m->segment) % 6] : 0);
}

/* The instruction that the leader is at stores x87 state. */
static void note_image(struct lockstep *l, const struct facts *f)
{
    uint64_t physical;
    const struct memory *memory = &l->vm->memory;
    const uint8_t *host =
        tlb_peek(l->cpu, operand_address(l, f), &physical) ? memory_at(memory, physical, 16) : NULL;
    uint64_t at = host ? (uint64_t)(host - memory->host) : 0;
    if (host)
        l->images[at >> 10] |= 1ull << (at >> 4 & 63);
}

static void print_instruction(const struct lockstep *l, const struct facts *f)
{
    lockstep_print_instruction(l->vm, f->address, f->bits, f->bytes, f->available, l->stream);
}

static void executed(struct lockstep *l, const struct facts *f)
{
    l->history[l->executed++ % HISTORY] = *f;
    l->since++;
    l->undefined = (l->undefined | f->undefined) & ~(uint64_t)f->defined;
}

/* ---- a difference ---- */
static void tell(struct lockstep *l, const char *what)
{
    struct lockstep_follower *f = l->follower;
    struct error ignored = {0};
    uint64_t shown = l->executed < HISTORY ? l->executed : HISTORY;
    l->differs = true;
    fprintf(l->stream,
            "hvrun: lockstep: a difference after %" PRIu64 " instructions and %" PRIu64
            " points: %s\nhvrun: lockstep: the last %" PRIu64 " of %" PRIu64
            " instructions since the two were the same (%s):\n",
            l->executed, l->points, what, shown, l->since, l->vm->engine->name);
    for (uint64_t n = l->executed - shown; n < l->executed; n++)
        print_instruction(l, &l->history[n % HISTORY]);
    fprintf(l->stream, "hvrun: lockstep: state on %s:\n", l->vm->engine->name);
    vcpu_dump(l->cpu, l->stream);
    if (f->state(f, true, &ignored) < 0)
        fprintf(l->stream, "hvrun: lockstep: %s: %s\n", f->name, ignored.text);
    fprintf(l->stream, "hvrun: lockstep: state on %s:\n", f->name);
    vcpu_dump(f->vm->vcpus[0], l->stream);
    l->vm->shutdown = SHUTDOWN_DIFFERENCE; /* however the guest has ended */
    l->vm->exit_code = HVRUN_DIFFERENCE;
}

static unsigned count_differences(const struct lockstep *l, bool all, bool memory, FILE *stream)
{
    const struct vcpu *a = l->cpu, *b = l->follower->vm->vcpus[0];
    unsigned count = lockstep_compare(a, b, all, l->undefined | RFLAGS_RF, stream);
    if (memory)
        count += lockstep_compare_memory(l->vm, l->follower->vm, l->images, stream);
    return count;
}

/* The follower is there: are the two the same? 0, or -1 with *err. */
static int compare(struct lockstep *l, bool end, struct error *err)
{
    struct lockstep_follower *f = l->follower;
    bool memory = end || seconds() - l->memory_at > MEMORY_S;
    bool all = memory || l->points % ALL == 0;
    char *text = NULL;
    size_t size = 0;
    if (f->state(f, all, err) < 0)
        return -1;
    FILE *lines = open_memstream(&text, &size);
    if (!lines)
        return fail(err, HVRUN_HOST, "lockstep: out of memory");
    unsigned count = count_differences(l, all, memory, lines);
    fclose(lines);
    if (count) {
        tell(l, "the states are not the same");
        fprintf(l->stream, "hvrun: lockstep: what differs (%s, %s):\n%s", l->vm->engine->name,
                f->name, text);
    }
    free(text);
    if (count)
        return 0;
    if (memory)
        l->memory_at = seconds();
    l->points++;
    l->since = 0;
    l->there = true;
    /* flags that may be anything are the leader's from here on, for they may yet be looked at */
    bool same = !((vcpu_rflags(l->cpu) ^ vcpu_rflags(f->vm->vcpus[0])) & RFLAGS_STATUS);
    l->undefined = 0;
    return same ? 0 : f->give(f, l->cpu, err);
}

/* Brings the follower to the point. 0, or -1 with *err. */
static int come(struct lockstep *l, const struct lockstep_point *point, struct error *err)
{
    switch (l->follower->come(l->follower, point, err)) {
    case LOCKSTEP_THERE:
        return compare(l, false, err);
    case LOCKSTEP_PASSED:
        return 0;
    case LOCKSTEP_DIFFERS:
        tell(l, err->text);
        *err = (struct error){0};
        return 0;
    case LOCKSTEP_FAILED:
        break;
    }
    return -1;
}

static int come_to(struct lockstep *l, enum lockstep_kind kind, struct error *err)
{
    const struct lockstep_point point = {.kind = kind, .cpu = l->cpu, .instructions = l->since};
    return come(l, &point, err);
}

/* ---- the leader ---- */
static void see(void *context, const struct bus_access *access)
{
    struct lockstep *l = context;
    if (l->count < ACCESSES)
        l->accesses[l->count++] = *access;
}

static bool interrupt_waits(const struct lockstep *l)
{
    return l->cpu->events & VCPU_EVENT_INTERRUPT && l->cpu->rflags & RFLAGS_IF;
}

/* Interrupts are let in where the follower is, too; elsewhere they are held back as STI does. */
static void hold_interrupts(struct lockstep *l)
{
    struct vmcs *vmcs = l->vmcs;
    if (!l->there && vmcs->activity == ACTIVITY_ACTIVE &&
        !(vmcs->interruptibility & VMCS_BLOCKED_MOVSS))
        vmcs->interruptibility |= VMCS_BLOCKED_STI;
}

/* What the follower has to know of an RDMSR or WRMSR that was executed. */
static int behind_msr(struct lockstep *l, struct error *err)
{
    bool faulted = l->vmcs->delivered.valid;
    const struct lockstep_point point = {.kind = LOCKSTEP_MSR,
                                         .cpu = l->cpu,
                                         .instructions = l->since,
                                         .msr = (uint32_t)l->cpu->r[RCX],
                                         .faulted = faulted,
                                         .value = l->cpu->r[RDX] << 32 | (uint32_t)l->cpu->r[RAX]};
    return come(l, &point, err);
}

/* An instruction was executed, from `rip` on. */
static int behind(struct lockstep *l, const struct facts *f, uint64_t rip, bool halted,
                  struct error *err)
{
    struct lockstep_follower *follower = l->follower;
    bool delivered = l->vmcs->delivered.valid, was_there = l->there;
    executed(l, f);
    l->there = false;
    if (f->kind == GIVEN && was_there && !delivered) {
        l->there = true;
        l->since = 0;
        return follower->give(follower, l->cpu, err);
    }
    if (f->kind == MSR)
        return behind_msr(l, err);
    if (l->count) {
        const struct lockstep_point point = {.kind = LOCKSTEP_ACCESS,
                                             .cpu = l->cpu,
                                             .rip = rip,
                                             .instructions = l->since,
                                             .accesses = l->accesses,
                                             .count = l->count};
        return come(l, &point, err);
    }
    return halted ? come_to(l, LOCKSTEP_HALT, err) : 0;
}

/* Is the follower to be brought to this instruction? It is found by its address and registers, which costs the more the
 * oftener the address is passed; and not between two iterations of a string instruction. */
static bool is_time(struct lockstep *l, const struct facts *f)
{
    bool good = f->passes <= PASSES;
    l->waiting = interrupt_waits(l) ? l->waiting + 1 : 0;
    if (l->cpu->repeating ||
        !(l->waiting > PATIENCE || (good && (l->waiting || l->since > STRETCH))))
        return false;
    l->waiting = 0;
    return true;
}

/* One step. 0, or -1 with *err. */
static int step(struct lockstep *l, struct error *err)
{
    struct vmcs *vmcs = l->vmcs;
    bool active = vmcs->activity == ACTIVITY_ACTIVE;
    const struct facts *f = look(l), copy = *f;
    if (active && !l->there) {
        if (copy.kind == GIVEN && come_to(l, LOCKSTEP_BEFORE, err) < 0)
            return -1;
        if (!l->there && is_time(l, &copy) && come_to(l, LOCKSTEP_SEARCH, err) < 0)
            return -1;
        if (l->differs)
            return 0;
    }
    if (copy.kind == SAVES)
        note_image(l, &copy);
    hold_interrupts(l);
    l->count = 0;
    uint64_t rip = l->cpu->rip;
    vm_enter(vmcs);
    if (vmcs->exit_reason == VMCS_EXIT_TRIPLE_FAULT) {
        if (come_to(l, LOCKSTEP_SHUTDOWN, err) < 0)
            return -1;
        if (!l->differs)
            cpu_triple_fault(l->cpu);
        return 0;
    }
    if (vmcs->exit_reason != VMCS_EXIT_STEP)
        return 0; /* the machine has ended */
    if (vmcs->delivered.valid && vmcs->delivered.type == VMCS_EVENT_EXTERNAL) {
        l->there = false;
        return l->follower->interrupt(l->follower, vmcs->delivered.vector, err);
    }
    return behind(l, &copy, rip, active && vmcs->activity == ACTIVITY_HLT, err);
}

static int run(struct lockstep *l, struct error *err)
{
    l->there = true;
    l->memory_at = seconds();
    while (!l->vm->shutdown)
        if (step(l, err) < 0)
            return -1;
    if (!l->differs && l->there && compare(l, true, err) < 0)
        return -1;
    l->vm->stats.lockstep_points = l->points;
    if (!l->differs)
        fprintf(l->stream,
                "hvrun: lockstep: no difference between %s and %s in %" PRIu64
                " instructions, compared at %" PRIu64 " points\n",
                l->vm->engine->name, l->follower->name, l->executed, l->points);
    return 0;
}

void lockstep_conclude(struct vm *vm)
{
    if (vm->shutdown != SHUTDOWN_DIFFERENCE && vm->stop_request == SHUTDOWN_NONE &&
        vm->shutdown != SHUTDOWN_TRIPLE_FAULT)
        vm->exit_code = HVRUN_DONE;
}

int lockstep_run(struct vm *leader, struct lockstep_follower *follower, FILE *stream,
                 struct error *err)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_64};
    struct lockstep l = {
        .vm = leader, .cpu = leader->vcpus[0], .follower = follower, .stream = stream};
    for (unsigned n = 0; n < 3; n++)
        ZydisDecoderInit(&l.decoders[n], modes[n], widths[n]);
    l.facts = calloc(FACTS, sizeof *l.facts);
    l.images = calloc(leader->memory.size / 1024 + 1, sizeof *l.images);
    int result = -1;
    if (!l.facts || !l.images) {
        fail(err, HVRUN_HOST, "lockstep: out of memory");
    } else if ((l.vmcs = vmcs_create(l.cpu, err))) {
        l.vmcs->single_step = true;
        leader->bus.watch = see;
        leader->bus.watch_context = &l;
        result = run(&l, err);
        leader->bus.watch = NULL;
        vmcs_destroy(l.vmcs);
    }
    free(l.facts);
    free(l.images);
    return result;
}
