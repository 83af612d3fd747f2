/* SPDX-License-Identifier: MIT */
/* Dispatch bench: nanoseconds per emulated instruction, executed natively in this process, for each
 * patch form, against a trap (signal) with decode and emulation of the same instruction.
 *
 * The guest is samples/forms.S, patched by the built patchc; what is counted is its CPUID loop less
 * its empty loop. In the form break the "exit" is a signal too, but nothing is decoded: the index
 * finds the routine. `dispatch --json` prints one JSON object, else a table. */
#include <asm/prctl.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <Zydis/Zydis.h>

#include "hvstub/cpuid_table.h"
#include "tests/unit/guest_runner.h"

#define ROUNDS 5

static char build_folder[512], scratch[600];
static struct guest guest;
static const struct pv_cpuid_answer answer = {13, 0x756e6547, 0x6c65746e, 0x49656e69};

struct row {
    const char *name, *what;
    double nanoseconds; /* per CPUID; negative: not measured */
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "dispatch: %s: %s\n", what, why);
    if (scratch[0])
        rmdir(scratch);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- the guest ---- */

static void load_patched(const char *form)
{
    char program[640], image[640], output[640], report[660];
    snprintf(program, sizeof program, "%s/patchc", build_folder);
    snprintf(image, sizeof image, "%s/samples/forms.elf", build_folder);
    snprintf(output, sizeof output, "%s/%s", scratch, form);
    snprintf(report, sizeof report, "%s.json", output);
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
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        die(program, "cannot patch the sample guest");
    bool loaded = guest_load(&guest, output);
    unlink(output);
    unlink(report);
    if (!loaded || !guest.header || !guest.cpuid)
        die(output, loaded ? "is not patched" : guest.error);
    uint64_t size, address = guest_symbol(&guest, "loop_cpuid", &size);
    int index = guest_routine(&guest, address, size);
    if (index < 0 || !guest_activate(&guest, index, true))
        die(output, "the loop's CPUID is not patched");
    pv_cpuid_clear(guest.cpuid);
    pv_cpuid_put(guest.cpuid, 0, &answer);
}

static void load_original(void)
{
    char image[640];
    snprintf(image, sizeof image, "%s/samples/forms.elf", build_folder);
    if (!guest_load(&guest, image))
        die(image, guest.error);
}

/* ---- measuring ---- */

typedef void caller(uint64_t address, struct code_registers *registers);

static void plain_call(uint64_t address, struct code_registers *registers)
{
    guest_call(&guest, address, registers, NULL, NULL);
}

/* Nanoseconds per iteration of a loop function: the best of some rounds. */
static double measure(const char *function, uint64_t iterations, bool answered, caller *call)
{
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        struct code_registers registers = {.flags = 2};
        registers.r[8] = iterations;
        double start = now();
        call(guest_symbol(&guest, function, NULL), &registers);
        double each = (now() - start) / (double)iterations;
        if (registers.r[8] != 0 || guest.fault ||
            (answered && (registers.r[RAX] != answer.eax || registers.r[RDX] != answer.edx)))
            die(function, "did not run as it should");
        best = each < best ? each : best;
    }
    return best;
}

/* ---- the baseline: a trap, a saved frame, decoding, emulation ---- */

static ZydisDecoder decoder;
static uint64_t trap_address; /* UD2 stands there for the instruction in trap_bytes */
static uint8_t trap_bytes[16];
static struct pv_cpuid_answer trap_answers[16];

static bool emulate_trapped(void *context, int number, struct code_registers *registers,
                            uint64_t *rip)
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    (void)context;
    (void)number;
    const uint8_t *code = *rip == trap_address ? trap_bytes : (const uint8_t *)(uintptr_t)*rip;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, 15, &instruction, operands)) ||
        instruction.mnemonic != ZYDIS_MNEMONIC_CPUID)
        return false;
    const struct pv_cpuid_answer *a = &trap_answers[registers->r[RAX] & 15];
    registers->r[RAX] = a->eax;
    registers->r[RBX] = a->ebx;
    registers->r[RCX] = a->ecx;
    registers->r[RDX] = a->edx;
    *rip += instruction.length;
    return true;
}

static void trapped_call(uint64_t address, struct code_registers *registers)
{
    static _Alignas(16) uint64_t stack[2048];
    stack[2039] = (uintptr_t)code_exit;
    registers->r[RSP] = (uintptr_t)&stack[2039];
    code_run(registers, (const void *)(uintptr_t)address, emulate_trapped, NULL);
}

/* Makes the loop's CPUID trap: by CPUID faulting where the processor has it, else UD2 takes its
 * place. True: CPUID faulting is on. */
static bool arm_trap(void)
{
    uint64_t size, address = guest_symbol(&guest, "loop_cpuid", &size);
    uint8_t *code = (uint8_t *)(uintptr_t)address;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    trap_answers[0] = answer;
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0)
        return true;
    for (uint64_t i = 0; i + 1 < size; i++)
        if (code[i] == 0x0f && code[i + 1] == 0xa2) {
            memcpy(trap_bytes, code + i, size - i < 15 ? size - i : 15);
            trap_address = address + i;
            code[i + 1] = 0x0b;
            return false;
        }
    die("loop_cpuid", "has no CPUID");
    return false;
}

/* ---- rows ---- */

enum { JUMP, CALL, BRANCH, BREAK, TRAP, NATIVE, ROWS };

static struct row rows[ROWS] = {
    [JUMP] = {"jump", "patch: direct jump", -1},
    [CALL] = {"call", "patch: call, through the routine table", -1},
    [BRANCH] = {"branch", "patch: short branch to an island", -1},
    [BREAK] = {"break", "patch: trap (signal) with an index, nothing decoded", -1},
    [TRAP] = {"trap_decode", "no patch: trap (signal), decode, emulate", -1},
    [NATIVE] = {"native", "no patch: the processor's CPUID (leaves the virtual machine, in one)",
                -1},
};

static void measure_all(bool *faulting)
{
    load_original();
    double empty = measure("loop_empty", 20000000, false, plain_call);
    rows[NATIVE].nanoseconds = measure("loop_cpuid", 2000, false, plain_call) - empty;
    *faulting = arm_trap();
    rows[TRAP].nanoseconds = measure("loop_cpuid", 50000, true, trapped_call) - empty;
    if (*faulting)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    guest_unload(&guest);
    for (int row = JUMP; row <= BREAK; row++) {
        load_patched(rows[row].name);
        rows[row].nanoseconds =
            measure("loop_cpuid", row == BREAK ? 50000 : 10000000, true, plain_call) - empty;
        guest_unload(&guest);
    }
}

static void print_json(bool faulting)
{
    printf("{\"dispatch\":{\"instruction\":\"cpuid\",\"trap\":\"%s\",\"nanoseconds\":{",
           faulting ? "cpuid faulting" : "ud2");
    for (int i = 0; i < ROWS; i++)
        printf("%s\"%s\":%.2f", i ? "," : "", rows[i].name, rows[i].nanoseconds);
    printf("},\"times_faster_than_trap_decode\":{");
    for (int i = JUMP; i <= BREAK; i++)
        printf("%s\"%s\":%.1f", i ? "," : "", rows[i].name,
               rows[TRAP].nanoseconds / rows[i].nanoseconds);
    printf("}}}\n");
}

static void print_table(bool faulting)
{
    printf("dispatch: ns per emulated CPUID, native, less an empty loop (trap by %s)\n",
           faulting ? "CPUID faulting" : "UD2");
    for (int i = 0; i < ROWS; i++)
        printf("  %-12s %9.1f ns  %8.1f x  %s\n", rows[i].name, rows[i].nanoseconds,
               rows[TRAP].nanoseconds / rows[i].nanoseconds, rows[i].what);
}

int main(int argc, char **argv)
{
    bool json = argc == 2 && strcmp(argv[1], "--json") == 0, faulting;
    if (argc > 1 && !json) {
        fprintf(stderr, "usage: dispatch [--json]\n");
        return 2;
    }
    const char *folder = getenv("BUILD"), *temporary = getenv("TMPDIR");
    snprintf(build_folder, sizeof build_folder, "%s", folder && *folder ? folder : "build");
    snprintf(scratch, sizeof scratch, "%s/dispatch.XXXXXX", temporary ? temporary : "/tmp");
    if (!mkdtemp(scratch))
        die(scratch, strerror(errno));
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    measure_all(&faulting);
    rmdir(scratch);
    if (json)
        print_json(faulting);
    else
        print_table(faulting);
    return 0;
}
