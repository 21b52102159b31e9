# The image of the Kubeflow components, and of Beam's workers. From the repository's root:
#
#     docker build -t IMAGE .
#     docker build -t IMAGE-gpu --build-arg TENSORFLOW='tensorflow[and-cuda]' .
#
# BASE: any with apt, glibc 2.39 or newer and Python 3.13. CUDA itself comes with
# `tensorflow[and-cuda]`. Pin what you deploy by its digest:
# --build-arg BASE=debian:trixie-slim@sha256:...
ARG BASE=debian:trixie-slim

# Beam's start program for workers, of the version in requirements/image.txt.
FROM apache/beam_python3.13_sdk:2.77.0 AS beam

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /capsad
ENV PATH=/capsad/.venv/bin:$PATH VIRTUAL_ENV=/capsad/.venv

# Versions first, for code changes more often.
COPY requirements requirements
RUN python3 -m venv .venv \
    && pip install --quiet "$(grep '^uv==' requirements/tfx-1.21.txt)" \
    && uv pip sync --quiet requirements/image.txt
ARG TENSORFLOW=tensorflow
RUN uv pip install --quiet --constraint requirements/image.txt "$TENSORFLOW"
COPY README.md LICENSE pyproject.toml ./
COPY models models
COPY components components
COPY pipeline pipeline
COPY capsad capsad
RUN uv pip install --quiet --no-deps --no-build-isolation --editable . \
    && python -m compileall -q .venv/lib models components pipeline capsad

FROM ${BASE}
LABEL org.opencontainers.image.title="capsad" \
    org.opencontainers.image.description="Image anomaly detection with capsule networks" \
    org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 capsad \
    # Kubeflow's launcher keeps artifacts here.
    && mkdir /gcs /minio /s3 \
    && chown capsad /gcs /minio /s3
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=build --chown=capsad /capsad /capsad
WORKDIR /capsad
ENV PATH=/capsad/.venv/bin:$PATH \
    VIRTUAL_ENV=/capsad/.venv \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY deploy/entrypoint.sh /usr/local/bin/entrypoint.sh
USER capsad
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
