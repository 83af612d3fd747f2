/* SPDX-License-Identifier: MIT */
/* monitor commands: what gdb has no words for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "image/terminal.h"
#include "runtime/dump.h"
#include "runtime/gdb_server.h"
#include "runtime/io_entries.h"
#include "runtime/stub.h"

#define LINE_MAX_BYTES 256
#define XP_BYTES_MAX   4096

struct monitor {
    struct gdb *gdb;
    FILE *out;
    char *rest; /* of the line: what stands behind the command */
};

/* ---- info ---- */
static void info_exits(struct monitor *m)
{
    stats_exits(m->gdb->vm, m->gdb->vm->image, "", m->out);
}

static const char *const forms[PV_FORMS] = {
    [PV_FORM_NONE] = "none",     [PV_FORM_JUMP] = "jump",   [PV_FORM_CALL] = "call",
    [PV_FORM_BRANCH] = "branch", [PV_FORM_BREAK] = "break",
};

static void info_patches(struct monitor *m)
{
    const struct stub *stub = m->gdb->vm->stub;
    if (!stub) {
        fprintf(m->out, "The guest is not patched, or its routines are inactive.\n");
        return;
    }
    fprintf(m->out, "%" PRIu32 " routines, %" PRIu32 " of them linked\n", stub->routine_count,
            stub->linked_count);
    fprintf(m->out, "%-18s %-18s %-7s %s\n", "site", "emulation", "form", "linked");
    for (uint32_t n = 0; n < stub->routine_count; n++) {
        const struct stub_routine *r = &stub->routines[n];
        fprintf(m->out, "0x%016" PRIx64 " 0x%016" PRIx64 " %-7s %s\n",
                stub->header_linear + (uint64_t)r->site_offset,
                stub->header_linear + (uint64_t)r->emulation_offset,
                r->form < PV_FORMS ? forms[r->form] : "?", r->linked ? "yes" : "no");
    }
}

/* What an event at this address executes: "0xffffffff81234567 38 bytes, 2 IO, ports 0x3f8 0x3fd
 * serial_in". */
static void print_entry(struct monitor *m, const struct io_entry *entry)
{
    const struct image *image = m->gdb->vm->image;
    const struct io_block *block = entry->block;
    const struct image_symbol *symbol = image ? image_symbol_at(image, entry->key, NULL) : NULL;
    char name[100] = "";
    fprintf(m->out, "0x%016" PRIx64 " ", entry->key);
    if (!block)
        fprintf(m->out, "single instruction");
    else
        fprintf(m->out, "%u bytes, %u instructions, %u of them IO; ports", block->size,
                block->insn_count, block->io_count);
    for (unsigned n = 0; block && n < block->port_count; n++)
        fprintf(m->out, " 0x%x", block->ports[n]);
    fprintf(m->out, "  %s\n", symbol ? terminal_copy(name, sizeof name, symbol->name) : "");
}

static void info_ioblocks(struct monitor *m)
{
    const struct stats *stats = &m->gdb->vm->stats;
    const struct io_blocks *io = m->gdb->vm->io_blocks;
    for (unsigned n = 0; io && n < IO_ENTRY_BUCKETS; n++)
        for (const struct io_entry *entry = io->bucket[n]; entry; entry = entry->next)
            print_entry(m, entry);
    if (io)
        fprintf(m->out, "%u addresses known, %zu blocks in the image's table\n", io->count,
                io->has_table ? (size_t)io->table.entry_count : 0);
    fprintf(m->out,
            "%" PRIu64 " IO instructions took %" PRIu64 " events; %" PRIu64 " blocks hit, %" PRIu64
            " missed, %" PRIu64 " with another hash\n",
            stats->io_instructions, stats->io_events, stats->block_hits, stats->block_misses,
            stats->hash_mismatches);
}

static void info_registers(struct monitor *m)
{
    vcpu_dump(gdb_vcpu(m->gdb), m->out);
}

/* ---- others ---- */
/* xp ADDRESS [COUNT]: bytes by guest-physical address. */
static void physical_memory(struct monitor *m)
{
    char *end;
    uint64_t address = strtoull(m->rest, &end, 0), count = 64;
    if (end != m->rest && *end == ' ')
        count = strtoull(end + 1, &end, 0);
    if (end == m->rest || *end || count == 0 || count > XP_BYTES_MAX) {
        fprintf(m->out, "xp ADDRESS [COUNT]: a physical address, and 1 to %d bytes\n",
                XP_BYTES_MAX);
        return;
    }
    for (uint64_t n = 0; n < count; n++) {
        uint8_t byte;
        if (!memory_read(&m->gdb->vm->memory, address + n, &byte, 1)) {
            fprintf(m->out, "%s0x%" PRIx64 " is not RAM\n", n % 16 ? "\n" : "", address + n);
            return;
        }
        if (n % 16 == 0)
            fprintf(m->out, "0x%010" PRIx64 ":", address + n);
        fprintf(m->out, " %02x%s", byte, n % 16 == 15 || n + 1 == count ? "\n" : "");
    }
}

static void step_events(struct monitor *m)
{
    if (!strcmp(m->rest, "on") || !strcmp(m->rest, "off"))
        m->gdb->step_events = m->rest[1] == 'n';
    else if (m->rest[0])
        fprintf(m->out, "step-events on|off\n");
    fprintf(m->out, "Interrupts are %s while stepping.\n",
            m->gdb->step_events ? "delivered" : "held back");
}

/* Where everybody is, by the names of the kernel's functions. */
static void where(struct monitor *m)
{
    const struct vm *vm = m->gdb->vm;
    for (unsigned n = 0; n < vm->vcpu_count; n++) {
        char place[256];
        fprintf(m->out, "vCPU %u: %s\n", n, vcpu_place(vm->vcpus[n], place, sizeof place));
    }
}

static void help(struct monitor *m);

static const struct row {
    const char *name;
    void (*command)(struct monitor *m);
    const char *arguments, *help;
} rows[] = {
    {"help", help, "", "this list"},
    {"info exits", info_exits, "", "exits so far by reason, and where most came from"},
    {"info patches", info_patches, "", "routines of a patched kernel"},
    {"info ioblocks", info_ioblocks, "", "IO instructions, and the blocks they were run in"},
    {"info registers", info_registers, "", "registers, hidden parts of segments, stack"},
    {"xp", physical_memory, "ADDRESS [COUNT]", "guest-physical memory"},
    {"step-events", step_events, "[on|off]", "deliver interrupts while stepping (off)"},
    {"where", where, "", "where every vCPU is"},
};

static void help(struct monitor *m)
{
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++)
        fprintf(m->out, "%-16s %-16s %s\n", rows[n].name, rows[n].arguments, rows[n].help);
}

static void run_line(struct monitor *m, char *line)
{
    size_t length = strlen(line);
    while (length && line[length - 1] == ' ')
        line[--length] = '\0';
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        size_t name = strlen(rows[n].name);
        if (strncmp(line, rows[n].name, name) || (line[name] && line[name] != ' '))
            continue;
        m->rest = line + name + strspn(line + name, " ");
        rows[n].command(m);
        return;
    }
    fprintf(m->out, "There is no such command; try: monitor help\n");
}

/* qRcmd,XX…: the line in hexadecimal. Its output goes ahead of the reply. */
void gdb_monitor(struct gdb *gdb, const char *args, size_t length)
{
    char line[LINE_MAX_BYTES] = "", *text = NULL;
    size_t size = 0;
    if (length / 2 >= sizeof line || length % 2 || !gdb_unhex(&args, line, length / 2)) {
        gdb_error(gdb, GDB_BAD_PACKET);
        return;
    }
    struct monitor m = {.gdb = gdb, .out = open_memstream(&text, &size)};
    if (m.out) {
        run_line(&m, line + strspn(line, " "));
        fclose(m.out);
    }
    if (text)
        gdb_send_text(gdb, text, size);
    free(text);
    gdb_ok(gdb);
}
