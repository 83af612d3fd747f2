/* SPDX-License-Identifier: MIT */
/* The gdb server, asked by a client: each row of its table of commands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/gdb_registers.h"
#include "tests/unit/gdb_client.h"
#include "tests/unit/gdb_lab.h"

#include <cmocka.h>

static struct gdb_lab *lab;

static int setup(void **state)
{
    (void)state;
    lab = gdb_lab_create(2, false);
    gdb_lab_connect(lab);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gdb_lab_free(lab);
    return 0;
}

#define ANSWERS(packet, expected) assert_string_equal(gdb_lab_ask(lab, packet), expected)
#define BEGINS(packet, expected)                                                                   \
    assert_memory_equal(gdb_lab_ask(lab, packet), expected, sizeof(expected) - 1)

/* ---- the table ---- */
static void test_every_command_has_its_answer(void **state)
{
    (void)state;
    BEGINS("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386", "PacketSize=4000;");
    ANSWERS("vMustReplyEmpty", "");
    BEGINS("?", "T05thread:1;");
    ANSWERS("Hg0", "OK");
    ANSWERS("Hc-1", "OK");
    ANSWERS("qC", "QC1");
    ANSWERS("qAttached", "1");
    ANSWERS("qSymbol::", "OK");
    ANSWERS("qfThreadInfo", "m1,2");
    ANSWERS("qsThreadInfo", "l");
    ANSWERS("T2", "OK");
    ANSWERS("T3", "E03");
    BEGINS("qThreadExtraInfo,2", "7643505520312c2072756e6e696e67"); /* vCPU 1, running */
    ANSWERS("vCont?", "vCont;c;C;s;S;r");
    BEGINS("g", "0000000000000000");
    ANSWERS("p10", "0000010000000000");
    ANSWERS("P0=8877665544332211", "OK");
    ANSWERS("m10000,1", "90");
    ANSWERS("M20000,2:abcd", "OK");
    ANSWERS("X20002,0:", "OK");
    ANSWERS("Z0,10001,1", "OK");
    ANSWERS("z0,10001,1", "OK");
    BEGINS("qXfer:features:read:target.xml:0,100", "m<?xml");
    BEGINS("qRcmd,68656c70", "O"); /* help */
    ANSWERS("?", "OK");            /* that was help's; now ? */
    BEGINS("s", "T05");            /* and so on */
    BEGINS("S05", "T05");
    assert_non_null(gdb_lab_hear(lab));
}

static void test_what_is_not_known_gets_the_empty_reply(void **state)
{
    static const char *const packets[] = {
        "",        "!",      "b",      "qTStatus", "vAttach;1",  "qCX", "vCont",
        "Z5,0,1",  "Z9,0,1", "z7,0,1", "kx",       "QNonStop:1", "gg",  "qfThreadInfox",
        "vFile:a", "R00",    "i",      "A",        "\x01\x02",   "??",
    };
    (void)state;
    for (size_t n = 0; n < sizeof packets / sizeof packets[0]; n++)
        ANSWERS(packets[n], "");
}

static void test_what_makes_no_sense_gets_an_error(void **state)
{
    static const char *const packets[] = {
        "m",
        "mx,1",
        "m0",
        "m0,",
        "m0,1:",
        "M0,2:0",
        "M0,1:0g",
        "M0,4000:00",
        "X0,2:a",
        "X0,1",
        "p",
        "pffff",
        "p3e9",
        "P0",
        "P0=00",
        "Pffff=00",
        "G0",
        "Gxx",
        "Z0",
        "Z0,1",
        "Z0,x,1",
        "Z2,20000,0",
        "Z2,20000,ffffffffffffffff",
        "Z0,1,1x",
        "H",
        "Hx1",
        "Hg9",
        "Hg1x",
        "T",
        "T0",
        "T-1",
        "sx",
        "cz",
        "S",
        "C05;x",
        "vCont;",
        "vCont;x",
        "vCont;s:9",
        "vCont;s:1x",
        "vCont;r1",
        "vCont;r1,2:",
        "vCont;s;;c",
        "vCont;C",
        "qRcmd,6",
        "qRcmd,zz",
        "qThreadExtraInfo,7",
        "qXfer:features:read:x.xml:0,1",
        "qXfer:features:read:target.xml:0",
        "m40000,1",
        "M40000,1:00",
    };
    (void)state;
    for (size_t n = 0; n < sizeof packets / sizeof packets[0]; n++) {
        const char *reply = gdb_lab_ask(lab, packets[n]);
        if (reply[0] != 'E' || lab->length != 3)
            fail_msg("%s: %s", packets[n], reply);
    }
    assert_int_equal(lab->cpu->rip, GDB_CODE);
}

/* ---- acknowledgements ---- */
static void test_packets_are_acknowledged_until_they_need_not_be(void **state)
{
    char bytes[64];
    (void)state;
    lab->acknowledge = false; /* by hand */
    gdb_lab_send(lab, "$qC#b4", 6);
    assert_true(gdb_client_receive(lab->fd, bytes, 8));
    assert_memory_equal(bytes, "+$QC1#c5", 8);
    gdb_lab_send(lab, "-", 1); /* again, please */
    assert_true(gdb_client_receive(lab->fd, bytes, 7));
    assert_memory_equal(bytes, "$QC1#c5", 7);
    gdb_lab_send(lab, "+$qC#b5", 7); /* damaged on its way */
    assert_true(gdb_client_receive(lab->fd, bytes, 1));
    assert_int_equal(bytes[0], '-');
    gdb_lab_send(lab, "$QStartNoAckMode#b0", 19);
    assert_true(gdb_client_receive(lab->fd, bytes, 7));
    assert_memory_equal(bytes, "+$OK#9a", 7);
    gdb_lab_send(lab, "+$qC#b4", 7);
    assert_true(gdb_client_receive(lab->fd, bytes, 7));
    assert_memory_equal(bytes, "$QC1#c5", 7);
    gdb_lab_send(lab, "$qC#b5", 6);
    assert_string_equal(gdb_lab_hear(lab), "E5c");
}

static void test_many_packets_may_come_at_once(void **state)
{
    (void)state;
    gdb_lab_send(lab, "$qC#b4$T1#85$s#73$qC#b4", 23);
    assert_string_equal(gdb_lab_hear(lab), "QC1");
    assert_string_equal(gdb_lab_hear(lab), "OK");
    assert_memory_equal(gdb_lab_hear(lab), "T05", 3);
    assert_string_equal(gdb_lab_hear(lab), "QC1");
}

/* ---- registers ---- */
static const char *const names[] = {"rax",   "rip",       "eflags", "cs",   "gs_base",
                                    "cr0",   "cr3",       "cr8",    "efer", "xmm0",
                                    "mxcsr", "k_gs_base", "st0",    "ftag", "fctrl"};

/* The number of a register, by the description: its place in it. */
static unsigned number_of(const char *name)
{
    const struct gdb_register *reg;
    unsigned n = 0;
    for (; (reg = gdb_register(n)); n++)
        if (!strcmp(reg->name, name))
            return n;
    fail_msg("no register %s", name);
    return 0;
}

static void test_the_description_names_the_registers_in_order(void **state)
{
    static char xml[65536];
    size_t size = 0;
    (void)state;
    for (;;) {
        char packet[64];
        snprintf(packet, sizeof packet, "qXfer:features:read:target.xml:%zx,3f0", size);
        const char *reply = gdb_lab_ask(lab, packet);
        memcpy(xml + size, reply + 1, lab->length - 1);
        size += lab->length - 1;
        if (reply[0] == 'l')
            break;
        assert_int_equal(lab->length - 1, 0x3f0);
    }
    assert_string_equal(xml + size - 10, "</target>\n");
    const char *at = xml;
    const struct gdb_register *reg;
    unsigned count = 0;
    for (; (reg = gdb_register(count)); count++) {
        char row[64];
        snprintf(row, sizeof row, "<reg name=\"%s\" bitsize=\"%u\"", reg->name, reg->bits);
        at = strstr(at, row);
        assert_non_null(at);
    }
    assert_int_equal(count, 24 + 16 + 17 + (cpuid_offers(FEATURE_AVX) ? 16 : 0) + 2 + 7);
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++)
        number_of(names[n]);
    ANSWERS("qXfer:features:read:target.xml:ffff,10", "l");
}

static void test_registers_are_read_and_written_alone_and_together(void **state)
{
    static char all[8192];
    char packet[128];
    (void)state;
    lab->cpu->r[RBX] = 0x1122334455667788;
    ANSWERS("p1", "8877665544332211");
    ANSWERS("P1=efcdab8967452301", "OK");
    assert_int_equal(lab->cpu->r[RBX], 0x0123456789abcdef);
    snprintf(all, sizeof all, "G%s", gdb_lab_ask(lab, "g"));
    memcpy(all + 1 + 16, "1111111111111111", 16); /* rbx */
    ANSWERS(all, "OK");
    assert_int_equal(lab->cpu->r[RBX], 0x1111111111111111);
    snprintf(packet, sizeof packet, "P%x=%s", number_of("eflags"), "d7080000");
    ANSWERS(packet, "OK");
    assert_int_equal(vcpu_rflags(lab->cpu), 0x8d7);
    snprintf(packet, sizeof packet, "P%x=%s", number_of("rip"), "0500010000000000");
    ANSWERS(packet, "OK");
    assert_int_equal(lab->cpu->rip, GDB_CODE + 5);
}

static void write_register(const char *name, const char *digits, const char *reply)
{
    char packet[128];
    snprintf(packet, sizeof packet, "P%x=%s", number_of(name), digits);
    ANSWERS(packet, reply);
}
static void read_register(const char *name, const char *digits)
{
    char packet[32];
    snprintf(packet, sizeof packet, "p%x", number_of(name));
    ANSWERS(packet, digits);
}

static void test_vector_and_x87_registers_are_the_guests(void **state)
{
    (void)state;
    write_register("xmm3", "00112233445566778899aabbccddeeff", "OK");
    assert_int_equal(FPU_XMM(&lab->cpu->fpu, 3)[15], 0xff);
    assert_true(lab->cpu->fpu.header[0] & XSTATE_SSE);
    read_register("xmm3", "00112233445566778899aabbccddeeff");
    write_register("mxcsr", "801f0000", "OK");
    write_register("mxcsr", "00000100", "E16");
    read_register("mxcsr", "801f0000");
    write_register("fctrl", "7f030000", "OK");
    read_register("fctrl", "7f030000");
    write_register("st1", "0000000000000080ff3f", "OK"); /* 1.0 */
    read_register("st1", "0000000000000080ff3f");
    /* top = 6: st1 is register 7, st0 register 6 */
    write_register("fstat", "00300000", "OK");
    write_register("ftag", "ffff0000", "OK");
    read_register("ftag", "ffff0000");
    write_register("ftag", "ff0f0000", "OK"); /* 6 and 7 are there: zero and valid */
    read_register("ftag", "ff1f0000");
}

static void test_segment_and_control_registers_keep_their_rules(void **state)
{
    (void)state;
    read_register("cs", "08000000");
    write_register("cs", "08000000", "OK");
    write_register("cs", "10000000", "E16");
    write_register("ds", "00000000", "OK");
    assert_true(lab->cpu->segment[SEG_DS].rights & RIGHTS_UNUSABLE);
    write_register("ds", "10000000", "OK");
    write_register("ds", "18000000", "E16"); /* beyond the table */
    write_register("ds", "10000100", "E16");
    write_register("gs_base", "0000000000800000", "E16");
    write_register("gs_base", "000000000080ffff", "OK");
    assert_int_equal(lab->cpu->base[SEG_GS], 0xffff800000000000);
    write_register("k_gs_base", "1000000000000000", "OK");
    assert_int_equal(lab->cpu->kernel_gs_base, 0x10);
    read_register("cr3", "0010000000000000");
    write_register("cr0", "0100000000000080", "E16");
    write_register("cr2", "2143658700000000", "OK");
    assert_int_equal(lab->cpu->cr2, 0x87654321);
    write_register("cr8", "0500000000000000", "OK");
    read_register("cr8", "0500000000000000");
    write_register("efer", "0105000000000000", "OK");
    assert_int_equal(lab->cpu->efer, EFER_SCE | EFER_LME | EFER_LMA);
}

static void test_registers_are_of_the_thread_chosen(void **state)
{
    (void)state;
    lab->vm.vcpus[1]->r[RAX] = 0x77;
    ANSWERS("p0", "0000000000000000");
    ANSWERS("Hg2", "OK");
    ANSWERS("p0", "7700000000000000");
    ANSWERS("qC", "QC2");
    ANSWERS("Hg0", "OK"); /* any: the one that stopped */
    ANSWERS("p0", "0000000000000000");
}

/* ---- memory ---- */
static void test_memory_is_read_and_written_across_pages(void **state)
{
    (void)state;
    ANSWERS("M20ffe,4:11223344", "OK");
    ANSWERS("m20ffc,8", "0000112233440000");
    assert_int_equal(lab->vm.memory.host[0x21001], 0x44);
    ANSWERS("m40020ffc,8", "0000112233440000"); /* the alias */
    gdb_lab_tell_bytes(lab, "X20010,4:a}\x03\0b", 14);
    assert_string_equal(gdb_lab_hear(lab), "OK");
    ANSWERS("m20010,4", "61230062");
}

static void test_memory_ends_where_nothing_is_mapped(void **state)
{
    (void)state;
    ANSWERS("M3fffe,2:aabb", "OK");
    ANSWERS("m3fffe,8", "aabb");
    ANSWERS("m40000,8", "E0e");
    ANSWERS("M3fffe,4:01020304", "E0e");
    ANSWERS("m3fffe,2", "aabb"); /* all or nothing */
    ANSWERS("m800000000000,8", "E0e");
    ANSWERS("m10000,0", "");
}

static void test_a_look_leaves_no_trace_in_page_tables(void **state)
{
    uint64_t before[512], after[512];
    (void)state;
    memcpy(before, lab->vm.memory.host + GDB_PT, sizeof before);
    ANSWERS("m20000,1", "00");
    ANSWERS("M20000,1:01", "OK");
    memcpy(after, lab->vm.memory.host + GDB_PT, sizeof after);
    assert_memory_equal(before, after, sizeof before);
    assert_false(before[0x20] & 0x60);
}

static void test_a_long_read_is_cut_to_what_fits_in_a_packet(void **state)
{
    (void)state;
    gdb_lab_ask(lab, "m10000,ffff");
    assert_int_equal(lab->length, GDB_PACKET_MAX);
}

/* ---- monitor ---- */
static const char *monitor(const char *line)
{
    static char text[65536];
    size_t size = 0;
    char packet[512] = "qRcmd,";
    for (const char *c = line; *c; c++)
        sprintf(packet + strlen(packet), "%02x", *c);
    gdb_lab_tell(lab, packet);
    for (;;) {
        const char *reply = gdb_lab_hear(lab);
        if (strcmp(reply, "OK") == 0)
            break;
        assert_int_equal(reply[0], 'O');
        const char *at = reply + 1;
        assert_true(gdb_unhex(&at, text + size, (lab->length - 1) / 2));
        size += (lab->length - 1) / 2;
    }
    text[size] = '\0';
    return text;
}
#define SAYS(line, expected)                                                                       \
    do {                                                                                           \
        const char *said = monitor(line);                                                          \
        if (!strstr(said, expected))                                                               \
            fail_msg("%s: %s", line, said);                                                        \
    } while (0)

static void test_monitor_commands_answer(void **state)
{
    (void)state;
    SAYS("help", "step-events");
    SAYS("info exits", "exits 0");
    SAYS("info patches", "not patched");
    SAYS("info ioblocks", "0 IO instructions");
    SAYS("info registers", "rip 0000000000010000");
    SAYS("where", "vCPU 1: RIP 0x10000");
    SAYS("  xp   0x10000 2 ", "0x0000010000: 90 b8\n");
    SAYS("xp 0x1fffff 2", "0x200000 is not RAM");
    SAYS("xp", "xp ADDRESS [COUNT]");
    SAYS("xp 0 99999", "xp ADDRESS [COUNT]");
    SAYS("step-events", "held back");
    SAYS("step-events on", "delivered");
    SAYS("step-events off", "held back");
    SAYS("step-events maybe", "on|off");
    SAYS("", "no such command");
    SAYS("helpless", "no such command");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_command_has_its_answer),
        TEST(test_what_is_not_known_gets_the_empty_reply),
        TEST(test_what_makes_no_sense_gets_an_error),
        TEST(test_packets_are_acknowledged_until_they_need_not_be),
        TEST(test_many_packets_may_come_at_once),
        TEST(test_the_description_names_the_registers_in_order),
        TEST(test_registers_are_read_and_written_alone_and_together),
        TEST(test_vector_and_x87_registers_are_the_guests),
        TEST(test_segment_and_control_registers_keep_their_rules),
        TEST(test_registers_are_of_the_thread_chosen),
        TEST(test_memory_is_read_and_written_across_pages),
        TEST(test_memory_ends_where_nothing_is_mapped),
        TEST(test_a_look_leaves_no_trace_in_page_tables),
        TEST(test_a_long_read_is_cut_to_what_fits_in_a_packet),
        TEST(test_monitor_commands_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
