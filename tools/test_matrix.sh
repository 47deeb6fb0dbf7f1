#!/bin/sh
# Runs the tests of the towers with the lowest and the newest supported versions, each in an environment of its own.
#
#   tools/test_matrix.sh            both rows
#   tools/test_matrix.sh lowest     one row
#
# PYTHON chooses the interpreter (3.11 or newer). Environments are kept under .venv-matrix; remove it to start afresh.
# Only the run with the newest versions treats warnings as errors: older libraries warn about newer torch.
set -eu
cd "$(dirname "$0")/.."

row() {
    name=$1 strict=$2
    shift 2
    home=.venv-matrix/$name
    [ -x "$home/bin/python" ] || "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --upgrade pip
    "$home/bin/python" -m pip install --quiet --editable ".[dev]" "$@"
    "$home/bin/python" -m pip list 2>/dev/null |
        grep -iE '^(torch|transformers|open_clip_torch|timm|sentence-transformers) '
    HF_HUB_OFFLINE=1 "$home/bin/python" -m pytest tests/towers tests/applied tests/evaluation/test_engine.py \
        -n 2 -W "$strict"
}

wanted=${1:-all}
case $wanted in
lowest | newest | all) ;;
*)
    echo "usage: tools/test_matrix.sh [lowest|newest]" >&2
    exit 2
    ;;
esac
if [ "$wanted" != newest ]; then
    row lowest default torch==2.6.0 torchvision==0.21.0 transformers==5.0.0 open_clip_torch==3.0.0 timm==1.0.26 \
        sentence-transformers==5.4.0
fi
if [ "$wanted" != lowest ]; then
    row newest error --upgrade torch torchvision transformers open_clip_torch timm sentence-transformers
fi
