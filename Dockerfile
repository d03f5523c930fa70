# One image for everything that runs: flows, worker, gateway, and the Prefect and MLflow servers. docs/containers.md says
# how to build, push and roll it.
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t backstop:$(git rev-parse --short HEAD) .

# The Python that the tests run on; 3.12 and 3.13 are in the lock too.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Without pip in it: what runs in production installs nothing.
RUN python -m venv --without-pip /opt/venv
COPY requirements-image.lock /opt/
# Wheels only, each with its hash: nothing is compiled, and no code of a package runs while it is installed.
RUN python -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: -r /opt/requirements-image.lock
WORKDIR /opt/backstop
COPY flows flows/
COPY tasks tasks/
COPY serving serving/
COPY stack stack/
COPY policies policies/
COPY strategies strategies/
COPY automations automations/
COPY deploy deploy/
COPY prefect.yaml ./
# Bytecode is made now, since nobody may write here later; it is believed without a look at the source's time, which a
# copy of the image can change. The .pth file makes the packages importable from any folder.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash flows tasks serving stack \
    && /opt/venv/bin/python -c 'import pathlib, sysconfig; \
    pathlib.Path(sysconfig.get_path("purelib"), "backstop.pth").write_text("/opt/backstop\n")'

FROM python:${PYTHON}-slim
# The packages change seldom and the code often: in this order a new revision is a small layer.
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/backstop /opt/backstop
RUN mkdir -p /var/lib/backstop && chown 10001:10001 /var/lib/backstop && chmod 0750 /var/lib/backstop
WORKDIR /opt/backstop
# There is no git here: what was built from which commit is said when it is built, and stands in every MLflow run.
ARG REVISION=""
LABEL org.opencontainers.image.title="backstop" org.opencontainers.image.revision="${REVISION}"
# HOME and USER: the user has no entry in /etc/passwd, so that any other number does as well. Prefect's server copies
# its pages when it starts, by default to beside its code, where nobody may write: it would go on without pages. The
# other Prefect settings are those that docs/deploy.md asks of every worker and flow.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    USER=backstop \
    BACKSTOP_HOME=/var/lib/backstop \
    BACKSTOP_REVISION=${REVISION} \
    MPLCONFIGDIR=/tmp/matplotlib \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-pages \
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 \
    PREFECT_CLIENT_MAX_RETRIES=7 \
    PREFECT_CLIENT_RETRY_EXTRA_CODES=500 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# No HEALTHCHECK: a flow has none, and the worker, the gateway and the servers each have another; deploy/ has them.
ENTRYPOINT ["/opt/backstop/deploy/entry"]
CMD ["prefect", "version"]
