# The one binary, with TLS: docker build -t shakedown:0.0.0 .
# It runs as nobody in particular, writes below /data alone, and its health check wants SHAKEDOWN_LISTEN.

# The compiler of rust-toolchain.toml; the full image has make, pkg-config, zlib's and OpenSSL's headers.
FROM rust:1.95.0-bookworm AS build
WORKDIR /source
# For its size: a backtrace has names, and no lines.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY . .
RUN cargo build --locked --release --package shakedown --features tls

# The same Debian, for the same OpenSSL.
FROM debian:12.12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 shakedown \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin shakedown \
 && install --directory --owner shakedown --group shakedown --mode 0750 /data
COPY --from=build /source/target/release/shakedown /usr/local/bin/shakedown
COPY scripts/healthy /usr/local/bin/healthy
USER 10001:10001
WORKDIR /data
ENV SHAKEDOWN_DATA_DIR=/data SHAKEDOWN_LISTEN=127.0.0.1:8080 SHAKEDOWN_LOG_FORMAT=json
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 CMD ["healthy", "/health/ready"]
ENTRYPOINT ["shakedown"]
CMD ["serve"]
