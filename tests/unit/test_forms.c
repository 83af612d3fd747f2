/* SPDX-License-Identifier: MIT */
/* The four patch forms (D3, D4, D11), executed: samples/forms.S is patched by the built patchc with
 * each form, loaded into this process, and its functions are called; a signal handler plays the
 * host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvstub/cpuid_table.h"
#include "tests/unit/guest_runner.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define MARK 0x13572468u

static const char *const form_names[PV_FORMS] = {[PV_FORM_NONE] = "auto",
                                                 [PV_FORM_JUMP] = "jump",
                                                 [PV_FORM_CALL] = "call",
                                                 [PV_FORM_BRANCH] = "branch",
                                                 [PV_FORM_BREAK] = "break"};
static const char *const cpuid_functions[] = {"first", "second", "third", "other"};
#define CPUID_FUNCTIONS (sizeof cpuid_functions / sizeof *cpuid_functions)

static char build_folder[512], scratch[600];
static struct guest guest;

/* ---- set-up ---- */

/* Runs the built patchc. Returns its exit status, -1 if it could not be run. */
static int run_patchc(const char *form, const char *image, const char *output)
{
    char program[640];
    snprintf(program, sizeof program, "%s/patchc", build_folder);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(126);
        execl(program, program, "build", "--form", form, "--assume-reserved", "-l",
              "lists/kvm.list", "-o", output, image, (char *)NULL);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static void sample_path(char *path, size_t size)
{
    snprintf(path, size, "%s/samples/forms.elf", build_folder);
}

static void load_original(void)
{
    char image[640];
    sample_path(image, sizeof image);
    if (!guest_load(&guest, image))
        fail_msg("%s: %s", image, guest.error);
    assert_null(guest.header);
}

static void load_patched(enum pv_form form)
{
    char image[640], output[640], report[660];
    sample_path(image, sizeof image);
    snprintf(output, sizeof output, "%s/forms.%s", scratch, form_names[form]);
    snprintf(report, sizeof report, "%s.json", output);
    assert_int_equal(run_patchc(form_names[form], image, output), 0);
    bool loaded = guest_load(&guest, output);
    unlink(output);
    unlink(report);
    if (!loaded)
        fail_msg("%s: %s", output, guest.error);
    assert_non_null(guest.header);
}

/* The routine of the only site of this function. */
static int routine_of(const char *function)
{
    uint64_t size, address = guest_symbol(&guest, function, &size);
    assert_true(address != 0);
    return guest_routine(&guest, address, size);
}

static int patched_routine_of(const char *function)
{
    int index = routine_of(function);
    if (index < 0)
        fail_msg("%s has no routine", function);
    return index;
}

/* Leaf 0 and 4.1 are in the table, with other values than the processor's. */
static void fill_table(void)
{
    struct pv_cpuid_answer leaf0 = {MARK, MARK + 1, MARK + 2, MARK + 3};
    struct pv_cpuid_answer leaf4[2] = {{0}, {MARK + 4, MARK + 5, MARK + 6, MARK + 7}};
    assert_non_null(guest.cpuid);
    pv_cpuid_clear(guest.cpuid);
    assert_true(pv_cpuid_put(guest.cpuid, 0, &leaf0));
    assert_true(pv_cpuid_put_subleaves(guest.cpuid, 4, leaf4, NULL, 2));
}

static void call(const char *function, struct code_registers *registers)
{
    guest_call(&guest, guest_symbol(&guest, function, NULL), registers, NULL, NULL);
}

/* Registers and the flags that the functions leave; R12 tells which function ended. */
static void assert_same(const struct code_registers *a, const struct code_registers *b,
                        const char *what)
{
    for (int i = 0; i < REGISTERS; i++)
        if (a->r[i] != b->r[i])
            fail_msg("%s: register %d is %#llx, not %#llx", what, i, (unsigned long long)a->r[i],
                     (unsigned long long)b->r[i]);
    if ((a->flags ^ b->flags) & (FLAGS_ARITHMETIC | FLAG_DIRECTION))
        fail_msg("%s: flags %#llx, not %#llx", what, (unsigned long long)a->flags,
                 (unsigned long long)b->flags);
}

/* ---- every form ---- */

#define RUNS 24

static void start_registers(struct code_registers *registers, unsigned run)
{
    static const uint32_t leaves[][2] = {{0, 0}, {4, 1}, {4, 0}, {1, 0}, {0x80000000, 0}, {4, 2}};
    code_randomize(registers, 0);
    registers->r[RAX] = leaves[run % 6][0];
    registers->r[RCX] = leaves[run % 6][1];
}

/* Until a runtime activates them, routines execute the original instruction (break needs one). */
static void check_inactive(enum pv_form form)
{
    static struct code_registers start[CPUID_FUNCTIONS][RUNS], want[CPUID_FUNCTIONS][RUNS];
    load_original();
    for (unsigned f = 0; f < CPUID_FUNCTIONS; f++)
        for (unsigned run = 0; run < RUNS; run++) {
            start_registers(&start[f][run], run);
            want[f][run] = start[f][run];
            call(cpuid_functions[f], &want[f][run]);
        }
    guest_unload(&guest);
    load_patched(form);
    for (unsigned f = 0; f < CPUID_FUNCTIONS; f++) {
        int index = patched_routine_of(cpuid_functions[f]);
        if (form != PV_FORM_NONE)
            assert_int_equal(guest.patches[guest.routines[index].patch].form, form);
        for (unsigned run = 0; run < RUNS; run++) {
            call(cpuid_functions[f], &start[f][run]);
            assert_int_equal(guest.fault, 0);
            assert_int_equal(guest.breaks, form == PV_FORM_BREAK);
            assert_same(&start[f][run], &want[f][run], cpuid_functions[f]);
        }
    }
    guest_unload(&guest);
}

/* Active, they answer from the table what it knows, and keep everything else. */
static void check_active(enum pv_form form)
{
    load_patched(form);
    fill_table();
    for (unsigned f = 0; f < CPUID_FUNCTIONS; f++) {
        int index = patched_routine_of(cpuid_functions[f]);
        for (unsigned run = 0; run < RUNS; run++) {
            struct code_registers got, want;
            start_registers(&want, run);
            got = want;
            assert_true(guest_activate(&guest, index, false));
            call(cpuid_functions[f], &want);
            assert_true(guest_activate(&guest, index, true));
            call(cpuid_functions[f], &got);
            assert_int_equal(guest.fault, 0);
            if (run % 6 < 3) { /* in the table: 0, 4.1, 4.0 */
                static const uint32_t answers[3] = {MARK, MARK + 4, 0};
                for (unsigned i = 0; i < 4; i++) { /* EAX EBX ECX EDX, by register number */
                    static const unsigned order[4] = {RAX, RBX, RCX, RDX};
                    want.r[order[i]] = answers[run % 6] ? answers[run % 6] + i : 0;
                }
            }
            assert_same(&got, &want, cpuid_functions[f]);
        }
    }
    guest_unload(&guest);
}

#define FORM_TESTS(name, form)                                                                     \
    static void test_D11_form_##name##_inactive_is_the_original(void **state)                      \
    {                                                                                              \
        (void)state;                                                                               \
        check_inactive(form);                                                                      \
    }                                                                                              \
    static void test_D2_form_##name##_active_keeps_all_but_the_answer(void **state)                \
    {                                                                                              \
        (void)state;                                                                               \
        check_active(form);                                                                        \
    }

FORM_TESTS(auto, PV_FORM_NONE)
FORM_TESTS(jump, PV_FORM_JUMP)
FORM_TESTS(call, PV_FORM_CALL)
FORM_TESTS(branch, PV_FORM_BRANCH)
FORM_TESTS(break, PV_FORM_BREAK)

/* ---- D5: the index finds the routine in a table ---- */

static uint64_t tag_after(const char *function)
{
    struct code_registers registers;
    code_randomize(&registers, 0);
    registers.r[RAX] = 0;
    call(function, &registers);
    assert_int_equal(guest.fault, 0);
    return registers.r[12];
}

static void check_swap(enum pv_form form)
{
    load_patched(form);
    int first = patched_routine_of("first"), other = patched_routine_of("other");
    assert_int_equal(tag_after("first"), 1);
    assert_int_equal(tag_after("other"), 5);
    uint64_t entry = guest.routine_table[first];
    guest.routine_table[first] = guest.routine_table[other];
    guest.routine_table[other] = entry;
    assert_int_equal(tag_after("first"), 5);
    assert_int_equal(tag_after("other"), 1);
    guest_unload(&guest);
}

static void test_D5_swapped_table_entries_swap_call_patches(void **state)
{
    (void)state;
    check_swap(PV_FORM_CALL);
}

static void test_D5_swapped_table_entries_swap_break_patches(void **state)
{
    (void)state;
    check_swap(PV_FORM_BREAK);
}

/* The index is in the patch itself: D1, D3. */
static void test_D3_break_patches_carry_their_index(void **state)
{
    (void)state;
    load_patched(PV_FORM_BREAK);
    for (unsigned f = 0; f < CPUID_FUNCTIONS; f++) {
        int index = patched_routine_of(cpuid_functions[f]);
        const struct pv_patch *patch = &guest.patches[guest.routines[index].patch];
        const uint8_t *window =
            (const uint8_t *)(uintptr_t)guest_address(&guest, patch->window_offset);
        unsigned length = 0;
        assert_int_equal(guest_break_index(window, &length), patch->first_routine);
        assert_true(length <= patch->window_size);
        assert_true(guest.routine_table[patch->first_routine] ==
                    guest_address(&guest, patch->trampoline_offset));
    }
    assert_true(guest.note_flags & PV_IMAGE_NEEDS_RUNTIME);
    guest_unload(&guest);
}

/* ---- D9: generation depends on the slot ---- */

static void test_D9_the_same_instruction_in_another_slot_gives_other_code(void **state)
{
    (void)state;
    load_patched(PV_FORM_JUMP);
    uint32_t before[3]; /* displaced bytes ahead of the instruction */
    for (unsigned f = 0; f < 3; f++) {
        const struct pv_routine *routine = &guest.routines[patched_routine_of(cpuid_functions[f])];
        const struct pv_patch *patch = &guest.patches[routine->patch];
        before[f] = (uint32_t)(routine->site_offset - patch->window_offset);
        /* the displaced instructions stand before the routine's link, unchanged */
        const uint8_t *trampoline =
            (const uint8_t *)(uintptr_t)guest_address(&guest, patch->trampoline_offset);
        assert_true(routine->link_offset >= patch->trampoline_offset + before[f]);
        static const char *const displaced[3] = {"", "\x4d\x89\xc1", "\x45\x89\xc1\x57"};
        assert_memory_equal(trampoline, displaced[f], before[f]);
    }
    assert_int_equal(before[0], 0);
    assert_int_equal(before[1], 3);
    assert_int_equal(before[2], 4);
    guest_unload(&guest); /* all three are executed by the tests of the forms */
}

static void test_D4_a_branch_patch_fits_between_branch_targets(void **state)
{
    (void)state;
    load_patched(PV_FORM_NONE);
    int index = routine_of("narrow");
    if (index >= 0) {
        const struct pv_patch *patch = &guest.patches[guest.routines[index].patch];
        assert_int_equal(patch->form, PV_FORM_BRANCH);
        assert_int_equal(patch->window_size, 2);
        fill_table();
        assert_true(guest_activate(&guest, index, true));
        struct code_registers registers;
        code_randomize(&registers, 0);
        registers.r[RAX] = 0;
        call("narrow", &registers);
        assert_int_equal(registers.r[12], 4);
        assert_int_equal(registers.r[RAX], MARK);
    }
    guest_unload(&guest);
    assert_true(index >= 0);
}

/* ---- doorbells and faults ---- */

struct bell {
    uint32_t index;
    struct code_registers seen;
    uint64_t rax;
};

static void on_doorbell(void *context, uint32_t index, struct code_registers *registers,
                        uint64_t *rax)
{
    struct bell *bell = context;
    bell->index = index;
    bell->seen = *registers;
    bell->rax = *rax;
}

static void check_doorbell(const char *function, enum pv_kind kind, uint64_t tag)
{
    int index = patched_routine_of(function);
    const struct pv_routine *routine = &guest.routines[index];
    assert_int_equal(routine->kind, kind);
    assert_true(routine->flags & PV_ROUTINE_DOORBELL);

    /* inactive: the original instruction faults where its exception-table entry would be */
    struct code_registers registers, start;
    struct bell bell = {0};
    code_randomize(&registers, 0);
    guest_call(&guest, guest_symbol(&guest, function, NULL), &registers, on_doorbell, &bell);
    assert_true(guest.fault == guest_address(&guest, routine->native_offset));
    assert_int_equal(guest.doorbells, 0);

    assert_true(guest_activate(&guest, index, true));
    code_randomize(&registers, 0);
    start = registers;
    guest_call(&guest, guest_symbol(&guest, function, NULL), &registers, on_doorbell, &bell);
    assert_int_equal(guest.fault, 0);
    assert_int_equal(guest.doorbells, 1);
    assert_int_equal(bell.index, index);
    assert_true(bell.rax == start.r[RAX]);
    start.r[RSP] = registers.r[RSP];
    start.r[9] = start.r[8]; /* what the functions do after the instruction */
    start.r[12] = tag;
    assert_same(&registers, &start, function);
}

static void test_D10_doorbells_ring_with_the_routines_index(void **state)
{
    (void)state;
    static const enum pv_form forms[] = {PV_FORM_JUMP, PV_FORM_CALL, PV_FORM_BREAK};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        load_patched(forms[i]);
        check_doorbell("read_port", PV_KIND_IN, 6);
        check_doorbell("write_port", PV_KIND_OUT, 7);
        const struct pv_routine *port = &guest.routines[patched_routine_of("write_port")];
        assert_int_equal(PV_OPERAND_PORT(port->operand), 0x80);
        assert_int_equal(PV_OPERAND_WIDTH(port->operand), 4);
        guest_unload(&guest);
    }
}

static struct pv_state *state_page(void)
{
    return (struct pv_state *)(uintptr_t)guest_address(&guest, guest.header->state_offset);
}

static void set_port_0x80(unsigned value, unsigned kind)
{
    state_page()->port_out[0x80] = (struct pv_port){(uint16_t)-0x80, (uint8_t)value, (uint8_t)kind};
}

/* A port that the state page knows needs neither host nor stack frame; one that it does not know is native. */
static void test_D2_ports_of_the_state_page_are_written_in_the_guest(void **state)
{
    (void)state;
    struct code_registers registers, start;
    load_patched(PV_FORM_NONE);
    int index = patched_routine_of("write_byte");
    const struct pv_routine *routine = &guest.routines[index];
    assert_int_equal(routine->kind, PV_KIND_OUT);
    assert_int_equal(routine->flags & (PV_ROUTINE_STATE | PV_ROUTINE_DOORBELL), PV_ROUTINE_STATE);
    assert_true(guest_activate(&guest, index, true));
    code_randomize(&registers, 0);
    start = registers;
    set_port_0x80((uint8_t)~start.r[RAX], PV_PORT_OUT_KEPT);
    call("write_byte", &registers);
    assert_int_equal(guest.fault, 0);
    assert_int_equal(guest.doorbells, 0);
    start.r[RSP] = registers.r[RSP];
    start.r[9] = start.r[8];
    start.r[12] = 8;
    assert_same(&registers, &start, "write_byte");
    assert_int_equal(state_page()->port_out[0x80].value, (uint8_t)start.r[RAX]);

    set_port_0x80(0, PV_PORT_OUT_POSTED);
    state_page()->port_out[0x80].negated = (uint16_t)-0x180;
    code_randomize(&registers, 0);
    call("write_byte", &registers);
    assert_true(guest.fault == guest_address(&guest, routine->native_offset));
    guest_unload(&guest);
}

/* ---- */

static bool available(void)
{
    char path[640];
    snprintf(path, sizeof path, "%s/patchc", build_folder);
    if (access(path, X_OK))
        return false;
    sample_path(path, sizeof path);
    return access(path, R_OK) == 0;
}

static int set_up(void **state)
{
    (void)state;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one); /* APIC ids in CPUID must not change between two looks */
    sched_setaffinity(0, sizeof one, &one);
    snprintf(scratch, sizeof scratch, "%s/forms.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(scratch) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(scratch);
}

static int unload_after(void **state)
{
    (void)state;
    guest_unload(&guest); /* a failed test leaves it */
    return 0;
}

#define TEST(function) cmocka_unit_test_teardown(function, unload_after)

int main(void)
{
    const char *folder = getenv("BUILD");
    snprintf(build_folder, sizeof build_folder, "%s", folder && *folder ? folder : "build");
    if (!available()) {
        printf("1..1\nok 1 - forms # SKIP %s/patchc or samples/forms.elf is not built\n",
               build_folder);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        TEST(test_D11_form_auto_inactive_is_the_original),
        TEST(test_D11_form_jump_inactive_is_the_original),
        TEST(test_D11_form_call_inactive_is_the_original),
        TEST(test_D11_form_branch_inactive_is_the_original),
        TEST(test_D11_form_break_inactive_is_the_original),
        TEST(test_D2_form_auto_active_keeps_all_but_the_answer),
        TEST(test_D2_form_jump_active_keeps_all_but_the_answer),
        TEST(test_D2_form_call_active_keeps_all_but_the_answer),
        TEST(test_D2_form_branch_active_keeps_all_but_the_answer),
        TEST(test_D2_form_break_active_keeps_all_but_the_answer),
        TEST(test_D5_swapped_table_entries_swap_call_patches),
        TEST(test_D5_swapped_table_entries_swap_break_patches),
        TEST(test_D3_break_patches_carry_their_index),
        TEST(test_D9_the_same_instruction_in_another_slot_gives_other_code),
        TEST(test_D4_a_branch_patch_fits_between_branch_targets),
        TEST(test_D10_doorbells_ring_with_the_routines_index),
        TEST(test_D2_ports_of_the_state_page_are_written_in_the_guest),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
