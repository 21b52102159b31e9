# The image of the Kubeflow components. From the repository's root:
#
#     docker build -t IMAGE .
#     docker build -t IMAGE-gpu --build-arg TENSORFLOW='tensorflow[and-cuda]' .
#
# BASE: any with apt, glibc 2.39 or newer and Python 3.12 or 3.13, such as ubuntu:24.04 or
# nvidia/cuda:12.9.1-base-ubuntu24.04. CUDA itself comes with `tensorflow[and-cuda]`.
ARG BASE=debian:trixie-slim
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates g++ make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /capsad
ENV PATH=/capsad/.venv/bin:$PATH \
    VIRTUAL_ENV=/capsad/.venv \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Versions first, for code changes more often.
COPY Makefile README.md LICENSE pyproject.toml ./
COPY requirements requirements
COPY pipeline/stack.py pipeline/
RUN make setup PYTHON=python3

ARG TENSORFLOW=tensorflow
COPY models models
COPY components components
COPY pipeline pipeline
RUN uv pip install --constraint "requirements/$(python pipeline/stack.py).txt" \
        --no-build-isolation --editable '.[kubeflow]' "$TENSORFLOW" \
    && uv pip check \
    && python -m compileall -q .venv/lib models components pipeline
