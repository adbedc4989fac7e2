//! The ids of Vestibule's messages.

/// A service is unavailable; the visitor can try again later.
pub const TRY_AGAIN: u64 = 4_900_001;
/// vestibule.yaml: the VAT number is unknown.
pub const VAT_UNKNOWN: u64 = 4_900_101;
/// vestibule.yaml: the invite code is unknown.
pub const INVITE_UNKNOWN: u64 = 4_900_102;
/// `nothing_is_lost.yaml`: the invite code is used.
pub const INVITE_USED: u64 = 4_900_103;
/// The form has already created an account.
pub const FORM_USED: u64 = 4_900_006;
