/* SPDX-License-Identifier: MIT */
/* The block cache: decoded code by guest-physical address and mode.
 *
 * Blocks live in one arena; when it is full, everything is dropped and decoding begins anew. An invalidated block
 * stays in the arena (it may be under execution) but can no longer be found or entered: its first instruction leaves. */
#ifndef RUNTIME_SOFT_CACHE_H
#define RUNTIME_SOFT_CACHE_H

#include "image/error.h"
#include "runtime/soft/insn.h"

struct cache;
struct vm;

struct cache *cache_create(struct vm *vm, struct error *err);
void cache_destroy(struct cache *cache);

/* The block at vcpu.rip in the present mode, decoded if need be. Raises #PF, #GP, #UD-free decode faults on the
 * fetch (through cpu_raise). `single`: a block of one instruction, for stepping. Never NULL. */
struct block *cache_block(struct vcpu *cpu, bool single);

/* Drops the blocks that have an instruction at this offset of a page: they are cut there from now on (breakpoints.h). */
void cache_cut(struct cache *cache, uint64_t offset);
void cache_flush(struct cache *cache); /* all; not while a block is executing */

/* Watches a stretch of RAM within one page, of which somebody else keeps a decoded copy: ->valid becomes false when a byte
 * of it is written, or when everything is dropped. Released with cache_unwatch. NULL: not in RAM, not in one page, or no
 * memory. */
struct block *cache_watch(struct cache *cache, uint64_t physical, uint32_t bytes);
void cache_unwatch(struct cache *cache, struct block *watch);
/* Grows whenever a watch is broken: as long as it does not, all watches that were valid still are. */
uint64_t cache_broken_watches(const struct cache *cache);

#endif
