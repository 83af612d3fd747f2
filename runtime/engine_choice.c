/* Which engine runs the guest. */
#include "runtime/engine_choice.h"

#include <string.h>

#include "hvstub/hvstub.h"
#include "image/patched_note.h"
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
    if (needs_soft(config) || has_breaks(image) || kvm_absent())
        return &soft_engine;
    if (kvm_probe(&quality, &err) == 0 && !quality.why_not[0] &&
        kvm_limit_features(&quality, &err) == 0)
        return &kvm_engine;
    /* what is wrong with it, without the advice for who named it */
    const char *why = err.code ? err.text : quality.why_not;
    fprintf(stderr, "hvrun: %.*s; the soft engine runs instead\n", (int)strcspn(why, ";"), why);
    return &soft_engine;
}

const struct engine *engine_choose(const struct vm_config *config, const struct image *image,
                                   struct error *err)
{
    if (!strcmp(config->engine, "soft"))
        return &soft_engine;
    return strcmp(config->engine, "kvm") ? choose_any(config, image) : choose_kvm(config, err);
}
