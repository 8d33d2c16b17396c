# A server of stores:
#   docker build -t edgemoe .
#   docker run -p 8080:8080 -v "$PWD":/stores -m 8g edgemoe serve /stores/qwen.store --host 0.0.0.0
# The memory of the container is the budget, unless --memory says less. Experts are read by io_uring where the
# container may use it (--security-opt seccomp=unconfined), else by threads.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ cmake ninja-build \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --wheel-dir /wheels "/source[serve,gguf]"

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels "edgemoe[serve,gguf]" && rm -r /wheels \
    && useradd --create-home edgemoe
USER edgemoe
EXPOSE 8080
ENTRYPOINT ["edgemoe"]
CMD ["demo"]
