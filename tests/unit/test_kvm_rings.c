/* SPDX-License-Identifier: MIT */
/* Doorbells and port accesses on KVM: how many ioctls each costs, and that what they ask for is done (needs /dev/kvm). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io_dispatcher.h"
#include "runtime/kvm/kvm.h"
#include "tests/unit/stub_guest.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define CODE 0x190000u /* of the guest's own */
#define PORT 0x240u    /* where nobody is */

static bool usable;

static int find_kvm(void **state)
{
    (void)state;
    struct error err = {0};
    struct kvm_quality quality;
    usable = kvm_probe(&quality, &err) == 0 && kvm_limit_features(&quality, &err) == 0;
    if (!usable)
        print_message("# no usable KVM: %s\n", err.text);
    return 0;
}

/* A routine with this template, and a guest that goes through its window `rounds` times, then halts. */
static struct stub_guest *ring(const char *hex, const char *name, uint8_t flags, unsigned rounds)
{
    struct stub_guest *g = stub_guest_open_on(&kvm_engine, false);
    struct error err = {0};
    g->vm.config.link_all = true;
    int index = stub_guest_add(g, hex, name, PV_FORM_JUMP);
    g->routines[index].flags |= flags;
    uint8_t *behind = stub_guest_at(g, index, SLOT_WINDOW + 16);
    const uint8_t loop[] = {0xff,         0xcb, 0x75,
                            (uint8_t)-20, 0xfa, 0xf4}; /* dec %ebx; jnz window; cli; hlt */
    memcpy(behind, loop, sizeof loop);
    assert_int_equal(stub_guest_attach(g), 0);
    g->cpu->rip = stub_guest_linear(index, SLOT_WINDOW);
    g->cpu->r[RBX] = rounds;
    g->cpu->r[RAX] = 0x1122334455667788;
    assert_int_equal(g->vm.engine->run(&g->vm, &err), 0);
    assert_int_equal(g->vm.shutdown, SHUTDOWN_HALT);
    assert_int_equal(g->cpu->rip, stub_guest_linear(index, SLOT_WINDOW + 16 + sizeof loop));
    return g;
}

static void D2_a_doorbell_without_operands_is_one_ioctl_and_copies_no_registers(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *few = ring("0f 09", "wbinvd_doorbell", 0, 10);
    struct stub_guest *many = ring("0f 09", "wbinvd_doorbell", 0, 1010);
    const struct kvm *a = few->vm.kvm, *b = many->vm.kvm;
    assert_int_equal(few->vm.stats.exits[EXIT_KIND_DOORBELL], 10);
    assert_int_equal(many->vm.stats.exits[EXIT_KIND_DOORBELL], 1010);
    assert_int_equal(many->vm.stats.host_calls, 1010);
    /* the host's own signals may bring a vCPU back once more: those are runs, too */
    assert_true(b->runs - a->runs >= 1000);
    assert_int_equal(b->ioctls - a->ioctls, b->runs - a->runs);
    assert_int_equal(b->pulls, a->pulls);
    assert_int_equal(b->rings_pulled, 0);
    assert_int_equal(many->cpu->r[RAX], 0x1122334455667788);
    stub_guest_close(few);
    stub_guest_close(many);
}

static void D2_a_doorbell_that_needs_registers_gets_them_and_is_counted(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = ring("0f 33", "rdpmc_doorbell", 0, 3); /* ECX = 0 */
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_DOORBELL], 3);
    assert_int_equal(g->vm.kvm->rings, 3);
    assert_int_equal(g->vm.kvm->rings_pulled, 3);
    assert_int_equal(g->cpu->r[RAX], 0);
    stub_guest_close(g);
}

static void D2_a_doorbell_of_hlt_halts(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = stub_guest_open_on(&kvm_engine, false);
    struct error err = {0};
    g->vm.config.link_all = true;
    int index = stub_guest_add(g, "f4", "hlt_doorbell", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    g->cpu->rip = stub_guest_linear(index, SLOT_WINDOW);
    assert_int_equal(g->vm.engine->run(&g->vm, &err), 0);
    assert_int_equal(g->vm.shutdown, SHUTDOWN_HALT);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_DOORBELL], 1);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_HLT], 1);
    assert_int_equal(g->vm.kvm->rings_pulled, 0);
    assert_int_not_equal(g->cpu->rip,
                         stub_guest_linear(index, SLOT_WINDOW + 17)); /* in the emulation */
    stub_guest_close(g);
}

static void the_native_exit_of_a_port_is_a_doorbell_already(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = stub_guest_open_on(&kvm_engine, true);
    g->vm.config.link_all = true;
    int out = stub_guest_add(g, "ee", "out_doorbell", PV_FORM_JUMP);
    int posted = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    int cpuid = stub_guest_add(g, "0f a2", "cpuid_table", PV_FORM_JUMP);
    assert_int_equal(stub_guest_attach(g), 0);
    assert_false(g->vm.stub->routines[out].linked);
    assert_true(g->vm.stub->routines[posted].linked);
    assert_true(g->vm.stub->routines[cpuid].linked);
    stub_guest_close(g);
}

/* ---- the state page ---- */
struct watch {
    struct vm *vm;
    uint64_t posted; /* bytes that the host had taken while the guest still ran */
};

static void *watch_and_stop(void *argument)
{
    struct watch *w = argument;
    for (unsigned n = 0; n < 2000 && !w->posted; n++) {
        usleep(1000);
        w->posted = __atomic_load_n(&w->vm->stats.posted, __ATOMIC_RELAXED);
    }
    vm_request_stop(w->vm, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
    return NULL;
}

static void a_posted_byte_is_taken_while_the_guest_runs_on_without_an_exit(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = stub_guest_open_on(&kvm_engine, true);
    struct watch watch = {.vm = &g->vm};
    pthread_t thread;
    int index = stub_guest_add(g, "ee", "out_posted", PV_FORM_JUMP);
    const uint8_t spin[] = {0xeb, 0xfe};
    memcpy(stub_guest_at(g, index, SLOT_WINDOW + 16), spin, sizeof spin);
    assert_int_equal(stub_guest_attach(g), 0);
    g->cpu->rip = stub_guest_linear(index, SLOT_WINDOW);
    g->cpu->r[RDX] = 0x3f8;
    g->cpu->r[RAX] = 'x';
    assert_int_equal(pthread_create(&thread, NULL, watch_and_stop, &watch), 0);
    assert_int_equal(g->vm.engine->run(&g->vm, &g->err), 0);
    pthread_join(thread, NULL);
    assert_int_equal(watch.posted, 1);
    assert_int_equal(g->vm.shutdown, SHUTDOWN_TIMEOUT);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_IO], 0);
    stub_guest_close(g);
}

/* ---- port accesses ---- */
static uint64_t written[16]; /* by port */

static void count_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    (void)device;
    (void)value;
    written[offset] += width == 1;
}

static struct stub_guest *guest_of(const uint8_t *code, size_t size, enum io_blocks_mode mode)
{
    struct stub_guest *g = stub_guest_open_on(&kvm_engine, false);
    const struct bus_window window = {
        .name = "test", .first = PORT, .count = 16, .write = count_write};
    memset(written, 0, sizeof written);
    g->vm.config.io_blocks = mode;
    assert_int_equal(bus_add_ports(&g->vm.bus, &window, &g->err), 0);
    assert_int_equal(io_blocks_attach(&g->vm, NULL, &g->err), 0);
    memcpy(g->vm.memory.host + CODE, code, size);
    g->cpu->rip = CODE;
    g->cpu->r[RDX] = PORT;
    return g;
}

static void run(struct stub_guest *g)
{
    assert_int_equal(g->vm.engine->run(&g->vm, &g->err), 0);
    assert_int_equal(g->vm.shutdown, SHUTDOWN_HALT);
}

static void finish(struct stub_guest *g)
{
    io_blocks_detach(&g->vm);
    stub_guest_close(g);
}

/* mov $100, %ecx; 1: out %al, %dx; cpuid's place: nop; dec %ecx; jnz 1b; cli; hlt */
static const uint8_t single[] = {0xb9, 100,  0,    0,    0,    0xee, 0x90,
                                 0xff, 0xc9, 0x75, 0xfa, 0xfa, 0xf4};

static void a_port_access_is_one_ioctl(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = guest_of(single, sizeof single, IO_BLOCKS_OFF);
    run(g);
    assert_int_equal(written[0], 100);
    assert_int_equal(g->vm.stats.exits[EXIT_KIND_IO], 100);
    assert_int_equal(g->vm.kvm->pulls, 1);                 /* at the end */
    assert_true(g->vm.kvm->ioctls - g->vm.kvm->runs < 40); /* what goes in, what comes out */
    finish(g);
}

static void B4_a_port_that_leads_into_a_loop_is_executed_as_a_block(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct stub_guest *g = guest_of(single, sizeof single, IO_BLOCKS_SCAN);
    run(g);
    assert_int_equal(written[0], 100);
    assert_int_equal(g->vm.stats.io_instructions, 100);
    assert_true(g->vm.stats.exits[EXIT_KIND_IO] < 20);
    assert_true(g->vm.kvm->io_pulls >= 1 && g->vm.kvm->io_pulls < 5);
    finish(g);
}

/* mov $100, %ecx; 1: out %al, %dx; 100 times nop (farther than a block reaches); dec %ecx; jnz 1b; cli; hlt */
static void an_access_that_leads_nowhere_is_seldom_tried(void **state)
{
    (void)state;
    if (!usable)
        skip();
    uint8_t code[160] = {0xb9, 0xe8, 3, 0, 0, 0xee};
    const uint8_t end[] = {0xff, 0xc9, 0x75, (uint8_t)-105, 0xfa, 0xf4};
    memset(code + 6, 0x90, 100);
    memcpy(code + 106, end, sizeof end);
    struct stub_guest *g = guest_of(code, 112, IO_BLOCKS_SCAN);
    g->vm.config.io_extent = NULL;
    run(g);
    assert_int_equal(written[0], 1000);
    assert_true(g->vm.kvm->io_pulls <= 9); /* 4, 8, 16 … apart */
    finish(g);
}

/* A loop, twice; between, the port in its code is raised by one, by an instruction that KVM executes: CPUID ends a block. */
static void B3_code_that_changed_between_two_events_is_seen(void **state)
{
    (void)state;
    if (!usable)
        skip();
    static const uint8_t code[] = {0xbe, 2,    0,    0,    0,          /* mov $2, %esi */
                                   0xb9, 100,  0,    0,    0,          /* 2: mov $100, %ecx */
                                   0xe6, 0xb0,                         /* 1: out %al, $0xb0 */
                                   0x90, 0xff, 0xc9, 0x75, 0xf9,       /* nop; dec %ecx; jnz 1b */
                                   0x31, 0xc0, 0x0f, 0xa2,             /* xor %eax, %eax; cpuid */
                                   0xfe, 0x05, 0xf0, 0xff, 0xff, 0xff, /* incb 1b+1(%rip) */
                                   0xff, 0xce, 0x75, 0xe6,             /* dec %esi; jnz 2b */
                                   0xfa, 0xf4};
    struct stub_guest *g = guest_of(code, sizeof code, IO_BLOCKS_SCAN);
    const struct bus_window window = {
        .name = "low", .first = 0xb0, .count = 2, .write = count_write};
    assert_int_equal(bus_add_ports(&g->vm.bus, &window, &g->err), 0);
    run(g);
    assert_int_equal(written[0], 100);
    assert_int_equal(written[1], 100);
    assert_true(g->vm.kvm->io_pulls >= 2);
    finish(g);
}

/* IN keeps the rest of RAX, though the instruction is executed twice. */
static void an_input_is_as_if_executed_once(void **state)
{
    (void)state;
    if (!usable)
        skip();
    static const uint8_t code[] = {0xb9, 100,  0,    0, /* mov $100, %ecx */
                                   0,    0xec,          /* 1: in %dx, %al */
                                   0x90, 0xff, 0xc9, 0x75, 0xfa, 0xfa, 0xf4};
    struct stub_guest *g = guest_of(code, sizeof code, IO_BLOCKS_SCAN);
    g->cpu->r[RAX] = 0x1122334455667788;
    run(g);
    assert_int_equal(g->cpu->r[RAX], 0x11223344556677ff); /* nobody answers */
    assert_true(g->vm.kvm->io_pulls >= 1);
    finish(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(D2_a_doorbell_without_operands_is_one_ioctl_and_copies_no_registers),
        cmocka_unit_test(D2_a_doorbell_that_needs_registers_gets_them_and_is_counted),
        cmocka_unit_test(D2_a_doorbell_of_hlt_halts),
        cmocka_unit_test(the_native_exit_of_a_port_is_a_doorbell_already),
        cmocka_unit_test(a_posted_byte_is_taken_while_the_guest_runs_on_without_an_exit),
        cmocka_unit_test(a_port_access_is_one_ioctl),
        cmocka_unit_test(B4_a_port_that_leads_into_a_loop_is_executed_as_a_block),
        cmocka_unit_test(an_access_that_leads_nowhere_is_seldom_tried),
        cmocka_unit_test(B3_code_that_changed_between_two_events_is_seen),
        cmocka_unit_test(an_input_is_as_if_executed_once),
    };
    return cmocka_run_group_tests_name("KVM doorbells and ports", tests, find_kvm, NULL);
}
