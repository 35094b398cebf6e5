FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY breaker breaker
COPY breakwater breakwater
COPY docs docs
COPY simulator simulator
COPY tasks tasks
COPY workers workers
RUN python -m venv /opt/breakwater \
    && /opt/breakwater/bin/pip install --no-cache-dir --quiet ".[worker,otel,postgres]"

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 breakwater \
    && install --directory --owner breakwater /var/lib/breakwater # a volume takes its owner from here
COPY --from=build /opt/breakwater /opt/breakwater
ENV PATH=/opt/breakwater/bin:$PATH PYTHONUNBUFFERED=1 ROLES_FILE=/etc/breakwater/roles.yaml \
    METRICS_PORT=9464
EXPOSE 9464
WORKDIR /home/breakwater
USER breakwater
# Pings this container's own worker, for 0.75 s of CPU; a worker that consumes nothing does not answer.
HEALTHCHECK --interval=60s --timeout=20s --start-period=20s --retries=3 \
    CMD celery -A workers inspect ping --destination "celery@$HOSTNAME" --timeout 10
CMD ["celery", "-A", "workers", "worker", "--pool", "threads", "--concurrency", "100"]
