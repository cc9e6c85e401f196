# docker build -t unetsep .                                        for the CPU
# docker build -t unetsep:cuda --build-arg TORCH=cu128 .           for NVIDIA GPUs
# docker build -t unetsep:ray --build-arg EXTRAS=ffmpeg,remote,ray .   with Ray
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
# The folder of PyTorch's index: cpu, or a version of CUDA.
ARG TORCH=cpu
# ffmpeg for m4a and video, remote for buckets.
ARG EXTRAS=ffmpeg,remote
WORKDIR /source
RUN python -m venv /opt/unetsep
COPY constraints.txt ./
RUN /opt/unetsep/bin/python -m pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/${TORCH} torch
COPY pyproject.toml README.md LICENSE weights_manifest.json ./
COPY unetsep ./unetsep
RUN /opt/unetsep/bin/python -m pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/unetsep /opt/unetsep
# Nothing reports home, and any user may run it: --user takes one that has no folder here.
ENV PATH=/opt/unetsep/bin:$PATH \
    HOME=/tmp \
    HF_HUB_DISABLE_TELEMETRY=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /music
ENTRYPOINT ["unetsep"]
CMD ["--help"]
