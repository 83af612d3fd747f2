/* SPDX-License-Identifier: MIT */
/* The closed vocabularies of the report (patchc-report(5)): statuses, forms, tactics, reasons.
 * Scripts depend on the names; each enum has a name table in vocabulary.c. */
#ifndef PATCHC_VOCABULARY_H
#define PATCHC_VOCABULARY_H

enum site_status { STATUS_LEFT, STATUS_PATCHED, STATUS_EXCLUDED, STATUS_BLOCK, STATUSES };

/* Forms are enum pv_form (hvstub/hvstub.h); their names: form_name(). */

/* Why a site has its form. */
enum form_reason {
    FORM_REASON_NONE,
    FORM_REASON_FORCED,   /* --form */
    FORM_REASON_LIST,     /* the list's rule prefers it */
    FORM_REASON_CHEAPEST, /* auto: a direct jump fits */
    FORM_REASON_SHORT,    /* auto: only a two-byte branch fits */
    FORM_REASON_COPIED,   /* the kernel copies this code: a call is what it fixes up */
    FORM_REASONS
};

/* How room was made for the patch. */
enum tactic {
    TACTIC_NONE,
    TACTIC_EXACT,       /* the instruction alone is long enough */
    TACTIC_FORWARD,     /* window of the instruction and some that follow */
    TACTIC_BACKWARD,    /* window grown backwards */
    TACTIC_REGION,      /* window grown to whole alternative or call-site regions */
    TACTIC_ISLAND,      /* short branch to an island in padding */
    TACTIC_EVICT,       /* a neighbour was moved to make room for an island */
    TACTIC_REPLACEMENT, /* alternative replacement became a call */
    TACTIC_BREAK,       /* trapping instruction with an immediate */
    TACTIC_SHARED,      /* displaced by the patch of another site, emulated in its trampoline */
    TACTICS
};

/* Why a site was not patched. */
enum reason {
    REASON_NONE,
    /* excluded: must not be touched in place */
    REASON_OTHER_MODE,  /* 16- or 32-bit code */
    REASON_COPIED_CODE, /* code that is copied before it runs */
    REASON_CONTEXT,     /* its context forbids it: compared labels, no way back */
    REASON_OVERLAP,     /* thunk whose instructions overlap by design */
    /* left: no safe plan */
    REASON_NO_ROOM,        /* no window: branch targets too close, no island in reach */
    REASON_TABLE,          /* a kernel table refers into every window and cannot follow */
    REASON_NO_SPACE,       /* no routine space within reach */
    REASON_NO_TEMPLATE,    /* no template for this instruction form */
    REASON_TEMPLATE_NEEDS, /* the template needs more than the context has */
    REASON_FORM,           /* the forced form cannot be used here */
    REASON_UNPROVED,       /* not proved to be code reached in 64-bit mode */
    REASON_ALTERNATIVE, /* an alternative's place or replacement cannot take the site's routine */
    REASON_NO_BLOCK, /* the list leaves it to an IO block, but patching left none that covers it */
    REASONS
};

const char *status_name(enum site_status status);
const char *form_name(unsigned form);
const char *form_reason_name(enum form_reason reason);
const char *tactic_name(enum tactic tactic);
const char *reason_name(enum reason reason);        /* "" for REASON_NONE */
const char *reason_explanation(enum reason reason); /* one line for people */

#endif
