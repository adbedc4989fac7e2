//! Reads the files that the settings name.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// The maximum length of a file that is inserted with `${file:…}`, in bytes.
pub(super) const MAX_INSERTED: u64 = 64 * 1024;
/// The maximum length of a list or of an identity schema, in bytes.
pub(super) const MAX_DATA: u64 = 16 * 1024 * 1024;

/// Reads a text of at most `limit` bytes. A pipe or a device could have no end, so only regular files are read. The error
/// is the end of a sentence: "cannot read the file …: ".
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    // It is empty, and the placeholder of a file that is missing.
    if path == Path::new("/dev/null") {
        return Ok(String::new());
    }
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let too_long = || format!("it is longer than {} KiB", limit / 1024);
    if metadata.len() > limit {
        return Err(too_long());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    // The files of the kernel have no length.
    let read = file.take(limit + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(too_long());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_of_a_limited_length_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("short"), "x".repeat(10)).unwrap();
        fs::write(path("long"), "x".repeat(11)).unwrap();
        fs::write(path("binary"), [0xff]).unwrap();
        std::os::unix::fs::symlink(path("short"), path("link")).unwrap();
        let pipe = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(pipe.success());
        assert_eq!(read_text(&path("short"), 10).unwrap().len(), 10);
        assert_eq!(read_text(&path("link"), 10).unwrap().len(), 10);
        for (file, expected) in [
            (path("long"), "longer than"),
            (path("binary"), "UTF-8"),
            (path("pipe"), "not a regular file"),
            (folder.path().to_owned(), "not a regular file"),
            ("/dev/zero".into(), "not a regular file"),
            (path("missing"), "No such file"),
        ] {
            let error = read_text(&file, 10).unwrap_err();
            assert!(error.contains(expected), "{}: {error}", file.display());
        }
    }
}
