//! `vestibule keygen`: generates a key for kratos.yml, or a secret that signs deliveries.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use crate::base::secret::{random_bytes, random_key};
use crate::outbound::services::sign::PREFIX;

/// `vestibule keygen …`
#[derive(Debug, Args)]
pub struct Options {
    /// Print a signing secret for `services.<name>.sign` instead (Standard Webhooks, `whsec_…`)
    #[arg(long)]
    signing: bool,
}

/// Prints a key of 32 random bytes.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    println!(
        "{}",
        if options.signing {
            signing_secret()?
        } else {
            random_key()?
        }
    );
    Ok(ExitCode::SUCCESS)
}

fn signing_secret() -> anyhow::Result<String> {
    Ok(format!("{PREFIX}{}", STANDARD.encode(random_bytes()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_signing_secret_can_sign() {
        let secret = signing_secret().unwrap();
        crate::outbound::services::SigningKey::parse(&secret).unwrap();
    }
}
