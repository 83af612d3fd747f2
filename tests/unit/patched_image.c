/* SPDX-License-Identifier: MIT */
/* The hand-written pair of images (patched_image.h). Both texts are assembled here, at the same
 * distances, so that the patched one can be compared by eye; C adds the ELF and the tables. */
#include "patched_image.h"

#include <elf.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "image/compose.h"

enum {
    TEXT_SIZE = 0x2000,
    TEXT_OFFSET = 0x1000,
    DATA_OFFSET = TEXT_OFFSET + TEXT_SIZE,
    DATA_SIZE = 0x1000,
};
#define TEXT_ADDRESS 0x1000000u
#define DATA_ADDRESS 0x1010000u

/* ---- the original's text ---- */
__asm__(".pushsection .rodata\n"
        ".balign 4096\n"
        ".globl pi_original\n"
        "pi_original:\n"
        "  push %rbp\n"
        "1: cpuid\n" /* window: 8 bytes at 1 */
        "  mov 9f(%rip), %eax\n"
        "  pop %rbp\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 7 bytes at 0x21 */
        "  nop\n"
        "  hlt\n"
        "  .byte 0xe3, 4\n" /* jrcxz to the ret */
        "  .byte 0x74, 0\n" /* je to the inc */
        "  inc %eax\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 2 bytes at 0x40 */
        "  wbinvd\n"
        "2: dec %eax\n"
        "  jnz 2b\n"
        "  ret\n"
        ".balign 128, 0xcc\n" /* windows: 10 bytes at 0x80, 2 bytes at 0x8a */
        "  mov $1, %eax\n"
        "  mov $2, %ecx\n"
        "  out %al, $0x80\n"
        "3: dec %eax\n"
        "  jnz 3b\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 4 bytes */
        "  rdmsr\n"
        "  mov %eax, %ebx\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 7 bytes */
        "  in $0x71, %al\n"
        "  call pi_original\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 7 bytes */
        "  cpuid\n"
        "4: mov $5, %ecx\n"
        "  ret\n"
        ".balign 32, 0xcc\n"
        "  .byte 0xe9\n"
        "  .long 4b - . - 4\n"
        ".balign 32, 0xcc\n" /* window: 5 bytes */
        "  sti\n"
        "  hlt\n"
        "  mov %eax, %eax\n"
        "  nop\n"
        "  ret\n"
        ".balign 32, 0xcc\n" /* window: 5 bytes */
        "  cpuid\n"
        "  xor %eax, %eax\n"
        "  ret\n"
        ".balign 32, 0xcc\n"
        "9: .long 0x12345678\n"
        ".balign 4096, 0xcc\n.fill 4096, 1, 0xcc\n"
        ".popsection\n");

/* ---- the patched text ---- */
#define LABEL(name) ".globl pi_" #name "\npi_" #name ":\n"
#define LINK(name)  LABEL(link_##name) "  .byte 0xe9, 0, 0, 0, 0\n" LABEL(native_##name)
/* push %rax; mov $index, %eax; out %eax, $0xe4; pop %rax; jmp tail */
#define DOORBELL(name, index)                                                                      \
    LABEL(emulation_##name)                                                                        \
    "  .byte 0x50, 0xb8\n  .long " #index "\n  .byte 0xe7, 0xe4, 0x58\n" LABEL(                    \
        emulation_end_##name) "  .byte 0xe9\n  .long pi_tail_" #name " - . - 4\n"
#define JUMP(target) "  .byte 0xe9\n  .long " target " - . - 4\n"

__asm__(".pushsection .rodata\n"
        ".balign 4096\n"
        ".globl pi_patched\n"
        "pi_patched:\n"
        "  push %rbp\n" JUMP("pi_trampoline_jump") /* jump */
        "  .byte 0xcc, 0xcc, 0xcc\n"
        "11: pop %rbp\n"
        "  ret\n"
        ".balign 32, 0xcc\n"
        "  nop\n"
        "  .byte 0xe8\n" /* call */
        "  .long pi_entry_call - . - 4\n"
        "  .byte 0xcc, 0xcc\n"
        "12: ret\n"
        ".balign 32, 0xcc\n"
        "  .byte 0xeb, pi_island_branch - . - 1\n" /* branch */
        "2: dec %eax\n"
        "  jnz 2b\n"
        "  ret\n"
        ".balign 32, 0xcc\n" LABEL(island_branch) JUMP("pi_trampoline_branch") /**/
        ".balign 128, 0xcc\n" JUMP("pi_trampoline_evicted")                    /**/
        LABEL(island_near) JUMP("pi_trampoline_near")                          /**/
        "  .byte 0xeb, pi_island_near - . - 1\n"
        "3: dec %eax\n"
        "  jnz 3b\n"
        "  ret\n"
        ".balign 32, 0xcc\n"
        "  .byte 0x0f, 0xb9, 0x40, 4\n" /* break, routine 4 */
        "13: ret\n"
        ".balign 32, 0xcc\n" JUMP("pi_trampoline_tail") /**/
        "  .byte 0xcc, 0xcc\n"
        "14: ret\n"
        ".balign 32, 0xcc\n" JUMP("pi_trampoline_retarget") /**/
        "  .byte 0xcc, 0xcc\n"
        "15: ret\n"
        ".balign 32, 0xcc\n" LABEL(retargeted) JUMP("pi_copy_retarget") /**/
        ".balign 32, 0xcc\n" JUMP("pi_trampoline_sti")                  /**/
        "16: ret\n"
        ".balign 32, 0xcc\n" JUMP("pi_trampoline_ret") /**/
        ".balign 32, 0xcc\n"
        "19: .long 0x12345678\n"

        ".balign 512, 0xcc\n" /* trampolines */
        LABEL(trampoline_jump) LINK(jump) "  cpuid\n" LABEL(tail_jump)
            LABEL(copy_jump) "  mov 19b(%rip), %eax\n" LABEL(back_jump) JUMP("11b") /**/
        LABEL(end_jump) DOORBELL(jump, 0)                                           /**/

        LABEL(entry_call) "  lea 8(%rsp), %rsp\n"
                          "  jmp *pi_routine_table + 8(%rip)\n"                    /* routine 1 */
        LABEL(trampoline_call) "  endbr64\n" LINK(call) "  hlt\n" LABEL(tail_call) /**/
        LABEL(copy_jrcxz) "  .byte 0xe3, 2, 0xeb, 5\n" JUMP("12b")                 /**/
        LABEL(copy_je) "  .byte 0x0f, 0x84\n  .long pi_copy_inc - . - 4\n"         /**/
        LABEL(copy_inc) "  inc %eax\n" JUMP("12b")                                 /**/
        LABEL(end_call) DOORBELL(call, 1)                                          /**/

        LABEL(trampoline_branch) LINK(branch) "  wbinvd\n" LABEL(tail_branch) JUMP("2b") /**/
        LABEL(end_branch) DOORBELL(branch, 2)                                            /**/

        LABEL(trampoline_evicted) "  mov $1, %eax\n  mov $2, %ecx\n" JUMP("pi_patched + 0x8a") /**/
        LABEL(end_evicted)                                                                     /**/

        LABEL(trampoline_near) LINK(near) "  out %al, $0x80\n" LABEL(tail_near) JUMP("3b") /**/
        LABEL(end_near)                                                                    /**/

        LABEL(trampoline_break)
            LINK(break) "  rdmsr\n" LABEL(tail_break) "  mov %eax, %ebx\n" JUMP("13b") /**/
        LABEL(end_break) DOORBELL(break, 4)                                            /**/

        LABEL(trampoline_tail)
            LINK(tail) "  in $0x71, %al\n" LABEL(tail_tail) "  lea -8(%rsp), %rsp\n"
                                                            "  push %rax\n"
                                                            "  lea 14b(%rip), %rax\n"
                                                            "  mov %rax, 8(%rsp)\n"
                                                            "  pop %rax\n" JUMP("pi_patched") /**/
        LABEL(end_tail)                                                                       /**/

        LABEL(trampoline_retarget) LINK(retarget) "  cpuid\n" LABEL(tail_retarget)
            LABEL(copy_retarget) "  mov $5, %ecx\n" JUMP("15b") /**/
        LABEL(end_retarget) DOORBELL(retarget, 6)               /**/

        LABEL(trampoline_sti)
            LINK(sti) "  sti\n  hlt\n" LABEL(tail_sti) "  mov %eax, %eax\n  nop\n" JUMP("16b") /**/
        LABEL(end_sti)                                                                         /**/

        LABEL(trampoline_ret) LINK(ret) "  cpuid\n" LABEL(tail_ret) "  xor %eax, %eax\n  ret\n" /**/
        LABEL(end_ret) DOORBELL(ret, 8)                                                         /**/

        ".balign 2048, 0xcc\n" LABEL(header) ".fill 0x400, 1, 0\n" /**/
        LABEL(patches) ".fill 0x400, 1, 0\n"                       /**/
        LABEL(routines) ".fill 0x400, 1, 0\n"                      /**/
        LABEL(routine_table) ".fill 0x48, 1, 0\n"                  /**/
                             ".balign 4096, 0xcc\n"
                             ".popsection\n");

extern const uint8_t pi_original[], pi_patched[];

/* Every label that C needs, by name. */
/* (The formatter would indent the list further with each run.) */
/* clang-format off */
#define LABELS \
    X(header) X(patches) X(routines) X(routine_table) X(trampoline_jump) X(end_jump) \
    X(link_jump) X(native_jump) X(tail_jump) X(emulation_jump) X(emulation_end_jump) \
    X(copy_jump) X(back_jump) X(entry_call) X(trampoline_call) X(end_call) X(link_call) \
    X(native_call) X(tail_call) X(emulation_call) X(emulation_end_call) X(copy_jrcxz) \
    X(copy_je) X(copy_inc) X(island_branch) X(trampoline_branch) X(end_branch) \
    X(link_branch) X(native_branch) X(tail_branch) X(emulation_branch) \
    X(emulation_end_branch) X(trampoline_evicted) X(end_evicted) X(island_near) \
    X(trampoline_near) X(end_near) X(link_near) X(native_near) X(tail_near) \
    X(trampoline_break) X(end_break) X(link_break) X(native_break) X(tail_break) \
    X(emulation_break) X(emulation_end_break) X(trampoline_tail) X(end_tail) X(link_tail) \
    X(native_tail) X(tail_tail) X(trampoline_retarget) X(end_retarget) X(link_retarget) \
    X(native_retarget) X(tail_retarget) X(emulation_retarget) X(emulation_end_retarget) \
    X(copy_retarget) X(retargeted) X(trampoline_sti) X(end_sti) X(link_sti) X(native_sti) \
    X(tail_sti) X(trampoline_ret) X(end_ret) X(link_ret) X(native_ret) X(tail_ret) \
    X(emulation_ret) X(emulation_end_ret)
/* clang-format on */

#define X(name) extern const uint8_t pi_##name[];
LABELS
#undef X

static const struct {
    const char *name;
    const uint8_t *at;
} labels[] = {
#define X(name) {#name, pi_##name},
    LABELS
#undef X
};

size_t patched_image_label(const char *name)
{
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        if (strcmp(labels[i].name, name) == 0)
            return labels[i].at - pi_patched;
    fprintf(stderr, "no label %s\n", name);
    abort();
}

static size_t label_of(const char *what, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "%s_%s", what, name);
    return patched_image_label(text);
}

/* What the tables say of each patch and its routine. */
static const struct {
    const char *name;
    uint32_t window, size; /* offset in .text, bytes */
    uint32_t site;
    enum pv_form form;
    enum pv_kind kind; /* NATIVE_ONLY: no emulation path */
    const char *island;
    uint8_t flags; /* PV_ROUTINE_* */
    uint32_t operand;
} facts[PATCH_COUNT] = {
    [PATCH_JUMP] = {"jump", 1, 8, 1, PV_FORM_JUMP, PV_KIND_CPUID, NULL, 0, 4u << 24},
    [PATCH_CALL] = {"call", 0x21, 7, 0x21, PV_FORM_CALL, PV_KIND_HLT, "entry_call", 0, 4u << 24},
    [PATCH_BRANCH] = {"branch", 0x40, 2, 0x40, PV_FORM_BRANCH, PV_KIND_WBINVD, "island_branch", 0,
                      4u << 24},
    [PATCH_EVICTED] = {"evicted", 0x80, 10, 0, PV_FORM_JUMP, PV_KIND_NATIVE_ONLY, NULL, 0,
                       4u << 24},
    [PATCH_NEAR] = {"near", 0x8a, 2, 0x8a, PV_FORM_BRANCH, PV_KIND_NATIVE_ONLY, "island_near", 0,
                    0x80 | 1u << 24},
    [PATCH_BREAK] = {"break", 0xa0, 4, 0xa0, PV_FORM_BREAK, PV_KIND_RDMSR, NULL, 0, 4u << 24},
    [PATCH_TAIL] = {"tail", 0xc0, 7, 0xc0, PV_FORM_JUMP, PV_KIND_NATIVE_ONLY, NULL, 0,
                    0x71 | 1u << 24},
    [PATCH_RETARGET] = {"retarget", 0xe0, 7, 0xe0, PV_FORM_JUMP, PV_KIND_CPUID, NULL, 0, 4u << 24},
    [PATCH_STI] = {"sti", 0x120, 5, 0x121, PV_FORM_JUMP, PV_KIND_NATIVE_ONLY, NULL, PV_ROUTINE_STI,
                   4u << 24},
    [PATCH_RET] = {"ret", 0x140, 5, 0x140, PV_FORM_JUMP, PV_KIND_CPUID, NULL, 0, 4u << 24},
};

/* ---- the ELF ---- */

static uint8_t *make_original(size_t *size)
{
    static const char names[] = "\0.text\0.data\0.shstrtab";
    size_t names_at = DATA_OFFSET + DATA_SIZE, sections_at = (names_at + sizeof names + 7) & ~7ul;
    *size = sections_at + 4 * sizeof(Elf64_Shdr) + 32; /* 32 bytes of trailing data */
    uint8_t *bytes = calloc(1, *size);
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_entry = TEXT_ADDRESS,
                         .e_phoff = sizeof header,
                         .e_shoff = sections_at,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 2,
                         .e_shentsize = sizeof(Elf64_Shdr),
                         .e_shnum = 4,
                         .e_shstrndx = 3};
    Elf64_Phdr segments[] = {
        {PT_LOAD, PF_R | PF_X, TEXT_OFFSET, TEXT_ADDRESS, TEXT_ADDRESS, TEXT_SIZE, TEXT_SIZE, 4096},
        {PT_LOAD, PF_R | PF_W, DATA_OFFSET, DATA_ADDRESS, DATA_ADDRESS, DATA_SIZE, DATA_SIZE,
         4096}};
    Elf64_Shdr sections[] = {
        {0},
        {1, SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, TEXT_ADDRESS, TEXT_OFFSET, TEXT_SIZE, 0, 0, 16,
         0},
        {7, SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, DATA_ADDRESS, DATA_OFFSET, DATA_SIZE, 0, 0, 16, 0},
        {13, SHT_STRTAB, 0, 0, names_at, sizeof names, 0, 0, 1, 0}};
    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, segments, sizeof segments);
    memcpy(bytes + TEXT_OFFSET, pi_original, TEXT_SIZE);
    memcpy(bytes + names_at, names, sizeof names);
    memcpy(bytes + sections_at, sections, sizeof sections);
    memset(bytes + *size - 32, 0x5a, 32);
    return bytes;
}

static int64_t from_header(size_t text_offset)
{
    return (int64_t)text_offset - (int64_t)patched_image_label("header");
}

static void fill_patch(struct pv_patch *patch, struct pv_routine *routine, uint64_t *entry, int i,
                       uint32_t index)
{
    const char *name = facts[i].name;
    size_t trampoline = label_of("trampoline", name);
    *patch = (struct pv_patch){.window_offset = from_header(facts[i].window),
                               .window_size = facts[i].size,
                               .trampoline_offset = from_header(trampoline),
                               .trampoline_size = label_of("end", name) - trampoline,
                               .first_routine = index,
                               .form = facts[i].form};
    if (facts[i].island)
        patch->island_offset = from_header(patched_image_label(facts[i].island));
    if (i == PATCH_EVICTED) {
        patch->flags = PV_PATCH_EVICTED;
        patch->first_routine = 0;
        return;
    }
    patch->routine_count = 1;
    *entry = TEXT_ADDRESS + trampoline;
    *routine = (struct pv_routine){.site_offset = from_header(facts[i].site),
                                   .link_offset = from_header(label_of("link", name)),
                                   .native_offset = from_header(label_of("native", name)),
                                   .tail_offset = from_header(label_of("tail", name)),
                                   .kind = facts[i].kind,
                                   .form = facts[i].form,
                                   .flags = facts[i].flags,
                                   .operand = facts[i].operand,
                                   .patch = i};
    if (facts[i].kind != PV_KIND_NATIVE_ONLY) {
        size_t emulation = label_of("emulation", name);
        routine->emulation_offset = from_header(emulation);
        routine->emulation_size = label_of("emulation_end", name) - emulation;
        routine->flags |= PV_ROUTINE_STACK | PV_ROUTINE_DOORBELL;
    }
}

static void fill_tables(uint8_t *text)
{
    struct pv_header header = {.magic = PV_HEADER_MAGIC,
                               .abi_version = PV_ABI_VERSION,
                               .header_size = sizeof header,
                               .features = PV_FEATURE_STATE,
                               .routine_count = PATCH_COUNT - 1,
                               .patch_count = PATCH_COUNT,
                               .doorbell_port = PV_DOORBELL_PORT,
                               .routine_table_offset =
                                   from_header(patched_image_label("routine_table")),
                               .routine_info_offset = from_header(patched_image_label("routines")),
                               .patch_info_offset = from_header(patched_image_label("patches")),
                               .state_offset = from_header(DATA_ADDRESS - TEXT_ADDRESS + 64),
                               .state_size = DATA_SIZE - 64};
    struct pv_patch patches[PATCH_COUNT];
    struct pv_routine routines[PATCH_COUNT];
    uint64_t table[PATCH_COUNT];
    uint32_t index = 0;
    for (int i = 0; i < PATCH_COUNT; i++) {
        fill_patch(&patches[i], &routines[index], &table[index], i, index);
        index += patches[i].routine_count;
    }
    memset(text + patched_image_label("header"), 0xcc, 0xc00);
    memcpy(text + patched_image_label("header"), &header, sizeof header);
    memcpy(text + patched_image_label("patches"), patches, sizeof patches);
    memcpy(text + patched_image_label("routines"), routines, index * sizeof *routines);
    memcpy(text + patched_image_label("routine_table"), table, index * sizeof *table);
}

/* ---- the patched file ---- */

/* The record: header, then the runs (compose's own, and .text as one), then their bytes. */
static uint8_t *make_record(const struct patched_image *p, const struct compose *c, size_t *size)
{
    struct pv_original_run runs[COMPOSE_RUNS + 1];
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < c->run_count; i++)
        runs[count++] = (struct pv_original_run){c->runs[i].offset, c->runs[i].size};
    runs[count++] = (struct pv_original_run){TEXT_OFFSET, TEXT_SIZE};
    for (size_t i = 0; i < count; i++)
        bytes += runs[i].size;
    struct pv_original record = {.size = p->original_size,
                                 .xxh3 = XXH3_64bits(p->original, p->original_size),
                                 .tail_offset = c->image->elf_end,
                                 .tail_insert_at = c->image->elf_end,
                                 .run_count = count};
    *size = sizeof record + count * sizeof *runs + bytes;
    uint8_t *out = calloc(1, *size), *at = out;
    at = mempcpy(at, &record, sizeof record);
    at = mempcpy(at, runs, count * sizeof *runs);
    for (size_t i = 0; i < count; i++)
        at = mempcpy(at, p->original + runs[i].offset, runs[i].size);
    return out;
}

struct note {
    Elf64_Nhdr header;
    char name[12];
    struct pv_note descriptor;
} __attribute__((packed));

static void collect(struct patched_image *p, const struct compose *c, uint64_t note_file,
                    uint64_t record_file)
{
    const struct iovec *pieces;
    size_t count, at = 0;
    compose_pieces((struct compose *)(uintptr_t)c, &pieces, &count, NULL);
    p->patched_size = c->output_size;
    p->patched = calloc(1, p->patched_size);
    for (size_t i = 0; i < count; i++) {
        memcpy(p->patched + at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    p->note = (void *)(p->patched + note_file + offsetof(struct note, descriptor));
    p->record = (void *)(p->patched + record_file);
    p->record->added_size = c->added_size;
    p->text = p->patched + TEXT_OFFSET;
    p->header = (void *)(p->text + patched_image_label("header"));
    p->patches = (void *)(p->text + patched_image_label("patches"));
    p->routines = (void *)(p->text + patched_image_label("routines"));
    p->routine_table = (void *)(p->text + patched_image_label("routine_table"));
}

static void make_patched(struct patched_image *p)
{
    struct image image;
    struct error err = {0};
    if (image_open(p->original_path, &image, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    uint8_t *edited = malloc(p->original_size);
    memcpy(edited, p->original, p->original_size);
    memcpy(edited + TEXT_OFFSET, pi_patched, TEXT_SIZE);
    fill_tables(edited + TEXT_OFFSET);
    size_t header = patched_image_label("header");
    struct note note = {.header = {sizeof PV_NOTE_NAME, sizeof(struct pv_note), PV_NOTE_TYPE},
                        .name = PV_NOTE_NAME,
                        .descriptor = {.abi_version = PV_ABI_VERSION,
                                       .flags = PV_IMAGE_NEEDS_RUNTIME,
                                       .header_address = TEXT_ADDRESS + header,
                                       .header_file = TEXT_OFFSET + header}};
    struct compose_section sections[] = {{".note.patchvisor", SHT_NOTE, &note, sizeof note, 4, 0},
                                         {".patchvisor.original", SHT_PROGBITS, NULL, 0, 8, 0}};
    struct compose c = {.image = &image,
                        .edited = edited,
                        .sections = sections,
                        .section_count = 2,
                        .note_section = 0};
    compose_begin(&c, &err);
    size_t record_size;
    uint8_t *record = make_record(p, &c, &record_size);
    sections[1].data = record;
    sections[1].size = record_size;
    if (err.code || compose_layout(&c, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    note.descriptor.original_file = sections[1].file_offset;
    note.descriptor.original_size = record_size;
    collect(p, &c, sections[0].file_offset, sections[1].file_offset);
    compose_free(&c);
    image_close(&image);
    free(record);
    free(edited);
}

/* Over what is there: the tests write thousands of times, and nearly the same. */
static void write_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size || ftruncate(fd, size) || close(fd)) {
        perror(path);
        abort();
    }
}

void patched_image_write(struct patched_image *p, int seal)
{
    if (seal) {
        p->note->output_xxh3 = 0;
        p->note->output_xxh3 = XXH3_64bits(p->patched, p->patched_size);
    }
    write_file(p->patched_path, p->patched, p->patched_size);
}

void patched_image_make(struct patched_image *p)
{
    *p = (struct patched_image){.folder = "/tmp/patchvisor.XXXXXX"};
    if (!mkdtemp(p->folder)) {
        perror(p->folder);
        abort();
    }
    snprintf(p->original_path, sizeof p->original_path, "%s/original", p->folder);
    snprintf(p->patched_path, sizeof p->patched_path, "%s/patched", p->folder);
    p->original = make_original(&p->original_size);
    patched_image_remake(p);
}

void patched_image_remake(struct patched_image *p)
{
    free(p->patched);
    write_file(p->original_path, p->original, p->original_size);
    make_patched(p);
    patched_image_write(p, 1);
}

void patched_image_free(struct patched_image *p)
{
    unlink(p->original_path);
    unlink(p->patched_path);
    rmdir(p->folder);
    free(p->original);
    free(p->patched);
}
