//! stub
/// stub
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// stub
    Hooks,
}
impl Command {
    /// stub
    pub fn run(self) -> anyhow::Result<std::process::ExitCode> {
        Ok(std::process::ExitCode::SUCCESS)
    }
}
