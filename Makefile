# Patchvisor. `make` builds, `make check` tests, `make demo` is the tour. See README.md.

BUILD   ?= build
CC      ?= gcc
CSTD    := -std=gnu11
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
ifeq ($(SAN),1)
BUILD   := $(BUILD)/san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
VERSION := $(shell cat VERSION)
ALL_CFLAGS := $(CSTD) $(WARN) -I. -D_GNU_SOURCE -DPATCHVISOR_VERSION='"$(VERSION)"' -DDATA_DIR='"$(PREFIX)/share/patchvisor"' -MMD -MP $(CFLAGS) $(SANFLAGS)
PREFIX  ?= /usr/local
LIBS    := -lelf -lZydis -lxxhash -ljansson -lz -llzma -llz4 -lzstd -lbz2 -llzo2 -lpthread

IMAGE_SRC  := $(wildcard image/*.c)
PATCHC_SRC := $(filter-out patchc/main.c,$(wildcard patchc/*.c))
TEMPLATES  := $(wildcard templates/*.S)
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
UNIT_SUPPORT := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))

obj = $(patsubst %,$(BUILD)/obj/%.o,$(basename $(1)))

all: $(BUILD)/patchc

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

# Templates are code with holes, not part of the program: no sanitizers, one relocatable object.
$(BUILD)/obj/templates/%.o: templates/%.S Makefile
	@mkdir -p $(@D)
	$(CC) -I. -MMD -MP -c $< -o $@

$(BUILD)/templates.o: $(call obj,$(TEMPLATES))
	$(LD) -r -o $@ $^

$(BUILD)/obj/templates_blob.o: $(BUILD)/templates.o
	@mkdir -p $(@D)
	printf '.section .rodata\n.global templates_blob, templates_blob_end\n.balign 16\ntemplates_blob:\n.incbin "%s"\ntemplates_blob_end:\n.section .note.GNU-stack,"",@progbits\n' $< | $(CC) -x assembler -c - -o $@

$(BUILD)/libpvimage.a: $(call obj,$(IMAGE_SRC))
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libpatchc.a: $(call obj,$(PATCHC_SRC)) $(BUILD)/obj/templates_blob.o
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/patchc: $(BUILD)/obj/patchc/main.o $(BUILD)/libpatchc.a $(BUILD)/libpvimage.a
	$(CC) $(SANFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(UNIT_SUPPORT)) $(BUILD)/libpatchc.a $(BUILD)/libpvimage.a
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $^ -lcmocka $(LIBS)

unit: $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(UNIT_SRC))

clean:
	rm -rf $(BUILD)

.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
