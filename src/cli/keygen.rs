//! A key for kratos.yml, or a secret to sign deliveries with.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;

use crate::outbound::service::sign::PREFIX;

/// `vestibule keygen …`
#[derive(Debug, Args)]
pub struct Options {
    /// Make a secret for `services.<name>.sign` instead (Standard Webhooks, `whsec_…`)
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
            key()?
        }
    );
    Ok(ExitCode::SUCCESS)
}

fn signing_secret() -> anyhow::Result<String> {
    Ok(format!("{PREFIX}{}", STANDARD.encode(random()?)))
}

/// A key of 32 random bytes, written so that it fits into YAML, a header and a shell without quotes.
pub fn key() -> anyhow::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_secret_can_be_signed_with() {
        let secret = signing_secret().unwrap();
        crate::outbound::service::SigningKey::parse(&secret).unwrap();
    }

    #[test]
    fn each_key_is_another_and_long_enough() {
        let (one, other) = (key().unwrap(), key().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
    }
}
