# Recipes for daily work. tests/run is the one command that must pass before a merge; `check`, `test` and `e2e` run it or
# a part of it, and `release-check` runs more than it.

# List the recipes
default:
    @just --list --unsorted

# Formatting, lints, licences, advisories, spelling and documents
check:
    tests/run check

# Everything that must pass before a merge
test:
    tests/run

# The tests with a real Kratos, which must be on PATH or in KRATOS_BIN
e2e:
    VESTIBULE_REQUIRE_KRATOS=1 tests/run e2e

# Write all generated files again: documents, snapshots, expected problems
generate:
    UPDATE=1 INSTA_UPDATE=always cargo test --locked --lib --test settings --test store --test template
    UPDATE=1 cargo test --locked --test it openapi

# Record the answers of a real Kratos again, with which the fake Kratos answers browsers
record:
    cargo build --locked
    cd tests/browser && npm ci && UPDATE=1 npx playwright test --project=kratos recorded

# Everything before a release: tests/run with Kratos, the long tests, the images (needs Docker)
release-check: && long-tests images
    VESTIBULE_REQUIRE_KRATOS=1 tests/run

# The random and repeated tests for longer, and the tests that tests/run skips
long-tests:
    PROPTEST_CASES=2000 cargo test --locked --test it gate_model
    cargo test --locked --test image -- --ignored
    cargo test --locked --test crash -- --ignored --nocapture
    cargo test --locked --test with_kratos -- --ignored
    GATE_ROUNDS=20 cargo test --locked --test with_kratos gate

# Ten minutes of hostile traffic beside honest visitors, with a full disk if root runs it: answers, memory, p99
hostile minutes="10":
    HOSTILE_MINUTES={{ minutes }} cargo bench --locked --bench mixed_traffic

# Build the images, start them with Docker Compose, and sign visitors up in Chromium
images:
    docker build .
    docker build examples/front-end
    tests/compose/run

# List the benches, or run one: just bench hooks
bench name="":
    @{{ if name == "" { "grep '^|' docs/contributing/benches.md" } else { "cargo bench --locked --bench " + name } }}
