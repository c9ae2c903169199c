# The wheel is built in one stage and installed in the next, so that the image holds no build tools.
FROM python:3.11-slim AS wheel
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
WORKDIR /source
RUN pip install --no-cache-dir "setuptools>=77" wheel
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim AS packages
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
# hnswlib comes as source
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/compactds
ENV PATH=/opt/compactds/bin:$PATH
COPY constraints.txt /tmp/constraints.txt
# torch comes first and pinned: what follows then finds it and brings no other build of it. The usual index
# may have the CUDA build only; --build-arg TORCH_INDEX_URL=… names one of CPU builds, for torch alone.
ARG TORCH_INDEX_URL=
RUN pip install --no-cache-dir torch -c /tmp/constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt /wheels/*.whl

FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 compactds
COPY --from=packages /opt/compactds /opt/compactds
ENV PATH=/opt/compactds/bin:$PATH PYTHONUNBUFFERED=1
USER compactds
WORKDIR /home/compactds
# Mount the store here, read-only if you like: -v "$PWD/store:/store:ro"
VOLUME /store
EXPOSE 8080
# No proxy stands between the container and itself, whatever its environment says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import os; from urllib.request import ProxyHandler, build_opener; \
    port = os.environ.get('COMPACTDS_SERVE_PORT') or '8080'; \
    build_opener(ProxyHandler({})).open('http://127.0.0.1:' + port + '/readyz', timeout=4)"]
ENTRYPOINT ["compactds"]
# The key comes from the environment: -e COMPACTDS_SERVE_API_KEY=…
CMD ["serve", "/store", "--host", "0.0.0.0"]
