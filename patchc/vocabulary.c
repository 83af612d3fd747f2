/* SPDX-License-Identifier: MIT */
/* The names of the report's closed vocabularies, and what each reason means in a sentence.
 * Scripts depend on the names (patchc-report(5)): a name that has shipped does not change. */
#include "patchc/vocabulary.h"

#include "hvstub/hvstub.h"

static const char *const statuses[STATUSES] = {
    [STATUS_LEFT] = "left",
    [STATUS_PATCHED] = "patched",
    [STATUS_EXCLUDED] = "excluded",
    [STATUS_BLOCK] = "block",
};

static const char *const forms[PV_FORMS] = {
    [PV_FORM_NONE] = "none",     [PV_FORM_JUMP] = "jump",   [PV_FORM_CALL] = "call",
    [PV_FORM_BRANCH] = "branch", [PV_FORM_BREAK] = "break",
};

static const char *const form_reasons[FORM_REASONS] = {
    [FORM_REASON_NONE] = "none",   [FORM_REASON_FORCED] = "forced",
    [FORM_REASON_LIST] = "list",   [FORM_REASON_CHEAPEST] = "cheapest",
    [FORM_REASON_SHORT] = "short", [FORM_REASON_COPIED] = "copied",
};

static const char *const tactics[TACTICS] = {
    [TACTIC_NONE] = "none",       [TACTIC_EXACT] = "exact",
    [TACTIC_FORWARD] = "forward", [TACTIC_BACKWARD] = "backward",
    [TACTIC_REGION] = "region",   [TACTIC_ISLAND] = "island",
    [TACTIC_EVICT] = "evict",     [TACTIC_REPLACEMENT] = "replacement",
    [TACTIC_BREAK] = "break",     [TACTIC_SHARED] = "shared",
};

static const struct {
    const char *name;
    const char *explanation;
} reasons[REASONS] = {
    [REASON_NONE] = {"", ""},
    [REASON_OTHER_MODE] = {"other-mode", "16- or 32-bit code: the routines are 64-bit code"},
    [REASON_COPIED_CODE] = {"copied-code",
                            "copied before it runs: a jump from the copy would lead elsewhere"},
    [REASON_CONTEXT] = {"context",
                        "runs where a jump away is not allowed: compared addresses or no way back"},
    [REASON_OVERLAP] = {"overlap", "part of a thunk whose instructions overlap by design"},
    [REASON_NO_ROOM] = {"no-room",
                        "branch targets stand too close and no island is within a short branch"},
    [REASON_TABLE] = {"table", "a kernel table refers into every window and cannot follow"},
    [REASON_NO_SPACE] = {"no-space", "no room for its routine within reach of a jump"},
    [REASON_NO_TEMPLATE] = {"no-template", "no template for this form of the instruction"},
    [REASON_TEMPLATE_NEEDS] = {"template-needs",
                               "its template needs more than the site has, such as a stack"},
    [REASON_FORM] = {"form", "the form that --form asks for cannot be used here"},
    [REASON_UNPROVED] = {"unproved", "not proved to be 64-bit code that control reaches"},
    [REASON_ALTERNATIVE] = {"alternative",
                            "the kernel rewrites its place at boot, and its routine does not fit"},
    [REASON_NO_BLOCK] = {"no-block",
                         "the list leaves it to an IO block, and none covers it after patching"},
};

/* A value outside its vocabulary is a defect; it shows as such and does not crash. */
#define NAME(table, limit, value) ((unsigned)(value) < (limit) ? (table)[value] : "invalid")

const char *status_name(enum site_status status)
{
    return NAME(statuses, STATUSES, status);
}

const char *form_name(unsigned form)
{
    return NAME(forms, PV_FORMS, form);
}

const char *form_reason_name(enum form_reason reason)
{
    return NAME(form_reasons, FORM_REASONS, reason);
}

const char *tactic_name(enum tactic tactic)
{
    return NAME(tactics, TACTICS, tactic);
}

const char *reason_name(enum reason reason)
{
    return (unsigned)reason < REASONS ? reasons[reason].name : "invalid";
}

const char *reason_explanation(enum reason reason)
{
    return (unsigned)reason < REASONS ? reasons[reason].explanation : "";
}
