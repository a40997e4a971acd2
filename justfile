# One line each over cargo and npm; `just` alone lists them.

_list:
    @just --list --unsorted

# the tests to run first for a change: three minutes on two cores
test:
    cargo test

# the long tests; with names of modules (`just test-long restore sync`), only those
test-long *families:
    cargo test --test it -- --ignored {{families}} --skip ssh --skip promtool --skip as_root --skip bun:: --skip schemathesis \
        --skip curl_itself --skip image::

# all faults except those that need root: kills, damages and failures at every point
test-faults: (test-long "faults::")

# the long tests of restores
test-restore: (test-long "restore::")

# the long tests of hostile repositories and workspaces
test-hostile: (test-long "hostile::" "workspace_specific::")

# the long tests that compare the image's changed wmill with npm's
test-wmill: (test-long "adapted_wmill::")

# the tests over ssh (Debian: openssh-server)
test-ssh:
    cargo test --test it -- --ignored ssh --skip image::

# the faults that need root: small disks, other users
test-root:
    cargo test --test it -- --ignored as_root

# the tests with promtool, Bun, curl and Schemathesis
test-tools:
    cargo test --test it -- --ignored promtool bun:: curl_itself schemathesis

# a thousand syncs in a row, and hundreds with random faults; prints the memory and files of the service meanwhile
endurance:
    cargo test --test it -- --ignored --nocapture --test-threads 1 endurance

# writes tests/FAULTS.md, the table of all faults that the tests inject
faults:
    WRITE_FAULTS=1 cargo test --test it -- table_of_faults

# the status page in a real Chromium (Debian: chromium)
test-page:
    cargo test --test it -- --ignored page:: --skip screenshot

# writes docs/page.png, the screenshot in README (Debian: chromium)
screenshot:
    cargo test --test it -- --ignored page::screenshot

# writes the man page, docs/windmill-git-sync.1, from `--help` and README.md
man:
    WRITE_MAN=1 cargo test --test it -- man::

# the tests of the image (a Docker Engine with Compose)
test-image:
    cargo test --test it -- --ignored image::

# the WebAssembly builds, and the unit tests in WASI (Debian: python3-venv)
test-wasm:
    bash tests/wasi/run

# a demonstration of the main job with the real programs
demo:
    cargo run --example demo

# lints, for this machine and for WebAssembly
lint:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --target wasm32-wasip1 --lib --bins -- -D warnings
    cargo clippy --target wasm32-wasip2 --lib --bins -- -D warnings
    cargo clippy --target wasm32-wasip1 --lib --profile test -- -D warnings

# misspelled words, as typos.toml has it (PyPI: typos)
typos:
    typos

# format the code
fmt:
    cargo fmt --all

# documentation of the code
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# the static binary (Debian: musl-tools)
musl:
    image/build-static

# the image
image:
    docker build --file Dockerfile.scratch --build-arg CREATED=$(date --utc +%Y-%m-%dT%H:%M:%SZ) --tag windmill-git-sync .

# the content of the image, as sbom.cdx.json
sbom:
    id=$(docker create windmill-git-sync) && docker cp $id:/usr/share/doc/windmill-git-sync/sbom.cdx.json . && docker rm --volumes $id

# a release of branch main: checked, tagged and built, but not published; see CONTRIBUTING.md
release version *options:
    bash .ci/release {{version}} {{options}}

# the static binaries for amd64 and arm64 (Debian: musl-tools, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)
binaries:
    bash .ci/binaries

# both WebAssembly targets; `cargo run --target wasm32-wasip1 -- --version` runs the first under Node.js
wasm:
    cargo build --release --target wasm32-wasip1 --lib --bins
    cargo build --release --target wasm32-wasip2 --lib --bins

# sizes, times, memory and processor time with their limits, in 15 minutes; `just bench listener` is one part
bench *parts:
    cargo bench --bench bench -- {{parts}}

# both fuzz targets, for this many seconds each (cargo install --locked cargo-fuzz; a C++ compiler)
fuzz seconds="120":
    for target in head body; do \
        mkdir -p target/fuzz/found/$target; \
        RUSTC_BOOTSTRAP=1 cargo fuzz run --target-dir target/fuzz $target target/fuzz/found/$target fuzz/corpus/$target -- \
            -dict=fuzz/$target.dict -max_len=2400 -timeout=5 -max_total_time={{seconds}} || exit 1; \
    done

# adds the fuzzer's inputs that took a new path to the corpus
fuzz-keep:
    for target in head body; do \
        mkdir -p target/fuzz/kept/$target; \
        RUSTC_BOOTSTRAP=1 cargo fuzz run --target-dir target/fuzz $target \
            target/fuzz/kept/$target fuzz/corpus/$target target/fuzz/found/$target -- \
            -merge=1 -use_counters=0 -max_len=2400 || exit 1; \
        rm -r fuzz/corpus/$target && mv target/fuzz/kept/$target fuzz/corpus/; \
    done

# licences, sources, duplicates, and the advisories, which CI does not check (cargo install --locked cargo-deny)
deny:
    cargo deny --locked check

# wmill as in the image: one program, in target/wmill-by-hand
wmill *arguments:
    image/build-wmill target/wmill-by-hand
    target/wmill-by-hand/out/wmill {{arguments}}

# all checks that a commit must pass
ci:
    bash .ci/run
