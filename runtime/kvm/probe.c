/* SPDX-License-Identifier: MIT */
/* What this host's KVM is worth. Some are software: they run ring 0 at a few MIPS, and some instructions not at all.
 * A tiny VM of 64 KiB in long mode finds out. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "runtime/cpuid.h"
#include "runtime/kvm/kvm.h"

enum { PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, CODE = 0x4000, DATA = 0x6000, SIZE = 0x10000 };
#define PAGE_FLAGS 0x7u  /* present, writable, for user mode too */
#define PAGE_2M    0x87u /* the same, large */
#define MIPS_GOOD  100.0
/* kHz: of a TSC that is faster, kernels compute in too few bits */
#define FREQUENCY_MAX 16000000u

static const struct needed {
    int capability;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
    {KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

/* For interrupt chips and 8254 in the kernel. */
static const struct needed needed_for_chips[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    {KVM_CAP_REINJECT_CONTROL, "KVM_CAP_REINJECT_CONTROL"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
};

/* The name of the first that is missing, or NULL. */
static const char *missing(int fd, const struct needed *list, size_t count)
{
    for (size_t n = 0; n < count; n++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, list[n].capability) <= 0)
            return list[n].name;
    return NULL;
}

/* ---- a VM of its own ---- */
struct lab {
    int fd, vm, cpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
};

static int lab_failed(struct error *err, const char *what)
{
    fail(err, HVRUN_NO_ENGINE, "KVM: %s: %s", what, strerror(errno));
    return -1;
}

static void lab_close(struct lab *lab)
{
    if (lab->run && lab->run != MAP_FAILED)
        munmap(lab->run, lab->run_size);
    if (lab->memory && (void *)lab->memory != MAP_FAILED)
        munmap(lab->memory, SIZE);
    if (lab->cpu > 0)
        close(lab->cpu);
    if (lab->vm > 0)
        close(lab->vm);
}

static int set_cpuid(const struct lab *lab, struct error *err)
{
    enum { ENTRIES = 128 };
    struct kvm_cpuid2 *table = calloc(1, sizeof *table + ENTRIES * sizeof(struct kvm_cpuid_entry2));
    if (!table)
        return fail(err, HVRUN_HOST, "out of memory");
    table->nent = ENTRIES;
    int result = 0;
    if (ioctl(lab->fd, KVM_GET_SUPPORTED_CPUID, table) < 0 ||
        ioctl(lab->cpu, KVM_SET_CPUID2, table) < 0)
        result = lab_failed(err, "CPUID");
    free(table);
    return result;
}

static int lab_open(struct lab *lab, int fd, struct error *err)
{
    *lab = (struct lab){.fd = fd};
    lab->vm = ioctl(fd, KVM_CREATE_VM, 0);
    if (lab->vm < 0)
        return lab_failed(err, "KVM_CREATE_VM");
    lab->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = SIZE,
                                                 .userspace_addr = (uintptr_t)lab->memory};
    if (lab->memory == MAP_FAILED || ioctl(lab->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
        ioctl(lab->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return lab_failed(err, "memory");
    lab->cpu = ioctl(lab->vm, KVM_CREATE_VCPU, 0ul);
    int size = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (lab->cpu < 0 || size < (int)sizeof *lab->run)
        return lab_failed(err, "KVM_CREATE_VCPU");
    lab->run_size = (size_t)size;
    lab->run = mmap(NULL, lab->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, lab->cpu, 0);
    if (lab->run == MAP_FAILED)
        return lab_failed(err, "run page");
    return set_cpuid(lab, err);
}

/* Long mode, ring 0, everything mapped at its own address; registers as `code` wants them. */
static int lab_load(struct lab *lab, const uint8_t *code, size_t size, struct error *err)
{
    struct kvm_sregs s;
    struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsi = DATA, .rsp = DATA, .rax = 3};
    uint64_t entries[3] = {PDPT | PAGE_FLAGS, PD | PAGE_FLAGS, PAGE_2M};
    memcpy(lab->memory + PML4, &entries[0], 8);
    memcpy(lab->memory + PDPT, &entries[1], 8);
    memcpy(lab->memory + PD, &entries[2], 8);
    memcpy(lab->memory + CODE, code, size);
    if (ioctl(lab->cpu, KVM_GET_SREGS, &s) < 0)
        return lab_failed(err, "KVM_GET_SREGS");
    s.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_MP | CR0_PG;
    s.cr3 = PML4;
    s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    s.efer = EFER_LME | EFER_LMA;
    s.cs = (struct kvm_segment){
        .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    s.ds = s.es = s.ss = s.fs = s.gs = (struct kvm_segment){
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    if (ioctl(lab->cpu, KVM_SET_SREGS, &s) < 0) {
        s.cr4 &= ~CR4_OSXSAVE;
        if (ioctl(lab->cpu, KVM_SET_SREGS, &s) < 0)
            return lab_failed(err, "KVM_SET_SREGS");
    }
    if (ioctl(lab->cpu, KVM_SET_REGS, &regs) < 0)
        return lab_failed(err, "KVM_SET_REGS");
    return 0;
}

/* True if the code reaches its HLT. */
static bool lab_run(struct lab *lab)
{
    int result;
    do
        result = ioctl(lab->cpu, KVM_RUN, NULL);
    while (result < 0 && errno == EINTR);
    return result == 0 && lab->run->exit_reason == KVM_EXIT_HLT;
}

/* ---- what it finds ---- */
#define LOOP_COUNT 1 /* where the count is in it, 32 bits */
static const uint8_t loop_code[] = {
    0xb9, 0,    0, 0, 0, /* mov $count, %ecx */
    0xff, 0xc9,          /* 1: dec %ecx */
    0x75, 0xfc,          /* jnz 1b */
    0xf4,                /* hlt */
};
/* RSI = DATA, which is aligned to 64 bytes and zero; EDX:EAX = 3 */
static const uint8_t xrstor_code[] = {0x0f, 0xae, 0x2e, 0xf4};     /* xrstor (%rsi); hlt */
static const uint8_t cx16_code[] = {0x48, 0x0f, 0xc7, 0x0e, 0xf4}; /* cmpxchg16b (%rsi); hlt */

/* rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, (%rsi); hlt */
static const uint8_t rdtsc_code[] = {0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48,
                                     0x09, 0xd0, 0x48, 0x89, 0x06, 0xf4};

static bool executes(int fd, const uint8_t *code, size_t size, struct error *err)
{
    struct lab lab;
    bool works = lab_open(&lab, fd, err) == 0 && lab_load(&lab, code, size, err) == 0;
    works = works && lab_run(&lab);
    lab_close(&lab);
    return works;
}

/* Does RDTSC in ring 0 see the offset that was set? */
static bool offsets_tsc(int fd, struct error *err)
{
    struct lab lab;
    const uint64_t far = 1ull << 50;
    uint64_t tsc = 0, before = __rdtsc(), offset = far - before;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    bool ran = lab_open(&lab, fd, err) == 0 &&
               lab_load(&lab, rdtsc_code, sizeof rdtsc_code, err) == 0 &&
               ioctl(lab.cpu, KVM_SET_DEVICE_ATTR, &attribute) == 0 && lab_run(&lab);
    if (ran)
        memcpy(&tsc, lab.memory + DATA, 8);
    uint64_t after = __rdtsc() - before;
    lab_close(&lab);
    return ran && tsc - far <= after;
}

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Seconds for a loop of so many rounds; negative: it does not run. */
static double time_loop(struct lab *lab, uint32_t rounds, struct error *err)
{
    uint8_t code[sizeof loop_code];
    memcpy(code, loop_code, sizeof code);
    memcpy(code + LOOP_COUNT, &rounds, 4);
    if (lab_load(lab, code, sizeof code, err) < 0)
        return -1;
    double start = seconds();
    return lab_run(lab) ? seconds() - start : -1;
}

/* Loops get longer until one takes a millisecond, so that software is found out as fast as hardware is. The best of
 * three counts: on a busy host one may be stopped in between. */
static int measure(int fd, struct kvm_quality *quality, struct error *err)
{
    struct lab lab;
    uint32_t rounds = 1000;
    double best = -1;
    bool ready = lab_open(&lab, fd, err) == 0;
    while (ready) {
        best = time_loop(&lab, rounds, err);
        for (unsigned n = 1; n < 3 && best >= 0; n++) {
            double again = time_loop(&lab, rounds, err);
            best = again < best ? again : best;
        }
        if (best < 0 || best > 1e-3 || rounds > UINT32_MAX / 2)
            break;
        rounds *= 2;
    }
    quality->tsc_khz = ready ? ioctl(lab.cpu, KVM_GET_TSC_KHZ, 0) : 0;
    quality->no_tsc_frequency = ready && quality->tsc_khz <= 0;
    lab_close(&lab);
    if (ready && best >= 0) {
        quality->mips = 2.0 * rounds / best * 1e-6;
        return 0;
    }
    return err->code ? -1 : fail(err, HVRUN_NO_ENGINE, "KVM: cannot run ring-0 code");
}

/* ---- KVM_SET_GUEST_DEBUG ---- */
/* At privilege level 3. */
static bool lab_user(struct lab *lab)
{
    struct kvm_sregs s;
    if (ioctl(lab->cpu, KVM_GET_SREGS, &s) < 0)
        return false;
    struct kvm_segment *const all[] = {&s.cs, &s.ss, &s.ds, &s.es, &s.fs, &s.gs};
    for (size_t n = 0; n < sizeof all / sizeof all[0]; n++) {
        all[n]->dpl = 3;
        all[n]->selector |= 3;
    }
    return ioctl(lab->cpu, KVM_SET_SREGS, &s) == 0;
}

/* nop; nop; mov %dr0, %rax; hlt: a breakpoint at the second, or with a guard on the debug registers */
static bool debug_exits(int fd, bool user, uint64_t dr7)
{
    static const uint8_t code[] = {0x90, 0x90, 0x0f, 0x21, 0xc0, 0xf4};
    struct lab lab;
    struct error ignored;
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
                                    .arch.debugreg = {[0] = CODE + 1, [7] = 0x400 | dr7}};
    bool met = lab_open(&lab, fd, &ignored) == 0 &&
               lab_load(&lab, code, sizeof code, &ignored) == 0 && (!user || lab_user(&lab)) &&
               ioctl(lab.cpu, KVM_SET_GUEST_DEBUG, &debug) == 0;
    if (met)
        lab_run(&lab);
    met = met && lab.run->exit_reason == KVM_EXIT_DEBUG;
    lab_close(&lab);
    return met;
}

void kvm_probe_debug(int fd, struct kvm_debug *debug)
{
    debug->ring0 = debug_exits(fd, false, 2);
    debug->ring3 = debug_exits(fd, true, 2);
    debug->guard = debug_exits(fd, false, DR7_GD);
}

static int open_kvm(struct error *err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail(err, HVRUN_NO_ENGINE, "/dev/kvm: %s; use --engine soft", strerror(errno));
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        fail(err, HVRUN_NO_ENGINE, "/dev/kvm: API version %d; 12 is needed", version);
    const char *name = missing(fd, needed, sizeof needed / sizeof needed[0]);
    if (version == KVM_API_VERSION && !name)
        return fd;
    if (name)
        fail(err, HVRUN_NO_ENGINE, "/dev/kvm: has no %s; use --engine soft", name);
    close(fd);
    return -1;
}

/* The node may be there without the driver: on a processor without virtualization, or with it turned off. */
bool kvm_absent(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO);
}

static unsigned slowness = 1;

unsigned kvm_slowness(void)
{
    return slowness;
}

static void find_slowness(const struct kvm_quality *quality)
{
    unsigned most = quality->tsc_khz > 0 ? FREQUENCY_MAX / (unsigned)quality->tsc_khz : 1;
    double wanted = quality->mips < MIPS_GOOD ? MIPS_GOOD / (quality->mips + 0.01) : 1;
    slowness = wanted < most ? (unsigned)wanted : most;
    if (slowness < 1)
        slowness = 1;
}

int kvm_probe(struct kvm_quality *quality, struct error *err)
{
    struct error ignored = {0};
    int fd = open_kvm(err);
    *quality = (struct kvm_quality){0};
    if (fd < 0)
        return -1;
    if (measure(fd, quality, err) < 0) {
        close(fd);
        return -1;
    }
    quality->no_chips =
        missing(fd, needed_for_chips, sizeof needed_for_chips / sizeof needed_for_chips[0]);
    quality->no_xsave = !executes(fd, xrstor_code, sizeof xrstor_code, &ignored);
    quality->no_cx16 = !executes(fd, cx16_code, sizeof cx16_code, &ignored);
    quality->no_tsc_offset = !offsets_tsc(fd, &ignored);
    close(fd);
    find_slowness(quality);
    if (quality->mips < MIPS_GOOD)
        snprintf(quality->why_not, sizeof quality->why_not,
                 "/dev/kvm executes ring 0 at %.1f MIPS: not by the processor", quality->mips);
    else if (quality->no_xsave || quality->no_cx16)
        snprintf(quality->why_not, sizeof quality->why_not, "/dev/kvm cannot execute %s in ring 0",
                 quality->no_xsave ? "XRSTOR" : "CMPXCHG16B");
    else if (quality->no_tsc_frequency)
        snprintf(quality->why_not, sizeof quality->why_not,
                 "/dev/kvm: the host's TSC has no constant frequency");
    return 0;
}

/* ---- features ---- */
static struct kvm_cpuid2 *supported;

static uint32_t host_bits(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    for (uint32_t n = 0; n < supported->nent; n++) {
        const struct kvm_cpuid_entry2 *e = &supported->entries[n];
        if (e->function == leaf && e->index == subleaf)
            return (const uint32_t[]){e->eax, e->ebx, e->ecx, e->edx}[reg];
    }
    return 0;
}

/* KVM's list leaves out what it gives guests by itself, or what user space decides. */
static bool always_there(enum cpu_feature feature)
{
    return feature == FEATURE_HYPERVISOR || feature == FEATURE_APIC || feature == FEATURE_HTT ||
           feature == FEATURE_OSXSAVE || feature == FEATURE_OSPKE || feature == FEATURE_X2APIC ||
           feature == FEATURE_TSC_DEADLINE || feature == FEATURE_ARAT ||
           feature == FEATURE_CMP_LEGACY || feature == FEATURE_INVARIANT_TSC ||
           feature == FEATURE_TSC_ADJUST;
}

static void hide_xsave(void)
{
    static const uint8_t rows[] = {FEATURE_XSAVE,  FEATURE_XSAVEOPT, FEATURE_XSAVEC,
                                   FEATURE_XSAVES, FEATURE_XGETBV1,  FEATURE_PKU,
                                   FEATURE_AVX,    FEATURE_AVX2,     FEATURE_FMA,
                                   FEATURE_F16C,   FEATURE_VAES,     FEATURE_VPCLMULQDQ};
    for (size_t n = 0; n < sizeof rows; n++)
        cpuid_hide(rows[n]);
}

int kvm_limit_features(const struct kvm_quality *quality, struct error *err)
{
    enum { ENTRIES = 256 };
    int fd = open_kvm(err);
    if (fd < 0)
        return -1;
    supported = calloc(1, sizeof *supported + ENTRIES * sizeof(struct kvm_cpuid_entry2));
    if (supported)
        supported->nent = ENTRIES;
    bool known = supported && ioctl(fd, KVM_GET_SUPPORTED_CPUID, supported) == 0;
    close(fd);
    if (!known) {
        free(supported);
        return fail(err, HVRUN_NO_ENGINE, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    }
    for (unsigned f = 1; f < FEATURES; f++) {
        enum cpu_feature feature = (enum cpu_feature)f;
        struct cpuid_place at;
        cpuid_place(feature, &at);
        if (!always_there(feature) && !(host_bits(at.leaf, at.subleaf, at.reg) >> at.bit & 1))
            cpuid_hide(feature);
    }
    if (host_bits(0xd, 9, 1) != XSTATE_PKRU_OFFSET) /* the guest's XSAVE has the host's layout */
        cpuid_hide(FEATURE_PKU);
    cpuid_hide(FEATURE_XSAVES); /* no supervisor components: XSAVEC is as good */
    if (quality->no_xsave)
        hide_xsave();
    if (quality->no_cx16)
        cpuid_hide(FEATURE_CX16);
    if (quality->no_tsc_offset)
        cpuid_hide(FEATURE_TSC_ADJUST);
    free(supported);
    supported = NULL;
    return 0;
}
