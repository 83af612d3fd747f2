/* SPDX-License-Identifier: MIT */
/* A patched guest against the same one with its stub inactive: random port accesses, many to a
 * slice, give the same values and the same output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "tests/unit/code_runner.h"
#include "tests/unit/console_double.h"
#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

enum { ACCESSES = 4000, PROGRAM = 0x60000, LIST = 0x100000 };

struct access {
    uint16_t port;
    uint8_t value; /* written; then what was read */
    uint8_t write;
};

struct outcome {
    struct access access[ACCESSES];
    char sent[sizeof console.sent];
    size_t count;
    uint64_t io_exits;
};

/* Executes the list at RSI: for each access the routine of IN or OUT, whose windows go on at
 * `next`. */
static void put_program(struct stub_guest *g, int in, int out)
{
    uint8_t *code = g->vm.memory.host + PROGRAM, *p = code;
    static const uint8_t fetch[] = {
        0x66, 0x8b, 0x16,       /* mov (%rsi), %dx */
        0x8a, 0x46, 0x02,       /* mov 2(%rsi), %al */
        0x80, 0x7e, 0x03, 0x00, /* cmpb $0, 3(%rsi) */
        0x0f, 0x84              /* je */
    };
    static const uint8_t next[] = {
        0x88, 0x46, 0x02,       /* mov %al, 2(%rsi) */
        0x48, 0x83, 0xc6, 0x04, /* add $4, %rsi */
        0xff, 0xc9,             /* dec %ecx */
    };
    memcpy(p, fetch, sizeof fetch);
    p += sizeof fetch;
    /* the image is at both addresses: here the lower one is used */
    const uint8_t *window[2] = {stub_guest_at(g, in, SLOT_WINDOW),
                                stub_guest_at(g, out, SLOT_WINDOW)};
    int32_t distance = (int32_t)(window[0] - (p + 4));
    memcpy(p, &distance, 4);
    p = code_put_jump(p + 4, window[1]);
    for (unsigned k = 0; k < 2; k++)
        code_put_jump(stub_guest_at(g, k ? out : in, SLOT_WINDOW + 16), p);
    memcpy(p, next, sizeof next);
    p += sizeof next;
    memcpy(p, (uint8_t[]){0x75, (uint8_t)(code - (p + 2)), 0xf4}, 3); /* jnz; hlt */
}

static uint64_t seed;

static unsigned draw(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 20) % below;
}

/* Values that keep the guest's time out of it: no transmit interrupt, and of the clock no flags and
 * no update. */
static uint8_t a_value(uint16_t port)
{
    static const uint8_t control[] = {0x03, 0x83, 0x13, 0x03}, modem[] = {0x00, 0x08, 0x0b, 0x10};
    static const uint8_t registers[] = {0x0b, 0x0d, 0x0e, 0x0f, 0x10, 0x32, 0x40, 0x8b, 0xff, 0x07};
    switch (port) {
    case 0x3f9:
        return draw(4) ? 0 : (uint8_t)(draw(16) & ~2u);
    case 0x3fa:
        return draw(2) ? 0x01 : 0x07;
    case 0x3fb:
        return control[draw(4)];
    case 0x3fc:
        return modem[draw(4)];
    case 0x70:
        return registers[draw(sizeof registers)];
    case 0x20:
    case 0xa0:
        return draw(8) ? 0x20 : 0x11;
    default:
        return (uint8_t)draw(draw(4) ? 256 : 4);
    }
}

static void make_list(struct access *list)
{
    static const uint16_t ports[] = {0x3f8, 0x3f8, 0x3f8, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
                                     0x3fd, 0x3fd, 0x3fe, 0x3ff, 0x70,  0x71,  0x20,  0x21,
                                     0xa0,  0xa1,  0x80,  0xe9,  0x2f8, 0x2fd, 0x5a5};
    for (unsigned n = 0; n < ACCESSES; n++) {
        uint16_t port = ports[draw(sizeof ports / sizeof ports[0])];
        bool write = port != 0x3fd && port != 0x3fe && draw(port == 0x3f8 ? 8 : 2);
        if (port == 0x71 && write) /* only memory is written */
            list[n++] = (struct access){0x70, 0x40, 1};
        if (n < ACCESSES)
            list[n] = (struct access){port, a_value(port), write};
    }
}

static void run(const struct access *list, bool patched, struct outcome *outcome)
{
    console_clear();
    struct stub_guest *g = stub_guest_open(true);
    int in = stub_guest_add(g, "ec", "in_table", PV_FORM_JUMP);
    int out = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    g->vm.config.no_patch = !patched;
    put_program(g, in, out);
    memcpy(g->vm.memory.host + LIST, list, sizeof outcome->access);
    assert_int_equal(stub_guest_attach(g), 0);
    g->cpu->r[RSI] = LIST;
    g->cpu->r[RCX] = ACCESSES;
    g->cpu->rip = PROGRAM;
    for (unsigned n = 0; n < 10000 && g->cpu->activity == ACTIVITY_ACTIVE; n++) {
        clock_run(&g->vm.clock);
        soft_run(g->cpu, 50 + n % 4000);
    }
    assert_int_equal(g->cpu->r[RCX], 0);
    memcpy(outcome->access, g->vm.memory.host + LIST, sizeof outcome->access);
    memcpy(outcome->sent, console.sent, sizeof console.sent);
    outcome->count = console.count;
    outcome->io_exits = g->vm.stats.exits[EXIT_KIND_IO];
    stub_guest_close(g);
}

static void test_random_accesses_do_the_same_patched_and_not(void **state)
{
    (void)state;
    static struct access list[ACCESSES];
    static struct outcome patched, unpatched;
    for (unsigned round = 1; round <= 40; round++) {
        seed = 0x9e3779b97f4a7c15ull * round;
        make_list(list);
        run(list, true, &patched);
        run(list, false, &unpatched);
        for (unsigned n = 0; n < ACCESSES; n++)
            if (patched.access[n].value != unpatched.access[n].value)
                fail_msg("round %u: access %u, a read of port %#x, gives %#x patched, else %#x",
                         round, n, list[n].port, patched.access[n].value,
                         unpatched.access[n].value);
        assert_int_equal(patched.count, unpatched.count);
        assert_memory_equal(patched.sent, unpatched.sent, patched.count);
        assert_int_equal(unpatched.io_exits, ACCESSES);
        assert_true(patched.io_exits < ACCESSES * 2 / 3); /* most of the list has effects */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_accesses_do_the_same_patched_and_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
