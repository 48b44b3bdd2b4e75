//! Numbers as JSON: f32 in its shortest form, what is not finite as a string.

use serde_json::Value;

/// A finite value as the shortest decimal that is this f32; else "nan", "inf" or "-inf".
pub(super) fn f32(value: f32) -> Value {
    // The f64 nearest to the shortest decimal of an f32 prints as that decimal again.
    f64(value.to_string().parse().unwrap_or(f64::from(value)))
}

/// As [`f32`], from an f64.
pub(super) fn f64(value: f64) -> Value {
    match value {
        v if v.is_nan() => "nan".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        v => v.into(),
    }
}

/// An option that 0 turns off, as an f32: what is too small for one must not turn it off.
pub(super) fn zero_or_f32(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    let zero = text.parse::<f64>().is_ok_and(|number| number == 0.0);
    if number == 0.0 && !zero {
        return Err("expected 0, or a number that f32 does not round to it".into());
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_short_and_the_rest_is_text() {
        let texts = [2.009_755f32, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1, 3e38]
            .map(|v| super::f32(v).to_string());
        assert_eq!(texts, ["2.009755", "\"nan\"", "\"inf\"", "\"-inf\"", "0.1", "3e+38"]);
    }
}
