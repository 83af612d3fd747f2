/* SPDX-License-Identifier: MIT */
/* COM1: the registers as a driver sees them, and the probes by which Linux's 8250 driver tells UARTs apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/console.h"
#include "runtime/devices/uart16550.h"
#include "tests/unit/device_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

extern const struct device_type uart16550_device;

enum {
    DATA = 0x3f8,
    IER,
    IIR,
    LCR,
    MCR,
    LSR,
    MSR,
    SCR,
    FCR = IIR,
};
#define OUT2 8

/* ---- the far end ---- */
static char sent[4096];
static size_t sent_count;
static const char *typed;

void console_write(struct vm *machine, const uint8_t *bytes, size_t count)
{
    (void)machine;
    memcpy(sent + sent_count, bytes, count);
    sent_count += count;
}

bool console_readable(struct vm *machine)
{
    (void)machine;
    return typed && *typed;
}

int console_read(struct vm *machine)
{
    return console_readable(machine) ? *typed++ : -1;
}

static void type(const char *text)
{
    typed = text;
    uart16550_attend(device);
}

static int set_up(void **state)
{
    (void)state;
    lab_machine();
    lab_add(&uart16550_device);
    sent_count = 0;
    typed = NULL;
    return 0;
}

static bool raised(void)
{
    return irq_level[IRQ_COM1];
}

/* Four characters of ten bits at 9600 baud, the rate after power-on. */
#define TIMEOUT (4 * 10 * S / 9600 + 1000)

static void test_a_byte_written_is_sent_at_once(void **state)
{
    (void)state;
    assert_int_equal(in(LSR), 0x60);
    out(DATA, 'h');
    assert_int_equal(in(LSR), 0x60);
    out(DATA, 'i');
    assert_int_equal(sent_count, 2);
    assert_memory_equal(sent, "hi", 2);
    assert_false(raised());
}

static void test_the_divisor_hides_behind_dlab(void **state)
{
    (void)state;
    out(LCR, 0x83);
    out(DATA, 0x34);
    out(IER, 0x12);
    assert_int_equal(in(DATA), 0x34);
    assert_int_equal(in(IER), 0x12);
    out(LCR, 0x03);
    assert_int_equal(in(IER), 0);
    assert_int_equal(sent_count, 0);
    out(SCR, 0xa5);
    assert_int_equal(in(SCR), 0xa5);
}

/* Linux 8250: autoconfig(), autoconfig_16550a(). */
static void test_linux_finds_a_16550a_and_nothing_more(void **state)
{
    (void)state;
    out(IER, 0);
    assert_int_equal(in(IER)&0x0f, 0);
    out(IER, 0x0f);
    assert_int_equal(in(IER), 0x0f);
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f); /* no sleep modes, no XScale unit enable */
    out(IER, 0);
    out(MCR, 0x10 | 0x0a);
    assert_int_equal(in(MSR)&0xf0, 0x90);
    out(MCR, 0);
    out(LCR, 0xbf); /* an enhanced feature register would read 0 here */
    assert_int_not_equal(in(FCR), 0);
    out(LCR, 0);
    out(FCR, 0x01);
    assert_int_equal(in(IIR) >> 6, 3);
    out(FCR, 0x21); /* a 16750 has a 64 byte FIFO */
    assert_int_equal(in(IIR)&0xe0, 0xc0);
    out(FCR, 0);
    assert_int_equal(in(IIR), 0x01);
}

static void test_the_fifo_holds_sixteen_bytes_in_loopback(void **state)
{
    (void)state;
    unsigned count = 0;
    out(LCR, 0x03);
    out(FCR, 0x07);
    out(MCR, 0x10);
    for (unsigned i = 0; i < 256; i++)
        out(DATA, i);
    assert_int_equal(in(LSR), 0x63); /* overrun, said once */
    assert_int_equal(in(LSR), 0x61);
    for (; in(LSR)&1; count++)
        assert_int_equal(in(DATA), count);
    assert_int_equal(count, 16);
    assert_int_equal(sent_count, 0);
}

static void test_without_fifos_a_byte_not_read_is_overwritten(void **state)
{
    (void)state;
    out(LCR, 0x03);
    out(MCR, 0x10);
    out(DATA, 'a');
    assert_int_equal(in(LSR), 0x61);
    out(DATA, 'b');
    assert_int_equal(in(LSR), 0x63);
    assert_int_equal(in(DATA), 'b');
    assert_int_equal(in(LSR), 0x60);
}

static void test_loopback_keeps_to_the_word_length(void **state)
{
    (void)state;
    out(MCR, 0x10);
    for (unsigned bits = 5; bits <= 8; bits++) {
        out(LCR, bits - 5);
        out(DATA, 0xff);
        assert_int_equal(in(DATA), 0xff >> (8 - bits));
    }
}

static void test_enabling_the_transmit_interrupt_raises_it(void **state)
{
    (void)state;
    out(MCR, OUT2);
    out(IER, 2);
    assert_true(raised());
    assert_int_equal(in(IIR), 0x02);
    assert_false(raised()); /* reading its cause clears it */
    assert_int_equal(in(IIR), 0x01);
    out(IER, 2); /* already on: no new cause */
    assert_false(raised());
    out(DATA, 'x');
    assert_true(raised());
    out(IER, 0);
    assert_false(raised());
    assert_int_equal(in(IIR), 0x01);
    /* Linux 8250: serial8250_do_startup() takes the absence of the second one for a broken chip */
    out(IER, 2);
    assert_int_equal(in(IIR)&1, 0);
    out(IER, 0);
    out(IER, 2);
    assert_int_equal(in(IIR)&1, 0);
}

static void test_out2_gates_the_interrupt(void **state)
{
    (void)state;
    out(IER, 2);
    assert_false(raised());
    assert_int_equal(irq_raised[IRQ_COM1], 0);
    out(MCR, OUT2);
    assert_true(raised());
    out(MCR, 0);
    assert_false(raised());
}

static void test_causes_come_by_priority(void **state)
{
    (void)state;
    out(LCR, 0x03);
    out(MCR, 0x10 | OUT2 | 2);
    out(DATA, 'a');
    out(DATA, 'b');        /* overrun */
    out(MCR, 0x10 | OUT2); /* CTS goes away */
    out(IER, 0x0f);
    assert_int_equal(in(IIR), 0x06);
    in(LSR);
    assert_int_equal(in(IIR), 0x04);
    in(DATA);
    assert_int_equal(in(IIR), 0x02);
    assert_int_equal(in(IIR), 0x00);
    assert_true(raised());
    in(MSR);
    assert_int_equal(in(IIR), 0x01);
    assert_false(raised());
}

static void test_modem_status_tells_what_changed(void **state)
{
    (void)state;
    assert_int_equal(in(MSR), 0xb0); /* somebody is there */
    out(MCR, 0x10);
    assert_int_equal(in(MSR), 0x0b); /* CTS, DSR, DCD went */
    assert_int_equal(in(MSR), 0x00);
    out(MCR, 0x14);
    assert_int_equal(in(MSR), 0x40); /* RI: only its end counts */
    out(MCR, 0x10);
    assert_int_equal(in(MSR), 0x04);
    out(MCR, 0x1f);
    assert_int_equal(in(MSR), 0xfb);
    out(MCR, 0);
    assert_int_equal(in(MSR), 0xb4);
}

static void listen(unsigned fcr)
{
    out(LCR, 0x03);
    out(FCR, fcr);
    out(MCR, OUT2 | 3);
    out(IER, 1);
    pass(5 * MS);
}

static void test_the_receive_interrupt_waits_for_its_trigger_level(void **state)
{
    (void)state;
    static const unsigned levels[] = {1, 4, 8, 14};
    for (unsigned i = 0; i < 4; i++) {
        listen(i << 6 | 7);
        for (unsigned n = 1; n < levels[i]; n++) {
            type("x");
            assert_false(raised());
        }
        type("x");
        assert_true(raised());
        assert_int_equal(in(IIR), 0xc4);
        in(DATA); /* below the level again */
        assert_false(raised());
    }
}

static void test_bytes_below_the_level_are_told_after_a_timeout(void **state)
{
    (void)state;
    listen(0xc1);
    type("ab");
    assert_false(raised());
    pass(TIMEOUT / 2);
    type("c"); /* starts it anew */
    pass(TIMEOUT / 2);
    assert_false(raised());
    pass(TIMEOUT / 2 + 1000);
    assert_true(raised());
    assert_int_equal(in(IIR), 0xcc);
    assert_int_equal(in(DATA), 'a');
    assert_int_equal(in(IIR), 0xc1); /* reading starts it anew too */
    assert_false(raised());
    pass(TIMEOUT);
    assert_int_equal(in(IIR), 0xcc);
    assert_int_equal(in(DATA), 'b');
    assert_int_equal(in(DATA), 'c');
    pass(10 * TIMEOUT);
    assert_int_equal(in(IIR), 0xc1);
    assert_ptr_equal(vm.clock.first, NULL);
}

static void test_all_of_a_long_input_arrives_in_order(void **state)
{
    (void)state;
    char text[300], got[300] = "";
    for (unsigned i = 0; i < sizeof text; i++)
        text[i] = (char)('!' + i % 90);
    text[sizeof text - 1] = 0;
    listen(0x81);
    type(text);
    for (unsigned i = 0; in(LSR)&1 && i < sizeof got - 1; i++)
        got[i] = (char)in(DATA);
    assert_string_equal(got, text);
    assert_int_equal(in(LSR), 0x60);
}

static void test_clearing_the_fifo_drops_what_is_in_it(void **state)
{
    (void)state;
    listen(0x01);
    type("abc");
    assert_true(raised());
    out(IER, 0);
    out(FCR, 0x03);
    assert_int_equal(in(LSR), 0x60);
    out(FCR, 0x02); /* without the enable bit it means nothing but: FIFOs off */
    assert_int_equal(in(IIR), 0x01);
}

static void test_input_waits_until_the_guest_listens(void **state)
{
    (void)state;
    type("ls\n");
    out(IER, 0x0f); /* Linux's probe */
    assert_int_equal(in(LSR), 0x60);
    out(IER, 0);
    pass(S);
    out(FCR, 0x07); /* Linux's start-up: it would throw away the first bytes */
    out(FCR, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(in(LSR), 0x60);
        in(DATA);
        out(DATA, '.');
    }
    assert_int_equal(strlen(typed), 3);
    out(IER, 1); /* on, while the FIFOs are off */
    out(FCR, 0x01);
    assert_int_equal(in(LSR), 0x60);
    pass(5 * MS);
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(DATA), 'l');
}

static void test_a_guest_that_polls_for_input_gets_it(void **state)
{
    (void)state;
    unsigned polls = 0;
    type("y");
    while (!(in(LSR)&1) && polls < 1000)
        polls++;
    assert_in_range(polls, 4, 100);
    assert_int_equal(in(DATA), 'y');
}

static void test_a_guest_that_polls_to_write_is_no_listener(void **state)
{
    (void)state;
    type("y");
    for (unsigned line = 0; line < 100; line++) { /* a kernel's messages */
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(in(LSR), 0x60);
            out(DATA, '.');
        }
        assert_int_equal(in(LSR), 0x60);
    }
}

static void test_reset_is_power_on(void **state)
{
    (void)state;
    listen(0xc1);
    type("abc");
    out(MCR, 0x1b);
    uart16550_device.reset(device);
    assert_false(raised());
    assert_ptr_equal(vm.clock.first, NULL);
    assert_int_equal(in(IER) | in(LCR) | in(MCR), 0);
    assert_int_equal(in(IIR), 1);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, lab_close)
    const struct CMUnitTest tests[] = {
        TEST(test_a_byte_written_is_sent_at_once),
        TEST(test_the_divisor_hides_behind_dlab),
        TEST(test_linux_finds_a_16550a_and_nothing_more),
        TEST(test_the_fifo_holds_sixteen_bytes_in_loopback),
        TEST(test_without_fifos_a_byte_not_read_is_overwritten),
        TEST(test_loopback_keeps_to_the_word_length),
        TEST(test_enabling_the_transmit_interrupt_raises_it),
        TEST(test_out2_gates_the_interrupt),
        TEST(test_causes_come_by_priority),
        TEST(test_modem_status_tells_what_changed),
        TEST(test_the_receive_interrupt_waits_for_its_trigger_level),
        TEST(test_bytes_below_the_level_are_told_after_a_timeout),
        TEST(test_all_of_a_long_input_arrives_in_order),
        TEST(test_clearing_the_fifo_drops_what_is_in_it),
        TEST(test_input_waits_until_the_guest_listens),
        TEST(test_a_guest_that_polls_for_input_gets_it),
        TEST(test_a_guest_that_polls_to_write_is_no_listener),
        TEST(test_reset_is_power_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
