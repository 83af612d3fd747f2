/* SPDX-License-Identifier: MIT */
/* What an IO block costs, and what it saves: scanning, compiling, hashing, finding, executing
 * (--json only).
 *
 * Times are nanoseconds of this machine. What an exit costs is not measured here: 1000 ns is
 * what hardware virtualization takes at best, and nested several times that. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/io_hasher.h"
#include "runtime/io_scanner.h"
#include "tests/unit/io_lab.h"

#define EXIT_NS 1000.0
#define ROUNDS  7u

static const uint8_t straight[] = {0xe6, 0x61, 0xe6, 0x62, 0xb0, 0x11, 0xe6, 0x63, 0xe6,
                                   0x64, 0xb0, 0x01, 0xe6, 0x65, 0xe6, 0x66, 0xe6, 0x67,
                                   0xe6, 0x68, 0xb0, 0xff, 0xe6, 0x69, 0xe6, 0x6a};
/* 1: in; test al, 32; jz 1b; lodsb; out; dec ecx; jnz 1b, 32 bytes */
static const uint8_t polled[] = {0xe4, 0x65, 0xa8, 0x20, 0x74, 0xfa, 0xac,
                                 0xe6, 0x60, 0xff, 0xc9, 0x75, 0xf3};
/* 1: mov [rdi], al's address out, in; stosb: a CMOS read-out of 64 bytes */
static const uint8_t read_out[] = {0x88, 0xc8, 0xe6, 0x70, 0xe4, 0x71,
                                   0xaa, 0xff, 0xc9, 0x75, 0xf5};

struct shape {
    const char *name;
    const uint8_t *code;
    size_t size;
    unsigned count;      /* ECX at its begin; 0 = not used */
    unsigned io;         /* IO instructions executed in a visit */
    unsigned key_offset; /* of its first IO instruction */
};
#define SHAPE(name, code, ...)                                                                     \
    {                                                                                              \
        name, code, sizeof code, __VA_ARGS__                                                       \
    }
static const struct shape shapes[] = {SHAPE("ten OUT in a line", straight, 0, 10, 0),
                                      SHAPE("polled output, 32 bytes", polled, 32, 64, 0),
                                      SHAPE("CMOS read-out, 64 bytes", read_out, 64, 128, 2)};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of some rounds of `call`, for one of `times`. */
static double median(void (*call)(struct io_lab *lab, const struct shape *shape),
                     struct io_lab *lab, const struct shape *shape, unsigned times)
{
    double rounds[ROUNDS];
    for (unsigned r = 0; r < ROUNDS; r++) {
        double begin = now();
        for (unsigned n = 0; n < times; n++)
            call(lab, shape);
        rounds[r] = (now() - begin) / times;
    }
    qsort(rounds, ROUNDS, sizeof rounds[0], ascending);
    return rounds[ROUNDS / 2];
}

/* ---- what is measured ---- */
static struct io_block block;
static struct io_bytes bytes;

static uint64_t key_of(const struct shape *shape)
{
    return ONE_INSN_CODE + 32 + shape->key_offset;
}

static void scan(struct io_lab *lab, const struct shape *shape)
{
    struct io_extent extent = io_extent_default();
    io_scan_guest(lab->vm->io_blocks->scanner, lab->cpu, &extent, key_of(shape), &block);
}

static void hash(struct io_lab *lab, const struct shape *shape)
{
    io_hash(lab->cpu, &block, key_of(shape), &bytes);
}

static void compile(struct io_lab *lab, const struct shape *shape)
{
    struct io_compiled *compiled = io_compiled_make(lab->cpu, &block, key_of(shape), bytes.bytes);
    io_compiled_watch(lab->cpu, compiled);
    io_compiled_free(compiled);
}

static void find(struct io_lab *lab, const struct shape *shape)
{
    struct io_entry *entry = io_entry_at(lab->vm->io_blocks, key_of(shape), lab->cpu->jump_key);
    lab->cpu->rip = key_of(shape);
    if (!entry->compiled || !io_compiled_unchanged(entry->compiled) ||
        !io_compiled_enters(lab->cpu, entry->compiled))
        abort();
}

#define VISITS 200u
/* mov r12d, VISITS; 1: mov esi, edi, data; mov ecx, count; block; cli; dec r12d; jnz 1b; hlt */
static void write_program(struct io_lab *lab, const struct shape *shape)
{
    uint8_t begin[32] = {0x41,   0xbc,
                         VISITS, 0,
                         0,      0, /* */
                         0xbe,   0x00,
                         0x00,   0x01,
                         0x00, /* mov esi */
                         0xbf,   0x00,
                         0x02,   0x01,
                         0x00, /* mov edi */
                         0xb9,   (uint8_t)shape->count,
                         0,      0,
                         0,      0x66,
                         0x90};
    memset(begin + 23, 0x90, sizeof begin - 23);
    uint8_t end[] = {0xfa, 0x41, 0xff, 0xcc, 0x0f, 0x85, 0, 0, 0, 0, 0xf4};
    int32_t back = (int32_t)(6 - (32 + (int)shape->size + 10));
    memcpy(end + 6, &back, 4);
    io_lab_write(lab, ONE_INSN_CODE, begin, sizeof begin);
    io_lab_write(lab, ONE_INSN_CODE + 32, shape->code, shape->size);
    io_lab_write(lab, ONE_INSN_CODE + 32 + shape->size, end, sizeof end);
    lab->answer = 0x20;
}

static void execute(struct io_lab *lab, const struct shape *shape)
{
    (void)shape;
    io_lab_go(lab);
}

int main(void)
{
    printf("{\"io_blocks\": {\"exit_ns\": %.0f, \"rows\": [", EXIT_NS);
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        const struct shape *shape = &shapes[k];
        struct io_lab *single = io_lab_open(IO_BLOCKS_OFF, NULL);
        struct io_lab *batched = io_lab_open(IO_BLOCKS_SCAN, NULL);
        write_program(single, shape);
        write_program(batched, shape);
        io_lab_go(batched);
        unsigned events = (unsigned)batched->vm->stats.io_events;
        double one = median(execute, single, shape, 20) / VISITS;
        double all = median(execute, batched, shape, 20) / VISITS;
        double scanned = median(scan, batched, shape, 2000);
        double hashed = median(hash, batched, shape, 20000);
        double compiled = median(compile, batched, shape, 500);
        double found = median(find, batched, shape, 20000);
        /* two visits: what the scan and the compilation cost, and what the exits would have */
        double saved = 2 * (shape->io - (double)events / VISITS) * EXIT_NS;
        printf("%s{\"name\": \"%s\", \"io\": %u, \"events_per_visit\": %.2f, \"scan_ns\": %.0f, "
               "\"compile_ns\": %.0f, \"hash_ns\": %.0f, \"find_ns\": %.1f, \"block_ns\": %.0f, "
               "\"single_ns\": %.0f, \"cost_to_saved\": %.3f}",
               k ? ", " : "", shape->name, shape->io, (double)events / VISITS, scanned, compiled,
               hashed, found, all, one, (scanned + compiled) / saved);
        io_lab_close(single);
        io_lab_close(batched);
    }
    printf("]}}\n");
    return 0;
}
