//! The layers of `src`: a folder imports only folders of lower layers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, UseTree};

use crate::{read, root, sources};

/// The line in ARCHITECTURE.md that names the layers, from the highest to the lowest.
const LAYERS: &str = "cli → {demo, doctor} → {app, lint, rule_tests} → {config, http, jobs} → checks → {outbound, store} → model → {expression, kratos} → base";

/// The layer of each folder; the highest layer is 0.
fn layers() -> BTreeMap<String, usize> {
    LAYERS
        .split('→')
        .enumerate()
        .flat_map(|(layer, folders)| {
            folders
                .split(['{', '}', ','])
                .map(str::trim)
                .filter(|folder| !folder.is_empty())
                .map(move |folder| (folder.to_owned(), layer))
        })
        .collect()
}

/// The top-level folders that a file uses outside its unit tests.
struct Uses {
    /// The module of the file, from the root of the crate.
    module: Vec<String>,
    folders: Vec<String>,
}

impl Uses {
    /// Records a path by its first segments. `super` is resolved from the module of the file.
    fn note(&mut self, path: &[String]) {
        let ups = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let absolute: Vec<String> = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("super") if ups <= self.module.len() => {
                let parent = &self.module[..self.module.len() - ups];
                parent.iter().chain(&path[ups..]).cloned().collect()
            }
            _ => return,
        };
        self.folders.extend(absolute.first().cloned());
    }

    fn note_tree(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.note_tree(&part.tree, path);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(tree, path);
                }
            }
            UseTree::Name(name) => {
                self.note(&[path.clone(), vec![name.ident.to_string()]].concat());
            }
            UseTree::Rename(name) => {
                self.note(&[path.clone(), vec![name.ident.to_string()]].concat());
            }
            UseTree::Glob(_) => self.note(path),
        }
    }
}

pub fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    })
}

pub fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(module) => &module.attrs,
        Item::Fn(function) => &function.attrs,
        Item::Impl(implementation) => &implementation.attrs,
        Item::Use(import) => &import.attrs,
        Item::Const(constant) => &constant.attrs,
        Item::Struct(structure) => &structure.attrs,
        _ => &[],
    }
}

impl<'a> Visit<'a> for Uses {
    fn visit_item(&mut self, item: &'a Item) {
        if is_test_only(attributes_of(item)) {
            return;
        }
        if let Item::Mod(module) = item
            && module.content.is_some()
        {
            self.module.push(module.ident.to_string());
            visit::visit_item(self, item);
            self.module.pop();
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'a ItemUse) {
        self.note_tree(&import.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.note(&segments);
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are not parsed, so their text is searched.
    fn visit_macro(&mut self, call: &'a Macro) {
        let text = call.tokens.to_string();
        for after in text.split("crate ::").skip(1) {
            let folder: String = after
                .trim_start()
                .chars()
                .take_while(|character| character.is_alphanumeric() || *character == '_')
                .collect();
            self.folders.push(folder);
        }
        visit::visit_macro(self, call);
    }
}

fn uses(source: &str, module: Vec<String>) -> Vec<String> {
    let file = syn::parse_file(source).expect("Rust source");
    let mut uses = Uses {
        module,
        folders: Vec::new(),
    };
    uses.visit_file(&file);
    uses.folders
}

/// `src/http/hooks/pre.rs` is `http::hooks::pre`, and `src/http/mod.rs` is `http`.
fn module_of(relative: &Path) -> Vec<String> {
    let mut module: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

#[test]
fn every_folder_imports_only_folders_of_lower_layers() {
    let architecture = read("ARCHITECTURE.md");
    let words: Vec<&str> = architecture.split_whitespace().collect();
    assert!(
        words.join(" ").contains(LAYERS),
        "ARCHITECTURE.md does not have the line of the layers: {LAYERS}"
    );
    let layers = layers();
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut imports = 0;
    for file in files {
        let relative = file.strip_prefix(&src).expect("in src");
        let module = module_of(relative);
        if module == ["main"] || module == ["lib"] {
            continue;
        }
        let folder = &module[0];
        let Some(here) = layers.get(folder) else {
            wrong.push(format!("{}: no layer has this folder", relative.display()));
            continue;
        };
        let source = fs::read_to_string(&file).expect("a source");
        for used in uses(&source, module.clone()) {
            let Some(there) = layers.get(&used) else {
                continue;
            };
            imports += 1;
            if used != *folder && there <= here {
                wrong.push(format!(
                    "{}: `{folder}` imports `{used}`",
                    relative.display()
                ));
            }
        }
    }
    assert!(imports > 500, "only {imports} imports were read");
    assert!(
        wrong.is_empty(),
        "imports against the layers:\n{}",
        wrong.join("\n")
    );
}

/// A fake that used Vestibule's own code would share its mistakes.
#[test]
fn the_testing_crate_does_not_use_vestibule() {
    let manifest: toml::Table = read("crates/testing/Cargo.toml").parse().expect("TOML");
    for (section, dependencies) in &manifest {
        if section.ends_with("dependencies") {
            let dependencies = dependencies.as_table().expect("a table");
            assert!(!dependencies.contains_key("vestibule"), "{section}");
        }
    }
}

#[test]
fn every_form_of_import_is_read() {
    let module = || vec!["http".to_owned(), "hooks".to_owned(), "pre".to_owned()];
    for (source, expected) in [
        ("use crate::store::Store;", "store"),
        (
            "use crate::{base::clock::Clock, store::{self, Store}};",
            "base store store",
        ),
        ("use crate::checks as c;", "checks"),
        ("use super::super::admin::Page;", "http"),
        ("use super::super::super::jobs::Sweeper;", "jobs"),
        ("fn f() { crate::model::pending::attribute(); }", "model"),
        ("fn f(x: crate::kratos::Payload) {}", "kratos"),
        (
            "fn f() { println!(\"{}\", crate::config::NAME); }",
            "config",
        ),
        ("#[cfg(test)] mod tests { use crate::cli::Cli; }", ""),
        (
            "mod inner { use super::super::super::super::demo::run; }",
            "demo",
        ),
    ] {
        assert_eq!(uses(source, module()).join(" "), expected, "{source}");
    }
}
