//! The limit of open files. Each connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The files that are not connections of Kratos: the database, services, the admin port, the log.
const OTHER_FILES: u64 = 256;
/// The number of connections that are permitted if the limit allows more.
const MAX_CONNECTIONS: u64 = 20_000;
/// The number of connections that are always permitted.
const MIN_CONNECTIONS: u64 = 64;

/// Raises the limit of open files of this process to the highest that it may have.
pub fn raise_open_files_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(
            before = current,
            after = maximum,
            "Raised the limit of open files"
        ),
        Err(error) => {
            tracing::warn!(%error, limit = current, "The limit of open files cannot be raised");
        }
    }
}

/// Returns how many connections of Kratos may be open at the same time.
pub(super) fn max_connections() -> usize {
    permitted(getrlimit(Resource::Nofile).current)
}

/// Returns how many connections of Kratos may be open at the same time after [`raise_open_files_limit`].
#[must_use]
pub fn max_connections_of_this_machine() -> usize {
    permitted(getrlimit(Resource::Nofile).maximum)
}

fn permitted(limit: Option<u64>) -> usize {
    let left = limit.map_or(MAX_CONNECTIONS, |limit| limit.saturating_sub(OTHER_FILES));
    usize::try_from(left.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_connections_follows_from_the_limit_of_open_files() {
        for (limit, expected) in [
            (None, 20_000),
            (Some(1_048_576), 20_000),
            (Some(1024), 768),
            (Some(100), 64),
        ] {
            assert_eq!(permitted(limit), expected, "{limit:?}");
        }
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_highest() {
        raise_open_files_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
