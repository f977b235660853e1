# syntax=docker/dockerfile:1

FROM python:3.12-slim-bookworm AS dependencies
WORKDIR /src
COPY pyproject.toml .
RUN python -c "import tomllib; own = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = (own['optional-dependencies'][extra] for extra in ('memory', 'local', 'opus', 'piper')); \
        print(*own['dependencies'], *sum(extras, []), sep='\n')" > requirements.txt \
    && pip wheel --no-cache-dir --wheel-dir /wheels -r requirements.txt

FROM dependencies AS torch
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['torch'], sep='\n')" \
        > torch.txt \
    && pip wheel --no-cache-dir --wheel-dir /wheels -r torch.txt

FROM python:3.12-slim-bookworm AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY codecs codecs
COPY engines engines
COPY bridge bridge
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS cpu
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/voice-bridge voice-bridge \
    && python -m venv /opt/voice-bridge
ENV PATH=/opt/voice-bridge/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN --mount=type=bind,from=dependencies,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER 10001
WORKDIR /var/lib/voice-bridge
VOLUME /var/lib/voice-bridge
ENV VOICE_BRIDGE_SERVER__HOST=0.0.0.0
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["voice-bridge"]
CMD ["serve"]

FROM cpu AS cuda
USER root
# Kernels are built for the GPU, or the CPU, that is there.
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=torch,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl
USER 10001
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
