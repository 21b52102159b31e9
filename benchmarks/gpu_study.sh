#!/usr/bin/env bash
# The paper's whole protocol, 20 epochs on MNIST and 50 on Fashion-MNIST, three seeds, on a GPU under JAX:
#
#     benchmarks/gpu_study.sh DATA OUTPUT
#
# DATA holds the folders mnist and fashion_mnist, with the four original files each; OUTPUT takes the results, tables,
# figures and model cards. It resumes: after a kill, run it again. Needs keras, jax, numpy, scipy, scikit-learn, matplotlib, pillow, click and rich; no
# TensorFlow, no TFX. Not run as a whole yet; options at the end (--epochs 1 --limit-per-class 40) make a trial.
set -euo pipefail
data=$1 output=$2
shift 2
export KERAS_BACKEND=jax PYTHONPATH
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd)

capsad() { python -c 'from pipeline.cli import main; main()' "$@"; }

methods=(--detector capsnet --detector cnn_ocsvm --detector dbn --detector vae --detector cnn_softmax)
seeds=(--seed 0 --seed 1 --seed 2)
capsad study mnist --data-dir "$data/mnist" "${methods[@]}" "${seeds[@]}" --output "$output" "$@"
capsad study mnist --data-dir "$data/mnist" "${methods[@]}" "${seeds[@]}" --anomaly 0,3,5 --output "$output" "$@"
capsad study fashion_mnist --data-dir "$data/fashion_mnist" "${methods[@]}" "${seeds[@]}" --output "$output" "$@"
capsad study mnist --data-dir "$data/mnist" --protocol open-set-6-4 --detector capsnet --detector cnn_softmax --output "$output" "$@"
capsad tables "$output"
