//! Generates docs/command-line.md from the help texts.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Cli;

const BEGINNING: &str = "\
# The command line

This page is generated from `vestibule --help` and the help of each command.

| exit code | meaning |
|---|---|
| 0 | The command did what was asked. `validate`, `doctor` and `kratos` found no problem; `test` has no failed case. |
| 1 | A problem, a failed case, a skipped delivery, or an error, which is printed. |
| 2 | A wrong option or argument. |

`vestibule completions SHELL` prints completions, and `vestibule man --folder FOLDER` writes manual pages.
";

/// Returns docs/command-line.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = BEGINNING.to_owned();
    let root = Cli::command();
    for command in root.get_subcommands() {
        describe(&mut text, command, "vestibule");
    }
    text
}

fn describe(text: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let children: Vec<&Command> = command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
        .collect();
    if children.is_empty() {
        let mut command = command
            .clone()
            .bin_name(&name)
            .disable_version_flag(true)
            .term_width(100);
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(
            text,
            "\n## `{name}`\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        );
    }
    for child in children {
        describe(text, child, &name);
    }
}
