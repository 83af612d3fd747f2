/* SPDX-License-Identifier: MIT */
/* Templates of lists/deprivileged.list executed: each in every shape that fits it, on random
 * registers, flags, state and memory, against a model of the instruction; the host is played by a
 * signal handler.
 *
 * All registers, all flags, all memory but what is below RSP are compared after the template, and
 * once more when the host is called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <asm/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "patchc/form.h"
#include "patchc/site.h"
#include "patchc/template.h"
#include "tests/unit/code_runner.h"
#include "tests/unit/deprivileged_model.h"
#include "tests/unit/deprivileged_rows.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define INDEX       0x00abcdefu
#define GS_BASE     0x28u
#define TRIALS      24
#define HOST_TRIALS 2    /* of doorbells, which are all alike */
#define PORT_TRIALS 400  /* of device fast paths, which have many outcomes */
#define PORT        0x60 /* of the rows with an immediate */

/* Tested with the tables that they need: test_template_run.c. */
static const char *const tested_elsewhere[] = {"cpuid_table", "rdmsr_table"};

static const struct template_available everything = {
    .context = ~0u, .state = true, .cpuid = true, .msr = true, .deprivileged = true};

/* Below 2 GB, so that absolute and 32-bit addresses reach it. */
static struct area {
    uint8_t site[256];
    uint8_t stepped[16]; /* where a run begins that is stepped */
    uint8_t emulation[1024];
    uint8_t native[64];
    uint8_t tail[64];
    _Alignas(64) struct pv_cpuid_table cpuid;
    _Alignas(64) struct guest_memory memory;
    _Alignas(4096) uint8_t unmapped[4096];
} * area;
#define AREA ((void *)0x20000000)

static struct template_set *set;
static struct {
    const struct template *t;
    unsigned runs;
} templates[512];
static size_t template_count;

/* ---- one run ---- */

struct run {
    struct trial trial;
    const struct template *t;
    struct decoded d;
    uint64_t address; /* of the memory operand, without its segment */
    size_t size;
    bool memory_frame, first_ring_of_two, faults;
    bool stepping; /* when the run ended */
    unsigned rings, fault_count, natives;
    uint64_t kept_rax, first_rsp;
    const char *problem;
};

/* What the host does to registers; undone by nothing, so the model does it too. */
static void host_answers(struct code_registers *registers)
{
    for (int i = 0; i < REGISTERS; i++)
        if (i != RSP)
            registers->r[i] ^= 0x9e3779b97f4a7c15u * (unsigned)(i + 1);
    registers->flags ^= FLAGS_ARITHMETIC;
}

static bool on_doorbell(struct run *run, struct code_registers *registers)
{
    uint64_t frame[2];
    memcpy(frame, (const void *)(uintptr_t)registers->r[RSP], sizeof frame);
    struct code_registers *guest = &run->trial.seen.registers;
    unsigned size = run->memory_frame ? 16 : 8;
    if ((uint32_t)registers->r[RAX] != INDEX)
        run->problem = "doorbell with a wrong index";
    if (run->memory_frame && frame[1] != run->address)
        run->problem = "doorbell with a wrong operand address";
    *guest = *registers;
    guest->r[RAX] = frame[0];
    guest->r[RSP] += size;
    memcpy(&run->trial.seen.memory, &area->memory, sizeof area->memory);
    struct code_registers answer = *guest;
    host_answers(&answer);
    memcpy((void *)(uintptr_t)registers->r[RSP], &answer.r[RAX], 8);
    answer.r[RAX] = registers->r[RAX];
    answer.r[RSP] = registers->r[RSP];
    *registers = answer;
    run->rings++;
    return true;
}

static bool on_bare_doorbell(struct run *run, struct code_registers *registers, const uint8_t *code)
{
    uint32_t index;
    memcpy(&index, code + 3, 4);
    if (index != INDEX)
        run->problem = "bare doorbell with a wrong index";
    if (run->memory_frame && !run->first_ring_of_two) {
        run->first_ring_of_two = true;
        run->kept_rax = registers->r[RAX];
        return true;
    }
    if (run->memory_frame) {
        if (registers->r[RAX] != run->address)
            run->problem = "bare doorbell with a wrong operand address";
        registers->r[RAX] = run->kept_rax;
    }
    run->trial.seen.registers = *registers;
    memcpy(&run->trial.seen.memory, &area->memory, sizeof area->memory);
    host_answers(registers);
    run->rings++;
    return true;
}

/* A store of the template met an unmapped operand: what hvstub.h says of such a fault. */
static bool on_fault(struct run *run, struct code_registers *registers, uint64_t *rip)
{
    uint64_t frame[2];
    memcpy(frame, (const void *)(uintptr_t)registers->r[RSP], sizeof frame);
    registers->r[RCX] = frame[0];
    registers->r[RAX] = frame[1];
    registers->r[RSP] += 16;
    *rip = (uintptr_t)area->tail;
    run->fault_count++;
    return true;
}

/* An interrupt may come at any instruction: it writes below RSP. Only the area's code is stepped.
 */
static bool on_step(struct run *run, struct code_registers *registers, uint64_t *rip)
{
    if (*rip == (uintptr_t)area->stepped + 1) {
        *rip = (uintptr_t)area->emulation;
        registers->flags |= FLAG_TRAP;
    }
    if (*rip == (uintptr_t)area->native + 1) { /* its INT3: the test's tail is next */
        *rip = (uintptr_t)area->tail;
        run->natives++;
    }
    if (*rip - (uintptr_t)area->emulation < run->size)
        memset((void *)(uintptr_t)(registers->r[RSP] - 256), 0xcc, 256);
    if (*rip != (uintptr_t)code_exit)
        return true;
    run->stepping = true;
    registers->flags &= ~(uint64_t)FLAG_TRAP;
    return true;
}

static bool on_trap(void *context, int number, struct code_registers *registers, uint64_t *rip)
{
    struct run *run = context;
    const uint8_t *code = (const uint8_t *)(uintptr_t)*rip;
    bool inside = *rip - (uintptr_t)area->emulation < run->size;
    if (number == SIGTRAP)
        return on_step(run, registers, rip);
    if (inside && number == SIGSEGV && code[0] == 0xe7 && code[1] == PV_DOORBELL_PORT) {
        *rip += 2;
        return on_doorbell(run, registers);
    }
    if (inside && number == SIGILL && memcmp(code, "\x0f\xb9\x81", 3) == 0) {
        *rip += 7;
        return on_bare_doorbell(run, registers, code);
    }
    return inside && number == SIGSEGV && run->faults && on_fault(run, registers, rip);
}

static void build(const struct run *run)
{
    struct template_values values = {
        .instruction = &run->d.instruction,
        .operands = run->d.operands,
        .address = (uintptr_t)area->site,
        .index = INDEX,
        .native = (uintptr_t)area->native,
        .tail = (uintptr_t)area->tail,
        .next = (uintptr_t)area->site + run->d.instruction.length,
        .state = (uintptr_t)&area->memory.state,
        .cpuid_table = (uintptr_t)&area->cpuid,
    };
    struct error err = {0};
    assert_true(run->size + 5 <= sizeof area->emulation);
    if (template_fill(run->t, &values, (uintptr_t)area->emulation, area->emulation, &err))
        fail_msg("%s", err.text);
    code_put_jump(area->emulation + run->size, area->tail);
    code_put_exit(area->tail);
    area->native[0] = area->stepped[0] = 0xcc; /* INT3 */
}

/* ---- random guests ---- */

/* Sets the registers of the memory operand so that it is at `wanted`; finds its addresses. */
static void place_operand(struct run *run, const ZydisDecodedOperandMem *mem, uint64_t wanted)
{
    uint64_t *r = run->trial.want.registers.r;
    uint64_t segment = mem->segment == ZYDIS_REGISTER_GS ? GS_BASE : 0;
    int base = gpr_number(mem->base), index = gpr_number(mem->index);
    bool narrow = run->d.instruction.address_width == 32;
    wanted -= segment;
    if (index >= 0 && base == RSP)
        r[index] = code_random() & 7;
    else if (index >= 0 && base < 0)
        r[index] = (wanted - (uint64_t)mem->disp.value) / mem->scale;
    uint64_t scaled = index >= 0 ? r[index] * mem->scale : 0;
    if (base >= 0 && base != RSP)
        r[base] = wanted - (uint64_t)mem->disp.value - scaled;
    if (narrow && base >= 0)
        r[base] ^= code_random() << 32;
    run->address = (uint64_t)mem->disp.value + scaled + (base >= 0 ? r[base] : 0);
    if (mem->base == ZYDIS_REGISTER_RIP)
        run->address += (uintptr_t)area->site + run->d.instruction.length;
    if (narrow)
        run->address = (uint32_t)run->address;
    run->trial.operand = run->address + segment;
}

static void randomize(struct run *run, unsigned number)
{
    struct guest *guest = &run->trial.want;
    uint64_t top = (uintptr_t)&area->memory.stack[384];
    random_memory(&guest->memory);
    code_randomize(&guest->registers, top - 2 * (code_random() & 255));
    guest->registers.flags |= code_random() & (FLAG_NESTED | FLAG_ID);
    run->first_rsp = guest->registers.r[RSP];
    random_device_state(guest, PORT);
    if (number & 1)
        guest->registers.flags |= FLAG_TRAP; /* stepped */
    if (number & 2)
        guest->registers.r[RCX] &= ~0xffffffffull;
    if (number & 4) { /* leaves and subleaves of CPUID that may be known */
        guest->registers.r[RAX] &= 0xffffffff80000005ull;
        guest->registers.r[RCX] &= 0xffffffff00000003ull;
    }
    const ZydisDecodedOperand *operand = memory_operand(&run->d.instruction, run->d.operands);
    if (operand)
        place_operand(run, &operand->mem,
                      (uintptr_t)&area->memory.data[64 + (code_random() & 15) * 8]);
}

/* ---- comparing ---- */

static const char *shown(const struct run *run)
{
    static char text[160];
    int n = snprintf(text, sizeof text, "%s:", template_name(run->t));
    for (unsigned i = 0; i < run->d.instruction.length; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %02x", area->site[i]);
    return text;
}

static void assert_same(const struct run *run, const struct guest *got, const char *when)
{
    const struct guest *want = &run->trial.want;
    for (int i = 0; i < REGISTERS; i++)
        if (got->registers.r[i] != want->registers.r[i])
            fail_msg("%s: %s: register %d is %#llx, not %#llx", shown(run), when, i,
                     (unsigned long long)got->registers.r[i],
                     (unsigned long long)want->registers.r[i]);
    if ((got->registers.flags ^ want->registers.flags) & FLAGS_COMPARED)
        fail_msg("%s: %s: flags %#llx, not %#llx", shown(run), when,
                 (unsigned long long)got->registers.flags,
                 (unsigned long long)want->registers.flags);
    const uint8_t *a = (const uint8_t *)&got->memory, *b = (const uint8_t *)&want->memory;
    size_t stack = offsetof(struct guest_memory, stack);
    /* RSP after a push or a pop; if it was loaded with something else, as it was */
    uint64_t moved = want->registers.r[RSP] - run->first_rsp + 16;
    size_t rsp = (moved <= 32 ? want->registers.r[RSP] : run->first_rsp) - (uintptr_t)&area->memory;
    for (size_t i = 0; i < sizeof want->memory; i++)
        if ((i < stack || i >= rsp) && a[i] != b[i])
            fail_msg("%s: %s: memory byte %+d from RSP, %zu of all, is %#x, not %#x", shown(run),
                     when, (int)(i - rsp), i, a[i], b[i]);
}

static uint64_t counter(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static void execute(struct run *run)
{
    struct trial *trial = &run->trial;
    trial->got = trial->want;
    memcpy(&area->memory, &trial->want.memory, sizeof area->memory);
    bool stepped = trial->got.registers.flags & FLAG_TRAP;
    trial->got.registers.flags &= ~(uint64_t)FLAG_TRAP;
    run->stepping = false;
    trial->tsc[0] = counter();
    code_run(&trial->got.registers, stepped ? area->stepped : area->emulation, on_trap, run);
    trial->tsc[1] = counter();
    if (run->stepping)
        trial->got.registers.flags |= FLAG_TRAP;
    memcpy(&trial->got.memory, &area->memory, sizeof area->memory);
    if (run->problem)
        fail_msg("%s: %s", shown(run), run->problem);
}

static void check(struct run *run, model *expected, unsigned number)
{
    struct trial *trial = &run->trial;
    memset(trial, 0, sizeof *trial);
    trial->d = &run->d;
    trial->memory_base = (uintptr_t)&area->memory;
    run->rings = run->natives = 0;
    run->first_ring_of_two = false;
    randomize(run, number);
    execute(run);
    expected(trial);
    if (run->rings != trial->rings)
        fail_msg("%s: the host was called %u times, not %d", shown(run), run->rings, trial->rings);
    if (run->natives != trial->native)
        fail_msg("%s: the native path was taken %u times, not %d", shown(run), run->natives,
                 trial->native);
    if (trial->rings) {
        assert_same(run, &run->trial.seen, "when the host is called");
        host_answers(&trial->want.registers);
    }
    assert_same(run, &trial->got, "at the end");
}

/* ---- every template, every shape ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static bool is_elsewhere(const char *name)
{
    for (size_t i = 0; i < sizeof tested_elsewhere / sizeof *tested_elsewhere; i++)
        if (strcmp(tested_elsewhere[i], name) == 0)
            return true;
    return false;
}

static bool is_device_path(const struct template *t)
{
    return (template_flags(t) & (PV_ROUTINE_STATE | PV_ROUTINE_DEPRIVILEGED)) == PV_ROUTINE_STATE;
}

static bool prepare(struct run *run, const struct template *t, const struct decoded *d)
{
    if (template_find(set, template_name(t), &d->instruction, d->operands, &everything, NULL) != t)
        return false;
    memset(run, 0, sizeof *run);
    run->t = t;
    run->d = *d;
    run->size = template_size(t);
    run->memory_frame = template_operand(&d->instruction, d->operands) & PV_OPERAND_MEMORY;
    return true;
}

static void run_shape(const struct instruction_row *row, const struct decoded *d)
{
    static struct run run;
    for (size_t i = 0; i < template_count; i++) {
        const char *name = template_name(templates[i].t);
        if (is_elsewhere(name) || !prepare(&run, templates[i].t, d))
            continue;
        templates[i].runs++;
        bool host = ends_with(name, "_doorbell") || ends_with(name, "_bare");
        model *expected = host ? model_host : row->model;
        if (!expected)
            fail_msg("%s fits %s, which has no model", name, row->name);
        build(&run);
        bool port = !host && is_device_path(templates[i].t);
        unsigned trials = host ? HOST_TRIALS : port ? PORT_TRIALS : TRIALS;
        for (unsigned number = 0; number < trials; number++)
            check(&run, expected, number);
    }
}

struct visit {
    const struct instruction_row *row;
    void (*shape)(const struct instruction_row *row, const struct decoded *d);
    unsigned shapes;
};

/* Encodings that mean something else (a register where there is none) are passed over. */
static void visit_shape(const uint8_t *bytes, size_t length, void *context)
{
    struct visit *visit = context;
    struct decoded d;
    memset(area->site, 0, sizeof area->site);
    memcpy(area->site, bytes, length);
    if (!decode_bytes(bytes, length, &d) || d.instruction.length != length)
        return;
    visit->shapes++;
    visit->shape(visit->row, &d);
}

static void each_row(void (*shape)(const struct instruction_row *row, const struct decoded *d))
{
    for (size_t i = 0; i < instruction_row_count; i++) {
        struct visit visit = {.row = &instruction_rows[i], .shape = shape};
        each_shape(&instruction_rows[i].shape, (uintptr_t)area->site,
                   (uintptr_t)&area->memory.data[64], visit_shape, &visit);
        if (visit.shapes == 0)
            fail_msg("%s: no shape of it is an instruction", instruction_rows[i].name);
    }
}

static void test_D8_every_template_does_what_its_instruction_does(void **state)
{
    (void)state;
    each_row(run_shape);
    for (size_t i = 0; i < template_count; i++)
        if (templates[i].runs == 0 && !is_elsewhere(template_name(templates[i].t)))
            fail_msg("template %s: no row of the table runs it", template_name(templates[i].t));
}

/* ---- every form ---- */

/* With a stack and a state page, and with neither. (A segment's base and a RIP-relative address do
 * not come together in a kernel, and have no template.) */
static void find_for_shape(const struct instruction_row *row, const struct decoded *d)
{
    struct template_available bare = {.deprivileged = true};
    if (!template_find(set, NULL, &d->instruction, d->operands, &everything, NULL))
        fail_msg("%s: no template", row->name);
    if (!template_find(set, NULL, &d->instruction, d->operands, &bare, NULL))
        fail_msg("%s: no template without a stack", row->name);
}

static void test_D7_every_form_has_a_template_with_and_without_a_stack(void **state)
{
    (void)state;
    each_row(find_for_shape);
}

static void assert_found(const char *hex, const struct template_available *available,
                         const char *name)
{
    struct decoded d;
    assert_true(decode_hex(hex, &d));
    const struct template *t =
        template_find(set, NULL, &d.instruction, d.operands, available, NULL);
    assert_string_equal(t ? template_name(t) : "none", name);
}

/* What a site offers decides: the state where its page is mapped, then the stack, then neither. */
static void test_D7_the_state_is_preferred_then_the_stack(void **state)
{
    (void)state;
    static const struct {
        const char *hex, *all, *ordinary, *no_tables, *nothing;
    } cases[] = {
        {"fa", "cli_state", "cli_doorbell", "cli_doorbell", "cli_bare"},
        {"fb", "sti_state", "sti_doorbell", "sti_doorbell", "sti_bare"},
        {"9c", "pushf_state", "pushf_doorbell", "pushf_doorbell", "pushf_bare"},
        {"0f a2", "cpuid_table_or_host", "cpuid_table", "cpuid_doorbell", "cpuid_bare"},
        {"0f 31", "rdtsc_offset", "rdtsc_doorbell", "rdtsc_doorbell", "rdtsc_bare"},
        {"0f 20 d8", "mov_from_cr_state", "mov_from_cr_doorbell", "mov_from_cr_doorbell",
         "mov_from_cr_bare"},
        {"0f 20 dc", "mov_from_cr_state", "mov_from_cr_rsp_bare", "mov_from_cr_rsp_bare",
         "mov_from_cr_rsp_bare"},
        {"0f 22 d8", "mov_to_cr_doorbell", "mov_to_cr_doorbell", "mov_to_cr_doorbell",
         "mov_to_cr_bare"},
        {"0f 01 44 24 06", "sgdt_state", "sgdt_memory_doorbell", "sgdt_memory_doorbell",
         "sgdt_memory_bare"},
        {"8c c8", "mov_segment_state", "mov_segment_doorbell", "mov_segment_doorbell",
         "mov_segment_bare"},
        {"ec", "in_table", "in_table", "in_doorbell", "in_bare"},
        {"ed", "in_timer", "in_timer", "in_doorbell", "in_bare"},
        {"e6 60", "out_posted_immediate", "out_posted_immediate", "out_doorbell", "out_bare"},
        {"48 0f 07", "sysret_bare", "sysret_bare", "sysret_bare", "sysret_bare"},
    };
    struct template_available ordinary = everything, no_tables = everything, nothing = everything;
    ordinary.deprivileged = false;
    no_tables.context = CONTEXT_STACK;
    nothing.context = 0;
    no_tables.cpuid = nothing.cpuid = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_found(cases[i].hex, &everything, cases[i].all);
        assert_found(cases[i].hex, &ordinary, cases[i].ordinary);
        assert_found(cases[i].hex, &no_tables, cases[i].no_tables);
        assert_found(cases[i].hex, &nothing, cases[i].nothing);
    }
    nothing.context = CONTEXT_KERNEL_TABLES;
    nothing.cpuid = true;
    assert_found("0f a2", &nothing, "cpuid_table_or_bare_host"); /* never native */
}

/* ---- faults ---- */

/* The operand begins 8, 4 or 0 bytes before an unmapped page. */
static void fault_shape(const struct instruction_row *row, const struct decoded *d)
{
    static struct run run;
    const ZydisDecodedOperand *operand = memory_operand(&d->instruction, d->operands);
    if (!row->model || !operand || gpr_number(operand->mem.base) < 0 ||
        gpr_number(operand->mem.base) == RSP)
        return;
    for (size_t i = 0; i < template_count; i++) {
        const char *name = template_name(templates[i].t);
        if (ends_with(name, "_doorbell") || ends_with(name, "_bare") ||
            !prepare(&run, templates[i].t, d))
            continue;
        run.faults = true;
        build(&run);
        for (unsigned before = 0; before <= (operand->size > 16 ? 8u : 0u); before += 4) {
            run.fault_count = 0;
            randomize(&run, 0);
            place_operand(&run, &operand->mem, (uintptr_t)area->unmapped - before);
            execute(&run);
            assert_int_equal(run.fault_count, 1);
            assert_int_equal(run.rings, 0);
            assert_same(&run, &run.trial.got, "at the fault");
            templates[i].runs++;
        }
    }
}

static void test_a_fault_of_the_operand_finds_the_guest_as_before_the_instruction(void **state)
{
    (void)state;
    for (size_t i = 0; i < template_count; i++)
        templates[i].runs = 0;
    each_row(fault_shape);
    unsigned faulted = 0;
    for (size_t i = 0; i < template_count; i++)
        faulted += templates[i].runs != 0;
    assert_int_equal(faulted, 6); /* SGDT, SIDT, SLDT, STR, SMSW, MOV from a segment register */
}

/* ---- needs ---- */

static void test_bare_templates_use_no_stack(void **state)
{
    (void)state;
    for (size_t i = 0; i < template_count; i++)
        if (template_flags(templates[i].t) & PV_ROUTINE_BARE)
            assert_false(template_flags(templates[i].t) & PV_ROUTINE_STACK);
}

static bool fill_cpuid(void)
{
    struct pv_cpuid_answer plain[3] = {known_cpuid(0, 0), known_cpuid(1, 0),
                                       known_cpuid(0x80000000, 0)};
    struct pv_cpuid_answer four[3] = {known_cpuid(4, 0), known_cpuid(4, 1), known_cpuid(4, 2)};
    pv_cpuid_clear(&area->cpuid);
    return pv_cpuid_put(&area->cpuid, 0, &plain[0]) && pv_cpuid_put(&area->cpuid, 1, &plain[1]) &&
           pv_cpuid_put(&area->cpuid, 0x80000000, &plain[2]) &&
           pv_cpuid_put_subleaves(&area->cpuid, 4, four, NULL, 3);
}

static void collect(const struct template *t, void *context)
{
    (void)context;
    if (template_count < sizeof templates / sizeof *templates)
        templates[template_count++].t = t;
}

static int set_up(void **state)
{
    (void)state;
    struct error err = {0};
    set = template_set_open(&err);
    area = code_map(AREA, sizeof *area);
    if (!set || !area || mprotect(area->unmapped, sizeof area->unmapped, PROT_NONE) ||
        syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)GS_BASE))
        return -1;
    if (!fill_cpuid())
        return -1;
    template_each(set, collect, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    template_set_close(set);
    munmap(area, sizeof *area);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D8_every_template_does_what_its_instruction_does),
        cmocka_unit_test(test_D7_every_form_has_a_template_with_and_without_a_stack),
        cmocka_unit_test(test_D7_the_state_is_preferred_then_the_stack),
        cmocka_unit_test(test_a_fault_of_the_operand_finds_the_guest_as_before_the_instruction),
        cmocka_unit_test(test_bare_templates_use_no_stack),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
