//! Requests to a service: a template in the settings, built for one sign-up, stored for a delivery.

use serde::{Deserialize, Serialize};

use crate::expression::{EvaluationError, Expression, JsonTemplate, Template, Variable, Variables};

/// The methods of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `get`
    Get,
    /// `post`
    Post,
    /// `put`
    Put,
    /// `patch`
    Patch,
    /// `delete`
    Delete,
}

/// A request of the settings. [`RequestTemplate::build`] evaluates its expressions.
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    /// The name of the service. If the settings have a URL instead of a named service, the service has the name of its
    /// origin.
    pub service: String,
    /// The method.
    pub method: Method,
    /// The path, which starts with `/` and is appended to the service's URL.
    pub path: Template,
    /// The query parameters, in the order of the file.
    pub query: Vec<(String, Template)>,
    /// The headers that are sent in addition to the service's own.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: BodyTemplate,
}

impl RequestTemplate {
    /// Returns whether one of the expressions reads this variable.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        let reads = |template: &Template| template.expressions().any(|one| one.reads(root));
        let any = |list: &[(String, Template)]| list.iter().any(|(_, template)| reads(template));
        reads(&self.path)
            || any(&self.query)
            || any(&self.headers)
            || match &self.body {
                BodyTemplate::Empty => false,
                BodyTemplate::Json(json) => json.expressions().iter().any(|one| one.reads(root)),
                BodyTemplate::Form(form) => any(form),
            }
    }
}

/// A body of the settings.
#[derive(Clone, Debug)]
pub enum BodyTemplate {
    /// No body.
    Empty,
    /// `json:`
    Json(JsonTemplate),
    /// `form:`
    Form(Vec<(String, Template)>),
}

/// A request for one sign-up. The request has no service address and no credentials, so that it can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, which are appended to the service's URL.
    pub path: String,
    /// Names and values of the headers.
    pub headers: Vec<(String, String)>,
    /// The body, if there is one.
    pub body: Option<Body>,
}

/// A body and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// `Content-Type`.
    pub content_type: String,
    /// JSON or form data, always UTF-8.
    pub text: String,
}

impl Method {
    /// Returns the name of the method in HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl RequestTemplate {
    /// Evaluates the expressions, and returns the request.
    pub fn build(&self, variables: &Variables<'_>) -> Result<Request, EvaluationError> {
        let mut path = self.path.render_path(variables)?;
        let query = form(&self.query, variables)?;
        if !query.is_empty() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&query);
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, template) in &self.headers {
            let value = template.render_text(variables)?;
            if http::HeaderValue::from_str(&value).is_err() {
                return Err(EvaluationError::new(format!(
                    "the header `{name}` contains a character that is not allowed in headers"
                )));
            }
            headers.push((name.clone(), value));
        }
        let body = match &self.body {
            BodyTemplate::Empty => None,
            BodyTemplate::Json(template) => Some(Body {
                content_type: "application/json".to_owned(),
                text: template.render(variables)?.to_string(),
            }),
            BodyTemplate::Form(pairs) => Some(Body {
                content_type: "application/x-www-form-urlencoded".to_owned(),
                text: form(pairs, variables)?,
            }),
        };
        Ok(Request {
            method: self.method,
            path,
            headers,
            body,
        })
    }

    /// Checks that every text of the request is a text. An error if a list or an object would be inserted.
    pub fn expects_texts(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        let all = |pairs: &[(String, Template)]| {
            let mut pairs = pairs.iter();
            pairs.try_for_each(|(_, template)| template.expects_texts(variables))
        };
        self.path.expects_texts(variables)?;
        all(&self.query)?;
        all(&self.headers)?;
        match &self.body {
            BodyTemplate::Empty => Ok(()),
            BodyTemplate::Json(template) => template.expects_texts(variables),
            BodyTemplate::Form(form) => all(form),
        }
    }

    /// Returns all expressions of the request.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expression> {
        let (json, form) = match &self.body {
            BodyTemplate::Empty => (Vec::new(), None),
            BodyTemplate::Json(template) => (template.expressions(), None),
            BodyTemplate::Form(pairs) => (Vec::new(), Some(pairs)),
        };
        let pairs = self
            .query
            .iter()
            .chain(&self.headers)
            .chain(form.into_iter().flatten());
        self.path
            .expressions()
            .chain(pairs.flat_map(|(_, template)| template.expressions()))
            .chain(json)
            .collect()
    }
}

/// Builds form data. An absent optional value is left out.
fn form(
    pairs: &[(String, Template)],
    variables: &Variables<'_>,
) -> Result<String, EvaluationError> {
    let mut serializer = url::form_urlencoded::Serializer::new(String::new());
    for (name, template) in pairs {
        if let Some(value) = template.render_optional_text(variables)? {
            serializer.append_pair(name, &value);
        }
    }
    Ok(serializer.finish())
}
