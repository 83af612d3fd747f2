/* SPDX-License-Identifier: MIT */
/* The guest's code for the IO-block scanner.
 *
 * A byte that differs between the image and the running guest must not be in a hash. Such bytes
 * are of two kinds. Those that relocation changes, and LOCK prefixes that the kernel takes away on
 * one processor, leave the instruction what it is: they are masked one by one. Those of a place
 * that a kernel table names (alternatives, paravirt calls, jump labels, static calls, retpolines,
 * returns, ftrace calls) and the links of the patches' own routines, which a runtime activates,
 * may become another instruction: the place is masked as a whole, and what control may do there is
 * what the table says.
 *
 * Code that a patch displaced is looked up where it came from. */
#include "patchc/patched_code.h"

#include <stdlib.h>
#include <string.h>

#include "image/length.h"

/* ---- bytes ---- */
static size_t read_code(void *context, uint64_t address, uint8_t *bytes, size_t size)
{
    const struct patched_code *g = context;
    const struct image *image = g->plan->image;
    const uint8_t *file = g->out ? g->out->edited : image->bytes;
    if (g->out && g->out->appended && address - g->out->appended_address < g->out->appended_size) {
        uint64_t at = address - g->out->appended_address, room = g->out->appended_size - at;
        size = size < room ? size : room;
        memcpy(bytes, g->out->appended + at, size);
        return size;
    }
    for (size_t k = 0; k < image->segment_count; k++) {
        const struct image_segment *s = &image->segments[k];
        if (s->type != 1 /* PT_LOAD */ || address - s->vaddr >= s->file_size)
            continue;
        uint64_t at = address - s->vaddr;
        size = size < s->file_size - at ? size : s->file_size - at;
        memcpy(bytes, file + s->offset + at, size);
        return size;
    }
    return 0;
}

/* ---- bits ---- */
/* The `length` bits from `address` on (at most 32), and none beyond its section. */
static uint32_t bits_at(const struct patched_code *g, uint64_t *const *map, uint64_t address,
                        unsigned length)
{
    const struct code_section *section = code_section_at(g->plan->code, address);
    if (!section)
        return 0;
    const uint64_t *words = map[section - g->plan->code->sections];
    uint64_t at = address - section->address;
    uint64_t bits = words[at / 64] >> (at % 64);
    if (at % 64 && at / 64 < section->size / 64)
        bits |= words[at / 64 + 1] << (64 - at % 64);
    return (uint32_t)(bits & ((1ull << length) - 1));
}

static void set_bits(const struct code_section *section, uint64_t *words, uint64_t address,
                     uint64_t length)
{
    enum { STEP = 32 }; /* bytes */
    uint64_t at = address - section->address;
    if (length > section->size - at)
        length = section->size - at;
    while (length > 0) {
        uint64_t some = length < STEP ? length : STEP, bits = (1ull << some) - 1;
        words[at / 64] |= bits << (at % 64);
        if (at % 64 > 64 - some)
            words[at / 64 + 1] |= bits >> (64 - at % 64);
        at += some;
        length -= some;
    }
}

static const enum linux_table_kind rewriting[] = {
    LINUX_ALTERNATIVES,    LINUX_PARAVIRT,     LINUX_JUMP_TABLE, LINUX_STATIC_CALLS,
    LINUX_RETPOLINE_SITES, LINUX_RETURN_SITES, LINUX_MCOUNT,     LINUX_PINNED,
};

static void mark_table(struct patched_code *g, const struct linux_table *table, uint64_t **map)
{
    const struct code_section *section = NULL;
    for (size_t i = 0; i < table->count; i++) {
        const struct linux_entry *e = &table->entries[i];
        if (!section || e->address - section->address >= section->size)
            section = code_section_at(g->plan->code, e->address);
        if (section)
            set_bits(section, map[section - g->plan->code->sections], e->address, e->length);
    }
}

static size_t first_word(const uint32_t *words, size_t count, uint64_t address)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (relocs_address(words[middle]) < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void mark_relocations(struct patched_code *g, size_t index, enum reloc_kind kind)
{
    const struct code_section *section = &g->plan->code->sections[index];
    const uint32_t *words = g->plan->relocs_sorted[kind];
    size_t count = g->plan->relocs->count[kind];
    for (size_t i = first_word(words, count, section->address); i < count; i++) {
        uint64_t address = relocs_address(words[i]);
        if (address - section->address >= section->size)
            return;
        set_bits(section, g->masked[index], address, kind == RELOC_64 ? 8 : 4);
    }
}

static int allocate_bits(struct patched_code *g)
{
    const struct code *code = g->plan->code;
    g->rewritten = calloc(code->section_count + 1, sizeof *g->rewritten);
    g->masked = calloc(code->section_count + 1, sizeof *g->masked);
    for (size_t i = 0; g->rewritten && g->masked && i < code->section_count; i++) {
        g->rewritten[i] = calloc(code->sections[i].size / 64 + 1, sizeof(uint64_t));
        g->masked[i] = calloc(code->sections[i].size / 64 + 1, sizeof(uint64_t));
        if (!g->rewritten[i] || !g->masked[i])
            return -1;
    }
    return g->rewritten && g->masked ? 0 : -1;
}

/* ---- places that are rewritten ---- */
/* The target of the direct branch at `address` of the original, if there is one. */
static bool direct_target(const struct patched_code *g, uint64_t address, unsigned length,
                          struct io_site *site)
{
    struct length_info info;
    const uint8_t *bytes = image_at(g->plan->image, address, length);
    if (!bytes || !length_decode(bytes, length, &info))
        return false;
    int32_t displacement;
    if (info.flags & LENGTH_REL32)
        memcpy(&displacement, bytes + info.length - 4, sizeof displacement);
    else if (info.flags & LENGTH_REL8)
        displacement = (int8_t)bytes[info.length - 1];
    else
        return false;
    site->branches = true;
    site->calls = info.flags & LENGTH_CALL;
    site->target = address + info.length + (uint64_t)(int64_t)displacement;
    return true;
}

/* A call through pv_ops: the kernel makes it a direct call of what stands there by then, or puts the
 * callee's instructions in its place. Control comes back as it does from the callee. */
static void pointer_target(const struct patched_code *g, const struct linux_entry *e,
                           struct io_site *site)
{
    const uint8_t *bytes = image_at(g->plan->image, e->address, e->length), *pointer = NULL;
    int32_t displacement;
    uint64_t target;
    if (bytes && e->length >= 7 && bytes[0] == 0xff && bytes[1] == 0x14 && bytes[2] == 0x25) {
        memcpy(&displacement, bytes + 3, sizeof displacement);
        pointer = image_at(g->plan->image, (uint64_t)(int64_t)displacement, sizeof target);
    } else if (bytes && e->length >= 6 && bytes[0] == 0xff && bytes[1] == 0x15) {
        memcpy(&displacement, bytes + 2, sizeof displacement);
        pointer = image_at(g->plan->image, e->address + 6 + (uint64_t)(int64_t)displacement,
                           sizeof target);
    }
    if (!pointer)
        return;
    memcpy(&target, pointer, sizeof target);
    if (!code_is_start(g->plan->code, target))
        return;
    site->falls = false;
    site->branches = site->calls = true;
    site->target = target;
}

/* A call or a tail call through a thunk: does control come back behind it? */
static bool falls_behind(const struct patched_code *g, const struct linux_entry *e)
{
    const uint8_t *bytes = image_at(g->plan->image, e->address, e->length);
    unsigned k = 0;
    while (bytes && k + 1u < e->length && (bytes[k] == 0x2e || bytes[k] == 0x66))
        k++; /* prefixes that pad */
    return bytes && bytes[k] != 0xe9;
}

/* What control may do at the place that the entry names. */
static void describe_entry(const struct patched_code *g, enum linux_table_kind kind,
                           const struct linux_entry *e, struct io_site *site)
{
    *site = (struct io_site){.start = e->address, .length = e->length, .falls = true};
    switch (kind) {
    case LINUX_ALTERNATIVES:
        if (!direct_target(g, e->address, e->length, site))
            pointer_target(g, e, site);
        break;
    case LINUX_PARAVIRT:
        pointer_target(g, e, site);
        break;
    case LINUX_JUMP_TABLE:
        site->branches = true;
        site->target = e->second;
        break;
    case LINUX_STATIC_CALLS:
    case LINUX_RETPOLINE_SITES:
        site->falls = falls_behind(g, e);
        break;
    case LINUX_RETURN_SITES:
        site->falls = false;
        site->returns = true;
        break;
    case LINUX_PINNED: /* nobody knows what becomes of it */
        site->falls = false;
        break;
    default: /* ftrace: a call that comes back, or nothing */
        break;
    }
}

/* The place of the original that contains `address`; where several tables name it, the largest. */
static bool look_up(const struct patched_code *g, uint64_t address, struct io_site *site)
{
    bool found = false;
    for (size_t k = 0; k < sizeof rewriting / sizeof rewriting[0]; k++) {
        const struct linux_table *table = &g->plan->tables->table[rewriting[k]];
        size_t first;
        size_t n = linux_table_range(table, address > 255 ? address - 255 : 0, address + 1, &first);
        for (size_t i = first; i < first + n; i++) {
            const struct linux_entry *e = &table->entries[table->by_address[i]];
            if (address - e->address < e->length && (!found || e->length > site->length)) {
                describe_entry(g, rewriting[k], e, site);
                found = true;
            }
        }
    }
    return found;
}

static bool describe(const struct patched_code *g, uint64_t address, struct io_site *site)
{
    struct known_place *known = &g->known[address % PATCHED_CODE_KNOWN];
    if (known->address != address) {
        known->address = address;
        known->found = look_up(g, address, &known->site);
    }
    *site = known->site;
    return known->found;
}

/* ---- displaced code ---- */
static const struct trampoline_span *trampoline_at(const struct patched_code *g, uint64_t address)
{
    size_t low = 0, high = g->trampoline_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (g->trampolines[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    const struct trampoline_span *t = &g->trampolines[low];
    return low < g->trampoline_count && address >= t->start ? t : NULL;
}

/* The atom whose copy (link included) holds `address`; NULL behind the last one. *copy: where the
 * copy begins, behind its link. */
static const struct atom *atom_at(const struct patched_code *g, const struct trampoline_span *t,
                                  uint64_t address, uint64_t *copy, uint32_t *size)
{
    const struct patch *patch = t->patch;
    const struct atom *atom = NULL;
    uint64_t end = 0;
    for (uint32_t k = patch->atom_count; k-- > 0;) {
        const struct atom *a = &patch->atoms[k];
        if (a->kind == ATOM_PADDING)
            continue;
        if (address >= t->start + a->offset) {
            atom = a;
            *copy = t->start + a->offset + (a->site >= 0 ? EMIT_LINK_SIZE : 0);
            *size = end ? (uint32_t)(end - *copy) : emit_size(g->plan, patch, k);
            break;
        }
        end = t->start + a->offset;
    }
    return atom && address < *copy + *size ? atom : NULL;
}

static uint32_t atom_bits(const struct patched_code *g, uint64_t *const *map,
                          const struct atom *atom)
{
    return bits_at(g, map, atom->address, atom->length < 32 ? atom->length : 32);
}

static bool site_in_trampoline(const struct patched_code *g, const struct trampoline_span *t,
                               uint64_t address, struct io_site *site)
{
    uint64_t copy;
    uint32_t size;
    const struct atom *atom = atom_at(g, t, address, &copy, &size);
    if (!atom)
        return false;
    if (address < copy) { /* the link: native until a runtime activates it */
        *site = (struct io_site){
            .start = copy - EMIT_LINK_SIZE, .length = EMIT_LINK_SIZE, .falls = true};
        return true;
    }
    if (!atom_bits(g, g->rewritten, atom) || !describe(g, atom->address, site))
        return false;
    site->start = copy;
    site->length = size;
    if (site->branches)
        site->target = plan_forward(g->plan, site->target);
    return true;
}

static bool find_site(void *context, uint64_t address, struct io_site *site)
{
    const struct patched_code *g = context;
    const struct trampoline_span *t = trampoline_at(g, address);
    const struct atom *atom;
    if (t)
        return site_in_trampoline(g, t, address, site);
    if (!bits_at(g, g->rewritten, address, 1))
        return false;
    const struct patch *patch = g->out ? plan_patch_at(g->plan, address, &atom) : NULL;
    if (patch && patch->trampoline)
        return false; /* what stood here has moved, and its table entry with it */
    return describe(g, address, site);
}

static uint32_t relocated(void *context, uint64_t address, unsigned length)
{
    const struct patched_code *g = context;
    const struct trampoline_span *t = trampoline_at(g, address);
    uint64_t copy;
    uint32_t size;
    if (!t)
        return bits_at(g, g->masked, address, length);
    const struct atom *atom = atom_at(g, t, address, &copy, &size);
    return atom && atom_bits(g, g->masked, atom) ? (1u << length) - 1 : 0;
}

/* Other modes' code, and instructions that overlap on purpose. */
static bool forbidden(void *context, uint64_t address)
{
    const struct patched_code *g = context;
    return code_is_other_mode(g->plan->code, address) || code_is_overlap(g->plan->code, address);
}

/* ---- opening ---- */
static int compare_trampolines(const void *a, const void *b)
{
    const struct trampoline_span *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int list_trampolines(struct patched_code *g)
{
    const struct plan *plan = g->plan;
    g->trampolines = calloc(plan->patch_count + 1, sizeof *g->trampolines);
    if (!g->trampolines)
        return -1;
    for (size_t i = 0; g->out && i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        if (patch->trampoline && patch->shares < 0)
            g->trampolines[g->trampoline_count++] = (struct trampoline_span){
                patch->trampoline, patch->trampoline + patch->trampoline_size, patch};
    }
    qsort(g->trampolines, g->trampoline_count, sizeof *g->trampolines, compare_trampolines);
    return 0;
}

int patched_code_open(const struct plan *plan, const struct output_bytes *out,
                      struct patched_code *g, struct error *err)
{
    *g = (struct patched_code){.plan = plan, .out = out};
    g->known = calloc(PATCHED_CODE_KNOWN, sizeof *g->known);
    if (!g->known || allocate_bits(g) || list_trampolines(g))
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    for (size_t k = 0; k < sizeof rewriting / sizeof rewriting[0]; k++)
        mark_table(g, &plan->tables->table[rewriting[k]], g->rewritten);
    mark_table(g, &plan->tables->table[LINUX_SMP_LOCKS], g->masked);
    for (size_t i = 0; i < plan->code->section_count; i++)
        for (int kind = 0; kind < RELOC_KINDS; kind++)
            mark_relocations(g, i, kind);
    return 0;
}

void patched_code_close(struct patched_code *g)
{
    for (size_t i = 0; g->plan && i < g->plan->code->section_count; i++) {
        if (g->rewritten)
            free(g->rewritten[i]);
        if (g->masked)
            free(g->masked[i]);
    }
    free(g->rewritten);
    free(g->masked);
    free(g->trampolines);
    free(g->known);
    *g = (struct patched_code){0};
}

struct io_code patched_code_view(struct patched_code *g)
{
    return (struct io_code){.bits = 64,
                            .context = g,
                            .read = read_code,
                            .site = find_site,
                            .relocated = relocated,
                            .forbidden = forbidden,
                            .want_ports = true};
}
