//! `vestibule completions` and `vestibule man`: what shells and `man` show about the commands.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

const EXAMPLES: &str = "\
Examples:
  vestibule completions bash > /etc/bash_completion.d/vestibule
  vestibule completions zsh > ~/.zfunc/_vestibule";
const MAN_EXAMPLES: &str = "\
Examples:
  vestibule man | man -l -
  vestibule man --folder /usr/local/share/man/man1";

/// `vestibule completions`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// `vestibule man`
#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct Manual {
    /// Write one page for each command into this folder, instead of printing the main page
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints the completions for a shell.
pub fn completions(options: &Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "vestibule", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page, or writes all pages.
pub fn manual(options: &Manual) -> anyhow::Result<ExitCode> {
    let Some(folder) = &options.folder else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page)?;
        std::io::stdout().write_all(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .with_context(|| format!("cannot write the pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
