#!/bin/sh
# Everything that depends on the packaged model, measured anew, in order. Run it in the repository's root:
#
#   recipes/demo/remeasure.sh DATA WORK
#
# DATA is what prepare.py wrote, WORK a folder for targets, studies and logs. What is finished is not done again, so
# the same command goes on after a stop. Each step's output is WORK/STEP.log; README.md's table says where it goes.
set -eu
data=$1 work=$2
python=${PYTHON:-.venv/bin/python}
mkdir -p "$work"

step() {
    name=$1
    shift
    [ ! -e "$work/$name.done" ] || return 0
    echo "$name"
    "$@" >"$work/$name.log" 2>"$work/$name.err"
    touch "$work/$name.done"
}

targets="openmoji pixel freehand openclipart"
files=
for target in $targets; do
    step "pack-$target" "$python" recipes/demo/package_pairs.py --data "$data" --target "$target" --out "$work/$target"
    files="$files $work/$target/pairs.parquet"
done
# shellcheck disable=SC2086  # a list of files
step target "$python" recipes/demo/choose_target.py --model headwise/demo/model --operators uniform,zero --images 400 $files
step demo "$python" -m headwise demo -o "$work/demo-out"
step genetic "$python" benchmarks/defaults.py --images 100 --budget 100 --seeds 2 \
    --only "default,population 24,no crossover,uniform crossover only,flip every head with 3 %,tournament 6,no immigrants"
step bp "$python" benchmarks/bp_defaults.py --images 120 --few --out "$work/bp.jsonl"
step estimated "$python" benchmarks/estimated.py --images 150 --seeds 5 --folder "$work/estimated" \
    --pairs "demo,$work/openmoji/pairs.parquet"
step estimated-pixel "$python" benchmarks/estimated.py --images 100 --seeds 5 --folder "$work/estimated-pixel" \
    --pairs "$work/pixel/pairs.parquet"
step plants "$python" benchmarks/plants.py --out "$work/plants.jsonl"
step fronts "$python" benchmarks/fronts.py -o "$work/fronts" --keep-domain "$work/openmoji/pairs.parquet" --quiet
step ladder "$python" benchmarks/ladder.py --data "$data" --work "$work/ladder" --size 200
step ladder-page "$python" benchmarks/ladder_page.py --data "$data" --work "$work/ladder"
