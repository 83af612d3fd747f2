/* SPDX-License-Identifier: MIT */
/* Which engine runs the guest. */
#ifndef RUNTIME_ENGINE_CHOICE_H
#define RUNTIME_ENGINE_CHOICE_H

#include "runtime/vm.h"

struct image;

/* The engine that config->engine names. "auto" is KVM where it executes ring-0 code at hardware speed and nothing that
 * is asked for needs the soft engine, which every host can run; why a /dev/kvm that is there is not taken is told on
 * stderr in one line. For KVM the CPUID model is cut down to what it offers, and where it is asked for by name, stderr
 * says why "auto" would not take it. NULL with *err (HVRUN_NO_ENGINE): it cannot run here. */
const struct engine *engine_choose(const struct vm_config *config, const struct image *image,
                                   struct error *err);

#endif
