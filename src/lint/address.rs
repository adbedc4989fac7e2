//! Reads what kratos.yml refers to: `file://`, `base64://` and mapped paths of containers.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A folder of a container, and the same folder here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The path that kratos.yml names.
    pub container: String,
    /// The path of the same folder here.
    pub local: PathBuf,
}

impl Mapping {
    /// Parses `/etc/config/kratos=./kratos`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (container, local) = text
            .split_once('=')
            .filter(|(container, local)| !container.is_empty() && !local.is_empty())
            .ok_or("expected two paths, as in /etc/config/kratos=./kratos")?;
        Ok(Self {
            container: container.trim_end_matches('/').to_owned(),
            local: local.into(),
        })
    }
}

/// Reads the content of an address. The error is the reason why it cannot be read here.
pub fn read(address: &str, mappings: &[Mapping]) -> Result<String, String> {
    if let Some(data) = address.strip_prefix("base64://") {
        let bytes = STANDARD
            .decode(data)
            .map_err(|_| "it is not Base64".to_owned())?;
        return String::from_utf8(bytes).map_err(|_| "it is not text".to_owned());
    }
    let path = address.strip_prefix("file://").unwrap_or(address);
    if path.contains("://") {
        return Err("lint reads nothing over the network".to_owned());
    }
    let path = local(path, mappings);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns the address as it can be printed.
#[must_use]
pub fn shown(address: &str) -> &str {
    if address.starts_with("base64://") {
        "base64://…"
    } else {
        address
    }
}

fn local(path: &str, mappings: &[Mapping]) -> PathBuf {
    let inside = |mapping: &Mapping| {
        let rest = path.strip_prefix(&mapping.container)?;
        let is_whole = rest.is_empty() || rest.starts_with('/');
        is_whole.then(|| mapping.local.join(rest.trim_start_matches('/')))
    };
    mappings
        .iter()
        .find_map(inside)
        .unwrap_or_else(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_container_is_mapped_by_whole_names() {
        let mappings = [Mapping::parse("/etc/config/kratos/=./kratos").expect("a mapping")];
        for (path, expected) in [
            ("/etc/config/kratos/a.json", "./kratos/a.json"),
            ("/etc/config/kratos2/a.json", "/etc/config/kratos2/a.json"),
            ("kratos/a.json", "kratos/a.json"),
        ] {
            assert_eq!(local(path, &mappings), PathBuf::from(expected));
        }
        assert!(Mapping::parse("/etc").is_err() && Mapping::parse("=a").is_err());
    }

    #[test]
    fn base64_is_read_and_the_network_is_not() {
        assert_eq!(read("base64://e30=", &[]).as_deref(), Ok("{}"));
        assert!(read("base64://%", &[]).is_err());
        assert!(read("https://example.com/a.json", &[]).is_err());
        assert!(read("file:///nowhere/a.json", &[]).is_err());
    }
}
