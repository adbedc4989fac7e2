//! The documents name only what exists.

mod clock;
mod deploy;
mod layers;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|_| panic!("{path} exists"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// docs/contract.md names a test for each promise: `it/pre::a_test`, `http::hooks::idempotency::tests::a_test`, `it/deadline::*`.
#[test]
fn each_promise_names_existing_tests() {
    let mut named = 0;
    let contract = read("docs/contract.md");
    for line in contract
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise"))
    {
        let proof = line.split('|').nth(2).unwrap_or_default();
        let mut proofs = 0;
        for name in proof.split('`').skip(1).step_by(2) {
            proofs += 1;
            named += 1;
            let (module, test) = name
                .rsplit_once("::")
                .unwrap_or_else(|| panic!("{name} in {line}"));
            let (folder, module) = match module.split_once('/') {
                Some((target, module)) => (format!("tests/{target}"), module.to_owned()),
                None => (
                    "src".to_owned(),
                    module.trim_end_matches("::tests").to_owned(),
                ),
            };
            let source = read(&format!("{folder}/{}.rs", module.replace("::", "/")));
            let function = format!("fn {test}(");
            assert!(
                test == "*" && source.contains("fn ") || source.contains(&function),
                "docs/contract.md names `{name}`, which does not exist"
            );
        }
        assert!(proofs > 0, "no test is named for: {line}");
    }
    assert!(named > 30, "{named} tests are named");
}

/// Links between the documents point to existing files.
#[test]
fn links_point_to_existing_files() {
    let mut documents: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(ToOwned::to_owned)
        .to_vec();
    for entry in fs::read_dir(root().join("docs")).expect("docs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().expect("a name").to_string_lossy();
            documents.push(format!("docs/{name}"));
        }
    }
    assert!(documents.len() > 8);
    for document in documents {
        let text = read(&document);
        let folder = root()
            .join(&document)
            .parent()
            .expect("a folder")
            .to_owned();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{document} links to {link}");
            }
        }
    }
}

/// The limits of expressions are part of the contract.
#[test]
fn the_limits_page_has_the_figures_of_the_program() {
    use vestibule::expression::{BYTES_PER_STEP, ELEMENT_BYTES, MAX_RESULT, MAX_STEPS};
    let text = read("docs/limits.md");
    assert_eq!((MAX_STEPS, MAX_RESULT), (250_000, 1024 * 1024));
    for figure in [
        "| 250,000 |".to_owned(),
        format!("each {BYTES_PER_STEP} bytes"),
        format!("counts {ELEMENT_BYTES} bytes"),
    ] {
        assert!(text.contains(&figure), "{figure}");
    }
}
