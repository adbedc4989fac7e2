//! Vestibule's own functions on texts: hashes, encodings, and the parameters of a URL.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use cel::common::types::{BYTES_TYPE, CelBytes, CelNull, CelString, NULL_TYPE, STRING_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use percent_encoding::{percent_decode, percent_encode};
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::functions::take;
use super::template::ENCODED;

/// The maximum length of an argument, in bytes. A loop can call a function for each entry of a visitor's list.
const MAX_BYTES: usize = 16 * 1024;

/// The error of a function for an argument longer than [`MAX_BYTES`].
pub(super) const TOO_LONG: &str = "an argument is longer than 16384 bytes";
/// The error of `base64_decode` for other texts.
pub(super) const NOT_BASE64: &str = "the argument is not base64";
/// The error of a decoder whose result is not a text.
pub(super) const NOT_TEXT: &str = "the decoded bytes are not a text in UTF-8";

type Function = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError>;

/// Adds the functions to the environment.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let of_bytes: [(&str, Function); 4] = [
        ("base64_encode", base64_encode),
        ("md5", md5),
        ("sha256", sha256),
        ("url_encode", url_encode),
    ];
    for (name, function) in of_bytes {
        for (kind, argument) in [("string", STRING_TYPE), ("bytes", BYTES_TYPE)] {
            env.add_overload(name, &format!("{name}_{kind}"), vec![argument], function)?;
        }
    }
    for (kind, text) in [("string", STRING_TYPE), ("bytes", BYTES_TYPE)] {
        let id = format!("hmac_sha256_{kind}_string");
        env.add_overload("hmac_sha256", &id, vec![text, STRING_TYPE], hmac_sha256)?;
    }
    let of_texts: [(&str, &str, Vec<Type>, Function); 4] = [
        ("base64_decode", "string", vec![STRING_TYPE], base64_decode),
        ("url_decode", "string", vec![STRING_TYPE], url_decode),
        (
            "query_parameter",
            "string_string",
            vec![STRING_TYPE, STRING_TYPE],
            query_parameter,
        ),
        (
            "query_parameter",
            "null_string",
            vec![NULL_TYPE, STRING_TYPE],
            query_parameter,
        ),
    ];
    for (name, kinds, arguments, function) in of_texts {
        env.add_overload(name, &format!("{name}_{kinds}"), arguments, function)?;
    }
    Ok(())
}

fn sha256<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [data] = take(arguments)?;
    Ok(text(hex(&Sha256::digest(bytes("sha256", data.as_ref())?))))
}

fn md5<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [data] = take(arguments)?;
    Ok(text(hex(&Md5::digest(bytes("md5", data.as_ref())?))))
}

fn hmac_sha256<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    const NAME: &str = "hmac_sha256";
    let [data, key] = take(arguments)?;
    let key = bytes(NAME, key.as_ref())?;
    let mut hmac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|error| ExecutionError::function_error(NAME, error))?;
    hmac.update(bytes(NAME, data.as_ref())?);
    Ok(text(hex(&hmac.finalize().into_bytes())))
}

fn base64_encode<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [data] = take(arguments)?;
    let data = bytes("base64_encode", data.as_ref())?;
    Ok(text(BASE64_STANDARD.encode(data)))
}

/// Decodes both alphabets of base64, with or without padding.
fn base64_decode<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    const NAME: &str = "base64_decode";
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let [encoded] = take(arguments)?;
    let encoded = bytes(NAME, encoded.as_ref())?;
    let is_url_safe = encoded.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
    let decoded = GeneralPurpose::new(alphabet, LENIENT).decode(encoded);
    decoded_text(
        NAME,
        decoded.map_err(|_| ExecutionError::function_error(NAME, NOT_BASE64))?,
    )
}

fn url_encode<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [data] = take(arguments)?;
    let data = bytes("url_encode", data.as_ref())?;
    Ok(text(percent_encode(data, ENCODED).to_string()))
}

/// Decodes `%20`. A `+` stays a `+`; only forms use it for a space.
fn url_decode<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    const NAME: &str = "url_decode";
    let [encoded] = take(arguments)?;
    let encoded = bytes(NAME, encoded.as_ref())?;
    decoded_text(NAME, percent_decode(encoded).collect())
}

/// Returns the first parameter of this name in the query of a URL, decoded as a form; null if there is none.
fn query_parameter<'b, 'v>(
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    const NAME: &str = "query_parameter";
    let [url, name] = take(arguments)?;
    if url.downcast_ref::<CelNull>().is_some() {
        return Ok(CowVal::owned(CelNull));
    }
    let url = bytes(NAME, url.as_ref())?;
    let name = bytes(NAME, name.as_ref())?;
    let before_fragment = url.split(|byte| *byte == b'#').next().unwrap_or_default();
    let query = before_fragment.iter().position(|byte| *byte == b'?');
    let query = query.map_or(&[][..], |at| &before_fragment[at + 1..]);
    let found = form_urlencoded::parse(query).find(|(known, _)| known.as_bytes() == name);
    Ok(match found {
        Some((_, value)) => text(value.into_owned()),
        None => CowVal::owned(CelNull),
    })
}

/// Returns the bytes of a text or of bytes, if they are not too many.
fn bytes<'d>(function: &str, data: &'d dyn Val) -> Result<&'d [u8], ExecutionError> {
    let bytes = if let Some(text) = data.downcast_ref::<CelString>() {
        text.inner().as_bytes()
    } else if let Some(bytes) = data.downcast_ref::<CelBytes>() {
        bytes.inner()
    } else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    if bytes.len() > MAX_BYTES {
        return Err(ExecutionError::function_error(function, TOO_LONG));
    }
    Ok(bytes)
}

fn decoded_text<'b, 'v>(
    function: &str,
    decoded: Vec<u8>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    String::from_utf8(decoded)
        .map(text)
        .map_err(|_| ExecutionError::function_error(function, NOT_TEXT))
}

fn text<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
