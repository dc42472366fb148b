# One model over HTTP: docker build -t twofold . && docker run -p 8000:8000 -v ./wine-model:/model:ro twofold
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && pip install --no-cache-dir uv
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE constraints.txt ./
COPY src ./src
RUN uv venv /opt/twofold && uv pip install --python /opt/twofold/bin/python --torch-backend=cpu \
    --constraint constraints.txt ".[service]"

FROM python:3.12-slim
COPY --from=build /opt/twofold /opt/twofold
RUN useradd --create-home twofold
USER twofold
ENV PATH=/opt/twofold/bin:$PATH
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=30s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["twofold", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
