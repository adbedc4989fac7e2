//! The numbers of Vestibule's messages.

/// A service could not be asked: try again later.
pub const TRY_AGAIN: u64 = 4_900_001;
/// vestibule.yaml: nobody has this VAT number.
pub const VAT_UNKNOWN: u64 = 4_900_101;
/// vestibule.yaml: nobody knows this invite code.
pub const INVITE_UNKNOWN: u64 = 4_900_102;
/// `nothing_is_lost.yaml`: the invite is used up.
pub const INVITE_USED: u64 = 4_900_103;
/// The form has brought forth an account already.
pub const FORM_USED: u64 = 4_900_006;
