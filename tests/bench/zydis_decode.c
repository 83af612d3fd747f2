/* SPDX-License-Identifier: MIT */
/* Decodes the executable sections of an ELF file with Zydis and does nothing else: the measure that
 * `patchc build` is held against. One linear sweep, operands and all (full), then once more in
 * Zydis' minimal mode (lengths and opcodes only). Padding (int3 at an instruction's place) is
 * skipped without being decoded; a byte that is no instruction is stepped over. Prints one JSON
 * object. */
#include <err.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <Zydis/Zydis.h>

#define PADDING 0xcc

struct sweep {
    size_t bytes, padding, instructions, undecodable;
    double seconds;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sweep_section(const ZydisDecoder *decoder, bool full, const uint8_t *code, size_t size,
                          struct sweep *sweep)
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

    for (size_t at = 0; at < size;) {
        ZyanStatus status;

        if (code[at] == PADDING) {
            sweep->padding++;
            at++;
            continue;
        }
        if (full)
            status = ZydisDecoderDecodeFull(decoder, code + at, size - at, &instruction, operands);
        else
            status =
                ZydisDecoderDecodeInstruction(decoder, NULL, code + at, size - at, &instruction);
        if (ZYAN_SUCCESS(status)) {
            sweep->instructions++;
            at += instruction.length;
        } else {
            sweep->undecodable++;
            at++;
        }
    }
    sweep->bytes += size;
}

static struct sweep sweep_all(Elf *elf, int elf_class, bool full)
{
    bool wide = elf_class == ELFCLASS64;
    struct sweep sweep = {0};
    ZydisDecoder decoder;
    Elf_Scn *section = NULL;
    double start = now();

    if (ZYAN_FAILED(ZydisDecoderInit(
            &decoder, wide ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32,
            wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32)) ||
        ZYAN_FAILED(ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MINIMAL, !full)))
        errx(1, "Zydis does not start");
    while ((section = elf_nextscn(elf, section))) {
        GElf_Shdr header;
        Elf_Data *data;

        if (!gelf_getshdr(section, &header) || !(header.sh_flags & SHF_EXECINSTR) ||
            header.sh_type == SHT_NOBITS)
            continue;
        data = elf_rawdata(section, NULL);
        if (data)
            sweep_section(&decoder, full, data->d_buf, data->d_size, &sweep);
        else
            errx(1, "%s", elf_errmsg(-1));
    }
    sweep.seconds = now() - start;
    return sweep;
}

int main(int argc, char **argv)
{
    struct sweep full, minimal;
    Elf *elf;
    int fd;

    if (argc != 2)
        errx(2, "usage: zydis_decode ELF");
    fd = open(argv[1], O_RDONLY);
    if (fd < 0)
        err(1, "%s", argv[1]);
    elf_version(EV_CURRENT);
    elf = elf_begin(fd, ELF_C_READ, NULL);
    if (!elf || elf_kind(elf) != ELF_K_ELF)
        errx(1, "%s: not an ELF file", argv[1]);
    /* Reads the sections first, so that no measured sweep pays for it. */
    sweep_all(elf, gelf_getclass(elf), false);
    full = sweep_all(elf, gelf_getclass(elf), true);
    minimal = sweep_all(elf, gelf_getclass(elf), false);
    if (full.instructions == 0)
        errx(1, "%s: no executable section", argv[1]);
    printf("{\"bytes\":%zu,\"padding\":%zu,\"instructions\":%zu,\"undecodable\":%zu,"
           "\"full_seconds\":%.6f,\"minimal_seconds\":%.6f}\n",
           full.bytes, full.padding, full.instructions, full.undecodable, full.seconds,
           minimal.seconds);
    elf_end(elf);
    close(fd);
    return 0;
}
