# SPDX-License-Identifier: MIT
# Patchvisor. `make` builds, `make check` tests, `make demo` is the tour, `make help` lists the rest.

# Where things go. `make SAN=1 ...` builds the same with sanitizers, in a folder of its own.
BUILD   ?= build
PREFIX  ?= /usr/local
BASE    := $(BUILD)
ifeq ($(SAN),1)
override BUILD := $(BASE)/san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
FUZZ    := $(BASE)/fuzz
LIBDIR  ?= $(PREFIX)/lib
DATA    := $(PREFIX)/share/patchvisor
VERSION := $(shell cat VERSION)

# As many jobs as there are processors, unless told otherwise; `make clean all` cleans first.
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
else ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

ifeq ($(origin CC),default)
CC      := gcc
endif
CLANG   ?= clang
OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
# Guest memory and registers are read at every width: no strict aliasing.
BASE_CFLAGS := -std=gnu11 -fno-strict-aliasing $(WARN) -I. -D_GNU_SOURCE -DPATCHVISOR_VERSION='"$(VERSION)"' -MMD -MP
ALL_CFLAGS := $(BASE_CFLAGS) $(if $(CPPFLAGS),$(CPPFLAGS) )$(CFLAGS) $(SANFLAGS)
# Reproducible: the same sources give the same bytes in whatever folder they stand; so another folder is no reason to
# rebuild, and this flag is not among those above.
ANY_FOLDER := -ffile-prefix-map=$(CURDIR)=.
LIBS    := -lelf -lZydis -lxxhash -ljansson -lz -llzma -llz4 -lzstd -lbz2 -llzo2 -lseccomp -lpthread

# What Debian calls all that.
BUILD_DEPS := gcc libc6-dev binutils libelf-dev libzydis-dev libxxhash-dev libjansson-dev zlib1g-dev \
	liblzma-dev liblz4-dev libzstd-dev libbz2-dev liblzo2-dev libseccomp-dev
TEST_DEPS  := libcmocka-dev clang libclang-rt-14-dev qemu-system-x86 busybox-static cpio jq file time pkg-config \
	gzip xz-utils lz4 lzop zstd bzip2 gdb
LINT_DEPS  := clang-format clang-tidy cppcheck shellcheck mandoc
DEB_DEPS   := build-essential debhelper dpkg-dev fakeroot lintian

# ---- sources, found by where they are -------------------------------------------------------------
IMAGE_SRC    := $(wildcard image/*.c ioblock/*.c)
PATCHC_SRC   := $(filter-out patchc/main.c,$(wildcard patchc/*.c))
RUNTIME_SRC  := $(filter-out runtime/main.c,$(wildcard runtime/*.c runtime/soft/*.c runtime/translator/*.c runtime/kvm/*.c runtime/devices/*.c))
TEMPLATES    := $(wildcard templates/*.S)
UNIT_SRC     := $(wildcard tests/unit/test_*.c)
UNIT_SUPPORT := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
FUZZ_SRC     := $(wildcard tests/fuzz/fuzz_*.c)
TOOL_SRC     := $(wildcard tests/tools/*.c)
BENCH_SRC    := $(wildcard tests/bench/*.c)
SAMPLE_FILES := $(wildcard samples/*.S)
SAMPLE_KERNEL := $(wildcard samples/kernel/*.S samples/kernel/*.c)
SAMPLE_DIRS  := $(filter-out samples/kernel,$(patsubst %/,%,$(sort $(dir $(wildcard samples/*/*.S samples/*/*.c)))))
MAN          := $(wildcard man/*.[1-9])
C_SRC        := $(wildcard image/*.[ch] ioblock/*.[ch] patchc/*.[ch] hvstub/*.[ch]) \
	$(wildcard runtime/*.[ch] runtime/soft/*.[ch] runtime/translator/*.[ch] runtime/kvm/*.[ch] runtime/devices/*.[ch]) \
	$(wildcard examples/*.c tests/unit/*.[ch] tests/fuzz/*.[ch] tests/tools/*.[ch] tests/tools/*/*.[ch] tests/bench/*.[ch])
# Every script, found by its first line; completions and what tests source have none.
# Every script: by its first line, or by its name where it is only sourced.
SHELL_SRC    := $(sort $(shell grep -lsE '^\#!/bin/(ba)?sh' .ci/* tests/* tests/*/* examples/*/*) \
	$(wildcard tests/*/*.sh completion/*))

obj      = $(patsubst %,$(BUILD)/obj/%.o,$(basename $(1)))
fuzz_obj = $(patsubst %,$(FUZZ)/obj/%.o,$(basename $(1)))

UNIT    := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/unit/%)
FUZZ_TARGETS := $(FUZZ_SRC:tests/fuzz/%.c=$(FUZZ)/%)
TOOLS   := $(TOOL_SRC:tests/tools/%.c=$(BUILD)/tests/tools/%)
BENCHES := $(BENCH_SRC:tests/bench/%.c=$(BUILD)/tests/bench/%)
PROGRAMS := $(BUILD)/patchc $(patsubst runtime/main.c,$(BUILD)/hvrun,$(wildcard runtime/main.c))
SAMPLES := $(SAMPLE_FILES:samples/%.S=$(BUILD)/samples/%.elf) $(SAMPLE_DIRS:%=$(BUILD)/%.elf)

all: $(PROGRAMS) samples
samples: $(SAMPLES)
unit: $(UNIT)
# `make fuzz` builds the targets; with TIME=SECONDS each of them (or of FUZZERS="fuzz_x ...") runs that long.
fuzz: $(FUZZ_TARGETS)
	@$(if $(filter command,$(origin TIME)),FUZZ=$(FUZZ) tests/fuzz/run $(TIME) $(FUZZERS),:)
tests: all unit $(FUZZ_TARGETS) tools
tools: $(TOOLS)
benches: $(BENCHES)

# ---- packages -------------------------------------------------------------------------------------
# These goals need nothing done first: before anything is compiled, what is missing is installed.
deps:
	@tests/install-deps $(BUILD_DEPS) $(TEST_DEPS)

build-deps:
	@tests/install-deps $(BUILD_DEPS)

lint-deps:
	@tests/install-deps $(LINT_DEPS)

ifneq ($(filter check check-boots check-reproducible demo bench,$(MAKECMDGOALS)),)
READY := deps
endif

# ---- what a build depends on besides its sources --------------------------------------------------
# A stamp is a file that holds a text and is made anew when the text changes: another compiler or flag
# rebuilds everything, a source that comes or goes rebuilds the library it belongs to.
different = $(subst x$(1)x,,x$(2)x)$(subst x$(2)x,,x$(1)x)
define stamp # file, text
$(if $(call different,$(file <$(1)),$(2)),$(shell rm -f $(1)))
$(1):
	@mkdir -p $$(@D)
	@printf '%s\n' '$(subst ','\'',$(2))' > $$@
endef
$(eval $(call stamp,$(BUILD)/obj/flags,$(CC) $(ALL_CFLAGS) in any folder))
$(eval $(call stamp,$(BUILD)/obj/data-folder,$(DATA)))
$(eval $(call stamp,$(BUILD)/obj/image-files,$(IMAGE_SRC)))
$(eval $(call stamp,$(BUILD)/obj/patchc-files,$(PATCHC_SRC)))
$(eval $(call stamp,$(BUILD)/obj/runtime-files,$(RUNTIME_SRC)))
$(eval $(call stamp,$(BUILD)/obj/template-files,$(TEMPLATES)))
$(eval $(call stamp,$(BUILD)/obj/unit-files,$(UNIT_SUPPORT)))

# Only the sources that name the data folder are rebuilt for another PREFIX.
DATA_OBJ := $(call obj,$(shell grep -lsw DATA_DIR $(IMAGE_SRC) $(PATCHC_SRC) $(RUNTIME_SRC) patchc/main.c))
$(DATA_OBJ): $(BUILD)/obj/data-folder
$(DATA_OBJ): ALL_CFLAGS += -DDATA_DIR='"$(DATA)"'

# ---- the program ----------------------------------------------------------------------------------
$(BUILD)/obj/%.o: %.c $(BUILD)/obj/flags | $(READY)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ANY_FOLDER) -c $< -o $@

# Templates are code with holes, not part of the program: no sanitizers, one relocatable object.
$(BUILD)/obj/templates/%.o: templates/%.S $(BUILD)/obj/flags | $(READY)
	@mkdir -p $(@D)
	$(CC) -I. -MMD -MP -c $< -o $@

$(BUILD)/templates.o: $(call obj,$(TEMPLATES)) $(BUILD)/obj/template-files
	$(if $(TEMPLATES),$(LD) -r -o $@ $(filter %.o,$^),$(CC) -x assembler -c /dev/null -o $@)

TEMPLATES_BLOB := $(BUILD)/obj/templates_blob.o
$(TEMPLATES_BLOB): $(BUILD)/templates.o
	@mkdir -p $(@D)
	printf '.section .rodata\n.global templates_blob, templates_blob_end\n.balign 16\ntemplates_blob:\n.incbin "%s"\ntemplates_blob_end:\n.section .note.GNU-stack,"",@progbits\n' $< | $(CC) -x assembler -c - -o $@

# The style and the script of inspect's pages, with the hashes by which a page says that nothing else may run.
PAGE_BLOB := $(BUILD)/obj/page_blob.o
sha256 = $$(sha256sum <$(1) | cut -c1-64 | tr a-f A-F | basenc --base16 -d | base64)
$(PAGE_BLOB): patchc/inspect_page.css patchc/inspect_page.js | $(READY)
	@mkdir -p $(@D)
	{ printf '.section .note.GNU-stack,"",@progbits\n.section .rodata\n'; \
		printf '.global page_%s, page_%s_hash\npage_%s: .incbin "%s"\n.byte 0\npage_%s_hash: .asciz "%s"\n' \
			style style style patchc/inspect_page.css style "$(call sha256,patchc/inspect_page.css)" \
			script script script patchc/inspect_page.js script "$(call sha256,patchc/inspect_page.js)"; \
	} | $(CC) -x assembler -c - -o $@

$(BUILD)/libpvimage.a: $(call obj,$(IMAGE_SRC)) $(BUILD)/obj/image-files
	@rm -f $@
	$(AR) rcsD $@ $(filter %.o,$^)

$(BUILD)/libpatchc.a: $(call obj,$(PATCHC_SRC)) $(TEMPLATES_BLOB) $(PAGE_BLOB) $(BUILD)/obj/patchc-files
	@rm -f $@
	$(AR) rcsD $@ $(filter %.o,$^)

$(BUILD)/libhvrun.a: $(call obj,$(RUNTIME_SRC)) $(BUILD)/obj/runtime-files
	@rm -f $@
	$(AR) rcsD $@ $(filter %.o,$^)

LIBRARIES := $(BUILD)/libhvrun.a $(BUILD)/libpatchc.a $(BUILD)/libpvimage.a

$(BUILD)/patchc: $(BUILD)/obj/patchc/main.o $(BUILD)/libpatchc.a $(BUILD)/libpvimage.a
	$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/hvrun: $(BUILD)/obj/runtime/main.o $(BUILD)/libhvrun.a $(BUILD)/libpvimage.a
	$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# ---- samples: small guest kernels -----------------------------------------------------------------
# samples/NAME.S, or a folder samples/NAME/ with *.S and *.c, which samples/kernel/ is linked to, maybe link.ld (its
# linker script, instead of the one there) and cflags (more compiler flags).
SAMPLE_CFLAGS := -std=gnu11 -Wall -Wextra -Werror -O2 -I. -D_GNU_SOURCE -nostdlib -static -ffreestanding \
	-fno-pie -no-pie -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
	-mno-red-zone -mgeneral-regs-only -Wl,--build-id=none -Wno-unused-command-line-argument

define sample # name, sources, linker script, file of flags
$(BUILD)/samples/$(1).elf: $(2) $(3) $(4) | $(READY)
	@mkdir -p $$(@D) $(BUILD)/obj/samples
	$(CC) $(SAMPLE_CFLAGS) $(if $(4),$$$$(cat $(4))) -MMD -MP -MF $(BUILD)/obj/samples/$(1).d -MT $$@ $(if $(3),-T $(3)) -o $$@ $(2)
endef
$(foreach s,$(SAMPLE_FILES:samples/%.S=%),$(eval $(call sample,$(s),samples/$(s).S,$(wildcard samples/$(s).ld),$(wildcard samples/$(s).cflags))))
$(foreach s,$(SAMPLE_DIRS:samples/%=%),$(eval $(call sample,$(s),$(SAMPLE_KERNEL) $(wildcard samples/$(s)/*.S samples/$(s)/*.c),$(or $(wildcard samples/$(s)/link.ld),samples/kernel/link.ld),$(wildcard samples/$(s)/cflags))))

# ---- tests ----------------------------------------------------------------------------------------
# A test may define a function of the library: its double then takes that one's place.
$(UNIT): $(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(UNIT_SUPPORT)) $(LIBRARIES) $(BUILD)/obj/unit-files
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -Wl,-z,muldefs -o $@ $(filter %.o,$^) $(LIBRARIES) -lcmocka $(LIBS)

$(BUILD)/tests/tools/differential $(BUILD)/tests/tools/step_host: $(call obj,$(wildcard tests/tools/differential/*.c))

$(TOOLS): $(BUILD)/tests/tools/%: $(BUILD)/obj/tests/tools/%.o $(LIBRARIES)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $(filter %.o,$^) $(LIBRARIES) $(LIBS)

$(BENCHES): $(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIBRARIES)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/bench/soft_loops: $(call obj,tests/unit/one_insn.c)
$(BUILD)/tests/bench/dispatch: $(call obj,tests/unit/code_runner.c tests/unit/guest_runner.c)
$(BUILD)/tests/bench/io_blocks: $(call obj,tests/unit/one_insn.c tests/unit/io_lab.c)
$(BUILD)/tests/bench/native_loops: $(BUILD)/obj/samples/loops/work.o
$(BUILD)/obj/samples/loops/work.o: samples/loops/work.S $(BUILD)/obj/flags | $(READY)
	@mkdir -p $(@D)
	$(CC) -c $< -o $@

# Fuzz targets: the libraries once more, by clang, with coverage and sanitizers.
FUZZ_CFLAGS := $(BASE_CFLAGS) -DDATA_DIR='"$(DATA)"' -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all \
	-fsanitize=fuzzer-no-link,address,undefined
$(eval $(call stamp,$(FUZZ)/obj/flags,$(CLANG) $(FUZZ_CFLAGS)))
$(eval $(call stamp,$(FUZZ)/obj/files,$(IMAGE_SRC) $(PATCHC_SRC) $(RUNTIME_SRC)))

# Comparisons of guest values lead a fuzzer nowhere, and tracing them costs a third of the time.
$(FUZZ)/obj/runtime/soft/%.o $(FUZZ)/obj/runtime/translator/%.o: FUZZ_CFLAGS += -fno-sanitize-coverage=trace-cmp

$(FUZZ)/obj/%.o: %.c $(FUZZ)/obj/flags | $(READY)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_CFLAGS) -c $< -o $@

$(FUZZ)/libraries.a: $(call fuzz_obj,$(IMAGE_SRC) $(PATCHC_SRC) $(RUNTIME_SRC)) $(TEMPLATES_BLOB) $(PAGE_BLOB) $(FUZZ)/obj/files
	@rm -f $@
	$(AR) rcsD $@ $(filter %.o,$^)

$(FUZZ)/fuzz_image $(FUZZ)/fuzz_bzimage: $(call fuzz_obj,tests/unit/tiny_elf.c tests/unit/tiny_bzimage.c)
$(FUZZ)/fuzz_guest $(FUZZ)/fuzz_step $(FUZZ)/fuzz_translate: $(call fuzz_obj,tests/fuzz/guest.c)
$(FUZZ)/fuzz_guest $(FUZZ)/fuzz_step $(FUZZ)/fuzz_translate $(FUZZ)/fuzz_gdb $(FUZZ)/fuzz_stub: $(call fuzz_obj,tests/fuzz/quiet.c)
$(FUZZ)/fuzz_io_blocks: $(call fuzz_obj,tests/unit/one_insn.c tests/unit/io_lab.c)
$(FUZZ)/fuzz_stub: $(call fuzz_obj,tests/unit/stub_guest.c tests/unit/code_runner.c)

$(FUZZ_TARGETS): $(FUZZ)/%: $(FUZZ)/obj/tests/fuzz/%.o $(FUZZ)/libraries.a
	$(CLANG) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)

check: deps tests
	@BUILD=$(BUILD) FUZZ=$(FUZZ) KERNELS=$(BASE)/kernels SAN=$(SAN) tests/run $(TESTS)

# Every way to boot, which takes longer than `make check` may.
check-boots: deps all tools
	@BUILD=$(BUILD) FUZZ=$(FUZZ) KERNELS=$(BASE)/kernels SAN=$(SAN) PV_BOOTS=all tests/run 'boot*'

# Both programs and all libraries, built once more in another folder, are the same byte for byte.
check-reproducible: deps all
	@BUILD=$(BUILD) SAN=$(SAN) PV_REPRODUCIBLE=all tests/run reproducible

bench: deps all benches
	@BUILD=$(BUILD) KERNELS=$(BASE)/kernels tests/bench/run

demo: deps all
	@BUILD=$(BUILD) KERNELS=$(BASE)/kernels tests/demo

# ---- static analysis ------------------------------------------------------------------------------
lint: format-check tidy cppcheck shellcheck manlint licence-check

format-check: lint-deps
	clang-format --dry-run -Werror $(C_SRC)

format: lint-deps
	clang-format -i $(C_SRC)

tidy: lint-deps
	@printf '%s\n' $(filter %.c,$(C_SRC)) | xargs -P $$(nproc) -I{} sh -c \
		"clang-tidy --quiet {} -- $(filter-out -MMD -MP -D%,$(BASE_CFLAGS)) -D_GNU_SOURCE -DPATCHVISOR_VERSION='\"\"' -DDATA_DIR='\"\"' 2>/dev/null"

cppcheck: lint-deps
	cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,performance,portability \
		--suppressions-list=tests/cppcheck.suppressions --suppress=missingIncludeSystem -I. -D_GNU_SOURCE -DPATCHVISOR_VERSION='""' -DDATA_DIR='""' $(filter %.c,$(C_SRC))

shellcheck: lint-deps
	shellcheck -x $(SHELL_SRC)

manlint: lint-deps
	! mandoc -Tlint -Wstyle $(MAN) | grep -v 'referenced manual not found' # those are not installed yet

licence-check:
	tests/licence-headers --check

# ---- installation ---------------------------------------------------------------------------------
# What a program that embeds the hypervisor needs: runtime/vmcs.h and what it includes, the two libraries.
INCLUDE := $(PREFIX)/include/patchvisor
API_HEADERS := $(wildcard hvstub/*.h image/*.h ioblock/*.h runtime/*.h)

# Every file that is installed, as SOURCE:PLACE: `install` copies them, `uninstall` removes them.
INSTALLED := $(foreach f,$(PROGRAMS),$(f):$(PREFIX)/bin/$(notdir $(f))) \
	$(foreach f,$(wildcard lists/*.list),$(f):$(DATA)/$(f)) \
	$(foreach f,$(wildcard docs/*.json),$(f):$(DATA)/$(notdir $(f))) \
	$(foreach f,$(MAN),$(f):$(PREFIX)/share/man/man$(subst .,,$(suffix $(f)))/$(notdir $(f))) \
	$(foreach f,$(wildcard completion/*),$(f):$(PREFIX)/share/bash-completion/completions/$(notdir $(f))) \
	$(foreach f,LICENSE README.md CONTRIBUTING.md $(wildcard docs/*.md examples/*.c examples/*/*),$(f):$(PREFIX)/share/doc/patchvisor/$(f)) \
	$(foreach f,$(BUILD)/libhvrun.a $(BUILD)/libpvimage.a,$(f):$(LIBDIR)/$(notdir $(f))) \
	$(BUILD)/hvrun.pc:$(LIBDIR)/pkgconfig/hvrun.pc \
	$(foreach f,$(API_HEADERS),$(f):$(INCLUDE)/$(f))

$(eval $(call stamp,$(BUILD)/obj/folders,$(PREFIX) $(LIBDIR) $(VERSION) $(LIBS)))
$(BUILD)/hvrun.pc: $(BUILD)/obj/folders
	printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include/patchvisor' \
		'libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))' '' \
		'Name: hvrun' 'Description: a hypervisor on a software x86-64 processor, as a library' \
		'Version: $(VERSION)' 'Cflags: -I$${includedir} -D_GNU_SOURCE' \
		'Libs: -L$${libdir} -lhvrun -lpvimage $(LIBS)' > $@

install: all $(BUILD)/hvrun.pc
	@$(foreach f,$(INSTALLED),install -D -m $(if $(filter $(PREFIX)/bin/%,$(lastword $(subst :, ,$(f)))),755,644) \
		$(subst :, $(DESTDIR),$(f)) &&) \
		echo '$(words $(INSTALLED)) files installed in $(DESTDIR)$(PREFIX)'

uninstall:
	rm -f $(foreach f,$(INSTALLED),$(DESTDIR)$(lastword $(subst :, ,$(f))))
	find $(wildcard $(addprefix $(DESTDIR),$(DATA) $(INCLUDE) $(PREFIX)/share/doc/patchvisor) /nonexistent) \
		-depth -type d -empty -delete 2>/dev/null || true

# Debian packages of this tree, in build/deb, as lintian wants them. They are built from a copy, with Debian's flags.
DEB := $(BASE)/deb
deb: deb-deps
	rm -rf $(DEB)
	mkdir -p $(DEB)/patchvisor
	tar -cf - --exclude=./$(BASE) --exclude-vcs . | tar -xf - -C $(DEB)/patchvisor
	cd $(DEB)/patchvisor && env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL dpkg-buildpackage --no-sign --build=binary
	lintian --fail-on error,warning $(DEB)/*.changes
	@ls -l $(DEB)/*.deb

deb-deps:
	@tests/install-deps $(BUILD_DEPS) $(DEB_DEPS)

clean:
	rm -rf $(BASE)

help:
	@echo 'make               build/patchc, build/hvrun and the samples'
	@echo 'make deps          install the Debian packages that build and tests need'
	@echo 'make build-deps    only those that a build needs'
	@echo 'make check         all tests (SAN=1: with sanitizers; TESTS="boot*": only those)'
	@echo 'make check-boots   every way to boot the patched kernels under QEMU'
	@echo 'make check-reproducible   both programs, built in another folder, are the same'
	@echo 'make demo          patch Debian'\''s kernel and boot it'
	@echo 'make bench         measure: a table and build/bench.json'
	@echo 'make fuzz          the fuzz targets, build/fuzz/fuzz_*; TIME=900: and runs each that long, one after the'
	@echo '                   other (FUZZERS="fuzz_list fuzz_gdb": only those); exit status 1 after a crash'
	@echo 'make lint          format-check, tidy, cppcheck, shellcheck, manlint, licence-check'
	@echo 'make install       to PREFIX (/usr/local) below DESTDIR; also uninstall'
	@echo 'make deb           Debian packages, build/deb/*.deb'
	@echo 'make clean         remove build/'

.PHONY: all samples unit fuzz tests tools benches deps build-deps lint-deps check check-boots check-reproducible bench demo lint \
	format-check format tidy cppcheck shellcheck manlint licence-check install uninstall deb deb-deps clean help
.DELETE_ON_ERROR:
-include $(shell find $(BUILD)/obj $(FUZZ)/obj -name '*.d' 2>/dev/null)
