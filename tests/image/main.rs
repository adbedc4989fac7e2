//! The images build: the commands of each Dockerfile run on its build context, without Docker.

mod context;
mod dockerfile;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use context::Context;
use dockerfile::{Dockerfile, Step};
use vestibule_testing::program::output_by;

/// How long a command of a Dockerfile may take. It may compile or install every dependency.
const PATIENCE: Duration = Duration::from_mins(30);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Creates an empty folder for one test.
fn empty_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the folder of an earlier run is removed");
    }
    fs::create_dir_all(&folder).expect("the folder is created");
    folder
}

/// Runs the first stage of the Dockerfile in `context` as far as it concerns `program`, in the order of the file: copies
/// the files that `COPY` names from the build context into an empty folder, and runs `command(words)` for each command of
/// that program. Returns the number of commands.
fn run_first_stage(
    name: &str,
    context: &str,
    program: &str,
    command: impl Fn(&[String]) -> Command,
) -> usize {
    let dockerfile = Dockerfile::parse(&read(&format!("{context}/Dockerfile")));
    let context = Context::of(&root().join(context));
    let folder = empty_folder(&format!("image-{name}"));
    let mut commands = 0;
    for step in dockerfile.first_stage() {
        match step {
            Step::Copy { from, to } => context.copy(&from, &folder, &to),
            Step::Run(line) => {
                for words in dockerfile::commands_of(&line, program) {
                    let shown = words.join(" ");
                    let output = output_by(PATIENCE, command(&words).current_dir(&folder));
                    assert!(
                        output.status.success(),
                        "`{shown}` fails on the build context:\n{}{}",
                        String::from_utf8_lossy(&output.stdout),
                        String::from_utf8_lossy(&output.stderr)
                    );
                    commands += 1;
                }
            }
        }
    }
    commands
}

/// `cargo build --release …` becomes `cargo metadata`, which reads the manifests, and finds the files that they name.
#[test]
fn the_manifests_of_the_image_are_complete() {
    run_cargo("metadata", |words| {
        let mut command = Command::new(env!("CARGO"));
        match words.get(1).map(String::as_str) {
            Some("build") => command.args(["metadata", "--format-version=1", "--locked"]),
            _ => command.args(&words[1..]),
        };
        command
    });
}

/// `cargo build --release …` becomes `cargo check …`, which reads the same manifests and sources without a second build
/// of every dependency.
#[test]
#[ignore = "it compiles the program once more: just release-check"]
fn the_image_of_vestibule_builds_from_its_context() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target folder");
    run_cargo("check", |words| {
        let mut command = Command::new(env!("CARGO"));
        for word in words.iter().skip(1).filter(|word| *word != "--release") {
            command.arg(if word == "build" { "check" } else { word });
        }
        command.env("CARGO_TARGET_DIR", target);
        command
    });
}

fn run_cargo(name: &str, command: impl Fn(&[String]) -> Command) {
    let commands = run_first_stage(name, ".", "cargo", command);
    assert!(commands > 0, "the Dockerfile runs no cargo command");
}

#[test]
fn the_image_of_the_example_front_end_builds_from_its_context() {
    let commands = run_first_stage("npm", "examples/front-end", "npm", |words| {
        let mut command = Command::new("npm");
        command.args(&words[1..]);
        command
    });
    assert!(commands > 1, "the Dockerfile installs packages and builds");
}

/// Otherwise rustup downloads another toolchain during the build.
#[test]
fn the_image_builds_with_the_toolchain_of_the_project() {
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().expect("TOML");
    let version = toolchain["toolchain"]["channel"]
        .as_str()
        .expect("a version");
    let dockerfile = read("Dockerfile");
    for line in [
        format!("FROM rust:{version}-bookworm AS build"),
        format!("ENV RUSTUP_TOOLCHAIN={version}"),
    ] {
        assert!(
            dockerfile.lines().any(|one| one == line),
            "Dockerfile: `{line}`"
        );
    }
    assert!(
        !dockerfile.contains("# syntax="),
        "a `# syntax=` line downloads an image before anything else"
    );
}
