/* SPDX-License-Identifier: MIT */
/* Building small guest kernels. */
#include "tests/unit/guest_elf.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { S_NULL, S_TEXT, S_INIT, S_DATA, S_NOTES, S_SYMTAB, S_STRTAB, S_COUNT };
enum { P_TEXT, P_INIT, P_DATA, P_NOTES, P_COUNT };

static const char section_names[] = "\0.text\0.init.text\0.data\0.notes\0.symtab\0.strtab";
static const uint8_t name_at[S_COUNT] = {0, 1, 7, 18, 24, 31, 39};
static const char banner[] = "Linux version 6.1.0 (a@b) #1 SMP";

struct writer {
    const struct guest *guest;
    uint8_t *bytes;
    size_t size, room;
    Elf64_Shdr sections[S_COUNT];
    Elf64_Phdr segments[P_COUNT];
};

/* Appends bytes at a multiple of 16; returns their offset. */
static uint64_t append(struct writer *w, const void *bytes, size_t size)
{
    w->size = (w->size + 15) / 16 * 16;
    while (w->size + size > w->room) {
        size_t room = w->room ? w->room * 2 : 4096;
        w->bytes = realloc(w->bytes, room);
        if (!w->bytes)
            abort();
        memset(w->bytes + w->room, 0, room - w->room);
        w->room = room;
    }
    if (size)
        memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return w->size - size;
}

static void add_loaded(struct writer *w, int section, int segment, uint64_t flags, uint64_t vaddr,
                       uint64_t paddr, const void *bytes, size_t size)
{
    uint64_t at = append(w, bytes, size);
    w->sections[section] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
                                        .sh_flags = SHF_ALLOC | flags,
                                        .sh_addr = vaddr,
                                        .sh_offset = at,
                                        .sh_size = size,
                                        .sh_addralign = 1};
    w->segments[segment] = (Elf64_Phdr){.p_type = PT_LOAD,
                                        .p_flags = PF_R | (flags & SHF_EXECINSTR ? PF_X : PF_W),
                                        .p_offset = at,
                                        .p_vaddr = vaddr,
                                        .p_paddr = paddr,
                                        .p_filesz = size,
                                        .p_memsz = size,
                                        .p_align = 1};
}

static void add_notes(struct writer *w)
{
    uint32_t note[5] = {4, 4, 18, 0, (uint32_t)(GUEST_TEXT + w->guest->pvh_entry)};
    memcpy(&note[3], "Xen", 4);
    uint64_t at = append(w, note, sizeof note);
    w->sections[S_NOTES] = (Elf64_Shdr){
        .sh_type = SHT_NOTE, .sh_offset = at, .sh_size = sizeof note, .sh_addralign = 4};
    w->segments[P_NOTES] = (Elf64_Phdr){
        .p_type = PT_NOTE, .p_offset = at, .p_filesz = sizeof note, .p_memsz = sizeof note};
}

static void add_symbols(struct writer *w, uint64_t text)
{
    char names[512] = "";
    size_t at = 1, count = 1;
    Elf64_Sym wide[GUEST_SYMBOLS + 1] = {{0}};
    Elf32_Sym narrow[GUEST_SYMBOLS + 1] = {{0}};
    for (const struct guest_symbol *s = w->guest->symbols; count <= GUEST_SYMBOLS && s->name; s++) {
        unsigned char info = ELF64_ST_INFO(STB_GLOBAL, s->size ? STT_FUNC : STT_NOTYPE);
        wide[count] = (Elf64_Sym){.st_name = (uint32_t)at,
                                  .st_info = info,
                                  .st_shndx = S_TEXT,
                                  .st_value = text + s->offset,
                                  .st_size = s->size};
        narrow[count] = (Elf32_Sym){.st_name = (uint32_t)at,
                                    .st_info = info,
                                    .st_shndx = S_TEXT,
                                    .st_value = (uint32_t)(text + s->offset),
                                    .st_size = (uint32_t)s->size};
        strcpy(names + at, s->name);
        at += strlen(s->name) + 1;
        count++;
    }
    bool is64 = w->guest->elf_class == 64;
    size_t entry = is64 ? sizeof *wide : sizeof *narrow;
    uint64_t table = append(w, is64 ? (void *)wide : (void *)narrow, count * entry);
    w->sections[S_SYMTAB] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
                                         .sh_offset = table,
                                         .sh_size = count * entry,
                                         .sh_link = S_STRTAB,
                                         .sh_info = 1,
                                         .sh_entsize = entry,
                                         .sh_addralign = 1};
    /* One string table for both kinds of names. */
    memcpy(names + at, section_names, sizeof section_names);
    uint64_t strings = append(w, names, at + sizeof section_names);
    w->sections[S_STRTAB] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                         .sh_offset = strings,
                                         .sh_size = at + sizeof section_names,
                                         .sh_addralign = 1};
    for (int i = 1; i < S_COUNT; i++)
        w->sections[i].sh_name = (uint32_t)at + name_at[i];
}

static uint64_t add_section_headers(struct writer *w)
{
    if (w->guest->elf_class == 64)
        return append(w, w->sections, sizeof w->sections);
    Elf32_Shdr narrow[S_COUNT];
    for (int i = 0; i < S_COUNT; i++) {
        const Elf64_Shdr *s = &w->sections[i];
        narrow[i] = (Elf32_Shdr){(uint32_t)s->sh_name,
                                 s->sh_type,
                                 (uint32_t)s->sh_flags,
                                 (uint32_t)s->sh_addr,
                                 (uint32_t)s->sh_offset,
                                 (uint32_t)s->sh_size,
                                 s->sh_link,
                                 s->sh_info,
                                 (uint32_t)s->sh_addralign,
                                 (uint32_t)s->sh_entsize};
    }
    return append(w, narrow, sizeof narrow);
}

static void put_headers(struct writer *w, uint64_t entry, uint64_t section_headers)
{
    unsigned char ident[EI_NIDENT] = {ELFMAG0,    ELFMAG1,     ELFMAG2,   ELFMAG3,
                                      ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
    uint16_t sections = section_headers ? S_COUNT : 0, names = section_headers ? S_STRTAB : 0;
    if (w->guest->elf_class == 64) {
        Elf64_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_X86_64,
                        .e_version = EV_CURRENT,
                        .e_entry = entry,
                        .e_phoff = sizeof h,
                        .e_shoff = section_headers,
                        .e_ehsize = sizeof h,
                        .e_phentsize = sizeof(Elf64_Phdr),
                        .e_phnum = P_COUNT,
                        .e_shentsize = sizeof(Elf64_Shdr),
                        .e_shnum = sections,
                        .e_shstrndx = names};
        memcpy(h.e_ident, ident, sizeof ident);
        memcpy(w->bytes, &h, sizeof h);
        memcpy(w->bytes + sizeof h, w->segments, sizeof w->segments);
        return;
    }
    Elf32_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_version = EV_CURRENT,
                    .e_entry = (uint32_t)entry,
                    .e_phoff = sizeof h,
                    .e_shoff = (uint32_t)section_headers,
                    .e_ehsize = sizeof h,
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = P_COUNT,
                    .e_shentsize = sizeof(Elf32_Shdr),
                    .e_shnum = sections,
                    .e_shstrndx = names};
    ident[EI_CLASS] = ELFCLASS32;
    memcpy(h.e_ident, ident, sizeof ident);
    memcpy(w->bytes, &h, sizeof h);
    for (int i = 0; i < P_COUNT; i++) {
        const Elf64_Phdr *p = &w->segments[i];
        Elf32_Phdr narrow = {.p_type = p->p_type,
                             .p_offset = (uint32_t)p->p_offset,
                             .p_vaddr = (uint32_t)p->p_vaddr,
                             .p_paddr = (uint32_t)p->p_paddr,
                             .p_filesz = (uint32_t)p->p_filesz,
                             .p_memsz = (uint32_t)p->p_memsz,
                             .p_flags = p->p_flags,
                             .p_align = (uint32_t)p->p_align};
        memcpy(w->bytes + sizeof h + (size_t)i * sizeof narrow, &narrow, sizeof narrow);
    }
}

uint8_t *guest_build(const struct guest *guest, size_t *size)
{
    struct writer w = {.guest = guest};
    const uint8_t headers[512] = {0};
    uint64_t text = guest->linux_banner ? GUEST_TEXT_LINUX : GUEST_TEXT;
    append(&w, headers, sizeof headers);
    add_loaded(&w, S_TEXT, P_TEXT, SHF_EXECINSTR, text, GUEST_TEXT, guest->text, guest->text_size);
    if (guest->init)
        add_loaded(&w, S_INIT, P_INIT, SHF_EXECINSTR, text + GUEST_INIT, GUEST_TEXT + GUEST_INIT,
                   guest->init, guest->init_size);
    if (guest->linux_banner)
        add_loaded(&w, S_DATA, P_DATA, SHF_WRITE, GUEST_DATA, GUEST_DATA, banner, sizeof banner);
    else if (guest->data)
        add_loaded(&w, S_DATA, P_DATA, SHF_WRITE, GUEST_DATA, GUEST_DATA, guest->data,
                   guest->data_size);
    if (guest->pvh_entry)
        add_notes(&w);
    uint64_t section_headers = 0;
    if (!guest->no_sections) {
        add_symbols(&w, text);
        section_headers = add_section_headers(&w);
    }
    put_headers(&w, text + guest->entry, section_headers);
    *size = w.size;
    return w.bytes;
}
