//! Which of Kratos's hooks is calling: the flow, the stage and the method, as they stand in the URL.

use std::fmt;

/// The self-service flow that a person goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// Somebody signs up.
    Registration,
    /// Somebody changes their account.
    Settings,
    /// Somebody proves that an address is theirs. Kratos calls when they have: there is nothing to refuse.
    Verification,
    /// A person signs in. Kratos asks before the session exists.
    Login,
    /// A person recovers their account. Kratos asks before the session exists, and calls no login hook.
    Recovery,
}

/// Before the identity is saved, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Kratos waits for our yes or no.
    Pre,
    /// The identity is saved, nothing is rolled back.
    Post,
}

/// One call, as its URL names it: `/hooks/registration/pre?method=password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The flow in the path.
    pub flow: Flow,
    /// The stage in the path.
    pub stage: Stage,
    /// `?method=`; empty if the URL in kratos.yml lacks it.
    pub method: String,
}

impl Flow {
    /// Those in which a person may be refused.
    pub const CHECKED: [Self; 2] = [Self::Registration, Self::Settings];

    /// The stages at which Kratos calls us in this flow.
    #[must_use]
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Registration | Self::Settings => &[Stage::Pre, Stage::Post],
            Self::Verification => &[Stage::Post],
            Self::Login | Self::Recovery => &[Stage::Pre],
        }
    }

    /// Every flow with hooks of ours.
    pub const ALL: [Self; 5] = [
        Self::Registration,
        Self::Settings,
        Self::Verification,
        Self::Login,
        Self::Recovery,
    ];

    /// Whether the flow begins a session of an account that exists.
    #[must_use]
    pub fn signs_in(self) -> bool {
        matches!(self, Self::Login | Self::Recovery)
    }

    /// As it stands in the path and in the settings file.
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
    /// The flow of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flow| flow.as_str() == name)
    }
}

impl Stage {
    /// As it stands in the path.
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
