/* SPDX-License-Identifier: MIT */
/* BCD arithmetic against the host in compatibility mode; PUSHA, POPA, BOUND, ARPL, XLAT by what the manual says. */
#include "tests/unit/against_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/code_runner.h"

#define DATA ONE_INSN_DATA

static struct vcpu *cpu;

static int make_vcpu(void **state)
{
    (void)state;
    cpu = one_insn_vcpu();
    one_insn_mode(cpu, ONE_INSN_32, false);
    return 0;
}

static int free_vcpu(void **state)
{
    (void)state;
    one_insn_free(cpu);
    return 0;
}

/* ---- the host in compatibility mode ---- */
#define HOST32_CODE                                                                                \
    0x40000u           /* where the 32-bit code stands: below 4 GiB, so that it can come back */
#define HOST32_CS 0x23 /* Linux's 32-bit user code segment */

/* Calls 32-bit code with EAX and flags; both are returned changed. */
static void host32_call(uint32_t *eax, uint32_t *flags)
{
    static const struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } target = {HOST32_CODE, HOST32_CS};
    uint8_t *stub = (uint8_t *)(uintptr_t)(HOST32_CODE + 0x200);
    uint32_t *stack = (uint32_t *)(uintptr_t)(HOST32_CODE + 0xf00);
    static const uint8_t bytes[] = {
        0x53,             /* push rbx */
        0x55,             /* push rbp */
        0x48, 0x89, 0xe3, /* mov rbx, rsp */
        0x89, 0xd4,       /* mov esp, edx */
        0xff, 0x1f,       /* call far [rdi]; pops EAX and flags itself */
        0x48, 0x89, 0xdc, /* mov rsp, rbx */
        0x5d, 0x5b, 0xc3, /* pop rbp; pop rbx; ret */
    };
    memcpy(stub, bytes, sizeof bytes);
    stack[0] = *flags;
    stack[1] = *eax;
    __asm__ volatile("call *%[stub]"
                     :
                     : [stub] "r"(stub), "D"(&target), "d"(stack)
                     : "rax", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    *flags = stack[0];
    *eax = stack[1];
}

/* True if the host lets us; the code page is there then, with the instruction between loads and stores. */
static bool host32_prepare(const uint8_t *bytes, size_t length)
{
    static uint8_t *page;
    uint32_t rights = 0;
    __asm__("lar %1, %0" : "+r"(rights) : "r"(HOST32_CS) : "cc");
    if ((rights & 0x00609800) != 0x00409800) /* present, code, 32 bits */
        return false;
    if (!page)
        page = code_map((void *)(uintptr_t)HOST32_CODE, PAGE_SIZE);
    if (!page)
        return false;
    /* the far call pushed CS and EIP: flags at ESP + 8, EAX at ESP + 12 */
    static const uint8_t before[] = {0x8b, 0x44, 0x24, 0x0c, /* mov eax, [esp + 12] */
                                     0xff, 0x74, 0x24, 0x08, /* push [esp + 8] */
                                     0x9d};                  /* popfd */
    static const uint8_t after[] = {0x9c,                    /* pushfd */
                                    0x8f, 0x44, 0x24, 0x08,  /* pop [esp + 8] */
                                    0x89, 0x44, 0x24, 0x0c,  /* mov [esp + 12], eax */
                                    0xcb};                   /* retf */
    uint8_t *p = page;
    memcpy(p, before, sizeof before);
    memcpy(p + sizeof before, bytes, length);
    memcpy(p + sizeof before + length, after, sizeof after);
    return true;
}

static void decimal_like_host(const uint8_t *bytes, size_t length, uint32_t defined)
{
    if (!host32_prepare(bytes, length))
        skip();
    for (unsigned round = 0; round < 20000; round++) {
        uint32_t eax = (uint32_t)code_random();
        uint32_t flags = RFLAGS_ONE | (code_random() & RFLAGS_STATUS);
        cpu->r[RAX] = eax;
        vcpu_set_rflags(cpu, flags);
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = one_insn_run(cpu, bytes, length);
        assert_false(r.fault);
        host32_call(&eax, &flags);
        assert_int_equal((uint32_t)cpu->r[RAX], eax);
        assert_int_equal(vcpu_rflags(cpu) & defined, flags & defined);
    }
}

#define RESULT_FLAGS (RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF)
#define CARRIES      (RFLAGS_CF | RFLAGS_AF)

static void daa_is_the_hosts(void **state)
{
    (void)state;
    decimal_like_host((const uint8_t[]){0x27}, 1, RESULT_FLAGS | CARRIES);
}

static void das_is_the_hosts(void **state)
{
    (void)state;
    decimal_like_host((const uint8_t[]){0x2f}, 1, RESULT_FLAGS | CARRIES);
}

static void aaa_is_the_hosts(void **state)
{
    (void)state;
    decimal_like_host((const uint8_t[]){0x37}, 1, CARRIES);
}

static void aas_is_the_hosts(void **state)
{
    (void)state;
    decimal_like_host((const uint8_t[]){0x3f}, 1, CARRIES);
}

static void aam_and_aad_are_the_hosts_in_any_base(void **state)
{
    (void)state;
    static const uint8_t bases[] = {10, 1, 2, 7, 16, 100, 0x80, 0xff};
    for (unsigned b = 0; b < sizeof bases; b++) {
        decimal_like_host((const uint8_t[]){0xd4, bases[b]}, 2, RESULT_FLAGS);
        decimal_like_host((const uint8_t[]){0xd5, bases[b]}, 2, RESULT_FLAGS);
    }
    decimal_like_host((const uint8_t[]){0xd5, 0}, 2, RESULT_FLAGS);
}

static void aam_with_base_zero_is_a_division_by_zero(void **state)
{
    (void)state;
    cpu->r[RAX] = 0x1234;
    struct one_insn_result r = ONE_INSN(cpu, 0xd4, 0x00);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_DE);
    assert_int_equal(cpu->r[RAX], 0x1234);
}

static void salc_spreads_the_carry(void **state)
{
    (void)state;
    decimal_like_host((const uint8_t[]){0xd6}, 1, RFLAGS_STATUS);
}

/* ---- PUSHA, POPA ---- */
static void set_registers(void)
{
    for (int reg = 0; reg < 8; reg++)
        cpu->r[reg] = 0x11111111u * (unsigned)(reg + 1);
    cpu->r[RSP] = ONE_INSN_STACK;
}

static void pusha_stores_all_with_the_stack_pointer_as_it_was(void **state)
{
    (void)state;
    for (unsigned size = 2; size <= 4; size *= 2) {
        set_registers();
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = size == 2 ? ONE_INSN(cpu, 0x66, 0x60) : ONE_INSN(cpu, 0x60);
        assert_false(r.fault);
        assert_int_equal(cpu->r[RSP], ONE_INSN_STACK - 8 * size);
        for (unsigned reg = 0; reg < 8; reg++) {
            uint32_t value = 0, expected = reg == RSP ? ONE_INSN_STACK : (uint32_t)cpu->r[reg];
            memcpy(&value, one_insn_at(cpu, ONE_INSN_STACK - (reg + 1) * size), size);
            assert_int_equal(value, size == 2 ? expected & 0xffff : expected);
        }
    }
}

static void popa_loads_all_but_the_stack_pointer(void **state)
{
    (void)state;
    for (unsigned size = 2; size <= 4; size *= 2) {
        set_registers();
        uint8_t *stack = one_insn_at(cpu, ONE_INSN_STACK);
        for (unsigned n = 0; n < 32; n++)
            stack[n] = (uint8_t)(n + 1);
        cpu->rip = ONE_INSN_CODE;
        struct one_insn_result r = size == 2 ? ONE_INSN(cpu, 0x66, 0x61) : ONE_INSN(cpu, 0x61);
        assert_false(r.fault);
        assert_int_equal(cpu->r[RSP], ONE_INSN_STACK + 8 * size);
        for (unsigned reg = 0; reg < 8; reg++) {
            uint32_t value = 0x11111111u * (reg + 1);
            if (reg == RSP)
                continue;
            memcpy(&value, stack + (7 - reg) * size, size);
            assert_int_equal(cpu->r[reg], value);
        }
    }
}

static void pusha_beyond_the_stack_stores_nothing(void **state)
{
    (void)state;
    set_registers();
    cpu->segment[SEG_SS].rights |= RIGHTS_DOWN;
    cpu->segment[SEG_SS].limit = ONE_INSN_STACK - 20;
    memset(one_insn_at(cpu, ONE_INSN_STACK - 64), 0x55, 64);
    struct one_insn_result r = ONE_INSN(cpu, 0x60);
    assert_true(r.fault);
    assert_int_equal(r.vector, EXC_SS);
    assert_int_equal(cpu->r[RSP], ONE_INSN_STACK);
    assert_int_equal(*(uint8_t *)one_insn_at(cpu, ONE_INSN_STACK - 1), 0x55);
}

/* ---- BOUND, ARPL, XLAT ---- */
static bool in_bounds(uint32_t value, bool wide)
{
    cpu->r[RAX] = value;
    cpu->r[RBX] = DATA;
    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result r = wide ? ONE_INSN(cpu, 0x62, 0x03) : ONE_INSN(cpu, 0x66, 0x62, 0x03);
    if (r.fault)
        assert_int_equal(r.vector, EXC_BR);
    return !r.fault;
}

static void bound_compares_signed_and_both_ends_belong(void **state)
{
    (void)state;
    int32_t wide[2] = {-5, 70000};
    memcpy(one_insn_at(cpu, DATA), wide, sizeof wide);
    assert_true(in_bounds((uint32_t)-5, true));
    assert_true(in_bounds(0, true));
    assert_true(in_bounds(70000, true));
    assert_false(in_bounds((uint32_t)-6, true));
    assert_false(in_bounds(70001, true));
    int16_t narrow[2] = {-5, 7};
    memcpy(one_insn_at(cpu, DATA), narrow, sizeof narrow);
    assert_true(in_bounds(0xfffb, false));
    assert_true(in_bounds(0x12340007, false));
    assert_false(in_bounds(8, false));
    assert_false(in_bounds(0x8000, false));
}

static void arpl_raises_the_rpl_and_says_so(void **state)
{
    (void)state;
    for (unsigned to = 0; to < 4; to++)
        for (unsigned from = 0; from < 4; from++) {
            cpu->r[RBX] = 0xaaaa1230 | to;
            cpu->r[RAX] = 0x4560 | from;
            vcpu_set_rflags(cpu, RFLAGS_STATUS & ~(to < from ? RFLAGS_ZF : 0));
            cpu->rip = ONE_INSN_CODE;
            assert_false(ONE_INSN(cpu, 0x63, 0xc3).fault); /* arpl bx, ax */
            assert_int_equal(cpu->r[RBX], 0xaaaa1230 | (to < from ? from : to));
            assert_int_equal(vcpu_rflags(cpu) & RFLAGS_STATUS,
                             to < from ? RFLAGS_STATUS : RFLAGS_STATUS & ~RFLAGS_ZF);
            cpu->r[RBX] = DATA;
            *(uint16_t *)one_insn_at(cpu, DATA) = (uint16_t)(0x1230 | to);
            cpu->rip = ONE_INSN_CODE;
            assert_false(ONE_INSN(cpu, 0x63, 0x03).fault);
            assert_int_equal(*(uint16_t *)one_insn_at(cpu, DATA), 0x1230 | (to < from ? from : to));
        }
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    assert_int_equal(ONE_INSN(cpu, 0x63, 0xc3).vector, EXC_UD);
}

static void xlat_looks_up_with_every_address_size(void **state)
{
    (void)state;
    static const enum one_insn_mode modes[] = {ONE_INSN_64, ONE_INSN_32, ONE_INSN_REAL};
    for (unsigned m = 0; m < 3; m++)
        for (unsigned other = 0; other < 2; other++) {
            one_insn_mode(cpu, modes[m], false);
            unsigned bits = modes[m] == ONE_INSN_64              ? (other ? 32 : 64)
                            : (modes[m] == ONE_INSN_32) == other ? 16
                                                                 : 32;
            *(uint8_t *)one_insn_at(cpu, 0x9123) = 0x77;
            cpu->r[RBX] = bits == 64   ? 0x9100
                          : bits == 32 ? 0x5555555500009100
                                       : 0x1234567800009100;
            if (bits == 16)
                cpu->r[RBX] |= 0xff0000;
            cpu->r[RAX] = 0xffffff23;
            cpu->rip = ONE_INSN_CODE;
            struct one_insn_result r = other ? ONE_INSN(cpu, 0x67, 0xd7) : ONE_INSN(cpu, 0xd7);
            assert_false(r.fault);
            assert_int_equal(cpu->r[RAX], 0xffffff77);
        }
}

static void none_of_them_but_xlat_exists_in_64_bit_mode(void **state)
{
    (void)state;
    static const uint8_t opcodes[] = {0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5, 0xd6, 0x60, 0x61};
    one_insn_mode(cpu, ONE_INSN_64, false);
    for (unsigned k = 0; k < sizeof opcodes; k++)
        assert_int_equal(ONE_INSN(cpu, opcodes[k], 0x0a).vector, EXC_UD);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_vcpu, free_vcpu)
    const struct CMUnitTest tests[] = {
        T(daa_is_the_hosts),
        T(das_is_the_hosts),
        T(aaa_is_the_hosts),
        T(aas_is_the_hosts),
        T(aam_and_aad_are_the_hosts_in_any_base),
        T(aam_with_base_zero_is_a_division_by_zero),
        T(salc_spreads_the_carry),
        T(pusha_stores_all_with_the_stack_pointer_as_it_was),
        T(popa_loads_all_but_the_stack_pointer),
        T(pusha_beyond_the_stack_stores_nothing),
        T(bound_compares_signed_and_both_ends_belong),
        T(arpl_raises_the_rpl_and_says_so),
        T(xlat_looks_up_with_every_address_size),
        T(none_of_them_but_xlat_exists_in_64_bit_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
