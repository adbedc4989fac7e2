//! The hook that calls Vestibule: flow, stage and method, as in the URL.

use std::fmt;

/// A self-service flow of Kratos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// A visitor signs up.
    Registration,
    /// A visitor changes an account.
    Settings,
    /// A visitor verifies an address. Kratos calls after the verification, so nothing can be refused.
    Verification,
    /// A visitor signs in. Kratos calls before the session exists.
    Login,
    /// A visitor recovers an account. Kratos calls before the session exists, and calls no login hook.
    Recovery,
}

/// The stage of a call: before or after Kratos saves the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Kratos waits for Vestibule to accept or refuse.
    Pre,
    /// Kratos has saved the identity, and rolls nothing back.
    Post,
}

/// The hook in the URL of a call: `/hooks/registration/pre?method=password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The flow in the path.
    pub flow: Flow,
    /// The stage in the path.
    pub stage: Stage,
    /// The value of `?method=`, or an empty text if the URL in kratos.yml lacks the parameter.
    pub method: String,
}

impl Flow {
    /// The flows in which Vestibule can refuse a visitor.
    pub const CHECKED: [Self; 2] = [Self::Registration, Self::Settings];

    /// Returns the stages at which Kratos calls Vestibule in this flow.
    #[must_use]
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Registration | Self::Settings => &[Stage::Pre, Stage::Post],
            Self::Verification => &[Stage::Post],
            Self::Login | Self::Recovery => &[Stage::Pre],
        }
    }

    /// All flows that have hooks of Vestibule.
    pub const ALL: [Self; 5] = [
        Self::Registration,
        Self::Settings,
        Self::Verification,
        Self::Login,
        Self::Recovery,
    ];

    /// Returns whether the flow starts a session for an existing account.
    #[must_use]
    pub fn signs_in(self) -> bool {
        matches!(self, Self::Login | Self::Recovery)
    }

    /// Returns the flow's name in the path and in the settings file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Settings => "settings",
            Self::Verification => "verification",
            Self::Login => "login",
            Self::Recovery => "recovery",
        }
    }
}

impl Flow {
    /// Returns the flow with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flow| flow.as_str() == name)
    }
}

impl Hook {
    /// Returns the key in kratos.yml that configures this hook.
    #[must_use]
    pub fn config_path(&self) -> String {
        let method = match (self.flow, self.method.as_str()) {
            // Kratos has one list for all its methods.
            (Flow::Verification | Flow::Recovery, _) | (Flow::Login, "") => String::new(),
            (_, "") => ".<method>".to_owned(),
            (_, method) => format!(".{method}"),
        };
        format!("`selfservice.flows.{}.after{method}.hooks`", self.flow)
    }
}

impl Stage {
    /// Returns the stage's name in the path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
