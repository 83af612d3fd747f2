/* SPDX-License-Identifier: MIT */
/* Which engine runs the guest. */
#include "runtime/engine_choice.h"

#include <string.h>

#include "hvstub/hvstub.h"
#include "image/patched_note.h"
#include "runtime/kvm/kvm.h"
#include "runtime/translator/translator.h"

/* Who steps or debugs and does not say on what does it where each instruction costs next to nothing. */
static bool better_on_soft(const struct vm_config *config)
{
    return config->gdb || config->step || config->trace;
}

/* What only the soft engine does; NULL: nothing of it is wanted. */
static const char *needs_soft(const struct vm_config *config)
{
    return config->deterministic ? "--deterministic" : NULL;
}

/* Whose interrupt chips. The kernel's are asked for, or they are good: a vCPU that the kernel runs meets them without
 * leaving it. One whose instructions are often executed here, by the soft processor, wants them here. */
static const struct engine *with_chips(const struct vm_config *config,
                                       const struct kvm_quality *quality, struct error *err)
{
    const char *asked = config->irqchip ? config->irqchip : "auto";
    bool stepped = better_on_soft(config);
    if (!strcmp(asked, "auto"))
        return quality->why_not[0] || quality->no_chips || stepped ? &kvm_engine
                                                                   : &kvm_chips_engine;
    if (!strcmp(asked, "user"))
        return &kvm_engine;
    if (!quality->no_chips && !stepped)
        return &kvm_chips_engine;
    if (stepped)
        fail(err, HVRUN_NO_ENGINE, "--gdb, --step and --trace need --irqchip user");
    else
        fail(err, HVRUN_NO_ENGINE, "/dev/kvm: has no %s; use --irqchip user", quality->no_chips);
    return NULL;
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
    const struct engine *engine = with_chips(config, &quality, err);
    if (engine == &kvm_engine && kvm_slowness() > 1)
        fprintf(stderr, "hvrun: guest time passes %u times slower than the host's\n",
                kvm_slowness());
    return engine;
}

/* Its break patches trap, which only the soft engine gives back to it (stub_attach). */
static bool has_breaks(const struct image *image)
{
    struct pv_note note;
    return patched_note_find(image, &note, NULL, NULL) && note.flags & PV_IMAGE_NEEDS_RUNTIME;
}

static const struct engine *choose_any(const struct vm_config *config, const struct image *image)
{
    struct kvm_quality quality;
    struct error err = {0};
    if (needs_soft(config) || better_on_soft(config) || has_breaks(image) || kvm_absent())
        return &soft_engine;
    if (kvm_probe(&quality, &err) == 0 && !quality.why_not[0] &&
        kvm_limit_features(&quality, &err) == 0) {
        const struct engine *engine = with_chips(config, &quality, &err);
        if (engine)
            return engine;
    }
    /* what is wrong with it, without the advice for who named it */
    const char *why = err.code ? err.text : quality.why_not;
    fprintf(stderr, "hvrun: %.*s; the soft engine runs instead\n", (int)strcspn(why, ";"), why);
    return &soft_engine;
}

/* The soft engine leads: its translator, or its interpreter with the machine that KVM can have, too. */
static const struct engine *choose_lockstep(const struct vm_config *config, struct error *err)
{
    struct kvm_quality quality;
    if (!strcmp(config->engine, "soft")) {
        const char *missing = translator_missing();
        if (missing)
            fail(err, HVRUN_NO_ENGINE, "no translator: %s", missing);
        return missing ? NULL : &soft_engine;
    }
    if (kvm_probe(&quality, err) < 0 || kvm_limit_features(&quality, err) < 0)
        return NULL;
    return &soft_engine;
}

const struct engine *engine_choose(const struct vm_config *config, const struct image *image,
                                   struct error *err)
{
    if (config->lockstep)
        return choose_lockstep(config, err);
    if (!strcmp(config->engine, "soft"))
        return &soft_engine;
    return strcmp(config->engine, "kvm") ? choose_any(config, image) : choose_kvm(config, err);
}
