#!/usr/bin/env bash
# The studies of docs/results/protocol.md, the most wanted first:
#
#     benchmarks/study.sh DATA OUTPUT [OPTION...]
#
# DATA holds the folders mnist and fashion_mnist, with the four original files each. OUTPUT takes the results, tables,
# figures and model cards. Options go to every study: --epochs 1 --limit-per-class 40 makes a trial. It resumes: after a
# kill, run it again. Several copies at once share the work. With KERAS_BACKEND=jax it runs on a GPU (docs/studies.md),
# and needs keras, jax, numpy, scipy, scikit-learn, matplotlib, pillow, click and rich, but neither TensorFlow nor TFX.
set -euo pipefail
data=$1 output=$2
shift 2
options=("$@")
failed=0
export PYTHONPATH
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd)

study() {  # data set, epochs, then options
    python -c 'from pipeline.cli import main; main()' study "$1" --data-dir "$data/$1" --epochs "$2" \
        --output "$output" "${@:3}" "${options[@]}" || failed=1
}
each() { printf -- "$1 %s " "${@:2}"; }  # an option for each of several values

both() {  # seed, then detectors: every class, {0,3,5} and the open set
    local which
    which="--seed $1 $(each --detector "${@:2}")"
    study mnist 5 $which
    study fashion_mnist 8 $which
    study mnist 5 $which --anomaly 0,3,5
    study mnist 5 $which --protocol open-set-6-4
}

both 0 capsnet
both 0 efficient_capsnet
both 0 cnn_softmax cnn_ocsvm dbn vae deep_svdd
study mnist 20 $(each --anomaly 2 9)  # the paper's epochs
study fashion_mnist 50 $(each --anomaly 7 6)
# Slow detectors: the first settings that test.
study mnist 5 --detector geom $(each --anomaly 1 3 4 6)
study fashion_mnist 8 --detector geom $(each --anomaly 0 2 4 5)
study mnist 5 --detector matrix_capsnet $(each --anomaly 1 3)
study fashion_mnist 8 --detector matrix_capsnet $(each --anomaly 0 2)
for seed in 1 2; do
    both $seed capsnet efficient_capsnet cnn_softmax cnn_ocsvm dbn vae deep_svdd
done
python -c 'from pipeline.cli import main; main()' tables "$output"
exit $failed
