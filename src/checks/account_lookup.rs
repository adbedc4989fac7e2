//! Finds the identity of a submission that got no `post`.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::model::pending::PendingSignUp;
use crate::outbound::kratos_admin::hook_view::hook_view;
use crate::outbound::kratos_admin::{Error, KratosAdmin};
use crate::store::guard::GuardProof;

/// Looks up the identity of a submission by its stored keys.
#[derive(Clone)]
pub struct Lookup {
    /// The client of Kratos's admin API.
    pub identities: KratosAdmin,
    /// Whether Vestibule's `external_id` is reliable.
    pub proof: Arc<GuardProof>,
}

impl Lookup {
    /// Finds the identity of the submission, in the form that hooks get. With the one-identity guard, the identity can
    /// also belong to another submission of the same flow.
    pub async fn find(&self, sign_up: &PendingSignUp) -> Result<Option<(Uuid, Value)>, Error> {
        let keys = &sign_up.details.lookup_keys;
        let mut found = Vec::new();
        if let Some(id) = keys.identity_id {
            found.extend(self.identities.get(id).await?);
        }
        if let Some(external_id) = &keys.external_id {
            found.extend(self.identities.with_external_id(external_id).await?);
        }
        if !self.is_guarded(sign_up).await {
            for identifier in &keys.identifiers {
                if found.iter().any(|identity| sign_up.is_about(identity)) {
                    break;
                }
                found.extend(self.identities.with_identifier(identifier).await?);
            }
        }
        let matching = found.iter().find(|identity| sign_up.is_about(identity));
        Ok(matching.and_then(|identity| {
            let id = Uuid::parse_str(identity["id"].as_str()?).ok()?;
            Some((id, hook_view(identity)))
        }))
    }

    /// Returns whether a look-up that found nothing proves that there is no identity.
    pub async fn can_find(&self, sign_up: &PendingSignUp) -> bool {
        sign_up.can_be_found(self.is_guarded(sign_up).await)
    }

    /// Returns whether the identity of the submission certainly has Vestibule's `external_id`: `pre` answered the id, and
    /// it is proven that Kratos keeps it. Without an answer of the database, that counts as unproven.
    pub async fn is_guarded(&self, sign_up: &PendingSignUp) -> bool {
        sign_up.guarded && self.proof.is_proven(&sign_up.method).await.unwrap_or(false)
    }
}
