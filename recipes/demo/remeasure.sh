#!/bin/sh
# What depends on the packaged model, measured anew, in order. Run it in the repository's root:
#
#   recipes/demo/remeasure.sh DATA WORK
#
# DATA is what prepare.py wrote, WORK a folder for targets, studies and logs. What is finished is not done again, so
# the same command goes on after a stop. Each step's output is WORK/STEP.log; README.md's table says where it goes, and
# what is not measured here.
set -eu
data=$1 work=$2
root=$PWD
python=${PYTHON:-$root/.venv/bin/python}
mkdir -p "$work"

step() {
    name=$1
    shift
    [ ! -e "$work/$name.done" ] || return 0
    echo "$name"
    "$@" >"$work/$name.log" 2>"$work/$name.err"
    touch "$work/$name.done"
}

targets="openmoji pixel freehand openclipart" # of which one is packaged
files=
for target in $targets noto gcompris; do
    step "pack-$target" "$python" recipes/demo/package_pairs.py --data "$data" --target "$target" --out "$work/$target"
    cp "$work/$target/pairs.parquet" "$work/$target.parquet"
done
for target in $targets; do
    files="$files $work/$target/pairs.parquet"
done
# shellcheck disable=SC2086  # a list of files
step target "$python" recipes/demo/choose_target.py --model headwise/demo/model --operators uniform,zero --images 400 $files
step demo "$python" -m headwise demo -o "$work/demo-out"
step stages "$python" -m headwise refine demo demo --rungs mask -o "$work/stages"
step notebooks "$python" tools/notebooks.py
step genetic "$python" benchmarks/defaults.py --images 100 --budget 100 --seeds 2 \
    --only "default,population 24,no crossover,uniform crossover only,flip every head with 3 %,tournament 6,no immigrants"
step bp "$python" benchmarks/bp_defaults.py --images 120 --few --out "$work/bp.jsonl"
step estimated "$python" benchmarks/estimated.py --images 150 --seeds 5 --folder "$work/estimated" \
    --pairs "demo,$work/openmoji/pairs.parquet"
step estimated-pixel "$python" benchmarks/estimated.py --images 100 --seeds 5 --folder "$work/estimated-pixel" \
    --pairs "$work/pixel/pairs.parquet"
step plants "$python" benchmarks/plants.py --models tower --plants none,three,four,five,six,compensating,redundant \
    --seeds 101,102,103,104 --images 48 --budget 120 --out "$work/plants.jsonl"
step plants-demo "$python" benchmarks/plants.py --models demo --plants compensating,redundant --seeds 101,102 --images 64 \
    --budget 200 --out "$work/plants-demo.jsonl"
step lengths "$python" benchmarks/lengths.py --out "$work/lengths.jsonl"
step fitness "$python" benchmarks/fitness.py --seeds 5 --ffe 16 --fitness "mean recall,contrastive loss"
step learning "$python" benchmarks/learning.py --data "$data" --work "$work/ladder" --target freehand --target pixel
step learning-lora "$python" benchmarks/learning.py --data "$data" --work "$work/ladder" --target freehand --rung lora
step learning-again "$python" benchmarks/learning.py --data "$data" --work "$work/ladder" --more 150 \
    --target freehand --target pixel --target openmoji --target noto --rung scale --rung spectral --rung projection
step distractors "$python" benchmarks/distractors.py --seeds 5
# where the files lie: patterns.py prints the sources as they are given
step patterns env -C "$work" "$python" "$root/benchmarks/patterns.py" --out explained --most-images 300 \
    demo=noto.parquet=category demo=openmoji.parquet=category demo=pixel.parquet=set demo=openclipart.parquet=category \
    demo=gcompris.parquet=category demo=freehand.parquet=set
step patterns-demo env -C "$work" "$python" "$root/benchmarks/patterns.py" --out explained --most-images 500
step labels env -C "$work" "$python" "$root/benchmarks/labels.py" --out explained \
    noto.parquet openmoji.parquet pixel.parquet openclipart.parquet gcompris.parquet freehand.parquet
step precisions env OMP_NUM_THREADS=1 "$python" benchmarks/precisions.py --images 100
step same-bytes "$python" benchmarks/same_bytes.py --images 60
step waiting "$python" benchmarks/process.py waiting --rounds 5 --repeats 8
step waiting-busy "$python" benchmarks/process.py waiting --rounds 3 --repeats 4 --busy 2
step memory "$python" benchmarks/process.py memory --rounds 5 --repeats 4
step memory-one "$python" benchmarks/process.py memory --rounds 5 --repeats 4 --threads 1
step scale env OMP_NUM_THREADS=1 "$python" benchmarks/scale.py --images 128
step scale-chunk env OMP_NUM_THREADS=1 "$python" benchmarks/scale.py --images 128 --chunk 8
step scale-images env OMP_NUM_THREADS=1 "$python" benchmarks/scale.py --images 224
step scale-ray env OMP_NUM_THREADS=1 "$python" benchmarks/scale.py --images 128 --ray
step explore-swept "$python" benchmarks/explore.py --run "$work/demo-out" --edit uniform
step explore-other "$python" benchmarks/explore.py --run "$work/demo-out"
step explore-several "$python" benchmarks/explore.py --run "$work/demo-out" --edit uniform --several --repeats 5
step explore-drag "$python" benchmarks/explore.py --run "$work/demo-out" --drag
step fronts "$python" benchmarks/fronts.py -o "$work/fronts" --keep-domain "$work/openmoji/pairs.parquet" --quiet
step ladder "$python" benchmarks/ladder.py --data "$data" --work "$work/ladder" --anew
step ladder-page "$python" benchmarks/ladder_page.py --data "$data" --work "$work/ladder" --anew
