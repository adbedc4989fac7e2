//! docs/tutorial.md, word for word: every command runs, and prints what the tutorial shows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vestibule_testing::program::output_by;

use crate::support::{kratos, port};

/// How long all commands may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// The ports of the tutorial. A test gets free ones in their place.
const PORTS: [&str; 4] = ["9000", "4433", "4434", "4480"];
/// The line of the settings to which the test adds free ports.
const FIRST_LINE: &str = "dsn: sqlite://vestibule.db";
/// What the script prints before the output of each block.
const MARK: &str = "@@ block";

/// A block of commands, and the lines that it prints among others.
#[derive(Debug)]
struct Block {
    commands: String,
    shown: Vec<String>,
}

pub async fn the_tutorial_leads_to_a_refused_sign_up() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let page = std::fs::read_to_string(page).expect("the tutorial");
    let blocks = blocks(&with_free_ports(&page));
    assert!(
        blocks.len() > 6
            && blocks
                .iter()
                .filter(|block| !block.shown.is_empty())
                .count()
                > 5
    );
    let folder = tempfile::tempdir().expect("an empty folder");
    let ran = tokio::task::spawn_blocking({
        let (script, folder) = (script(&blocks), folder.path().to_owned());
        move || run(&script, &folder)
    });
    let printed = ran.await.expect("the script ends");
    for (number, block) in blocks.iter().enumerate() {
        let after = printed.split(&format!("{MARK} {number}\n")).nth(1);
        let of_block = after.and_then(|text| text.split(MARK).next());
        let of_block = words(of_block.unwrap_or_default());
        for line in &block.shown {
            assert!(
                of_block.contains(&words(line)),
                "`{line}` is not printed by\n{}\nbut\n{printed}",
                block.commands
            );
        }
    }
}

/// Reads the blocks of commands (`sh`), and the output after each (`text`).
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (number, fenced) in page.split("\n```").enumerate() {
        if number % 2 == 0 {
            continue;
        }
        let (language, content) = fenced.split_once('\n').expect("a fenced block");
        match (language, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block {
                commands: content.to_owned(),
                shown: Vec::new(),
            }),
            ("text", Some(block)) => block.shown.extend(content.lines().map(ToOwned::to_owned)),
            other => panic!("a block of the tutorial: {other:?}"),
        }
    }
    blocks
}

fn with_free_ports(page: &str) -> String {
    let ports = PORTS.map(|known| (known, port::free().to_string()));
    let page = ports.iter().fold(page.to_owned(), |page, (known, free)| {
        page.replace(known, free)
    });
    let free = |known: &str| {
        ports
            .iter()
            .find(|(one, _)| *one == known)
            .map(|(_, free)| free.clone())
    };
    let (public, kratos_admin) = (free("4433").expect("a port"), free("4434").expect("a port"));
    let hooks = free("4480").expect("a port");
    let kratos =
        format!("serve: {{admin: {{port: {kratos_admin}}}, public: {{port: {public}, base_url");
    let vestibule = format!(
        "{FIRST_LINE}\nserve: {{hooks: {{port: {hooks}}}, admin: {{port: {}}}}}",
        port::free()
    );
    page.replace(FIRST_LINE, &vestibule)
        .replace("serve: {public: {base_url", &kratos)
}

fn script(blocks: &[Block]) -> String {
    let begin = "set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n".to_owned();
    blocks
        .iter()
        .enumerate()
        .fold(begin, |script, (number, block)| {
            format!("{script}echo '{MARK} {number}'\n{}\n", block.commands)
        })
}

/// Runs the script with `vestibule` and `kratos` on PATH. Returns what it printed.
fn run(script: &str, folder: &Path) -> String {
    let folder_of = |program: PathBuf| program.parent().expect("a folder").to_owned();
    let mut path = vec![folder_of(env!("CARGO_BIN_EXE_vestibule").into())];
    path.extend(kratos::program().map(folder_of));
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut bash = Command::new("bash");
    bash.args(["-c", script])
        .env("PATH", std::env::join_paths(path).expect("a path"))
        .current_dir(folder);
    let output = output_by(PATIENCE, &mut bash);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    let logs = ["register.log", "vestibule.log", "kratos.log"]
        .map(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_default());
    assert!(
        output.status.success(),
        "{}\n{printed}\n{}\n{}",
        output.status,
        text(&output.stderr),
        logs.join("\n")
    );
    printed
}

/// Tables are padded, so only words are compared.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
