//! Literals.

use crate::kernel::tree::Value;

/// A constant as an expression of GLSL. Numbers are as short as they can be and still be read as the same bits.
pub(super) fn literal(value: Value) -> String {
    match value {
        Value::Logical(value) => value.to_string(),
        // There are no negative literals, so the smallest integer is a difference.
        Value::Int32(i32::MIN) => "(-2147483647 - 1)".to_owned(),
        Value::Int32(value) if value < 0 => format!("({value})"),
        Value::Int32(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Real32(value) if value == 0.0 || value.is_normal() => signed(&format!("{value:?}"), ""),
        Value::Real32(value) => format!("uintBitsToFloat(0x{:08x}u)", value.to_bits()),
        Value::Real64(value) if value == 0.0 || value.is_normal() => signed(&format!("{value:?}"), "LF"),
        Value::Real64(value) => {
            let bits = value.to_bits();
            format!("packDouble2x32(uvec2(0x{:08x}u, 0x{:08x}u))", bits as u32, bits >> 32)
        }
    }
}

fn signed(digits: &str, suffix: &str) -> String {
    if digits.starts_with('-') { format!("({digits}{suffix})") } else { format!("{digits}{suffix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_keep_their_bits() {
        assert_eq!(literal(Value::Real32(2.0)), "2.0");
        assert_eq!(literal(Value::Real32(-0.0)), "(-0.0)");
        assert_eq!(literal(Value::Real32(f32::MAX)), "3.4028235e38");
        assert_eq!(literal(Value::Real32(f32::NAN)), "uintBitsToFloat(0x7fc00000u)");
        assert_eq!(literal(Value::Real32(1e-45)), "uintBitsToFloat(0x00000001u)");
        assert_eq!(literal(Value::Real64(0.1)), "0.1LF");
        assert_eq!(literal(Value::Real64(f64::INFINITY)), "packDouble2x32(uvec2(0x00000000u, 0x7ff00000u))");
        assert_eq!(literal(Value::Int32(i32::MIN)), "(-2147483647 - 1)");
        assert_eq!(literal(Value::Int32(-5)), "(-5)");
    }
}
