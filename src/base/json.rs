//! JSON as programs send it.

/// The byte order mark of UTF-8. JSON must not begin with it (RFC 8259), and some programs send it all the same.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns a body without its byte order mark.
#[must_use]
pub fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}
