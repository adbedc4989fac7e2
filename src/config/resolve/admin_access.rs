//! Resolves who may call the admin port: `serve.admin.allowed_hosts` and `serve.admin.token`.

use super::basics::{KEY_RULES, KEYGEN_HELP, is_key};
use super::{Cursor, Resolver};
use crate::base::secret::Secret;
use crate::config::file;
use crate::config::settings::AdminAccess;

impl Resolver<'_> {
    pub(super) fn admin_access(
        &mut self,
        cursor: &Cursor<'_>,
        hosts: &[file::Text],
        token: Option<&file::Text>,
    ) -> AdminAccess {
        let mut allowed_hosts = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let Some(host) = self.text(host) else {
                continue;
            };
            if !is_host_name(&host) {
                self.report(
                    &cursor.key("allowed_hosts").item(index),
                    "expected a host name, without scheme, port and `*`",
                    Some(
                        "as in vestibule.internal; IP addresses and localhost are always allowed"
                            .to_owned(),
                    ),
                );
            }
            allowed_hosts.push(host.to_ascii_lowercase());
        }
        let token = token.and_then(|token| self.text(token));
        if token.as_ref().is_some_and(|token| !is_key(token)) {
            self.report(
                &cursor.key("token"),
                KEY_RULES,
                Some(KEYGEN_HELP.to_owned()),
            );
        }
        AdminAccess {
            allowed_hosts,
            token: token.map(Secret::new),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_has_no_scheme_port_or_wildcard() {
        for (text, expected) in [
            ("vestibule", true),
            ("vestibule.identity.svc.cluster.local", true),
            ("xn--bcher-kva.example", true),
            ("http://vestibule", false),
            ("vestibule:4481", false),
            ("*.example.com", false),
            ("*", false),
            ("vestibule.", false),
            ("bücher.example", false),
            ("", false),
        ] {
            assert_eq!(is_host_name(text), expected, "{text}");
        }
    }
}
