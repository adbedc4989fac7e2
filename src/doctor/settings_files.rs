//! The files that the settings name beside themselves: lists and identity schemas.

use std::path::{Path, PathBuf};

use super::Examined;
use crate::config::tree::{Kind, Node};

/// Returns the files of `lists` and of the identity schemas, in the order of the settings.
pub(super) fn data_files(examined: &Examined<'_>) -> Vec<PathBuf> {
    let Some(root) = examined.tree() else {
        return Vec::new();
    };
    let folder = examined.file.parent().unwrap_or(Path::new(""));
    let lists = root.get("lists").map_or(&[][..], Node::entries).iter();
    let lists = lists.filter_map(|list| expanded(examined, list.value.get("file")?));
    let kratos = root.get("kratos");
    let one = kratos.and_then(|kratos| kratos.get("identity_schema"));
    let several = kratos.and_then(|kratos| kratos.get("identity_schemas"));
    let several = several.map_or(&[][..], Node::entries).iter();
    let schemas = one.into_iter().chain(several.map(|entry| &entry.value));
    let schemas = schemas.filter_map(|node| {
        let address = expanded(examined, node)?;
        Some(address.strip_prefix("file://")?.to_owned())
    });
    lists.chain(schemas).map(|path| folder.join(path)).collect()
}

fn expanded(examined: &Examined<'_>, node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text { text, .. } => examined.expanded(text),
        _ => None,
    }
}
