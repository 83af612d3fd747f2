/* SPDX-License-Identifier: MIT */
/* Translator and interpreter side by side: a block each, and a look at both. */
#include "runtime/lockstep_pair.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/dump.h"
#include "runtime/lockstep.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/trace.h"
#include "runtime/vmcs.h"

#define HISTORY      16u       /* blocks shown of those before a difference */
#define MEMORY_EVERY 20000000u /* instructions between two looks at all of memory */
#define AT_THE_END   1000u     /* entries without an instruction that may be behind the last one */

/* What the interpreter did in an entry. */
struct passage {
    unsigned cpu;
    uint64_t address; /* guest-linear, where it began */
    uint64_t rip, r[16];
    uint64_t instructions;
    uint8_t bits;
    struct vmcs_event event; /* it was only this */
};

struct pair {
    struct vm *leader, *twin;
    FILE *stream;
    uint64_t random, points, memory_next;
    bool leader_died; /* by a triple fault */
    bool twin_died;
    struct vcpu *dead;
    bool differs;
    struct passage history[HISTORY]; /* a ring: the last one is at (passages - 1) % HISTORY */
    uint64_t passages;
    struct passage next[VCPUS_MAX]; /* of each vCPU, if it is the one that goes on */
};

/* ---- the twin ---- */
struct vm *lockstep_twin_open(const struct vm *leader, struct error *err)
{
    struct vm *twin = calloc(1, sizeof *twin);
    if (!twin) {
        fail(err, HVRUN_HOST, "lockstep: out of memory");
        return NULL;
    }
    twin->config = leader->config;
    twin->config.translator = false;
    twin->config.serial = "/dev/null"; /* a console all the same: it is what the leader has */
    twin->engine = &soft_engine;
    twin->image = leader->image;
    if (vm_create(twin, err) < 0) {
        free(twin);
        return NULL;
    }
    return twin;
}

void lockstep_twin_close(struct vm *twin)
{
    if (twin)
        vm_destroy(twin);
    free(twin);
}

/* ---- a difference ---- */
static void print_passage(const struct pair *p, const struct passage *passage, bool last)
{
    const struct vm *vm = p->twin;
    if (vm->vcpu_count > 1)
        fprintf(p->stream, "  vCPU %u:\n", passage->cpu);
    if (passage->event.valid) {
        fprintf(p->stream, "  0x%" PRIx64 " vector 0x%x is delivered\n", passage->address,
                passage->event.vector);
        return;
    }
    uint64_t at = passage->address, shown = last ? passage->instructions + 1 : 1;
    for (uint64_t n = 0; n < shown; n++) { /* one more: it may be what faulted */
        uint8_t bytes[TRACE_BYTES];
        unsigned available = trace_fetch(vm->vcpus[passage->cpu]->vmcs, at, bytes);
        at += lockstep_print_instruction(vm, at, passage->bits, bytes, available, p->stream);
    }
    if (!last && passage->instructions > 1)
        fprintf(p->stream, "  … %" PRIu64 " instructions\n", passage->instructions);
}

static void print_history(const struct pair *p)
{
    uint64_t shown = p->passages < HISTORY ? p->passages : HISTORY;
    if (!shown)
        return;
    fprintf(p->stream,
            "hvrun: lockstep: the last %" PRIu64
            " blocks (interpreter), of each the first instruction:\n",
            shown);
    for (uint64_t n = p->passages - shown; n < p->passages; n++)
        print_passage(p, &p->history[n % HISTORY], false);
    const struct passage *last = &p->history[(p->passages - 1) % HISTORY];
    fprintf(p->stream, "hvrun: lockstep: the last one, which began with\n");
    for (unsigned n = 0; n < 16; n++)
        fprintf(p->stream, "  r%-2u %016" PRIx64 "%s", n, last->r[n], n % 4 == 3 ? "\n" : "");
    print_passage(p, last, true);
}

static void tell(struct pair *p, const char *what)
{
    const struct vm *vms[2] = {p->leader, p->twin};
    static const char *const names[2] = {"translator", "interpreter"};
    FILE *stream = p->stream;
    p->differs = true;
    fprintf(stream,
            "hvrun: lockstep: a difference after %" PRIu64 " instructions and %" PRIu64
            " points: %s\n",
            soft_instructions(p->twin), p->points, what);
    print_history(p);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned k = 0; k < vms[n]->vcpu_count; k++) {
            fprintf(stream, "hvrun: lockstep: %s, %" PRIu64 " instructions, vCPU %u:\n", names[n],
                    soft_instructions(vms[n]), k);
            vcpu_dump(vms[n]->vcpus[k], stream);
        }
    fprintf(stream, "hvrun: lockstep: what differs (translator, interpreter):\n");
    for (unsigned k = 0; k < p->leader->vcpu_count; k++)
        lockstep_compare(p->leader->vcpus[k], p->twin->vcpus[k], true, 0, stream);
    lockstep_compare_memory(p->leader, p->twin, NULL, stream);
    p->leader->shutdown = SHUTDOWN_DIFFERENCE;
    p->leader->exit_code = HVRUN_DIFFERENCE;
}

/* ---- comparing ---- */
/* Field by field at once where no padding is in the way. */
static bool same_vcpu(const struct vcpu *a, const struct vcpu *b)
{
    const size_t size = offsetof(struct vcpu, activity) - offsetof(struct vcpu, segment);
    bool same =
        memcmp(a->r, b->r, 16 * sizeof a->r[0]) == 0 && a->rip == b->rip &&
        a->status == b->status && a->rflags == b->rflags && a->cpl == b->cpl &&
        a->activity == b->activity && a->shadow == b->shadow && a->nmi_blocked == b->nmi_blocked &&
        a->events == b->events && a->pending_db == b->pending_db &&
        /* padding that differs only costs a hash: NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        memcmp(&a->segment, &b->segment, size) == 0;
    return same || vcpu_state_hash(a) == vcpu_state_hash(b);
}

static void compare(struct pair *p)
{
    const struct vm *a = p->leader, *b = p->twin;
    bool end = a->shutdown != SHUTDOWN_NONE || p->leader_died;
    if (a->shutdown != b->shutdown || (a->shutdown && a->exit_code != b->exit_code) ||
        p->leader_died != p->twin_died) {
        tell(p, "one of them has ended otherwise");
        return;
    }
    bool same =
        soft_instructions(a) == soft_instructions(b) && a->soft->idle_ns == b->soft->idle_ns;
    for (unsigned k = 0; k < a->vcpu_count; k++)
        same = same && same_vcpu(a->vcpus[k], b->vcpus[k]);
    if (!same) {
        tell(p, "the states are not the same");
        return;
    }
    if (end || soft_instructions(a) >= p->memory_next) {
        p->memory_next = soft_instructions(a) + MEMORY_EVERY;
        if (memcmp(a->memory.host, b->memory.host, a->memory.size) != 0)
            tell(p, "memory is not the same");
    }
    p->points++;
}

/* ---- running ---- */
/* Behind one block (or event), or behind `limit` instructions if that is not 0. The vCPU that was left. */
static struct vmcs *enter(struct vm *vm, bool one_block, uint64_t limit)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        vm->vcpus[k]->vmcs->one_block = one_block;
        vm->vcpus[k]->vmcs->limit = limit;
    }
    if (vm->vcpu_count > 1)
        return vm_enter_any(vm);
    vm_enter(vm->vcpus[0]->vmcs);
    return vm->vcpus[0]->vmcs;
}

/* The interpreter goes on, and it is noted where. */
static void follow(struct pair *p, uint64_t limit)
{
    struct vm *vm = p->twin;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        const struct vcpu *cpu = vm->vcpus[k];
        p->next[k] = (struct passage){.cpu = k,
                                      .address = vcpu_linear_rip(cpu),
                                      .rip = cpu->rip,
                                      .instructions = soft_instructions(vm),
                                      .bits = (uint8_t)vcpu_code_bits(cpu)};
        memcpy(p->next[k].r, cpu->r, sizeof p->next[k].r);
    }
    const struct vmcs *left = enter(vm, true, limit);
    struct passage *passage = &p->history[p->passages++ % HISTORY];
    *passage = p->next[left->cpu->index];
    passage->instructions = soft_instructions(vm) - passage->instructions;
    if (!passage->instructions)
        passage->event = left->delivered;
    p->twin_died = left->exit_reason == VMCS_EXIT_TRIPLE_FAULT;
}

/* The interpreter comes to where the leader has gone by a stride. */
static void catch_up(struct pair *p)
{
    struct vm *a = p->leader, *b = p->twin;
    uint64_t target = soft_instructions(a);
    bool ended = a->shutdown != SHUTDOWN_NONE || p->leader_died;
    while (!p->twin_died && !b->shutdown && soft_instructions(b) < target &&
           atomic_load(&a->stop_request) == SHUTDOWN_NONE)
        follow(p, target - soft_instructions(b));
    for (unsigned n = 0;
         ended && n < AT_THE_END && !p->twin_died && !b->shutdown && soft_instructions(b) == target;
         n++)
        follow(p, 0);
}

static void go_on(struct pair *p)
{
    struct vm *a = p->leader;
    uint64_t stride = a->config.lockstep_stride;
    p->random = p->random * 6364136223846793005u + 1442695040888963407u;
    const struct vmcs *left = enter(a, !stride, stride ? 1 + (p->random >> 33) % stride : 0);
    p->leader_died = left->exit_reason == VMCS_EXIT_TRIPLE_FAULT;
    if (p->leader_died)
        p->dead = left->cpu;
    if (atomic_load(&a->stop_request) != SHUTDOWN_NONE)
        return; /* it stands anywhere */
    if (stride)
        catch_up(p);
    else
        follow(p, 0);
    if (atomic_load(&a->stop_request) == SHUTDOWN_NONE)
        compare(p);
}

static void run(struct pair *p)
{
    struct vm *vm = p->leader;
    p->memory_next = MEMORY_EVERY;
    while (!p->differs && !vm->shutdown) {
        go_on(p);
        if (p->leader_died && !p->differs)
            cpu_triple_fault(p->dead);
        if (vm->config.lockstep_count && soft_instructions(vm) >= vm->config.lockstep_count)
            vm_stop(vm, SHUTDOWN_STEPS, HVRUN_DONE);
    }
    vm->stats.lockstep_points = p->points;
    if (!p->differs)
        fprintf(p->stream,
                "hvrun: lockstep: no difference between translator and interpreter in %" PRIu64
                " instructions, compared at %" PRIu64 " points\n",
                soft_instructions(vm), p->points);
}

int lockstep_pair_run(struct vm *leader, struct vm *twin, FILE *stream, struct error *err)
{
    struct pair p = {.leader = leader, .twin = twin, .stream = stream};
    struct vm *vms[2] = {leader, twin};
    bool good = true;
    for (unsigned n = 0; n < 2; n++)
        for (unsigned k = 0; k < vms[n]->vcpu_count; k++)
            good = good && vmcs_create(vms[n]->vcpus[k], err);
    if (good)
        run(&p);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned k = 0; k < vms[n]->vcpu_count; k++)
            vmcs_destroy(vms[n]->vcpus[k]->vmcs);
    return good ? 0 : -1;
}
