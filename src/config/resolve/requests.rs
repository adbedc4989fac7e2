//! Resolves requests: service, path, headers, query and body.

use indexmap::IndexMap;
use serde_json::Value;

use super::paths::Place;
use super::{Cursor, Resolver};
use crate::base::diagnostics::{Problem, did_you_mean, listed, quoted};
use crate::config::file;
use crate::config::tree::Kind;
use crate::expression::{JsonTemplate, Piece, Scope, Template};
use crate::model::request::{BodyTemplate, Method, RequestTemplate};

const VERBS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

impl<'a> Resolver<'a> {
    pub(super) fn request(
        &mut self,
        cursor: &Cursor<'a>,
        file: &file::Request,
        scope: &Scope,
    ) -> Option<RequestTemplate> {
        let verbs = [
            (Method::Get, &file.get),
            (Method::Post, &file.post),
            (Method::Put, &file.put),
            (Method::Patch, &file.patch),
            (Method::Delete, &file.delete),
        ];
        let named: Vec<(Method, &str, &file::Template)> = verbs
            .into_iter()
            .zip(VERBS)
            .filter_map(|((method, template), verb)| {
                template.as_ref().map(|template| (method, verb, template))
            })
            .collect();
        let target = match named.as_slice() {
            [(method, verb, template)] => Some((*method, cursor.key(verb), *template)),
            [] => {
                let hint = format!("add one of {}", listed(VERBS));
                self.report(cursor, "the request has no path", Some(hint));
                None
            }
            several => {
                let message = format!(
                    "a request cannot have {} together",
                    listed(several.iter().map(|(_, verb, _)| *verb))
                );
                self.report(cursor, message, Some("use one of them".to_owned()));
                None
            }
        };
        let since = self.uses.len();
        let query = self.templates(&cursor.key("query"), &file.query, scope);
        self.place_parameters(since);
        let headers = self.headers(&cursor.key("headers"), &file.headers, scope);
        let body = self.body(
            cursor,
            file,
            target.as_ref().map(|(method, ..)| *method),
            scope,
        );
        let (method, target_place, path) = target?;
        if has_fragment(&path.0) {
            let hint = "write `%23` for a `#` in a path".to_owned();
            self.report(
                &target_place,
                "the part after `#` is never sent",
                Some(hint),
            );
        }
        let since = self.uses.len();
        let (service, path) = match &file.service {
            Some(service) => (
                self.service_named(&cursor.key("service"), service),
                self.path(&target_place, path, scope),
            ),
            None => self.whole_url(&target_place, path, scope)?,
        };
        self.place_path(since, path.as_ref());
        Some(RequestTemplate {
            service: service?,
            method,
            path: path?,
            query: query?,
            headers: headers?,
            body: body?,
        })
    }

    fn service_named(&mut self, cursor: &Cursor<'_>, service: &file::Text) -> Option<String> {
        let name = self.text(service)?;
        let services = self.root.key("services");
        let known = services.entries().iter().map(|entry| entry.key.as_str());
        if known.clone().any(|known| known == name) {
            return Some(name);
        }
        let hint = did_you_mean(&name, known.clone()).unwrap_or_else(|| {
            if known.clone().next().is_none() {
                format!("add it: `services: {{{name}: {{url: \"https://…\"}}}}`")
            } else {
                format!("the services are {}", listed(known))
            }
        });
        self.report(cursor, format!("there is no service `{name}`"), Some(hint));
        None
    }

    /// Resolves a path that is appended to the address of a named service.
    fn path(
        &mut self,
        cursor: &Cursor<'_>,
        template: &file::Template,
        scope: &Scope,
    ) -> Option<Template> {
        let pieces = self.pieces(&template.0)?;
        let begins_with_slash = match pieces.first() {
            Some(Piece::Written(text) | Piece::Inserted(text)) => text.starts_with('/'),
            None => false,
        };
        if !begins_with_slash {
            let message = if template.0.starts_with("http") {
                "expected a path of the named service, not a whole URL"
            } else {
                "a path must begin with `/`"
            };
            let hint = "write only the path, or remove `service`".to_owned();
            self.report(
                cursor,
                message,
                Some(hint).filter(|_| template.0.starts_with("http")),
            );
            return None;
        }
        self.compiled(cursor, &template.0, &pieces, scope)
    }

    /// Resolves a whole URL. The host is literal, and the rest is a path.
    fn whole_url(
        &mut self,
        cursor: &Cursor<'_>,
        template: &file::Template,
        scope: &Scope,
    ) -> Option<(Option<String>, Option<Template>)> {
        let pieces = self.pieces(&template.0)?;
        let (address, rest) = match split_url(&pieces) {
            Ok(split) => split,
            Err(message) => {
                let text = template.0.as_str();
                let hint = match text.chars().next() {
                    Some(first) if first.is_ascii_alphanumeric() && !text.contains("://") => {
                        format!("write `https://{text}`, or name a `service` for the path")
                    }
                    Some('/') => {
                        "name a `service`, or write the whole URL, as in https://host/path"
                            .to_owned()
                    }
                    _ => "write http://host/path, or name a `service` for the path".to_owned(),
                };
                self.report(cursor, message, Some(hint));
                return None;
            }
        };
        let service = self.service_of_url(cursor, &address);
        Some((service, self.compiled(cursor, &template.0, &rest, scope)))
    }

    fn headers(
        &mut self,
        cursor: &Cursor<'_>,
        headers: &IndexMap<String, file::Template>,
        scope: &Scope,
    ) -> Option<Vec<(String, Template)>> {
        for name in headers.keys() {
            self.header_name(&cursor.key(name), name);
            self.warn_about_own_headers(&cursor.key(name), name);
        }
        let since = self.uses.len();
        let headers = self.templates(cursor, headers, scope);
        self.place_uses(since, Place::Text);
        let headers = headers?;
        for (name, template) in &headers {
            if let Some(value) = template.constant() {
                self.header_value(&cursor.key(name), value);
            }
        }
        Some(headers)
    }

    pub(super) fn templates(
        &mut self,
        cursor: &Cursor<'_>,
        templates: &IndexMap<String, file::Template>,
        scope: &Scope,
    ) -> Option<Vec<(String, Template)>> {
        let compiled: Vec<Option<(String, Template)>> = templates
            .iter()
            .map(|(name, template)| {
                self.template(&cursor.key(name), &template.0, scope)
                    .map(|template| (name.clone(), template))
            })
            .collect();
        compiled.into_iter().collect()
    }

    fn body(
        &mut self,
        cursor: &Cursor<'a>,
        file: &file::Request,
        method: Option<Method>,
        scope: &Scope,
    ) -> Option<BodyTemplate> {
        let json = cursor.key("json");
        if matches!(json.node.map(|node| &node.kind), Some(Kind::Null)) {
            self.problems.push(Problem::nothing(json.path, json.at));
            return None;
        }
        let has_body = file.json.is_some() || file.form.is_some();
        if file.json.is_some() && file.form.is_some() {
            let hint = "use one of them".to_owned();
            self.report(
                &cursor.key("form"),
                "a request cannot have both `json` and `form`",
                Some(hint),
            );
            return None;
        }
        if has_body && method == Some(Method::Get) {
            let key = if file.json.is_some() { "json" } else { "form" };
            self.report(
                &cursor.key(key),
                "a `get` request has no body",
                Some("use `query`, or `post`".to_owned()),
            );
            return None;
        }
        match (&file.json, &file.form) {
            (Some(json), _) => self
                .json(&cursor.key("json"), json, scope)
                .map(BodyTemplate::Json),
            (None, Some(form)) => {
                let since = self.uses.len();
                let form = self.templates(&cursor.key("form"), form, scope);
                self.place_parameters(since);
                form.map(BodyTemplate::Form)
            }
            (None, None) => Some(BodyTemplate::Empty),
        }
    }

    /// Resolves a JSON value whose texts are templates.
    pub(super) fn json(
        &mut self,
        cursor: &Cursor<'a>,
        value: &Value,
        scope: &Scope,
    ) -> Option<JsonTemplate> {
        Some(match value {
            Value::Null => JsonTemplate::Null,
            Value::Bool(truth) => JsonTemplate::Bool(*truth),
            Value::Number(number) => JsonTemplate::Number(number.clone()),
            Value::String(text) => JsonTemplate::Text(self.template(cursor, text, scope)?),
            Value::Array(items) => {
                let items: Vec<Option<JsonTemplate>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.json(&cursor.item(index), item, scope))
                    .collect();
                JsonTemplate::List(items.into_iter().collect::<Option<_>>()?)
            }
            Value::Object(members) => {
                let mut read = Vec::new();
                let mut whole = true;
                for (name, member) in members {
                    // `{value}` without quotes is a section with one empty key to YAML.
                    if member.is_null() && members.len() == 1 && looks_like_expression(name) {
                        let hint = format!("quote it: {}", quoted(&format!("{{{name}}}")));
                        self.report(
                            cursor,
                            "a value that begins with `{` is a section of keys in YAML",
                            Some(hint),
                        );
                        whole = false;
                    }
                    match self.json(&cursor.key(name), member, scope) {
                        Some(member) => read.push((name.clone(), member)),
                        None => whole = false,
                    }
                }
                if !whole {
                    return None;
                }
                JsonTemplate::Map(read)
            }
        })
    }
}

/// Returns whether the text has a `#` outside expressions.
fn has_fragment(template: &str) -> bool {
    let mut depth = 0_u32;
    template.chars().any(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == '#' && depth == 0
    })
}

fn looks_like_expression(name: &str) -> bool {
    let roots = crate::expression::Variable::ALL.map(crate::expression::Variable::name);
    let first: String = name
        .chars()
        .take_while(|character| character.is_ascii_alphanumeric() || *character == '_')
        .collect();
    roots.contains(&first.as_str())
}

/// Splits a URL into the part before the path, and the path.
fn split_url(pieces: &[Piece]) -> Result<(String, Vec<Piece>), &'static str> {
    let mut address = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        let (Piece::Written(text) | Piece::Inserted(text)) = piece;
        let is_last = index + 1 == pieces.len();
        let has_scheme = address.contains("://") || text.contains("://");
        if !has_scheme && (is_last || text.starts_with('/')) {
            return Err("expected a whole http or https URL, because there is no `service`");
        }
        let behind_scheme = match (address.contains("://"), text.find("://")) {
            (true, _) => 0,
            (false, Some(start)) => start + 3,
            (false, None) => text.len(),
        };
        let end = text[behind_scheme..]
            .find(['/', '?', '#'])
            .map(|end| behind_scheme + end);
        let (before, behind) = text.split_at(end.unwrap_or(text.len()));
        if matches!(piece, Piece::Written(_)) && before.contains(['{', '}']) {
            return Err("the host cannot contain an expression");
        }
        address.push_str(before);
        if end.is_some() {
            let path = if behind.starts_with('/') {
                behind.to_owned()
            } else {
                format!("/{behind}")
            };
            let mut rest = vec![match piece {
                Piece::Written(_) => Piece::Written(path),
                Piece::Inserted(_) => Piece::Inserted(path),
            }];
            rest.extend_from_slice(&pieces[index + 1..]);
            return checked(address, rest);
        }
    }
    checked(address, vec![Piece::Written("/".to_owned())])
}

fn checked(address: String, rest: Vec<Piece>) -> Result<(String, Vec<Piece>), &'static str> {
    if address.starts_with("http://") || address.starts_with("https://") {
        Ok((address, rest))
    } else {
        Err("expected a whole http or https URL, because there is no `service`")
    }
}
