#!/bin/bash
# Fuzzes the parsers for a bounded time: libFuzzer on whatever Rust there is, without cargo-fuzz.
#
#   contrib/fuzz.sh [TARGET ...]          (no word: all of them, one after the other)
#
#   FUZZ_SECONDS=30    how long each target runs, in seconds; 0 only runs the seeds, once each
#   FUZZ_JOBS=1        how many targets run at once
#
# What a newcomer would get wrong: coverage is a compiler pass that a stable toolchain has as well; it is asked for by RUSTFLAGS
# together with --target, or build scripts would be instrumented too and not link. New inputs go to target/fuzz/, never into the
# seeds of the repository; what breaks is kept in target/fuzz/broken/TARGET, to be made a test beside the parser.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in -h|--help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
SECONDS_EACH=${FUZZ_SECONDS:-30} JOBS=${FUZZ_JOBS:-1}
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
HOST=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p'); HOST=${HOST:-$(uname -m)-unknown-linux-gnu}
WORK=$TARGET_DIR/fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for t in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$t.rs" ] || { echo "fuzz.sh: there is no target '$t' in fuzz/fuzz_targets" >&2; exit 2; }
done
command -v c++ >/dev/null || { echo "fuzz.sh: libFuzzer needs a C++ compiler: contrib/install-deps.sh fuzz" >&2; exit 1; }

flags="--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="${RUSTFLAGS:-} $flags" contrib/cargo build --locked --release --manifest-path fuzz/Cargo.toml \
    --target "$HOST" --target-dir "$WORK/build" --quiet "${targets[@]/#/--bin=}"

if [ -z "${FUZZ_SCRATCH:-}" ] && [ -w /dev/shm ]; then
    FUZZ_SCRATCH=$(mktemp -d /dev/shm/pronto-fuzz.XXXXXX)
elif [ -z "${FUZZ_SCRATCH:-}" ]; then
    FUZZ_SCRATCH=$(mktemp -d)
fi
export FUZZ_SCRATCH
trap 'rm -rf "$FUZZ_SCRATCH"' EXIT

# The inputs that a target takes are small; archives hold some entries and their bodies.
one() {
    local t=$1 max=4096 say how=()
    case $t in tar|tar_peer|unpack|archive|disk|fat) max=65536 ;; elf|accel_patch|passwd|manifest|qcow2) max=16384 ;; esac
    mkdir -p "$WORK/corpus/$t" "$WORK/broken/$t" "fuzz/corpus/$t"
    if [ "$SECONDS_EACH" = 0 ]; then how=(-runs=0); else how=(-max_total_time="$SECONDS_EACH"); fi
    say=$WORK/$t.log
    if "$WORK/build/$HOST/release/$t" "${how[@]}" -max_len=$max -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$WORK/broken/$t/" "$WORK/corpus/$t" "fuzz/corpus/$t" >"$say" 2>&1; then
        printf '%-11s held: %s inputs, %s\n' "$t" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$say")" "$(grep -o 'cov: [0-9]* ft: [0-9]*' "$say" | tail -n 1)"
    else
        printf '%-11s BROKE; the end of %s:\n' "$t" "$say"
        tail -n 25 "$say" | sed 's/^/    /'
        echo "    once more: $WORK/build/$HOST/release/$t FILE"
        return 1
    fi
}
export -f one; export SECONDS_EACH WORK HOST
printf '%s\n' "${targets[@]}" | xargs -P "$JOBS" -I{} bash -c 'one "$1"' fuzz {}
