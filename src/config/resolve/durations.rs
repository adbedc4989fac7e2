//! Parses and formats durations with units: `500ms`, `5s`, `2m`, `24h`, `8d`.

use std::time::Duration;

use serde_json::Value;

/// Parses a duration. The error has a message and a hint.
pub fn parse(value: &Value) -> Result<Duration, (String, Option<String>)> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let unit_at = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let Ok(amount) = number.parse::<f64>() else {
        return Err((
            format!("`{text}` is not a duration"),
            Some("use a number and a unit, as in 500ms, 5s, 2m, 24h or 8d".to_owned()),
        ));
    };
    let seconds = match unit {
        "ms" => amount / 1000.0,
        "s" => amount,
        "m" => amount * 60.0,
        "h" => amount * 3600.0,
        "d" => amount * 86_400.0,
        "" => {
            return Err((
                format!("`{text}` has no unit"),
                Some(format!("write `{text}s` for seconds")),
            ));
        }
        other => {
            return Err((
                format!("`{other}` is not a unit of time"),
                Some("use ms, s, m, h or d".to_owned()),
            ));
        }
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| (format!("`{text}` is too long"), None))
}

/// Formats a duration as an operator writes it.
#[must_use]
pub fn written(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    match seconds {
        _ if milliseconds > 0 => format!("{}ms", duration.as_millis()),
        0 => "0s".to_owned(),
        _ if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        _ if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        _ if seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_duration_has_a_unit() {
        for (value, expected) in [
            (json!("500ms"), Ok(500)),
            (json!("5s"), Ok(5_000)),
            (json!("1.5s"), Ok(1_500)),
            (json!("2m"), Ok(120_000)),
            (json!("24h"), Ok(86_400_000)),
            (json!("8d"), Ok(691_200_000)),
            (json!(5), Err("`5` has no unit")),
            (json!("5"), Err("`5` has no unit")),
            (json!("5 s"), Err("` s` is not a unit of time")),
            (json!("5w"), Err("`w` is not a unit of time")),
            (json!("soon"), Err("`soon` is not a duration")),
            (json!("-5s"), Err("`-5s` is not a duration")),
            (json!(""), Err("`` is not a duration")),
            (
                json!("99999999999999999999999d"),
                Err("`99999999999999999999999d` is too long"),
            ),
        ] {
            let read = parse(&value)
                .map(|duration| duration.as_millis())
                .map_err(|(message, _)| message);
            assert_eq!(read, expected.map_err(ToOwned::to_owned), "{value}");
        }
        for text in ["500ms", "5s", "90s", "2m", "23h", "8d", "0s"] {
            assert_eq!(written(parse(&json!(text)).unwrap()), text);
        }
    }
}
