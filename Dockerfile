# syntax=docker/dockerfile:1
# One image: `docker build -t vestibule .`, then `docker run --rm -p 127.0.0.1:4480:4480 vestibule demo`.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# The toolchain of the image is the one that rust-toolchain.toml asks for; rustup need not look for another.
ENV RUSTUP_TOOLCHAIN=1.95.0
# The dependencies alone first: they change seldom, and are kept as a layer of their own.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/with_kratos \
    && echo 'fn main() {}' | tee src/main.rs benches/hooks.rs benches/store.rs tests/with_kratos/main.rs > /dev/null \
    && touch src/lib.rs \
    && cargo build --release --locked
COPY . .
RUN touch src/main.rs src/lib.rs && cargo build --release --locked
# What the program needs of the system, gathered for an image that holds nothing else: the C library and its loader,
# the certificates of the authorities, a user that is not root, and a folder of its own.
RUN set -eu; mkdir -p /image/var/lib/vestibule /image/etc/ssl/certs /image/usr/local/bin; \
    cp target/release/vestibule /image/usr/local/bin/; \
    for library in $(ldd target/release/vestibule | grep -oE '/[^ ]+'); do \
        mkdir -p "/image$(dirname "$library")"; cp -L "$library" "/image$library"; \
    done; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'vestibule:x:65532:65532::/var/lib/vestibule:/none' > /image/etc/passwd; \
    echo 'vestibule:x:65532:' > /image/etc/group; \
    mkdir -m 1777 /image/tmp; \
    chown -R 65532:65532 /image/var/lib/vestibule

# From nothing rather than from distroless: the same content, and one registry less to depend on.
FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Vestibule" \
      org.opencontainers.image.description="Checks sign-up fields for Ory Kratos before an account is saved, and delivers it after" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image /
ENV PATH=/usr/local/bin
WORKDIR /var/lib/vestibule
USER 65532:65532
VOLUME /var/lib/vestibule
EXPOSE 4480 4481
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["vestibule", "health"]
ENTRYPOINT ["vestibule"]
CMD ["serve", "--config", "/etc/vestibule/vestibule.yaml"]
