/* SPDX-License-Identifier: MIT */
/* The template set: reads the embedded relocatable object, retrieves templates by instruction form
 * (D7) and fills them (D8).
 *
 * The object has a section .tmpl.<name> per template and one section of text, .tmpl_meta, with a
 * line (ended by NUL) "T name kind rank needs" per template, followed by a line "F form" per form.
 */
#include "patchc/template.h"

#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/form.h"
#include "patchc/hole.h"
#include "patchc/site.h"

extern const char templates_blob[], templates_blob_end[];

#define TEMPLATE_MAX_SIZE 4096
#define SECTION_PREFIX    ".tmpl."

_Static_assert(offsetof(struct pv_cpuid_entry, negated_leaf) == PV_CPUID_NEGATED_LEAF, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, negated_subleaf) == PV_CPUID_NEGATED_SUBLEAF, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, subleaves) == PV_CPUID_SUBLEAVES, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, eax) == PV_CPUID_EAX, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, ebx) == PV_CPUID_EBX, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, ecx) == PV_CPUID_ECX, "ABI");
_Static_assert(offsetof(struct pv_cpuid_entry, edx) == PV_CPUID_EDX, "ABI");
_Static_assert(sizeof(struct pv_cpuid_entry) == 32, "cpuid.S scales by 4 and 8");
_Static_assert(offsetof(struct pv_msr_entry, negated) == PV_MSR_NEGATED, "ABI");
_Static_assert(offsetof(struct pv_msr_entry, eax) == PV_MSR_EAX, "ABI");
_Static_assert(offsetof(struct pv_msr_entry, edx) == PV_MSR_EDX, "ABI");
_Static_assert(sizeof(struct pv_msr_entry) == 16, "rdmsr.S scales by 2 and 8");

_Static_assert(offsetof(struct pv_port, value) == PV_PORT_VALUE && sizeof(struct pv_port) == 4,
               "ABI");
_Static_assert(offsetof(struct pv_port, negated) == 0 && offsetof(struct pv_port, kind) == 3,
               "in.S and out.S take an entry apart");

struct template
{
    const char *name;
    enum pv_kind kind;
    int rank;
    unsigned flags;   /* PV_ROUTINE_* */
    unsigned context; /* enum context_flag bits that it needs */
    unsigned uses;    /* enum hole_use bits */
    struct form *forms;
    size_t form_count;
    const uint8_t *code; /* in the blob */
    size_t size;
    struct hole *holes;
    size_t hole_count;
};

struct template_set {
    Elf *elf;
    char *meta; /* a copy of .tmpl_meta, cut into words; names point into it */
    struct template *templates;
    size_t count;
    size_t *by_name; /* indices of templates, which are sorted by rank and name */
    bool named[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* some form has this mnemonic */
};

/* ---- reading: metadata ---- */

static const struct {
    const char *name;
    unsigned flags, context;
} needs_table[] = {
    {"stack", PV_ROUTINE_STACK, CONTEXT_STACK},
    {"tables", 0, CONTEXT_KERNEL_TABLES},
    {"high", 0, CONTEXT_HIGH},
    {"nmi_safe", 0, CONTEXT_NMI_SAFE},
    {"deprivileged", PV_ROUTINE_DEPRIVILEGED, 0},
    {"bare", PV_ROUTINE_BARE, 0},
};

static int parse_need(struct template *t, const char *word, struct error *err)
{
    for (size_t i = 0; i < sizeof needs_table / sizeof *needs_table; i++) {
        if (strcmp(needs_table[i].name, word) != 0)
            continue;
        t->flags |= needs_table[i].flags;
        t->context |= needs_table[i].context;
        return 0;
    }
    return fail(err, EXIT_INPUT, "template %s: unknown need \"%s\"", t->name, word);
}

/* "name kind rank need, need": cut in place. */
static int parse_template(struct template *t, char *line, struct error *err)
{
    char *save = NULL;
    const char *name = strtok_r(line, " ,", &save), *kind = strtok_r(NULL, " ,", &save);
    const char *rank = strtok_r(NULL, " ,", &save), *need;
    if (!name || !kind || !rank)
        return fail(err, EXIT_INPUT, "template metadata: name, kind or rank missing");
    t->name = name;
    t->kind = PV_KINDS;
    for (unsigned k = 0; k < PV_KINDS; k++)
        if (strcmp(kind_name(k), kind) == 0)
            t->kind = (enum pv_kind)k;
    if (t->kind == PV_KINDS)
        return fail(err, EXIT_INPUT, "template %s: unknown kind \"%s\"", name, kind);
    t->rank = atoi(rank);
    while ((need = strtok_r(NULL, " ,", &save)))
        if (parse_need(t, need, err))
            return -1;
    return 0;
}

static int add_form(struct template *t, const char *text, struct error *err)
{
    struct form *forms = realloc(t->forms, (t->form_count + 1) * sizeof *forms);
    if (!forms)
        return fail(err, EXIT_INPUT, "out of memory");
    t->forms = forms;
    return form_parse(text, &forms[t->form_count++], err);
}

static int read_meta(struct template_set *set, const Elf_Data *data, struct error *err)
{
    size_t size = data->d_size, count = 0;
    const char *bytes = data->d_buf;
    if (size == 0 || bytes[size - 1] != '\0')
        return fail(err, EXIT_INPUT, "template metadata: not terminated");
    for (size_t i = 0; i < size; i += strlen(bytes + i) + 1)
        count += bytes[i] == 'T';
    set->meta = malloc(size);
    set->templates = calloc(count ? count : 1, sizeof *set->templates);
    set->by_name = calloc(count ? count : 1, sizeof *set->by_name);
    if (!set->meta || !set->templates || !set->by_name)
        return fail(err, EXIT_INPUT, "out of memory");
    memcpy(set->meta, bytes, size);
    for (size_t i = 0; i < size;) {
        char *line = set->meta + i;
        i += strlen(line) + 1;
        int result = 0;
        if (line[0] == 'T' && line[1] == ' ')
            result = parse_template(&set->templates[set->count++], line + 2, err);
        else if (line[0] == 'F' && line[1] == ' ' && set->count)
            result = add_form(&set->templates[set->count - 1], line + 2, err);
        else
            result = fail(err, EXIT_INPUT, "template metadata: bad line \"%s\"", line);
        if (result)
            return -1;
    }
    return 0;
}

static int compare_templates(const void *a, const void *b)
{
    const struct template *x = a, *y = b;
    return x->rank != y->rank ? (x->rank > y->rank) - (x->rank < y->rank)
                              : strcmp(x->name, y->name);
}

/* ---- reading: code and holes ---- */

/* The template whose code is in this section, or NULL. */
static struct template *template_of_section(const struct template_set *set, Elf_Scn *section)
{
    GElf_Shdr header;
    size_t names;
    if (!section || !gelf_getshdr(section, &header) || elf_getshdrstrndx(set->elf, &names))
        return NULL;
    const char *name = elf_strptr(set->elf, names, header.sh_name);
    if (!name || strncmp(name, SECTION_PREFIX, strlen(SECTION_PREFIX)) != 0)
        return NULL;
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->templates[i].name, name + strlen(SECTION_PREFIX)) == 0)
            return &set->templates[i];
    return NULL;
}

static int read_code(struct template *t, Elf_Scn *section, struct error *err)
{
    Elf_Data *data = elf_rawdata(section, NULL);
    if (t->code || !data || data->d_size == 0 || data->d_size > TEMPLATE_MAX_SIZE)
        return fail(err, EXIT_INPUT, "template %s: no code, too much code, or code twice", t->name);
    t->code = data->d_buf;
    t->size = data->d_size;
    return 0;
}

/* Turns one relocation into a hole. */
static int read_hole(const struct template_set *set, struct template *t, const GElf_Rela *rela,
                     Elf_Data *symbols, size_t strings, struct error *err)
{
    GElf_Sym symbol;
    const char *name = NULL;
    if (gelf_getsym(symbols, (int)GELF_R_SYM(rela->r_info), &symbol) &&
        symbol.st_shndx == SHN_UNDEF)
        name = elf_strptr(set->elf, strings, symbol.st_name);
    struct hole *hole = &t->holes[t->hole_count];
    hole->kind = name ? hole_kind_named(name) : NULL;
    if (!hole->kind)
        return fail(err, EXIT_INPUT, "template %s: relocation against \"%s\", which is no hole",
                    t->name, name ? name : "a defined symbol");
    if (rela->r_offset >= t->size)
        return fail(err, EXIT_INPUT, "template %s: hole outside the code", t->name);
    hole->offset = (uint32_t)rela->r_offset;
    hole->type = (uint32_t)GELF_R_TYPE(rela->r_info);
    hole->addend = rela->r_addend;
    t->uses |= hole_kind_uses(hole->kind);
    t->hole_count++;
    return hole_check(hole, t->size, t->name, err);
}

static int read_holes(const struct template_set *set, struct template *t, Elf_Scn *section,
                      const GElf_Shdr *header, struct error *err)
{
    Elf_Scn *symbol_section = elf_getscn(set->elf, header->sh_link);
    GElf_Shdr symbol_header;
    Elf_Data *data = elf_getdata(section, NULL);
    Elf_Data *symbols = symbol_section ? elf_getdata(symbol_section, NULL) : NULL;
    if (!data || !symbols || !gelf_getshdr(symbol_section, &symbol_header) ||
        header->sh_entsize == 0 || t->holes || !t->code)
        return fail(err, EXIT_INPUT, "template %s: unreadable relocations", t->name);
    size_t count = header->sh_size / header->sh_entsize;
    t->holes = calloc(count ? count : 1, sizeof *t->holes);
    if (!t->holes)
        return fail(err, EXIT_INPUT, "out of memory");
    for (size_t i = 0; i < count; i++) {
        GElf_Rela rela;
        if (!gelf_getrela(data, (int)i, &rela))
            return fail(err, EXIT_INPUT, "template %s: unreadable relocations", t->name);
        if (read_hole(set, t, &rela, symbols, symbol_header.sh_link, err))
            return -1;
    }
    return 0;
}

/* What the holes tell about the template's needs. */
static void derive_needs(struct template *t)
{
    if (t->uses & HOLE_USES_STATE) {
        t->flags |= PV_ROUTINE_STATE;
        t->context |= CONTEXT_KERNEL_TABLES;
    }
    if (t->uses & (HOLE_USES_CPUID | HOLE_USES_MSR))
        t->flags |= PV_ROUTINE_TABLE;
    if (t->uses & HOLE_RINGS_DOORBELL)
        t->flags |= PV_ROUTINE_DOORBELL;
}

/* Calls read for every section: first those with code, then those with relocations. */
static int read_sections(struct template_set *set, bool relocations, struct error *err)
{
    for (Elf_Scn *section = NULL; (section = elf_nextscn(set->elf, section));) {
        GElf_Shdr header;
        if (!gelf_getshdr(section, &header))
            return fail(err, EXIT_INPUT, "templates: unreadable section");
        struct template *t;
        if (!relocations && header.sh_type == SHT_PROGBITS) {
            t = template_of_section(set, section);
            if (t && read_code(t, section, err))
                return -1;
        } else if (relocations && header.sh_type == SHT_RELA) {
            t = template_of_section(set, elf_getscn(set->elf, header.sh_info));
            if (t && read_holes(set, t, section, &header, err))
                return -1;
        }
    }
    return 0;
}

static Elf_Data *meta_data(Elf *elf)
{
    size_t names;
    if (elf_getshdrstrndx(elf, &names))
        return NULL;
    for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section));) {
        GElf_Shdr header;
        const char *name;
        if (gelf_getshdr(section, &header) && (name = elf_strptr(elf, names, header.sh_name)) &&
            strcmp(name, ".tmpl_meta") == 0)
            return elf_rawdata(section, NULL);
    }
    return NULL;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const struct template_set *set = context;
    return strcmp(set->templates[*(const size_t *)a].name, set->templates[*(const size_t *)b].name);
}

static int read_set(struct template_set *set, struct error *err)
{
    if (elf_version(EV_CURRENT) == EV_NONE)
        return fail(err, EXIT_INPUT, "libelf is too old");
    /* libelf wants a writable image, but writes only on elf_update() */
    uintptr_t start = (uintptr_t)templates_blob, end = (uintptr_t)templates_blob_end;
    set->elf = elf_memory((char *)start, end - start);
    Elf_Data *meta = set->elf ? meta_data(set->elf) : NULL;
    if (!meta)
        return fail(err, EXIT_INPUT, "the embedded templates are unreadable");
    if (read_meta(set, meta, err))
        return -1;
    if (!set->templates)
        return fail(err, EXIT_INPUT, "there are no embedded templates");
    qsort(set->templates, set->count, sizeof *set->templates, compare_templates);
    if (read_sections(set, false, err) || read_sections(set, true, err))
        return -1;
    for (size_t i = 0; i < set->count; i++) {
        if (!set->templates[i].code || set->templates[i].form_count == 0)
            return fail(err, EXIT_INPUT, "template %s: no code or no form", set->templates[i].name);
        derive_needs(&set->templates[i]);
        for (size_t f = 0; f < set->templates[i].form_count; f++)
            set->named[set->templates[i].forms[f].mnemonic] = true;
        set->by_name[i] = i;
    }
    qsort_r(set->by_name, set->count, sizeof *set->by_name, compare_names, set);
    for (size_t i = 1; i < set->count; i++)
        if (compare_names(&set->by_name[i - 1], &set->by_name[i], set) == 0)
            return fail(err, EXIT_INPUT, "template %s: defined twice",
                        set->templates[set->by_name[i]].name);
    return 0;
}

struct template_set *template_set_open(struct error *err)
{
    struct template_set *set = calloc(1, sizeof *set);
    if (!set) {
        fail(err, EXIT_INPUT, "out of memory");
        return NULL;
    }
    if (read_set(set, err)) {
        template_set_close(set);
        return NULL;
    }
    return set;
}

void template_set_close(struct template_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->count; i++) {
        free(set->templates[i].forms);
        free(set->templates[i].holes);
    }
    free(set->templates);
    free(set->by_name);
    free(set->meta);
    elf_end(set->elf);
    free(set);
}

/* ---- retrieval ---- */

static bool fits(const struct template *t, const ZydisDecodedInstruction *instruction,
                 const ZydisDecodedOperand *operands)
{
    bool form = false;
    for (size_t i = 0; i < t->form_count && !form; i++)
        form = form_matches(&t->forms[i], instruction, operands);
    if (!form)
        return false;
    const ZydisDecodedOperand *memory = memory_operand(instruction, operands);
    if (memory && memory_has_segment(memory) &&
        (!(t->uses & HOLE_TAKES_SEGMENT) || memory->mem.base == ZYDIS_REGISTER_RIP))
        return false;
    return !memory || memory->mem.base != ZYDIS_REGISTER_EIP || !(t->uses & HOLE_COPIES_MEMORY);
}

static bool needs_met(const struct template *t, const struct template_available *available)
{
    return (t->context & ~available->context) == 0 &&
           (!(t->uses & HOLE_USES_STATE) || available->state) &&
           (!(t->uses & HOLE_USES_CPUID) || available->cpuid) &&
           (!(t->uses & HOLE_USES_MSR) || available->msr) &&
           (!(t->flags & PV_ROUTINE_DEPRIVILEGED) || available->deprivileged);
}

/* Index of the template, or set->count. */
static size_t index_named(const struct template_set *set, const char *name)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, set->templates[set->by_name[middle]].name);
        if (order == 0)
            return set->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return set->count;
}

const struct template *template_find(const struct template_set *set, const char *name,
                                     const ZydisDecodedInstruction *instruction,
                                     const ZydisDecodedOperand *operands,
                                     const struct template_available *available, bool *form_known)
{
    if (form_known)
        *form_known = false;
    size_t first = 0, end = set->named[instruction->mnemonic] ? set->count : 0;
    if (name && end) {
        first = index_named(set, name);
        end = first < set->count ? first + 1 : first;
    }
    for (size_t i = first; i < end; i++) {
        const struct template *t = &set->templates[i];
        if (!fits(t, instruction, operands))
            continue;
        if (form_known)
            *form_known = true;
        if (needs_met(t, available))
            return t;
    }
    return NULL;
}

const char *template_name(const struct template *t)
{
    return t->name;
}

enum pv_kind template_kind(const struct template *t)
{
    return t->kind;
}

unsigned template_flags(const struct template *t)
{
    return t->flags;
}

size_t template_size(const struct template *t)
{
    return t->size;
}

bool template_needs_cpuid(const struct template *t)
{
    return t->uses & HOLE_USES_CPUID;
}

bool template_needs_msr(const struct template *t)
{
    return t->uses & HOLE_USES_MSR;
}

bool template_copies_displacement(const struct template *t)
{
    return t->uses & HOLE_COPIES_MEMORY;
}

void template_each(const struct template_set *set,
                   void (*visit)(const struct template *t, void *context), void *context)
{
    for (size_t i = 0; i < set->count; i++)
        visit(&set->templates[set->by_name[i]], context);
}

/* ---- filling ---- */

int template_fill(const struct template *t, const struct template_values *values, uint64_t address,
                  uint8_t *out, struct error *err)
{
    memcpy(out, t->code, t->size);
    for (size_t i = 0; i < t->hole_count; i++)
        if (hole_fill(&t->holes[i], values, out, address, err))
            return -1;
    return 0;
}
