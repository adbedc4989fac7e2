//! The trace that a call belongs to (W3C Trace Context). Vestibule takes the trace from Kratos's call and sends it to
//! services.

use std::fmt;

/// A trace: its id and its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    flags: u8,
}

impl Trace {
    /// Parses `traceparent`, or returns `None` if the header is not well-formed, as the standard requires.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let id: [u8; 16] = hex(parts.next()?)?;
        let parent: [u8; 8] = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        let well_formed = version != [0xff]
            && id != [0; 16]
            && parent != [0; 8]
            && (version != [0] || parts.next().is_none());
        well_formed.then_some(Self { id, flags })
    }

    /// Starts a new trace at Vestibule.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            id: uuid::Uuid::new_v4().into_bytes(),
            flags: 0,
        }
    }

    /// Returns `traceparent` for a call to a service: the same trace with a new span.
    #[must_use]
    pub fn child(&self) -> String {
        let random = uuid::Uuid::new_v4().into_bytes();
        // The first eight bytes hold the UUID's version and are never all zeros.
        let span = u64::from_be_bytes([
            random[0], random[1], random[2], random[3], random[4], random[5], random[6], random[7],
        ]);
        format!("00-{self}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.id))
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_accepted() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::parse(good).unwrap();
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        let child = trace.child();
        assert!(
            child.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && child.ends_with("-01")
        );
        assert_ne!(child, good);
        assert!(Trace::parse(&child).is_some());
        assert!(
            Trace::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some()
        );
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-ü0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
    }
}
