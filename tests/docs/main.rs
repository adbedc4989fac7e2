//! The documents name only what exists.

mod clock;
mod deploy;
mod layers;

use std::collections::BTreeSet;
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

/// The rows of the tables in docs/contract.md.
fn rows(contract: &str) -> impl Iterator<Item = &str> {
    let heads = ["| promise", "| rule, "];
    let rows = contract.lines().filter(|line| line.starts_with("| "));
    rows.filter(move |line| !heads.iter().any(|head| line.starts_with(head)))
}

/// The texts between backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// docs/contract.md names a test for each promise: `it/pre::a_test`, `http::hooks::idempotency::tests::a_test`, `it/deadline::*`.
#[test]
fn each_promise_names_existing_tests() {
    let mut named = 0;
    let contract = read("docs/contract.md");
    for line in rows(&contract) {
        let proof = line.split('|').nth(2).unwrap_or_default();
        let mut proofs = 0;
        for name in backticked(proof) {
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

/// docs/contract.md names a test with a real Kratos for each rule of lint that claims something about Kratos. In the tests of lint
/// itself, this rule must report something.
#[test]
fn each_claim_of_lint_about_kratos_names_its_test() {
    use vestibule::lint::rules::NAMES;
    let contract = read("docs/contract.md");
    let title = "## What `vestibule kratos lint` claims about Kratos";
    let (_, section) = contract.split_once(title).expect("the section");
    let mut proved = BTreeSet::new();
    for line in rows(section) {
        let [_, claim, proof, ..] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("a row has two columns: {line}");
        };
        let (rules, _) = claim.split_once(':').expect("the names of rules");
        let sources: Vec<String> = backticked(proof)
            .filter_map(|name| name.strip_prefix("with_kratos/")?.rsplit_once("::"))
            .map(|(module, _)| {
                read(&format!(
                    "tests/with_kratos/{}.rs",
                    module.replace("::", "/")
                ))
            })
            .collect();
        assert!(!sources.is_empty(), "no test with a real Kratos: {line}");
        for rule in backticked(rules) {
            assert!(NAMES.contains(&rule), "lint has no rule `{rule}`");
            proved.insert(rule);
            let asserted = format!("\"{rule}\"");
            let is_asserted = sources.iter().any(|source| source.contains(&asserted));
            let is_of_lint = proof.contains("with_kratos/lint::");
            assert!(
                !is_of_lint || is_asserted,
                "no test reports `{rule}`: {line}"
            );
        }
    }
    let (_, others) = section
        .rsplit_once("These rules claim nothing about Kratos:")
        .expect("the other rules");
    let others: BTreeSet<&str> = backticked(others).collect();
    assert_eq!(proved.intersection(&others).next(), None);
    let documented: BTreeSet<&str> = proved.union(&others).copied().collect();
    assert_eq!(documented, BTreeSet::from(NAMES));
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
