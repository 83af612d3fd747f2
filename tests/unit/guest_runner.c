/* SPDX-License-Identifier: MIT */
/* Loads a small guest image into this process and plays the runtime. */
#include "tests/unit/guest_runner.h"

#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_SIZE (64u << 20)

static bool give_up(struct guest *guest, const char *why)
{
    snprintf(guest->error, sizeof guest->error, "%s", why);
    return false;
}

/* ---- loading ---- */

/* Maps what all loadable segments span, page by page, and copies them. */
static bool load_segments(struct guest *guest, Elf *elf)
{
    size_t count, raw_size;
    uint64_t low = UINT64_MAX, high = 0;
    const char *raw = elf_rawfile(elf, &raw_size);
    if (!raw || elf_getphdrnum(elf, &count))
        return give_up(guest, "no program headers");
    for (int copying = 0; copying < 2; copying++) {
        for (size_t i = 0; i < count; i++) {
            GElf_Phdr ph;
            if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_LOAD || ph.p_memsz == 0)
                continue;
            if (ph.p_offset > raw_size || ph.p_filesz > raw_size - ph.p_offset ||
                ph.p_filesz > ph.p_memsz || ph.p_memsz > MAX_SIZE)
                return give_up(guest, "bad segment");
            if (copying)
                memcpy(guest->memory + (ph.p_vaddr - low), raw + ph.p_offset, ph.p_filesz);
            low = ph.p_vaddr < low ? ph.p_vaddr : low;
            high = ph.p_vaddr + ph.p_memsz > high ? ph.p_vaddr + ph.p_memsz : high;
        }
        if (copying)
            break;
        low &= ~4095ull;
        if (high <= low || high - low > MAX_SIZE)
            return give_up(guest, "segments too far apart");
        guest->size = (high - low + 4095) & ~4095ull;
        guest->memory = code_map((void *)(uintptr_t)low, guest->size);
        if (!guest->memory)
            return give_up(guest, "the guest's addresses are taken");
    }
    return true;
}

static void load_symbols(struct guest *guest, Elf *elf)
{
    for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section));) {
        GElf_Shdr header;
        GElf_Sym symbol;
        if (!gelf_getshdr(section, &header) || header.sh_type != SHT_SYMTAB)
            continue;
        Elf_Data *data = elf_getdata(section, NULL);
        for (int i = 0; data && gelf_getsym(data, i, &symbol); i++) {
            const char *name = elf_strptr(elf, header.sh_link, symbol.st_name);
            if (!name || GELF_ST_TYPE(symbol.st_info) != STT_FUNC || guest->symbol_count == 64)
                continue;
            snprintf(guest->symbols[guest->symbol_count].name, sizeof guest->symbols[0].name, "%s",
                     name);
            guest->symbols[guest->symbol_count].address = symbol.st_value;
            guest->symbols[guest->symbol_count++].size = symbol.st_size;
        }
    }
}

/* Finds our note in a block of notes. */
static bool find_note(Elf_Data *data, struct pv_note *note)
{
    size_t next, name_offset, desc_offset;
    GElf_Nhdr header;
    for (size_t at = 0;
         data && (next = gelf_getnote(data, at, &header, &name_offset, &desc_offset)) > 0;
         at = next)
        if (header.n_type == PV_NOTE_TYPE && header.n_namesz == sizeof PV_NOTE_NAME &&
            memcmp((char *)data->d_buf + name_offset, PV_NOTE_NAME, sizeof PV_NOTE_NAME) == 0 &&
            header.n_descsz >= sizeof *note) {
            memcpy(note, (char *)data->d_buf + desc_offset, sizeof *note);
            return true;
        }
    return false;
}

static bool read_note(Elf *elf, struct pv_note *note)
{
    size_t count = 0;
    elf_getphdrnum(elf, &count);
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr ph;
        if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_NOTE &&
            find_note(elf_getdata_rawchunk(elf, (int64_t)ph.p_offset, ph.p_filesz,
                                           ph.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR),
                      note))
            return true;
    }
    for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section));) {
        GElf_Shdr header;
        if (gelf_getshdr(section, &header) && header.sh_type == SHT_NOTE &&
            find_note(elf_getdata(section, NULL), note))
            return true;
    }
    return false;
}

uint64_t guest_address(const struct guest *guest, int64_t offset)
{
    return (uint64_t)(uintptr_t)guest->header + (uint64_t)offset;
}

/* The host pointer to `size` bytes at an offset of the ABI; NULL if they are outside the guest. */
static void *at_offset(const struct guest *guest, int64_t offset, uint64_t size)
{
    uint64_t address = guest_address(guest, offset), base = (uintptr_t)guest->memory;
    if (address < base || address - base > guest->size || guest->size - (address - base) < size)
        return NULL;
    return (void *)(uintptr_t)address;
}

static bool open_header(struct guest *guest, const struct pv_note *note)
{
    uint64_t base = (uintptr_t)guest->memory;
    guest->note_flags = note->flags;
    if (note->abi_version != PV_ABI_VERSION || note->header_address < base ||
        note->header_address - base > guest->size - sizeof *guest->header)
        return give_up(guest, "bad note");
    guest->header = (struct pv_header *)(uintptr_t)note->header_address;
    const struct pv_header *h = guest->header;
    if (memcmp(h->magic, PV_HEADER_MAGIC, sizeof h->magic) != 0 ||
        h->abi_version != PV_ABI_VERSION || h->header_size != sizeof *h)
        return give_up(guest, "bad stub header");
    guest->routine_table =
        at_offset(guest, h->routine_table_offset, sizeof(uint64_t) * h->routine_count);
    guest->routines =
        at_offset(guest, h->routine_info_offset, sizeof(struct pv_routine) * h->routine_count);
    guest->patches =
        at_offset(guest, h->patch_info_offset, sizeof(struct pv_patch) * h->patch_count);
    if (!guest->routine_table || !guest->routines || !guest->patches)
        return give_up(guest, "a table lies outside the image");
    if (h->cpuid_table_offset) {
        guest->cpuid = at_offset(guest, h->cpuid_table_offset, sizeof *guest->cpuid);
        if (!guest->cpuid)
            return give_up(guest, "the CPUID table lies outside the image");
    }
    return true;
}

bool guest_load(struct guest *guest, const char *path)
{
    memset(guest, 0, sizeof *guest);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return give_up(guest, "cannot open");
    elf_version(EV_CURRENT);
    Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
    struct pv_note note;
    bool loaded = elf && elf_kind(elf) == ELF_K_ELF && gelf_getclass(elf) == ELFCLASS64 &&
                  load_segments(guest, elf);
    if (loaded) {
        load_symbols(guest, elf);
        if (read_note(elf, &note))
            loaded = open_header(guest, &note);
    } else if (!guest->error[0]) {
        give_up(guest, "not an ELF64 image");
    }
    elf_end(elf);
    close(fd);
    if (!loaded)
        guest_unload(guest);
    return loaded;
}

void guest_unload(struct guest *guest)
{
    if (guest->memory)
        munmap(guest->memory, guest->size);
    guest->memory = NULL;
    guest->header = NULL;
}

uint64_t guest_symbol(const struct guest *guest, const char *name, uint64_t *size)
{
    for (unsigned i = 0; i < guest->symbol_count; i++)
        if (strcmp(guest->symbols[i].name, name) == 0) {
            if (size)
                *size = guest->symbols[i].size;
            return guest->symbols[i].address;
        }
    return 0;
}

/* ---- the runtime's part ---- */

int guest_routine(const struct guest *guest, uint64_t address, uint64_t size)
{
    for (uint32_t i = 0; guest->header && i < guest->header->routine_count; i++)
        if (guest_address(guest, guest->routines[i].site_offset) - address < size)
            return (int)i;
    return -1;
}

bool guest_activate(struct guest *guest, int index, bool active)
{
    const struct pv_routine *routine = &guest->routines[index];
    uint8_t *link = at_offset(guest, routine->link_offset, 5);
    if (!link || routine->emulation_offset == 0 || link[0] != 0xe9)
        return false;
    int32_t distance =
        active ? (int32_t)(routine->emulation_offset - (routine->link_offset + 5)) : 0;
    memcpy(link + 1, &distance, 4);
    return true;
}

int64_t guest_break_index(const uint8_t *code, unsigned *length)
{
    if (code[0] != 0x0f || code[1] != 0xb9)
        return -1;
    if ((code[2] & 0xc7) == 0x40) {
        *length = 4;
        return (int64_t)(code[2] >> 3 & 7) << 8 | code[3];
    }
    if (code[2] != 0x80 && code[2] != 0x81) /* break, bare doorbell */
        return -1;
    uint32_t index;
    memcpy(&index, code + 3, 4);
    *length = 7;
    return index;
}

struct call {
    struct guest *guest;
    guest_doorbell *doorbell;
    void *context;
};

static bool end_call(struct guest *guest, uint64_t *rip)
{
    guest->fault = *rip;
    *rip = (uintptr_t)code_exit;
    return true;
}

static bool on_trap(void *context, int number, struct code_registers *registers, uint64_t *rip)
{
    struct call *call = context;
    struct guest *guest = call->guest;
    if (*rip - (uintptr_t)guest->memory >= guest->size)
        return false;
    const uint8_t *code = (const uint8_t *)(uintptr_t)*rip;
    unsigned length = 0;
    int64_t index = number == SIGILL ? guest_break_index(code, &length) : -1;
    if (index >= 0 && guest->header && index < guest->header->routine_count) {
        const struct pv_patch *patch = &guest->patches[guest->routines[index].patch];
        if (*rip == guest_address(guest, patch->window_offset)) { /* D3, D5: the index is all */
            guest->breaks++;
            *rip = guest->routine_table[index];
            return true;
        }
        guest->doorbells++;
        if (call->doorbell)
            call->doorbell(call->context, (uint32_t)index, registers, &registers->r[RAX]);
        *rip += length;
        return true;
    }
    if (number == SIGSEGV && code[0] == 0xe7 && code[1] == PV_DOORBELL_PORT) {
        guest->doorbells++;
        if (call->doorbell)
            call->doorbell(call->context, (uint32_t)registers->r[RAX], registers,
                           (uint64_t *)(uintptr_t)registers->r[RSP]);
        *rip += 2;
        return true;
    }
    return end_call(guest, rip);
}

void guest_call(struct guest *guest, uint64_t address, struct code_registers *registers,
                guest_doorbell *doorbell, void *context)
{
    static _Alignas(16) uint64_t stack[2048];
    struct call call = {guest, doorbell, context};
    guest->breaks = guest->doorbells = 0;
    guest->fault = 0;
    stack[2047 - 8] = (uintptr_t)code_exit; /* where RET leads */
    registers->r[RSP] = (uintptr_t)&stack[2047 - 8];
    code_run(registers, (const void *)(uintptr_t)address, on_trap, &call);
}
