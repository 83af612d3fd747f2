/* SPDX-License-Identifier: MIT */
/* The gdb server and a guest that runs: steps, breakpoints, watchpoints, vCPUs, and how a
 * session ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/gdb_lab.h"

#include <cmocka.h>

static struct gdb_lab *lab;

static int setup(void **state)
{
    (void)state;
    lab = gdb_lab_create(1, false);
    gdb_lab_connect(lab);
    gdb_lab_ask(lab, "qSupported:swbreak+;hwbreak+");
    gdb_lab_ask(lab, "QStartNoAckMode");
    lab->acknowledge = false;
    return 0;
}

static int setup_two(void **state)
{
    (void)state;
    lab = gdb_lab_create(2, false);
    gdb_lab_connect(lab);
    gdb_lab_ask(lab, "qC"); /* the machine stands */
    return 0;
}

static int setup_running(void **state)
{
    (void)state;
    lab = gdb_lab_create(1, true);
    lab->cpu->rip = LAB_LABEL(spin);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gdb_lab_free(lab);
    return 0;
}

#define ANSWERS(packet, expected) assert_string_equal(gdb_lab_ask(lab, packet), expected)
/* A stop reply that begins so, with RIP in it. */
#define STOPS(packet, expected, rip)                                                               \
    do {                                                                                           \
        gdb_lab_tell(lab, packet);                                                                 \
        stopped(expected, sizeof(expected) - 1, rip);                                              \
    } while (0)

static void stopped(const char *expected, size_t length, uint64_t rip)
{
    char digits[24] = ";10:";
    const char *reply = gdb_lab_hear(lab);
    assert_non_null(reply);
    for (unsigned n = 0; n < 8; n++)
        sprintf(digits + 4 + 2 * n, "%02x", (unsigned)(rip >> 8 * n & 0xff));
    if (memcmp(reply, expected, length) || !strstr(reply, digits))
        fail_msg("%s instead of %s… with RIP %s", reply, expected, digits);
}

static const char *packet(const char *before, uint64_t address, const char *after)
{
    static char text[128];
    snprintf(text, sizeof text, "%s%llx%s", before, (unsigned long long)address, after);
    return text;
}

/* What the machine's thread does takes as long as other load lets it: ten seconds at most. */
#define BECOMES(condition)                                                                         \
    do {                                                                                           \
        for (unsigned wait = 0; wait < 10000 && !(condition); wait++)                              \
            usleep(1000);                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

/* ---- steps ---- */
static void test_S1_a_step_is_one_instruction(void **state)
{
    (void)state;
    STOPS("s", "T05thread:1;", GDB_CODE + 1);
    STOPS("s", "T05thread:1;", LAB_LABEL(loop));
    STOPS("vCont;s:1", "T05thread:1;", LAB_LABEL(read));
    STOPS(packet("s", LAB_LABEL(call), ""), "T05", LAB_LABEL(function));
    STOPS("S05;10000", "T05", GDB_CODE + 1);
    assert_int_equal(lab->vm.stats.steps, 5);
}

static void test_S17_each_iteration_of_a_repeated_string_instruction_is_a_step(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(rep);
    lab->cpu->r[RCX] = 3;
    STOPS("s", "T05", LAB_LABEL(rep));
    STOPS("s", "T05", LAB_LABEL(rep));
    STOPS("s", "T05", LAB_LABEL(rep_end));
    assert_int_equal(lab->cpu->r[RCX], 0);
}

static void test_S3_a_step_into_a_fault_ends_before_the_handler(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(fault);
    STOPS("s", "T05", GDB_HANDLER);
    uint64_t pushed;
    memcpy(&pushed, lab->vm.memory.host + lab->cpu->r[RSP], 8);
    assert_int_equal(pushed, LAB_LABEL(fault));
}

static void test_a_range_step_goes_on_until_it_is_left(void **state)
{
    char text[64];
    (void)state;
    snprintf(text, sizeof text, "vCont;r%llx,%llx:1", (unsigned long long)GDB_CODE,
             (unsigned long long)LAB_LABEL(read));
    STOPS(text, "T05", LAB_LABEL(read));
    snprintf(text, sizeof text, "vCont;r%llx,%llx:1", (unsigned long long)LAB_LABEL(loop),
             (unsigned long long)LAB_LABEL(function));
    STOPS(text, "T05", LAB_LABEL(function)); /* a call leaves it */
    snprintf(text, sizeof text, "vCont;r%llx,%llx", (unsigned long long)LAB_LABEL(spin),
             (unsigned long long)LAB_LABEL(halt));
    lab->cpu->rip = LAB_LABEL(spin);
    gdb_lab_tell(lab, text); /* which is never left: */
    usleep(20000);
    gdb_lab_send(lab, "\x03", 1);
    stopped("T02", 3, LAB_LABEL(spin));
}

static void test_interrupts_wait_while_stepping_unless_they_are_wanted(void **state)
{
    (void)state;
    vcpu_event(lab->cpu, VCPU_EVENT_NMI);
    STOPS("s", "T05", GDB_CODE + 1);
    STOPS("s", "T05", LAB_LABEL(loop));
    assert_true(lab->cpu->events & VCPU_EVENT_NMI);
    gdb_lab_ask(lab, "qRcmd,737465702d6576656e7473206f6e"); /* step-events on */
    gdb_lab_hear(lab);
    STOPS("s", "T05", GDB_HANDLER);
    STOPS("s", "T05", LAB_LABEL(loop));
}

static void test_S10_a_halted_vcpu_is_woken_by_what_it_waits_for(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(halt);
    STOPS("s", "T05", LAB_LABEL(halt) + 1);
    STOPS("s", "T05", LAB_LABEL(halt) + 2);
    assert_int_equal(lab->cpu->activity, ACTIVITY_HLT);
    vcpu_event(lab->cpu, VCPU_EVENT_NMI);
    STOPS("s", "T05", GDB_HANDLER);
    assert_int_equal(lab->cpu->activity, ACTIVITY_ACTIVE);
}

/* ---- breakpoints ---- */
static void test_a_breakpoint_stops_before_its_instruction(void **state)
{
    (void)state;
    ANSWERS(packet("Z0,", LAB_LABEL(function), ",1"), "OK");
    STOPS("c", "T05thread:1;swbreak:;", LAB_LABEL(function));
    assert_int_equal(lab->cpu->r[RBX], 0);
    ANSWERS(packet("m", LAB_LABEL(function), ",3"), "48ffc3"); /* nothing else is there */
    STOPS("s", "T05thread:1;6:", LAB_LABEL(return ));
    assert_int_equal(lab->cpu->r[RBX], 1);
    STOPS("vCont;c", "T05thread:1;swbreak:;", LAB_LABEL(function));
    ANSWERS(packet("z0,", LAB_LABEL(function), ",1"), "OK");
    ANSWERS(packet("Z1,", LAB_LABEL(return ), ",1"), "OK");
    STOPS("c", "T05thread:1;hwbreak:;", LAB_LABEL(return ));
    assert_int_equal(lab->cpu->r[RBX], 2);
}

static void test_breakpoints_come_and_go_in_code_that_has_run(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(loop);
    gdb_lab_tell(lab, "c");
    usleep(5000);
    gdb_lab_send(lab, "\x03", 1);
    assert_memory_equal(gdb_lab_hear(lab), "T02", 3);
    static const char *const kinds[] = {"Z0,", "Z1,"};
    const uint64_t places[] = {LAB_LABEL(read), LAB_LABEL(rmw), LAB_LABEL(back), LAB_LABEL(loop)};
    for (unsigned round = 0; round < 8; round++) {
        uint64_t place = places[round % 4];
        ANSWERS(packet(kinds[round / 4], place, ",1"), "OK");
        STOPS("c", "T05", place);
        ANSWERS(packet(round / 4 ? "z1," : "z0,", place, ",1"), "OK");
        assert_memory_equal(gdb_lab_ask(lab, "s"), "T05", 3);
    }
}

static void test_a_breakpoint_is_at_a_linear_address_and_at_no_other(void **state)
{
    const uint64_t there = GDB_ALIAS + LAB_LABEL(function);
    (void)state;
    lab->cpu->rip = LAB_LABEL(loop);
    ANSWERS(packet("Z0,", there, ",1"), "OK");
    gdb_lab_tell(lab, "c"); /* passes the same bytes at another address again and again */
    BECOMES(*(volatile uint64_t *)&lab->cpu->r[RBX] > 10);
    gdb_lab_send(lab, "\x03", 1);
    assert_memory_equal(gdb_lab_hear(lab), "T02", 3);
    gdb_lab_tell(lab, packet("c", GDB_ALIAS + LAB_LABEL(loop), ""));
    stopped("T05thread:1;swbreak:;", 21, there);
}

static void test_a_breakpoint_where_the_mapping_comes_later(void **state)
{
    (void)state;
    ANSWERS(packet("Z0,", GDB_HOLE + 0x10, ",1"), "OK");
    memcpy(lab->vm.memory.host + GDB_HOLE + 0xf, "\x90\x90\xeb\xfe", 4);
    gdb_machine_put(&lab->vm, GDB_PT + 8 * (GDB_HOLE >> 12), GDB_HOLE | 7);
    gdb_lab_tell(lab, packet("c", GDB_HOLE + 0xf, ""));
    stopped("T05thread:1;swbreak:;", 21, GDB_HOLE + 0x10);
}

static void test_thousands_of_breakpoints(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 2000; n++)
        ANSWERS(packet("Z0,", 0x50000 + 3 * n, ",1"), "OK");
    ANSWERS(packet("Z0,", LAB_LABEL(return ), ",1"), "OK");
    for (unsigned n = 0; n < 2000; n++)
        ANSWERS(packet("z0,", 0x50000 + 3 * n, ",1"), "OK");
    STOPS("c", "T05thread:1;swbreak:;", LAB_LABEL(return ));
}

static void test_new_code_behind_a_breakpoint_is_seen(void **state)
{
    (void)state;
    ANSWERS(packet("Z0,", LAB_LABEL(read), ",1"), "OK");
    STOPS("c", "T05", LAB_LABEL(read));
    ANSWERS(packet("M", LAB_LABEL(read), ",3:48ffc6"), "OK"); /* inc rsi */
    STOPS("s", "T05", LAB_LABEL(read) + 3);
    assert_int_equal(lab->cpu->r[RSI], 1);
    STOPS("c", "T05", LAB_LABEL(read));
    assert_int_equal(lab->cpu->r[RSI], 1);
}

/* ---- watchpoints ---- */
static void test_a_write_watchpoint_stops_behind_the_write(void **state)
{
    (void)state;
    ANSWERS("Z2,20010,4", "OK");
    STOPS("c", "T05thread:1;watch:20010;", LAB_LABEL(read));
    STOPS("c", "T05thread:1;watch:20010;", LAB_LABEL(read));
    ANSWERS("z2,20010,4", "OK");
    ANSWERS("Z2,20031,1", "OK"); /* inside what is written */
    STOPS("c", "T05thread:1;watch:20031;", LAB_LABEL(call));
    ANSWERS("z2,20031,1", "OK");
    ANSWERS("Z2,20020,4", "OK"); /* which is only read */
    ANSWERS("Z2,20002,1", "OK"); /* by REP STOSB, the third one */
    STOPS("c", "T05thread:1;watch:20002;", LAB_LABEL(rep_end));
}

static void test_a_read_watchpoint_stops_behind_the_read(void **state)
{
    (void)state;
    ANSWERS("Z3,20010,4", "OK"); /* which is only written */
    ANSWERS("Z3,20020,4", "OK");
    STOPS("c", "T05thread:1;rwatch:20020;", LAB_LABEL(rmw));
    ANSWERS("z3,20020,4", "OK");
    ANSWERS("Z3,20030,4", "OK"); /* a read-modify-write is a read */
    STOPS("c", "T05thread:1;rwatch:20030;", LAB_LABEL(call));
}

static void test_an_access_watchpoint_stops_behind_either(void **state)
{
    (void)state;
    ANSWERS("Z4,20010,20", "OK");
    STOPS("c", "T05thread:1;awatch:20010;", LAB_LABEL(read));
    STOPS("c", "T05thread:1;awatch:20020;", LAB_LABEL(rmw));
    STOPS("c", "T05thread:1;awatch:20010;", LAB_LABEL(read));
    ANSWERS("z4,20010,20", "OK");
    ANSWERS(packet("Z4,", GDB_STACK - 8, ",8"), "OK"); /* pushed by CALL, popped by RET */
    STOPS("c", "T05thread:1;awatch:2fff8;", LAB_LABEL(function));
    STOPS("c", "T05thread:1;awatch:2fff8;", LAB_LABEL(back));
}

static void test_a_step_can_meet_a_watchpoint(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(loop);
    ANSWERS("Z2,20010,4", "OK");
    STOPS("s", "T05thread:1;watch:20010;", LAB_LABEL(read));
    STOPS("s", "T05thread:1;6:", LAB_LABEL(rmw));
}

static void test_what_an_event_pushes_meets_a_watchpoint(void **state)
{
    (void)state;
    lab->cpu->rip = LAB_LABEL(fault);
    ANSWERS(packet("Z2,", GDB_STACK - 8, ",8"), "OK");
    STOPS("c", "T05thread:1;watch:2fff8;", GDB_HANDLER);
    lab->cpu->rip = LAB_LABEL(fault);
    lab->cpu->r[RSP] = GDB_STACK;
    STOPS("s", "T05thread:1;watch:2fff8;", GDB_HANDLER);
    lab->cpu->r[RSP] = GDB_STACK;
    lab->cpu->rip = LAB_LABEL(spin);
    vcpu_event(lab->cpu, VCPU_EVENT_NMI);
    STOPS("c", "T05thread:1;watch:2fff8;", GDB_HANDLER);
}

/* ---- Ctrl-C, attaching, ending ---- */
static void test_ctrl_c_stops_a_guest_that_runs(void **state)
{
    (void)state;
    gdb_lab_tell(lab, packet("c", LAB_LABEL(spin), ""));
    usleep(5000);
    gdb_lab_send(lab, "\x03", 1);
    stopped("T02thread:1;", 12, LAB_LABEL(spin));
    gdb_lab_tell(lab, "c");
    gdb_lab_send(lab, "\x03", 1);
    stopped("T02thread:1;", 12, LAB_LABEL(spin));
}

static void test_ctrl_c_stops_a_guest_that_sleeps(void **state)
{
    (void)state;
    lab->vm.config.deterministic = false;
    gdb_lab_tell(lab, packet("c", LAB_LABEL(halt), ""));
    usleep(20000);
    gdb_lab_send(lab, "\x03", 1);
    stopped("T02thread:1;", 12, LAB_LABEL(halt) + 2);
}

/* Instructions so far, looked at from another thread. */
static uint64_t executed(void)
{
    return *(volatile uint64_t *)&lab->vm.soft->executed;
}

static void test_a_guest_that_does_not_wait_can_be_attached_to(void **state)
{
    (void)state;
    gdb_lab_connect(lab);
    STOPS("?", "T05thread:1;", LAB_LABEL(spin));
    ANSWERS("D", "OK");
    assert_null(gdb_lab_hear(lab)); /* the server hangs up */
    gdb_lab_disconnect(lab);
    uint64_t before = executed();
    BECOMES(executed() > before + 1000);
    gdb_lab_connect(lab);
    STOPS("?", "T05thread:1;", LAB_LABEL(spin));
}

static void test_a_client_that_vanishes_leaves_the_guest_as_it_was(void **state)
{
    (void)state;
    gdb_lab_connect(lab);
    gdb_lab_ask(lab, packet("Z0,", LAB_LABEL(spin), ",1"));
    gdb_lab_disconnect(lab); /* stopped: stays so, for the next client */
    usleep(20000);
    uint64_t before = executed();
    usleep(20000);
    assert_int_equal(executed(), before);
    gdb_lab_connect(lab);
    gdb_lab_tell(lab, "c");
    gdb_lab_disconnect(lab); /* running: runs on, past the breakpoint that was there */
    BECOMES(executed() > before + 1000);
    gdb_lab_connect(lab);
    STOPS("?", "T05thread:1;", LAB_LABEL(spin));
}

static void test_one_client_at_a_time(void **state)
{
    int first = lab->fd;
    (void)state;
    gdb_lab_connect(lab);
    assert_null(gdb_lab_hear(lab));
    gdb_lab_disconnect(lab);
    lab->fd = first;
    lab->acknowledge = false;
    ANSWERS("qC", "QC1");
}

static void test_kill_ends_the_machine(void **state)
{
    (void)state;
    gdb_lab_tell(lab, "k");
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_QUIT);
    assert_int_equal(lab->vm.exit_code, 0);
}

static void test_vkill_ends_the_machine_and_says_so(void **state)
{
    (void)state;
    ANSWERS("vKill;1", "OK");
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.exit_code, 0);
}

static void test_the_end_of_the_guest_is_told(void **state)
{
    (void)state;
    gdb_lab_tell(lab, packet("c", LAB_LABEL(off), ""));
    assert_string_equal(gdb_lab_hear(lab), "W00");
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_HALT);
}

static void test_a_dead_guest_can_be_looked_at(void **state)
{
    (void)state;
    FILE *before = stderr;
    stderr = fopen("/dev/null", "w"); /* its register dump */
    gdb_lab_tell(lab, packet("c", LAB_LABEL(die), ""));
    assert_memory_equal(gdb_lab_hear(lab), "T06thread:1;", 12);
    fclose(stderr);
    stderr = before;
    ANSWERS("m10000,1", "90");
    gdb_lab_tell(lab, "c");
    assert_string_equal(gdb_lab_hear(lab), "W46");
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.exit_code, HVRUN_GUEST_DEATH);
}

static void test_a_stop_from_outside_ends_a_guest_that_stands_and_one_that_runs(void **state)
{
    (void)state;
    vm_request_stop(&lab->vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.exit_code, HVRUN_TIMEOUT);
    teardown(NULL);
    setup(NULL);
    gdb_lab_tell(lab, packet("c", LAB_LABEL(spin), ""));
    usleep(5000);
    vm_request_stop(&lab->vm, SHUTDOWN_SIGNAL, HVRUN_SIGTERM);
    assert_string_equal(gdb_lab_hear(lab), "X0f");
    gdb_lab_join(lab);
    assert_int_equal(lab->vm.exit_code, HVRUN_SIGTERM);
}

/* ---- vCPUs ---- */
static void test_a_step_of_one_vcpu_lets_others_go_on_or_not_as_asked(void **state)
{
    struct vcpu *one = lab->vm.vcpus[0], *two = lab->vm.vcpus[1];
    (void)state;
    STOPS("vCont;s:2", "T05thread:2;", GDB_CODE + 1); /* alone */
    assert_int_equal(one->rip, GDB_CODE);
    ANSWERS("qC", "QC2");
    one->rip = LAB_LABEL(spin);
    for (unsigned n = 0; n < 10; n++) {
        gdb_lab_tell(lab, "vCont;s:2;c");
        assert_memory_equal(gdb_lab_hear(lab), "T05thread:2;", 12);
    }
    assert_int_not_equal(two->rip, GDB_CODE + 1);
}

static void test_a_breakpoint_is_met_by_any_vcpu_that_runs(void **state)
{
    (void)state;
    lab->vm.vcpus[0]->rip = LAB_LABEL(spin);
    ANSWERS(packet("Z0,", LAB_LABEL(function), ",1"), "OK");
    gdb_lab_tell(lab, "vCont;c");
    assert_memory_equal(gdb_lab_hear(lab), "T05thread:2;", 12);
    assert_int_equal(lab->vm.vcpus[1]->rip, LAB_LABEL(function));
    gdb_lab_tell(lab, "vCont;c:1"); /* the other stands still */
    usleep(5000);
    gdb_lab_send(lab, "\x03", 1);
    assert_memory_equal(gdb_lab_hear(lab), "T02thread:", 10);
    assert_int_equal(lab->vm.vcpus[1]->rip, LAB_LABEL(function));
}

static void test_a_vcpu_that_was_not_started_can_be_waited_for(void **state)
{
    (void)state;
    lab->vm.vcpus[1]->vmcs->activity = ACTIVITY_WAIT_FOR_SIPI;
    lab->vm.vcpus[0]->rip = LAB_LABEL(spin);
    gdb_lab_tell(lab, "vCont;s:2;c");
    usleep(5000);
    gdb_lab_send(lab, "\x03", 1);
    assert_memory_equal(gdb_lab_hear(lab), "T02", 3);
    assert_int_equal(lab->vm.vcpus[1]->activity, ACTIVITY_WAIT_FOR_SIPI);
}

#define TEST(name)     cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_TWO(name) cmocka_unit_test_setup_teardown(name, setup_two, teardown)
#define TEST_RUN(name) cmocka_unit_test_setup_teardown(name, setup_running, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_S1_a_step_is_one_instruction),
        TEST(test_S17_each_iteration_of_a_repeated_string_instruction_is_a_step),
        TEST(test_S3_a_step_into_a_fault_ends_before_the_handler),
        TEST(test_a_range_step_goes_on_until_it_is_left),
        TEST(test_interrupts_wait_while_stepping_unless_they_are_wanted),
        TEST(test_S10_a_halted_vcpu_is_woken_by_what_it_waits_for),
        TEST(test_a_breakpoint_stops_before_its_instruction),
        TEST(test_breakpoints_come_and_go_in_code_that_has_run),
        TEST(test_a_breakpoint_is_at_a_linear_address_and_at_no_other),
        TEST(test_a_breakpoint_where_the_mapping_comes_later),
        TEST(test_thousands_of_breakpoints),
        TEST(test_new_code_behind_a_breakpoint_is_seen),
        TEST(test_a_write_watchpoint_stops_behind_the_write),
        TEST(test_a_read_watchpoint_stops_behind_the_read),
        TEST(test_an_access_watchpoint_stops_behind_either),
        TEST(test_a_step_can_meet_a_watchpoint),
        TEST(test_what_an_event_pushes_meets_a_watchpoint),
        TEST(test_ctrl_c_stops_a_guest_that_runs),
        TEST(test_ctrl_c_stops_a_guest_that_sleeps),
        TEST_RUN(test_a_guest_that_does_not_wait_can_be_attached_to),
        TEST_RUN(test_a_client_that_vanishes_leaves_the_guest_as_it_was),
        TEST(test_one_client_at_a_time),
        TEST(test_kill_ends_the_machine),
        TEST(test_vkill_ends_the_machine_and_says_so),
        TEST(test_the_end_of_the_guest_is_told),
        TEST(test_a_dead_guest_can_be_looked_at),
        TEST(test_a_stop_from_outside_ends_a_guest_that_stands_and_one_that_runs),
        TEST_TWO(test_a_step_of_one_vcpu_lets_others_go_on_or_not_as_asked),
        TEST_TWO(test_a_breakpoint_is_met_by_any_vcpu_that_runs),
        TEST_TWO(test_a_vcpu_that_was_not_started_can_be_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
