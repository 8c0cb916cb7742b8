//! Functions that a text needs because GLSL defines an operation otherwise, or not at all.
//!
//! An operation that uses an operand twice is a function, so texts do not grow with the nesting of such operations.

use crate::kernel::tree::{Contract, Intrinsic, Type};

use super::Version;

/// A function of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Helper {
    /// Integer division that never traps.
    Divide,
    /// A real number without the lower half of its digits, so that products of such numbers are exact.
    High,
    Mod,
    Modulo,
    Min,
    Max,
    Sign,
    Dim,
    Nint,
    Shift,
    TestBit,
    IsNan,
    Log10,
    PowerInteger,
    PowerReal,
    Trips,
}

impl Helper {
    /// The helper of an intrinsic, if it needs one.
    pub fn of(intrinsic: Intrinsic) -> Option<Helper> {
        Some(match intrinsic {
            Intrinsic::Mod => Helper::Mod,
            Intrinsic::Modulo => Helper::Modulo,
            Intrinsic::Min => Helper::Min,
            Intrinsic::Max => Helper::Max,
            Intrinsic::Sign => Helper::Sign,
            Intrinsic::Dim => Helper::Dim,
            Intrinsic::Nint => Helper::Nint,
            Intrinsic::Shift => Helper::Shift,
            Intrinsic::TestBit => Helper::TestBit,
            Intrinsic::IsNan => Helper::IsNan,
            Intrinsic::Log10 => Helper::Log10,
            _ => return None,
        })
    }

    /// Its name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Helper::Divide => "sparkle_divide",
            Helper::High => "sparkle_high",
            Helper::Mod => "sparkle_mod",
            Helper::Modulo => "sparkle_modulo",
            Helper::Min => "sparkle_min",
            Helper::Max => "sparkle_max",
            Helper::Sign => "sparkle_sign",
            Helper::Dim => "sparkle_dim",
            Helper::Nint => "sparkle_nint",
            Helper::Shift => "sparkle_shift",
            Helper::TestBit => "sparkle_test_bit",
            Helper::IsNan => "sparkle_is_nan",
            Helper::Log10 => "sparkle_log10",
            Helper::PowerInteger => "sparkle_power",
            Helper::PowerReal => "sparkle_pow",
            Helper::Trips => "sparkle_trips",
        }
    }

    /// Its text for operands of a type. `T` is that type, `P` the word `precise` where arithmetic is exact, and `X` where
    /// the version has it.
    fn text(self, ty: Type) -> &'static str {
        let is_integer = ty == Type::Int32;
        match self {
            // The divisors 0 and -1 are replaced before the division: some processors trap.
            Helper::Divide => {
                "int sparkle_divide(int a, int b) {
  int quotient = a / (b == 0 || b == -1 ? 1 : b);
  return b == -1 ? 0 - a : quotient;
}
"
            }
            Helper::Mod if is_integer => {
                "int sparkle_mod(int a, int b) {
  return a - b * sparkle_divide(a, b);
}
"
            }
            Helper::High if ty == Type::Real64 => {
                "double sparkle_high(double a) {
  uvec2 bits = unpackDouble2x32(a);
  bits.x &= 0xf8000000u;
  return packDouble2x32(bits);
}
"
            }
            Helper::High => {
                "float sparkle_high(float a) {
  return uintBitsToFloat(floatBitsToUint(a) & 0xfffff000u);
}
"
            }
            // The quotient may be rounded up to a whole number, and then is one too large. The rest is exact: the
            // factors of each product have half of the digits.
            Helper::Mod => {
                "T sparkle_mod(T a, T b) {
  X T quotient = trunc(a / b);
  if (quotient == ZERO) return a;
  X T b1 = sparkle_high(b);
  X T b2 = b - b1;
  X T q1 = sparkle_high(quotient);
  X T q2 = quotient - q1;
  X T rest = a - b1 * q1;
  rest = rest - b1 * q2;
  rest = rest - b2 * q1;
  rest = rest - b2 * q2;
  T size = abs(b);
  if (rest < ZERO && a > ZERO) rest = rest + size;
  if (rest > ZERO && a < ZERO) rest = rest - size;
  if (rest >= size) rest = rest - size;
  if (rest <= -size) rest = rest + size;
  return rest;
}
"
            }
            Helper::Modulo if is_integer => {
                "int sparkle_modulo(int a, int b) {
  int rest = a - b * sparkle_divide(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
"
            }
            Helper::Modulo => {
                "T sparkle_modulo(T a, T b) {
  P T rest = sparkle_mod(a, b);
  P T result = rest != ZERO && (rest < ZERO) != (b < ZERO) ? rest + b : rest;
  return result;
}
"
            }
            Helper::Min => {
                "T sparkle_min(T a, T b) {
  P T result = a < b ? a : b;
  return result;
}
"
            }
            Helper::Max => {
                "T sparkle_max(T a, T b) {
  P T result = a > b ? a : b;
  return result;
}
"
            }
            Helper::Sign if is_integer => {
                "int sparkle_sign(int a, int b) {
  return (a < 0) != (b < 0) ? 0 - a : a;
}
"
            }
            Helper::Sign if ty == Type::Real64 => {
                "double sparkle_sign(double a, double b) {
  uvec2 bits = unpackDouble2x32(a);
  bits.y = (bits.y & 0x7fffffffu) | (unpackDouble2x32(b).y & 0x80000000u);
  return packDouble2x32(bits);
}
"
            }
            Helper::Sign => {
                "float sparkle_sign(float a, float b) {
  return uintBitsToFloat((floatBitsToUint(a) & 0x7fffffffu) | (floatBitsToUint(b) & 0x80000000u));
}
"
            }
            Helper::Dim => {
                "T sparkle_dim(T a, T b) {
  P T difference = a - b;
  P T result = difference <= ZERO ? ZERO : difference;
  return result;
}
"
            }
            // The fraction is exact, so halves are seen as such.
            Helper::Nint => {
                "int sparkle_nint(T a) {
  P T whole = trunc(a);
  P T fraction = abs(a - whole);
  P T result = fraction >= HALF ? (a < ZERO ? whole - ONE : whole + ONE) : whole;
  return int(result);
}
"
            }
            Helper::Shift => {
                "int sparkle_shift(int a, int by) {
  uint left = uint(a) << uint(by & 31);
  uint right = uint(a) >> uint(-by & 31);
  return by <= -32 || by >= 32 ? 0 : int(by < 0 ? right : left);
}
"
            }
            Helper::TestBit => {
                "bool sparkle_test_bit(int a, int at) {
  return at >= 0 && at < 32 && (uint(a) >> uint(at & 31) & 1u) != 0u;
}
"
            }
            Helper::IsNan if ty == Type::Real64 => {
                "bool sparkle_is_nan(double a) {
  uvec2 bits = unpackDouble2x32(a);
  uint high = bits.y & 0x7fffffffu;
  return high > 0x7ff00000u || (high == 0x7ff00000u && bits.x != 0u);
}
"
            }
            Helper::IsNan => {
                "bool sparkle_is_nan(float a) {
  return (floatBitsToUint(a) & 0x7fffffffu) > 0x7f800000u;
}
"
            }
            Helper::Log10 => {
                "float sparkle_log10(float a) {
  P float result = log(a) * 0.4342944819;
  return result;
}
"
            }
            Helper::PowerInteger if is_integer => {
                "int sparkle_power(int base, int exponent) {
  int result = 1;
  if (exponent < 0) {
    bool odd = (exponent & 1) != 0;
    return base == 1 ? 1 : base == -1 ? (odd ? -1 : 1) : 0;
  }
  for (int rest = exponent; rest != 0; rest >>= 1) {
    if ((rest & 1) != 0) result *= base;
    base *= base;
  }
  return result;
}
"
            }
            Helper::PowerInteger => {
                "T sparkle_power(T base, int exponent) {
  P T square = base;
  P T result = ONE;
  bool begun = false;
  for (uint rest = uint(exponent < 0 ? 0 - exponent : exponent); rest != 0u; rest >>= 1) {
    if ((rest & 1u) != 0u) {
      result = begun ? result * square : square;
      begun = true;
    }
    if (rest > 1u) square = square * square;
  }
  P T inverse = ONE / result;
  return exponent < 0 ? inverse : result;
}
"
            }
            // `pow` is undefined for negative bases and for 0 and 0.
            Helper::PowerReal => {
                "float sparkle_pow(float base, float exponent) {
  if (exponent == 0.0) return 1.0;
  if (base == 0.0) return exponent > 0.0 ? 0.0 : 1.0 / abs(base);
  P float result = pow(abs(base), exponent);
  if (base < 0.0) {
    float whole = floor(exponent);
    if (whole != exponent) return uintBitsToFloat(0x7fc00000u);
    result = whole - 2.0 * floor(whole * 0.5) != 0.0 ? -result : result;
  }
  return result;
}
"
            }
            Helper::Trips => {
                "uint sparkle_trips(int begin, int end, int by) {
  uint up = (uint(end) - uint(begin)) / uint(by > 0 ? by : 1) + 1u;
  uint down = (uint(begin) - uint(end)) / uint(by < 0 ? 0 - by : 1) + 1u;
  return by > 0 ? (end >= begin ? up : 0u) : (by < 0 && begin >= end ? down : 0u);
}
"
            }
        }
    }
}

/// The helpers of a text.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    needed: Vec<(Helper, Type)>,
}

impl Helpers {
    /// Notes that a helper is needed for operands of a type.
    pub fn need(&mut self, helper: Helper, ty: Type) -> &'static str {
        let uses = match helper {
            Helper::Mod | Helper::Modulo if ty == Type::Int32 => Some(Helper::Divide),
            Helper::Mod => Some(Helper::High),
            Helper::Modulo => Some(Helper::Mod),
            _ => None,
        };
        if let Some(other) = uses {
            self.need(other, ty);
        }
        if !self.needed.contains(&(helper, ty)) {
            self.needed.push((helper, ty));
        }
        helper.name()
    }

    /// The functions.
    pub fn text(&self, contract: Contract, version: Version) -> String {
        let mut needed = self.needed.clone();
        needed.sort_by_key(|(helper, ty)| (*helper, *ty as u8));
        let texts = needed.iter().map(|(helper, ty)| {
            let (name, zero, half, one) = match ty {
                Type::Real64 => ("double", "0.0LF", "0.5LF", "1.0LF"),
                Type::Real32 => ("float", "0.0", "0.5", "1.0"),
                _ => ("int", "0", "0", "1"),
            };
            let precise = if contract == Contract::Off { "precise " } else { "" };
            let exact = if version == Version::Desktop430 { "precise " } else { "" };
            let text = helper.text(*ty);
            let text = text.replace("ZERO", zero).replace("HALF", half).replace("ONE", one);
            let text = text
                .replace("P T ", &format!("{precise}{name} "))
                .replace("X T ", &format!("{exact}{name} "))
                .replace("  T ", &format!("  {name} "))
                .replace("P float ", &format!("{precise}float "));
            text.replace("T sparkle", &format!("{name} sparkle"))
                .replace("(T ", &format!("({name} "))
                .replace(", T ", &format!(", {name} "))
        });
        texts.collect()
    }
}
