/* Which engine runs the guest. */
#ifndef RUNTIME_ENGINE_CHOICE_H
#define RUNTIME_ENGINE_CHOICE_H

#include "runtime/vm.h"

/* The engine that config->engine names: "auto" is the soft one, which every host can run. For KVM the CPUID model is cut
 * down to what it offers, and a KVM that is not the processor's own is told of on stderr. NULL with *err
 * (HVRUN_NO_ENGINE): it cannot run here. */
const struct engine *engine_choose(const struct vm_config *config, struct error *err);

#endif
