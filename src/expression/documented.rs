//! The reference of Vestibule's own functions. Tests evaluate the examples.

/// A function as docs/configuration.md shows it.
#[derive(Clone, Copy, Debug)]
pub struct FunctionReference {
    /// The call with the names of its arguments: `domain(address)`.
    pub call: &'static str,
    /// The result in words.
    pub meaning: &'static str,
    /// An expression.
    pub example: &'static str,
    /// The result of the example, as JSON.
    pub result: &'static str,
}

const fn function(
    call: &'static str,
    meaning: &'static str,
    example: &'static str,
    result: &'static str,
) -> FunctionReference {
    FunctionReference {
        call,
        meaning,
        example,
        result,
    }
}

/// Vestibule's own functions, by name.
pub const FUNCTION_REFERENCE: &[FunctionReference] = &[
    function(
        "base64_decode(text)",
        "the decoded text; both alphabets, with or without padding. An error if the result is not UTF-8",
        "base64_decode('w4RkYQ')",
        r#""Äda""#,
    ),
    function(
        "base64_encode(text)",
        "base64 with padding",
        "base64_encode('vestibule:secret')",
        r#""dmVzdGlidWxlOnNlY3JldA==""#,
    ),
    function(
        "domain(address)",
        "the part after the `@`, in lower case and ASCII",
        "domain('Ada@Bücher.example')",
        r#""xn--bcher-kva.example""#,
    ),
    function(
        "hmac_sha256(text, key)",
        "the HMAC with SHA-256, in hexadecimal. With `lists: {chat: [\"${env:CHAT_KEY}\"]}` the key is `lists.chat[0]`",
        "hmac_sha256('ada', 'a-secret')",
        r#""acc9ec8839b75aef6d81dbc2e5a81479d913cf6ebbfb7a4f5a5b3692bf9e1502""#,
    ),
    function(
        "in_domains(address, list)",
        "true if the domain of the address, or one above it, is in the list",
        "in_domains('ada@mail.example.com', ['example.com'])",
        "true",
    ),
    function(
        "md5(text)",
        "MD5 in hexadecimal, for services that identify an address by it. MD5 does not protect a value",
        "md5('ada@example.com')",
        r#""3e3417d7ef77d5932a6734b916515ed5""#,
    ),
    function(
        "query_parameter(url, name)",
        "the first parameter of this name, decoded; an empty text for `?name=`. Null if there is none, or if the URL is null",
        "query_parameter('https://example.com/join?invite=A%20B', 'invite')",
        r#""A B""#,
    ),
    function(
        "sha256(text)",
        "SHA-256 in hexadecimal",
        "sha256('ada@example.com')",
        r#""b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72""#,
    ),
    function(
        "url_decode(text)",
        "the text with each `%20` decoded. A `+` stays a `+`",
        "url_decode('A%20B+C')",
        r#""A B+C""#,
    ),
    function(
        "url_encode(text)",
        "the text with every character percent-encoded that has a meaning in a URL. Paths and queries of requests are encoded already",
        "url_encode('A B/C')",
        r#""A%20B%2FC""#,
    ),
];
