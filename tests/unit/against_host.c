/* SPDX-License-Identifier: MIT */
/* One instruction on the host processor and on a vCPU. */
#include "tests/unit/against_host.h"

#include <assert.h>
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "tests/unit/code_runner.h"

static uint8_t *native_data, *native_code;
static uint64_t flags_compared;

void against_host_flags(uint32_t flags)
{
    flags_compared = flags;
}

int against_host_open(void **state)
{
    struct vcpu **cpu = *state;
    *cpu = one_insn_vcpu();
    one_insn_mode(*cpu, ONE_INSN_64, true);
    against_host_flags(RFLAGS_STATUS | RFLAGS_DF);
    if (!native_data) {
        native_data = code_map((void *)(uintptr_t)AGAINST_HOST_DATA, AGAINST_HOST_BYTES);
        native_code = code_map(NULL, PAGE_SIZE);
    }
    assert_non_null(native_data);
    assert_non_null(native_code);
    return 0;
}

int against_host_close(void **state)
{
    one_insn_free(*(struct vcpu **)*state);
    return 0;
}

uint64_t against_host_value(void)
{
    uint64_t value = code_random();
    switch (code_random() % 8) {
    case 0:
        return value & 0xff;
    case 1:
        return 0 - (value & 0xff);
    case 2:
        return 1ull << (value & 63);
    case 3:
        return (1ull << (value & 63)) - 1;
    case 4:
        return (uint32_t)value;
    case 5:
        return value >> (value & 63);
    case 6:
        return (uint64_t)(int64_t)(int32_t)value;
    default:
        return value;
    }
}

size_t put_size(uint8_t *p, unsigned size)
{
    if (size == 2)
        p[0] = 0x66;
    if (size == 8)
        p[0] = 0x48;
    return size == 2 || size == 8;
}

void against_host_random(struct vcpu *cpu)
{
    for (int reg = 0; reg < 16; reg++)
        if (reg != RSP)
            cpu->r[reg] = against_host_value();
    vcpu_set_rflags(cpu, RFLAGS_ONE | (code_random() & RFLAGS_STATUS));
    uint64_t *data = one_insn_at(cpu, AGAINST_HOST_DATA + 0x1000);
    for (unsigned n = 0; n < 512; n++)
        data[n] = against_host_value();
}

struct one_insn_result run_whole(struct vcpu *cpu, const uint8_t *bytes, size_t length)
{
    uint64_t rip = cpu->rip;
    struct one_insn_result result;
    do
        result = one_insn_run(cpu, bytes, length);
    while (!result.fault && cpu->rip == rip);
    return result;
}

static void explain(const uint8_t *bytes, size_t length)
{
    fprintf(stderr, "# instruction");
    for (size_t n = 0; n < length; n++)
        fprintf(stderr, " %02x", bytes[n]);
    fprintf(stderr, "\n");
}

static bool same_registers(const struct vcpu *cpu, const struct code_registers *host,
                           const struct code_registers *before)
{
    bool same = true;
    for (int reg = 0; reg < 16; reg++)
        if (cpu->r[reg] != host->r[reg]) {
            fprintf(stderr, "# register %d: %#llx, the host has %#llx\n", reg,
                    (unsigned long long)cpu->r[reg], (unsigned long long)host->r[reg]);
            same = false;
        }
    uint64_t flags = vcpu_rflags(cpu);
    if ((flags ^ host->flags) & flags_compared) {
        fprintf(stderr, "# flags: %#llx, the host has %#llx\n",
                (unsigned long long)flags & flags_compared,
                (unsigned long long)host->flags & flags_compared);
        same = false;
    }
    for (int reg = 0; reg < 16 && !same; reg++)
        fprintf(stderr, "# before: register %d = %#llx\n", reg, (unsigned long long)before->r[reg]);
    if (!same)
        fprintf(stderr, "# before: flags %#llx\n", (unsigned long long)before->flags);
    return same;
}

void same_as_host(struct vcpu *cpu, const uint8_t *bytes, size_t length)
{
    struct code_registers host, before;
    memcpy(host.r, cpu->r, sizeof host.r);
    host.flags = vcpu_rflags(cpu) | RFLAGS_IF;
    before = host;
    memcpy(native_data, one_insn_at(cpu, AGAINST_HOST_DATA), AGAINST_HOST_BYTES);
    memcpy(native_code, bytes, length);
    code_put_exit(native_code + length);

    cpu->rip = ONE_INSN_CODE;
    struct one_insn_result result = run_whole(cpu, bytes, length);
    if (result.fault) {
        explain(bytes, length);
        fail_msg("the vCPU faults: vector %d, error %#x, %s", result.vector, result.error,
                 result.undefined ? "undefined" : "defined");
    }
    code_run(&host, native_code, NULL, NULL);
    if (!same_registers(cpu, &host, &before) ||
        memcmp(native_data, one_insn_at(cpu, AGAINST_HOST_DATA), AGAINST_HOST_BYTES) != 0 ||
        cpu->rip != ONE_INSN_CODE + length) {
        explain(bytes, length);
        fail_msg("not what the host does");
    }
}

bool host_has_movbe(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_MOVBE;
}

bool host_has_adx(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & bit_ADX;
}
