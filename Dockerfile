# One image: `docker build -t vestibule .`, then on Linux `docker run --rm --network host vestibule demo`.
# The cache mounts need BuildKit: Docker 23 or later, podman, buildah, or Docker 20.10 with DOCKER_BUILDKIT=1.

FROM rust:1.95.0-bookworm AS build
WORKDIR /build
# The toolchain of the base image. rustup would otherwise download the components that rust-toolchain.toml lists.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# The cache mounts keep the registry and the target folder between builds, so a change in src recompiles Vestibule and no
# dependency. Cargo compares modification times, and the cache can hold the result of another checkout whose files are
# newer; `touch` makes Cargo compile the sources of this one.
RUN --mount=type=cache,id=vestibule-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=vestibule-target,target=/build/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --bin vestibule \
    && cp target/release/vestibule /usr/local/bin/vestibule
# The program and what it needs of the system: the C library and its loader, the root certificates, a user that is not
# root, and the data folder.
RUN set -eu; mkdir -p /image/var/lib/vestibule /image/etc/ssl/certs /image/usr/local/bin; \
    cp /usr/local/bin/vestibule /image/usr/local/bin/; \
    for library in $(ldd /usr/local/bin/vestibule | grep -oE '/[^ ]+'); do \
        mkdir -p "/image$(dirname "$library")"; cp -L "$library" "/image$library"; \
    done; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'vestibule:x:65532:65532::/var/lib/vestibule:/none' > /image/etc/passwd; \
    echo 'vestibule:x:65532:' > /image/etc/group; \
    mkdir -m 1777 /image/tmp; \
    chown -R 65532:65532 /image/var/lib/vestibule

# `scratch` rather than distroless: the same content, and no second registry.
FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Vestibule" \
      org.opencontainers.image.description="Checks sign-up fields for Ory Kratos before an account is saved, and delivers it after" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image /
# With VESTIBULE_CONFIG, `docker exec CONTAINER vestibule deliveries list` finds the settings file.
ENV PATH=/usr/local/bin VESTIBULE_CONFIG=/etc/vestibule/vestibule.yaml
WORKDIR /var/lib/vestibule
USER 65532:65532
VOLUME /var/lib/vestibule
EXPOSE 4480 4481
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["vestibule", "health"]
ENTRYPOINT ["vestibule"]
CMD ["serve", "--config", "/etc/vestibule/vestibule.yaml"]
