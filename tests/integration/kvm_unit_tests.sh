#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kvm-unit-tests: what it makes of outcomes, shown with a stand-in for hvrun; then, where $PV_KVM_UNIT_TESTS names
# a built checkout of kvm-unit-tests, the tests themselves that take a second at most.
. tests/integration/tap.sh

# A checkout whose tests say by their name how they end.
mkdir -p "$tmp/checkout/x86"
cat >"$tmp/checkout/x86/unittests.cfg" <<'END'
# comment
[good]
file = good.flat
smp = 2
test_args = '10 `date +%s`'
[bad]
file = bad.flat
timeout = 30
[lost]
file = lost.flat
[absent]
file = absent.flat
[never]
file = never.flat
[short]
file = good.flat
arch = i386
[odd]
file = odd.flat
groups = nodefault
[vmx_thing]
file = good.flat
groups = vmx
[unbuilt]
file = unbuilt.flat
END
touch "$tmp/checkout/x86/"{good,bad,lost,absent,never,odd}.flat
cat >"$tmp/hvrun" <<'END'
#!/bin/bash
echo "$*" >>"$0.calls"
case ${*: -1} in
*/good.flat) echo "PASS: a"; exit 1 ;;
*/odd.flat) [[ $* = *'--translator off'* ]] && echo "PASS: b" || echo "PASS: a"; exit 1 ;;
*/bad.flat) printf 'FAIL: a\nPASS: b\nFAIL: c\n'; exit 3 ;;
*/lost.flat) exit 70 ;;
*/absent.flat) echo "SUMMARY: 1 tests, 1 skipped"; exit 77 ;;
*/never.flat) exit 124 ;;
esac
END
chmod +x "$tmp/hvrun"

under_stand_in() {
    HVRUN=$tmp/hvrun LOGS=$tmp/logs WITH_QEMU=0 LIMIT='' ENGINE='' TRANSLATOR='' tests/kvm-unit-tests "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
    sed -E 's/ +[0-9]+\.[0-9] +- +-$//; s/ +/ /g' "$tmp/out" >"$tmp/table"
}

under_stand_in "$tmp/checkout"
cat >"$tmp/want" <<'END'
test hvrun seconds QEMU TCG seconds
good pass
bad fail (2)
lost died (70)
absent skip
never hang
short - - 32 bits only (--i386)
odd - - not run by default there either
vmx_thing - - nested virtualization
unbuilt - - not built
1 passed, 3 failed, 1 skipped themselves, 4 left out
END
check "The table tells verdicts and what is left out" diff "$tmp/want" "$tmp/table"
check "A test that fails makes the exit status 1" [ "$status" = 1 ]
check "A test gets its processors, arguments and limit" \
    grep -qE -- '--timeout 180 .*--smp 2 --append 10 [0-9]{10} .*/good.flat' "$tmp/hvrun.calls"
under_stand_in --i386 "$tmp/checkout" --limit 7 "$tmp/checkout" 'g*' absent short
check "Passes and skips make the exit status 0" [ "$status" = 0 ]
check "Patterns choose, and 32-bit tests have their own folder" \
    [ "$(tail -n 1 "$tmp/out")" = "2 passed, 0 failed, 1 skipped themselves, 0 left out" ]
check "The limit is the one asked for" grep -q -- '--timeout 7 ' "$tmp/hvrun.calls"
check "The engine is the software processor" grep -qE -- '^--engine soft .*--timeout 7 ' "$tmp/hvrun.calls"
under_stand_in --engine kvm "$tmp/checkout" good
check "or the one asked for" grep -qE -- '^--engine kvm .*/good.flat' "$tmp/hvrun.calls"
under_stand_in --translator off "$tmp/checkout" good
check "and so is the interpreter" grep -qE -- '--translator off .*/good.flat' "$tmp/hvrun.calls"
under_stand_in --interpreter "$tmp/checkout" good bad absent odd
sed -E 's/ +[0-9]+\.[0-9]( |$)/ N\1/g; s/ +/ /g' "$tmp/out" | tail -n +2 >"$tmp/table"
printf '%s\n' 'good pass N pass N' 'bad fail (2) N fail (2) N' 'absent skip N skip N' 'odd pass, other N pass N' \
    '1 passed, 2 failed, 1 skipped themselves, 0 left out' >"$tmp/want"
check "Translator and interpreter: a check with another result is a failure" diff "$tmp/want" "$tmp/table"
under_stand_in --tap "$tmp/checkout" vmx_thing lost
sed -E -i 's/[0-9]+\.[0-9] s$/N s/' "$tmp/out"
printf '%s\n' 'TAP version 13' 'not ok 1 - lost: died (70) after N s' 'ok 2 - vmx_thing in N s' '1..2' >"$tmp/want"
check "TAP is there for the asking; a test asked for by its name is not left out" diff "$tmp/want" "$tmp/out"
under_stand_in
check "Without a folder the exit status is 2 and the reason is told" \
    [ "$status,$(wc -l <"$tmp/err")" = 2,1 ]

# Their slower tests take minutes: docs/conformance.md has the whole table.
quick=(ioapic cmpxchg8b smptest smptest3 smap pku emulator eventinj hypercall idt_test memory msr realmode setjmp syscall tsc
    tsc_adjust xsave rmap_chain taskswitch taskswitch2 'pcid*' rdpru umip la57 debug lam)
sentence="D10: kvm-unit-tests that take a second pass under hvrun, translated and interpreted"
if [ -z "${PV_KVM_UNIT_TESTS:-}" ]; then
    skip "$sentence" "PV_KVM_UNIT_TESTS names no built checkout"
else
    check "$sentence" env LOGS="$tmp/logs" WITH_QEMU=0 LIMIT=60 ENGINE=soft TRANSLATOR=on tests/kvm-unit-tests \
        --interpreter "$PV_KVM_UNIT_TESTS" "${quick[@]}"
fi
plan_done
