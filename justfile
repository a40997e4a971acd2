# One line each over cargo and npm; `just` alone lists them.

musl := "x86_64-unknown-linux-musl"

_list:
    @just --list --unsorted

# all tests but those that need sshd or a Docker Engine
test:
    cargo test

# the tests over ssh (Debian: openssh-server)
test-ssh:
    cargo test --features sshd-tests --test it -- ssh

# the tests of the image (a Docker Engine with Compose)
test-image:
    cargo test --features docker-tests --test it -- image::

# the main job, shown for real
demo:
    cargo run --example demo

# lints, for this machine and for WebAssembly
lint:
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --target wasm32-wasip1 --lib --bins -- -D warnings
    cargo clippy --target wasm32-wasip2 --lib --bins -- -D warnings

# format the code
fmt:
    cargo fmt

# documentation of the code
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# the static binary (Debian: musl-tools)
musl:
    cargo build --release --target {{musl}}

# the image
image:
    docker build --file Dockerfile.scratch --tag windmill-git-sync .

# what is in the image, as sbom.cdx.json
sbom:
    id=$(docker create windmill-git-sync) && docker cp $id:/usr/share/doc/windmill-git-sync/sbom.cdx.json . && docker rm --volumes $id

# both WebAssembly targets
wasm:
    cargo build --release --target wasm32-wasip1 --lib --bins
    cargo build --release --target wasm32-wasip2 --lib --bins

# size, start, memory and times, beside their limits
bench:
    cargo bench --bench bench

# licences, sources, duplicates, and the advisories that CI leaves out (cargo install --locked cargo-deny)
deny:
    cargo deny --locked check

# the wmill that the tests run, by itself, in target/wmill-by-hand
wmill *arguments:
    mkdir -p target/wmill-by-hand && cp tests/wmill/package*.json target/wmill-by-hand/
    npm ci --prefix target/wmill-by-hand --ignore-scripts --no-audit --no-fund
    target/wmill-by-hand/node_modules/.bin/wmill {{arguments}}

# all that must hold of a commit
ci:
    bash .ci/run
