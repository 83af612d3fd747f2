/* SPDX-License-Identifier: MIT */
/* What a run cost: this engine's counters, and KVM's own, which its binary statistics tell. (Linux
 * Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD) */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/kvm/kvm.h"

#define NAME_MAX_BYTES 256u
#define STATS_MAX      1024u

/* KVM's names, and ours. Those that this kernel does not count are not shown. */
static const struct {
    const char *theirs, *ours;
} shown[] = {
    {"exits", "kernel_exits"},
    {"io_exits", "kernel_io"},
    {"mmio_exits", "kernel_mmio"},
    {"halt_exits", "kernel_hlt"},
    {"hypercalls", "kernel_hypercalls"},
    {"pf_taken", "kernel_page_faults"},
    {"irq_exits", "kernel_host_interrupts"},
    {"irq_window_exits", "kernel_interrupt_windows"},
    {"irq_injections", "kernel_interrupts"},
    {"nmi_injections", "kernel_nmis"},
    {"insn_emulation", "kernel_emulated"},
};
#define SHOWN (sizeof shown / sizeof shown[0])

struct sums {
    bool there[SHOWN];
    uint64_t value[SHOWN];
};

static void add(struct sums *sums, const char *name, uint64_t value)
{
    for (size_t n = 0; n < SHOWN; n++)
        if (!strcmp(shown[n].theirs, name)) {
            sums->there[n] = true;
            sums->value[n] += value;
        }
}

/* One vCPU's: a header, descriptions, values. */
static void read_stats(int fd, struct sums *sums)
{
    struct kvm_stats_header header;
    union {
        struct kvm_stats_desc head;
        char space[sizeof(struct kvm_stats_desc) + NAME_MAX_BYTES + 1];
    } one = {.space = {0}};
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        header.name_size > NAME_MAX_BYTES || header.num_desc > STATS_MAX)
        return;
    size_t size = sizeof one.head + header.name_size;
    for (uint32_t n = 0; n < header.num_desc; n++) {
        uint64_t value;
        if (pread(fd, &one, size, (off_t)(header.desc_offset + n * size)) != (ssize_t)size)
            return;
        off_t at = (off_t)header.data_offset + one.head.offset;
        if (one.head.size == 1 && pread(fd, &value, sizeof value, at) == (ssize_t)sizeof value)
            add(sums, one.head.name, value);
    }
}

static void count(struct stats *stats, const char *name, uint64_t value)
{
    if (stats->engine_counts < ENGINE_COUNTS)
        stats->engine[stats->engine_counts++] = (struct engine_count){name, value};
}

void kvm_count_all(struct kvm *kvm)
{
    struct stats *stats = &kvm->vm->stats;
    struct sums sums = {{0}, {0}};
    stats->engine_counts = 0;
    count(stats, "runs", kvm->runs);
    count(stats, "ioctls", kvm->ioctls);
    count(stats, "pulls", kvm->pulls);
    count(stats, "soft_steps", kvm->soft_steps);
    count(stats, "doorbells", kvm->rings);
    count(stats, "doorbell_pulls", kvm->rings_pulled);
    count(stats, "io_pulls", kvm->io_pulls);
    count(stats, "lines", kvm->line_ioctls);
    for (unsigned k = 0; k < kvm->vm->vcpu_count; k++) {
        int fd = ioctl(kvm->cpus[k].fd, KVM_GET_STATS_FD, NULL);
        if (fd < 0)
            continue;
        read_stats(fd, &sums);
        close(fd);
    }
    if (sums.there[0]) /* those that did not come out of KVM_RUN */
        count(stats, "kernel_handled", sums.value[0] > kvm->came ? sums.value[0] - kvm->came : 0);
    for (size_t n = 0; n < SHOWN; n++)
        if (sums.there[n])
            count(stats, shown[n].ours, sums.value[n]);
}
