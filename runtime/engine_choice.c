/* Which engine runs the guest. */
#include "runtime/engine_choice.h"

#include <string.h>

#include "runtime/kvm/kvm.h"

/* What only the soft engine does; NULL: nothing of it is wanted. */
static const char *needs_soft(const struct vm_config *config)
{
    return config->gdb             ? "--gdb"
           : config->step          ? "--step"
           : config->trace         ? "--trace"
           : config->deterministic ? "--deterministic"
                                   : NULL;
}

static const struct engine *choose_kvm(const struct vm_config *config, struct error *err)
{
    struct kvm_quality quality;
    if (needs_soft(config)) {
        fail(err, HVRUN_NO_ENGINE, "%s needs --engine soft", needs_soft(config));
        return NULL;
    }
    if (kvm_probe(&quality, err) < 0 || kvm_limit_features(&quality, err) < 0)
        return NULL;
    if (quality.why_not[0])
        fprintf(stderr, "hvrun: %s\n", quality.why_not);
    return &kvm_engine;
}

const struct engine *engine_choose(const struct vm_config *config, struct error *err)
{
    return strcmp(config->engine, "kvm") ? &soft_engine : choose_kvm(config, err);
}
