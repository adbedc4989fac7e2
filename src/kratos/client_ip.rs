//! The visitor's address in a header that proxies write.

use std::net::{IpAddr, SocketAddr};

/// The header with the visitor's address, and how many of its last entries trusted proxies wrote.
///
/// Each proxy appends the address of its client to the header. Everything to the left of the entries of trusted proxies
/// can be written by the visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIpHeader {
    /// The header, in canonical form.
    pub name: String,
    /// The number of trusted proxies before Kratos, at least 1. The first of them wrote the visitor's address.
    pub trusted_proxies: usize,
}

impl ClientIpHeader {
    /// Returns the address in a value of the header. `None` if there are fewer entries than trusted proxies, or if the
    /// entry is no address. An empty entry counts.
    #[must_use]
    pub fn address(&self, value: &str) -> Option<IpAddr> {
        let from_right = self.trusted_proxies.checked_sub(1)?;
        address(value.rsplit(',').nth(from_right)?.trim())
    }
}

/// Parses an address with or without brackets and port. An IPv4 address that is mapped to IPv6 becomes IPv4, so that
/// each visitor has one address.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bare {
        // Only IPv6 addresses have brackets.
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => entry.parse().ok().or_else(|| {
            let with_port: SocketAddr = entry.parse().ok()?;
            Some(with_port.ip())
        }),
    };
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_right() {
        for (value, trusted_proxies, expected) in [
            ("192.0.2.1", 1, Some("192.0.2.1")),
            ("198.51.100.9, 192.0.2.1", 1, Some("192.0.2.1")),
            ("198.51.100.9, 192.0.2.1", 2, Some("198.51.100.9")),
            ("forged, 198.51.100.9, 192.0.2.1", 2, Some("198.51.100.9")),
            ("198.51.100.9,192.0.2.1", 2, Some("198.51.100.9")),
            ("  192.0.2.1\t", 1, Some("192.0.2.1")),
            // Fewer entries than trusted proxies: the request did not pass all of them.
            ("192.0.2.1", 2, None),
            ("198.51.100.9, 192.0.2.1", 3, None),
            ("", 1, None),
            (" ", 1, None),
            // An empty entry counts, so that no entry of the visitor moves into its place.
            ("198.51.100.9, , 192.0.2.1", 2, None),
            ("198.51.100.9,", 1, None),
            (",192.0.2.1", 1, Some("192.0.2.1")),
            // The library guarantees at least 1.
            ("192.0.2.1", 0, None),
        ] {
            let header = ClientIpHeader {
                name: "X-Forwarded-For".to_owned(),
                trusted_proxies,
            };
            let found = header.address(value).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{value:?} {trusted_proxies}");
        }
    }

    #[test]
    fn an_entry_has_one_address_in_any_form() {
        for (entry, expected) in [
            ("192.0.2.1:4711", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("2001:DB8:0:0::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:4711", Some("192.0.2.1")),
            ("::1", Some("::1")),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("192.0.2.010", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:66000", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("fe80::1%eth0", None),
            ("\"[2001:db8::1]\"", None),
            ("for=192.0.2.1", None),
            ("192.0.2.1 198.51.100.9", None),
            ("１９２.0.2.1", None),
            ("localhost", None),
            ("[]", None),
        ] {
            let found = address(entry).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{entry:?}");
        }
    }
}
