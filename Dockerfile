# One image for `hubscope serve`, `hubscope worker` and `hubscope migrate`.
FROM python:3.12-slim AS build

WORKDIR /src
RUN python -m venv /opt/hubscope
ENV PATH=/opt/hubscope/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The locked dependencies first: this layer changes only when the lock does.
COPY requirements/lock.txt requirements/
RUN pip install --require-hashes -r requirements/lock.txt

COPY pyproject.toml README.md ./
COPY service service
COPY dbt_project dbt_project
RUN pip install --no-deps --no-build-isolation .

FROM python:3.12-slim

RUN useradd --system --uid 10001 --home-dir /var/lib/hubscope --create-home hubscope
COPY --from=build /opt/hubscope /opt/hubscope

ENV PATH=/opt/hubscope/bin:$PATH PYTHONUNBUFFERED=1 HUBSCOPE_DATA_DIR=/var/lib/hubscope
USER 10001
WORKDIR /var/lib/hubscope

# It listens on 127.0.0.1 until there is an API key and HUBSCOPE_HOST says otherwise: run it with --network host.
ENTRYPOINT ["hubscope"]
CMD ["serve"]
