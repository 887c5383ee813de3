# syntax=docker/dockerfile:1
# Try it:  docker build -t todo-api . && docker run --rm -p 8000:8000 -v todo-data:/data todo-api

FROM oven/bun:1.4.5-slim AS build
WORKDIR /build
# First what changes seldom, so that the layer is found again.
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production --ignore-scripts --no-summary
COPY . .
RUN bun scripts/build.ts

# What the image will hold: the program, the libraries that it links to, and an empty folder for the volume.
RUN mkdir /image \
  && cp dist/todo-api /image/ \
  && ldd dist/todo-api | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory=/image \
  && install -d -m 0700 /volume/data

# No shell, no package manager: nothing to update but the program. Bun brings the usual certificate authorities along.
FROM scratch
LABEL org.opencontainers.image.title="todo-api" \
      org.opencontainers.image.description="A to-do REST API with accounts and an embedded PostgreSQL"
COPY --from=build /image /
# A fresh volume takes over owner and mode of the folder under it.
COPY --from=build --chown=10001:10001 /volume /
# PATH is for operators: docker exec NAME todo-api user list
ENV PATH=/ HOST=0.0.0.0 PORT=8000 DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["/todo-api", "healthcheck"]
ENTRYPOINT ["/todo-api"]
