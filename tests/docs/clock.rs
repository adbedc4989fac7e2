//! The clock: only `app` chooses it, and all other code takes a clock as an argument.

use std::fs;

use syn::Item;
use syn::visit::{self, Visit};

use crate::layers::{attributes_of, is_test_only};
use crate::{root, sources};

/// The places that may call `Clock::system`.
const ALLOWED: [&str; 2] = ["base/clock.rs", "app/"];

/// Counts the paths that end in `Clock::system` outside unit tests.
#[derive(Default)]
struct SystemClocks(usize);

impl<'a> Visit<'a> for SystemClocks {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_test_only(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let mut last = path.segments.iter().rev().map(|one| one.ident.to_string());
        if last.next().as_deref() == Some("system") && last.next().as_deref() == Some("Clock") {
            self.0 += 1;
        }
        visit::visit_path(self, path);
    }
}

fn system_clocks(source: &str) -> usize {
    let file = syn::parse_file(source).expect("Rust source");
    let mut clocks = SystemClocks::default();
    clocks.visit_file(&file);
    clocks.0
}

#[test]
fn only_the_app_chooses_the_system_clock() {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let (mut allowed, mut wrong) = (0, Vec::new());
    for file in files {
        let relative = file.strip_prefix(&src).expect("in src").to_string_lossy();
        let found = system_clocks(&fs::read_to_string(&file).expect("a source"));
        if ALLOWED.iter().any(|place| relative.starts_with(place)) {
            allowed += found;
        } else if found > 0 {
            wrong.push(format!(
                "{relative}: `Clock::system`; take a `Clock` as an argument"
            ));
        }
    }
    assert!(allowed > 0, "no call was read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_form_of_the_call_is_found() {
    for (source, expected) in [
        ("fn f() { Clock::system().now(); }", 1),
        ("fn f() -> Clock { crate::base::clock::Clock::system() }", 1),
        ("const F: fn() -> Clock = Clock::system;", 1),
        ("fn f() { Clock::manual(start); }", 0),
        ("#[cfg(test)] mod tests { fn f() { Clock::system(); } }", 0),
    ] {
        assert_eq!(system_clocks(source), expected, "{source}");
    }
}
