//! Reads the identity schemas that the settings name.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::{Cursor, Resolver};
use crate::config::file;
use crate::config::read_file::{MAX_DATA, read_text};
use crate::expression::ReadPath;
use crate::kratos::Identifiers;
use crate::kratos::schema::Schemas;

/// The id of a single schema, as in Kratos's examples.
const DEFAULT_ID: &str = "default";
const FILE_EXAMPLE: &str = "as in file:///etc/config/kratos/identity.schema.json";

/// Standard base64. Kratos requires padding, and tools may leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Resolver<'_> {
    /// Reads the identity schemas, and returns the identifiers that they mark.
    pub(super) fn identity_schemas(
        &mut self,
        kratos: &Cursor<'_>,
        file: &file::Kratos,
    ) -> Identifiers {
        let one = kratos.key("identity_schema");
        let several = kratos.key("identity_schemas");
        if let (Some(_), false) = (&file.identity_schema, file.identity_schemas.is_empty()) {
            self.report(
                &one,
                "`identity_schema` and `identity_schemas` cannot be used together",
                Some(format!(
                    "move it into `identity_schemas`, as `{DEFAULT_ID}`"
                )),
            );
        }
        let by_id = file
            .identity_schemas
            .iter()
            .map(|(id, address)| (id.as_str(), several.key(id), address));
        let addresses = file
            .identity_schema
            .iter()
            .map(|address| (DEFAULT_ID, one.clone(), address))
            .chain(by_id);
        let mut schemas = Schemas::default();
        for (id, cursor, address) in addresses {
            match self.identity_schema(&cursor, address) {
                Some(schema) => schemas.add(id.to_owned(), schema),
                None => self.lacks_a_schema = true,
            }
        }
        if let Some(in_force) = self.environment.identity_schemas() {
            schemas = in_force.clone();
        }
        let identifiers = Identifiers::of(&schemas);
        // Without one of the schemas, a trait that the others do not name may be right.
        if !self.lacks_a_schema {
            let optional = schemas.optional_paths();
            let paths = optional.iter().map(|path| {
                let names: Vec<&str> = path.split('.').collect();
                ReadPath::of_names(&names)
            });
            self.optional_paths = Arc::new(paths.collect());
            self.schemas = Arc::new(schemas);
        }
        identifiers
    }

    fn identity_schema(&mut self, cursor: &Cursor<'_>, address: &file::Text) -> Option<Value> {
        let address = self.text(address)?;
        let text = self.schema_text(cursor, &address)?;
        let schema: Value = serde_json::from_str(&text)
            .map_err(|error| {
                let message = match address.strip_prefix("file://") {
                    Some(path) => {
                        let path = self.folder.join(path);
                        format!("the file {} is not JSON: {error}", path.display())
                    }
                    None => format!("the schema is not JSON: {error}"),
                };
                self.report(cursor, message, None);
            })
            .ok()?;
        let mut alone = Schemas::default();
        alone.add(String::new(), schema.clone());
        if !alone.all_describe_traits() {
            self.report(
                cursor,
                "this is not an identity schema: it has no `traits`",
                Some(
                    "the traits are in `properties.traits.properties` of the schema that kratos.yml names"
                        .to_owned(),
                ),
            );
            return None;
        }
        Some(schema)
    }

    fn schema_text(&mut self, cursor: &Cursor<'_>, address: &str) -> Option<String> {
        match address.split_once("://") {
            Some(("file", path)) => {
                let path = self.folder.join(path);
                let read = read_text(&path, MAX_DATA);
                read.map_err(|cause| {
                    let message = format!("cannot read the file {}: {cause}", path.display());
                    self.report(cursor, message, None);
                })
                .ok()
            }
            Some(("base64", encoded)) => {
                let decoded = BASE64.decode(encoded.trim());
                let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
                if text.is_none() {
                    let hint =
                        "encode the schema with `base64 -w0 identity.schema.json`".to_owned();
                    self.report(
                        cursor,
                        "the part after `base64://` is not base64 of a text",
                        Some(hint),
                    );
                }
                text
            }
            Some(("http" | "https", _)) => {
                let hint = format!(
                    "save it with `curl -o identity.schema.json {address}`, and write `file://identity.schema.json`"
                );
                self.report(cursor, "an identity schema is not downloaded", Some(hint));
                None
            }
            _ => {
                let is_path = !address.contains("://") && address.contains(['/', '.']);
                let hint = if is_path {
                    format!("write `file://{address}`")
                } else {
                    FILE_EXAMPLE.to_owned()
                };
                self.report(cursor, "expected the address of a file", Some(hint));
                None
            }
        }
    }
}
