//! The build context of an image: the files of a folder without those that `.dockerignore` excludes.

use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// The files of a build context, by path.
pub struct Context {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

/// One line of `.dockerignore`.
struct Pattern {
    text: String,
    matcher: GlobMatcher,
    /// `!pattern` includes files again.
    include: bool,
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (include, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let pattern = pattern.trim_matches('/');
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .unwrap_or_else(|error| panic!(".dockerignore: {error}"));
        Some(Self {
            text: pattern.to_owned(),
            matcher: glob.compile_matcher(),
            include,
        })
    }

    /// A pattern that matches a folder matches everything in it.
    fn matches(&self, path: &Path) -> bool {
        path.ancestors()
            .filter(|one| !one.as_os_str().is_empty())
            .any(|one| self.matcher.is_match(one))
    }
}

/// The last matching pattern decides.
fn is_left_out(patterns: &[Pattern], path: &Path) -> bool {
    patterns
        .iter()
        .rev()
        .find(|pattern| pattern.matches(path))
        .is_some_and(|pattern| !pattern.include)
}

impl Context {
    /// Reads the build context in `folder`.
    pub fn of(folder: &Path) -> Self {
        let patterns: Vec<Pattern> = fs::read_to_string(folder.join(".dockerignore"))
            .expect("a .dockerignore")
            .lines()
            .filter_map(Pattern::parse)
            .collect();
        let mut files = Vec::new();
        collect(folder, Path::new(""), &patterns, &mut files);
        Self {
            folder: folder.to_owned(),
            files,
        }
    }

    /// `COPY from… to`, into the working directory `folder`.
    pub fn copy(&self, from: &[String], folder: &Path, to: &str) {
        let target = folder.join(to);
        for source in from {
            let source = Path::new(source.trim_start_matches("./"));
            let mut found = false;
            for file in &self.files {
                // A folder is copied by its content, a file under its own name.
                let into = if source == Path::new(".") || source.as_os_str().is_empty() {
                    target.join(file)
                } else if file == source {
                    target.join(source.file_name().expect("a file name"))
                } else if let Ok(rest) = file.strip_prefix(source) {
                    target.join(rest)
                } else {
                    continue;
                };
                found = true;
                fs::create_dir_all(into.parent().expect("a folder")).expect("a folder");
                fs::copy(self.folder.join(file), into).expect("the file is copied");
            }
            assert!(found, "COPY {}: not in the build context", source.display());
        }
    }
}

/// Adds the files below `at`. Skips an excluded folder unless a pattern can include files in it again.
fn collect(folder: &Path, at: &Path, patterns: &[Pattern], files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder.join(at)).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = at.join(entry.file_name());
        let left_out = is_left_out(patterns, &path);
        if entry.file_type().expect("a type").is_dir() {
            let mut included = patterns.iter().filter(|pattern| pattern.include);
            if !left_out || included.any(|pattern| Path::new(&pattern.text).starts_with(&path)) {
                collect(folder, &path, patterns, files);
            }
        } else if !left_out {
            files.push(path);
        }
    }
}

#[test]
fn dockerignore_patterns_match_as_in_docker() {
    let patterns: Vec<Pattern> = [
        "*",
        "!src",
        "!tests/with_kratos/main.rs",
        "**/*.md",
        "src/target/**",
    ]
    .iter()
    .filter_map(|line| Pattern::parse(line))
    .collect();
    for (path, left_out) in [
        ("Cargo.toml", true),
        ("src/main.rs", false),
        ("src/a/b.rs", false),
        ("src/a/b.md", true),
        ("README.md", true),
        ("tests/with_kratos/main.rs", false),
        ("tests/crash/main.rs", true),
        ("src/target/debug/x", true),
    ] {
        assert_eq!(is_left_out(&patterns, Path::new(path)), left_out, "{path}");
    }
    assert!(Pattern::parse("# a comment").is_none());
    assert!(Pattern::parse("  ").is_none());
}
