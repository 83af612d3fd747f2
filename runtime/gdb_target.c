/* SPDX-License-Identifier: MIT */
/* What gdb is told of the processor: its target description (gdb's manual, appendix G), made
 * from the registers' table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/gdb_registers.h"
#include "runtime/gdb_server.h"

#define R64(n, number, t)                                                                          \
    {                                                                                              \
        .name = n, .type = t, .bits = 64, .kind = GDB_GENERAL, .index = number                     \
    }
#define SELECTOR(n, number)                                                                        \
    {                                                                                              \
        .name = n, .type = "int32", .bits = 32, .kind = GDB_SELECTOR, .index = number              \
    }
#define ST(n)                                                                                      \
    {                                                                                              \
        .name = "st" #n, .type = "i387_ext", .bits = 80, .kind = GDB_ST, .index = n                \
    }
#define X87(n, number)                                                                             \
    {                                                                                              \
        .name = n, .type = "int", .group = "float", .bits = 32, .kind = GDB_X87, .index = number   \
    }
#define XMM(n)                                                                                     \
    {                                                                                              \
        .name = "xmm" #n, .type = "vec128", .bits = 128, .kind = GDB_XMM, .index = n               \
    }
#define YMM(n)                                                                                     \
    {                                                                                              \
        .name = "ymm" #n "h", .type = "uint128", .bits = 128, .kind = GDB_YMM_HIGH, .index = n     \
    }
#define SYSTEM(n, t, k, number)                                                                    \
    {                                                                                              \
        .name = n, .type = t, .group = "system", .bits = 64, .kind = k, .index = number            \
    }

static const struct gdb_register core[] = {
    R64("rax", RAX, "int64"),
    R64("rbx", RBX, "int64"),
    R64("rcx", RCX, "int64"),
    R64("rdx", RDX, "int64"),
    R64("rsi", RSI, "int64"),
    R64("rdi", RDI, "int64"),
    R64("rbp", RBP, "data_ptr"),
    R64("rsp", RSP, "data_ptr"),
    R64("r8", R8, "int64"),
    R64("r9", R9, "int64"),
    R64("r10", R10, "int64"),
    R64("r11", R11, "int64"),
    R64("r12", R12, "int64"),
    R64("r13", R13, "int64"),
    R64("r14", R14, "int64"),
    R64("r15", R15, "int64"),
    {.name = "rip", .type = "code_ptr", .bits = 64, .kind = GDB_RIP},
    {.name = "eflags", .type = "x64_eflags", .bits = 32, .kind = GDB_RFLAGS},
    SELECTOR("cs", SEG_CS),
    SELECTOR("ss", SEG_SS),
    SELECTOR("ds", SEG_DS),
    SELECTOR("es", SEG_ES),
    SELECTOR("fs", SEG_FS),
    SELECTOR("gs", SEG_GS),
    ST(0),
    ST(1),
    ST(2),
    ST(3),
    ST(4),
    ST(5),
    ST(6),
    ST(7),
    X87("fctrl", 0),
    X87("fstat", 1),
    X87("ftag", 2),
    X87("fiseg", 3),
    X87("fioff", 4),
    X87("foseg", 5),
    X87("fooff", 6),
    X87("fop", 7),
};

static const struct gdb_register sse[] = {
    XMM(0),
    XMM(1),
    XMM(2),
    XMM(3),
    XMM(4),
    XMM(5),
    XMM(6),
    XMM(7),
    XMM(8),
    XMM(9),
    XMM(10),
    XMM(11),
    XMM(12),
    XMM(13),
    XMM(14),
    XMM(15),
    {.name = "mxcsr", .type = "x64_mxcsr", .group = "vector", .bits = 32, .kind = GDB_MXCSR},
};

static const struct gdb_register avx[] = {
    YMM(0), YMM(1), YMM(2),  YMM(3),  YMM(4),  YMM(5),  YMM(6),  YMM(7),
    YMM(8), YMM(9), YMM(10), YMM(11), YMM(12), YMM(13), YMM(14), YMM(15),
};

static const struct gdb_register segments[] = {
    {.name = "fs_base", .type = "int64", .bits = 64, .kind = GDB_BASE, .index = SEG_FS},
    {.name = "gs_base", .type = "int64", .bits = 64, .kind = GDB_BASE, .index = SEG_GS},
};

static const struct gdb_register control[] = {
    SYSTEM("k_gs_base", "int64", GDB_KERNEL_GS, 0), SYSTEM("cr0", "x64_cr0", GDB_CONTROL, 0),
    SYSTEM("cr2", "data_ptr", GDB_CONTROL, 2),      SYSTEM("cr3", "int64", GDB_CONTROL, 3),
    SYSTEM("cr4", "x64_cr4", GDB_CONTROL, 4),       SYSTEM("cr8", "int64", GDB_CONTROL, 8),
    SYSTEM("efer", "x64_efer", GDB_EFER, 0),
};

static const struct {
    const char *feature, *name;
    unsigned bytes;
    const char *bit[32];
} flags[] = {
    {"core",
     "x64_eflags",
     4,
     {[0] = "CF",
      [2] = "PF",
      [4] = "AF",
      [6] = "ZF",
      [7] = "SF",
      [8] = "TF",
      [9] = "IF",
      [10] = "DF",
      [11] = "OF",
      [14] = "NT",
      [16] = "RF",
      [17] = "VM",
      [18] = "AC",
      [19] = "VIF",
      [20] = "VIP",
      [21] = "ID"}},
    {"sse",
     "x64_mxcsr",
     4,
     {"IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM", [15] = "FZ"}},
    {"control",
     "x64_cr0",
     8,
     {"PE", "MP", "EM", "TS", "ET",
      "NE", [16] = "WP", [18] = "AM", [29] = "NW", [30] = "CD", [31] = "PG"}},
    {"control",
     "x64_cr4",
     8,
     {"VME", "PVI", "TSD", "DE", "PSE", "PAE", "MCE", "PGE", "PCE", "OSFXSR", "OSXMMEXCPT",
      "UMIP", [16] = "FSGSBASE", [17] = "PCIDE", [18] = "OSXSAVE", [20] = "SMEP", [21] = "SMAP",
      [22] = "PKE"}},
    {"control", "x64_efer", 8, {[0] = "SCE", [8] = "LME", [10] = "LMA", [11] = "NXE"}},
};

static const char sse_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
    "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
    "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>\n";

#define ROWS(table) table, sizeof table / sizeof table[0]
static const struct gdb_feature features_of[] = {
    {"org.gnu.gdb.i386.core", "", ROWS(core)},
    {"org.gnu.gdb.i386.sse", sse_types, ROWS(sse)},
    {"org.gnu.gdb.i386.avx", "", ROWS(avx)},
    {"org.gnu.gdb.i386.segments", "", ROWS(segments)},
    {"org.patchvisor.control", "", ROWS(control)},
};

unsigned gdb_features(const struct gdb_feature *features[GDB_FEATURES_MAX])
{
    unsigned count = 0;
    for (size_t n = 0; n < GDB_FEATURES_MAX; n++)
        if (features_of[n].registers != avx || cpuid_offers(FEATURE_AVX))
            features[count++] = &features_of[n];
    return count;
}

const struct gdb_register *gdb_register(unsigned number)
{
    const struct gdb_feature *features[GDB_FEATURES_MAX];
    unsigned count = gdb_features(features);
    for (unsigned n = 0; n < count; n++) {
        if (number < features[n]->count)
            return &features[n]->registers[number];
        number -= features[n]->count;
    }
    return NULL;
}

static void describe_flags(FILE *out, const struct gdb_feature *feature)
{
    for (size_t n = 0; n < sizeof flags / sizeof flags[0]; n++) {
        if (strcmp(strrchr(feature->name, '.') + 1, flags[n].feature) != 0)
            continue;
        fprintf(out, "<flags id=\"%s\" size=\"%u\">", flags[n].name, flags[n].bytes);
        for (unsigned bit = 0; bit < 32; bit++)
            if (flags[n].bit[bit])
                fprintf(out, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", flags[n].bit[bit], bit,
                        bit);
        fputs("</flags>\n", out);
    }
}

static void describe(FILE *out)
{
    const struct gdb_feature *features[GDB_FEATURES_MAX];
    unsigned count = gdb_features(features);
    fputs("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n"
          "<architecture>i386:x86-64</architecture>\n",
          out);
    for (unsigned n = 0; n < count; n++) {
        fprintf(out, "<feature name=\"%s\">\n%s", features[n]->name, features[n]->types);
        describe_flags(out, features[n]);
        for (unsigned k = 0; k < features[n]->count; k++) {
            const struct gdb_register *reg = &features[n]->registers[k];
            fprintf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"", reg->name, reg->bits,
                    reg->type);
            if (reg->group)
                fprintf(out, " group=\"%s\"", reg->group);
            fputs("/>\n", out);
        }
        fputs("</feature>\n", out);
    }
    fputs("</target>\n", out);
}

/* qXfer:features:read:target.xml:OFFSET,LENGTH */
void gdb_read_target(struct gdb *gdb, const char *args, size_t length)
{
    static const char name[] = "target.xml:";
    uint64_t offset, wanted;
    char *xml = NULL;
    size_t size = 0;
    (void)length;
    if (strncmp(args, name, sizeof name - 1)) {
        gdb_put(&gdb->output, "E00"); /* no such annex */
        return;
    }
    args += sizeof name - 1;
    FILE *out = open_memstream(&xml, &size);
    if (out) {
        describe(out);
        fclose(out);
    }
    if (!xml || !gdb_number_then(&args, &offset, ',') || !gdb_number_then(&args, &wanted, '\0')) {
        gdb_error(gdb, GDB_BAD_PACKET);
    } else if (offset >= size) {
        gdb_put(&gdb->output, "l");
    } else {
        uint64_t left = size - offset, most = (GDB_PACKET_MAX - 1) / 2;
        uint64_t part = wanted < most ? wanted : most;
        gdb_put(&gdb->output, part < left ? "m" : "l");
        gdb_put_binary(&gdb->output, xml + offset, part < left ? part : left);
    }
    free(xml);
}
