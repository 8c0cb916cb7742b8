//! Remainders of reals, where the quotient may be rounded up to a whole number.

use super::*;

fn text(contract: &str, kind: usize) -> String {
    format!(
        "!@kernel(contract={contract})
subroutine rests(i, n, x, y, a, b)
  integer, value :: i, n
  real({kind}), intent(in) :: x(0:n-1), y(0:n-1)
  real({kind}), intent(inout) :: a(0:n-1), b(0:n-1)
  a(i) = mod(x(i), y(i))
  b(i) = modulo(x(i), y(i))
end subroutine
"
    )
}

/// Dividends and divisors: multiples of a divisor that are rounded, numbers beside them, and others. Quotients are below
/// 2^20.
fn pairs(random: &mut Random) -> Vec<(f32, f32)> {
    let mut all =
        vec![(0.7, 0.1), (1.0, 0.1), (0.3, 0.1), (5.0, 3.0), (0.5, 7.0), (2.9999998, 3.0), (6.0, 3.0)];
    for _ in 0..2000 {
        let [x, y] = [random.reals(1)[0] * 100.0, random.reals(1)[0] * 5.0 + 1e-3];
        let multiple = y * (random.between(1, 1 << 20) as f32);
        let up = |it: f32| f32::from_bits(it.to_bits() + 1);
        all.extend([(x, y), (multiple, y), (up(multiple), y), (up(up(x)), up(y))]);
    }
    all.retain(|(x, y)| (x / y).abs() < 1.1e6);
    let signed = all.iter().flat_map(|(x, y)| [(*x, *y), (-x, *y), (*x, -y), (-x, -y)]);
    signed.collect()
}

/// As the CPU computes `modulo`.
fn modulo(y: f64, rest: f64, sum: impl Fn(f64, f64) -> f64) -> f64 {
    if rest != 0.0 && (rest < 0.0) != (y < 0.0) { sum(rest, y) } else { rest }
}

#[test]
fn remainders_are_exact_while_quotients_are() {
    let Some(mut checker) = Checker::new() else { return };
    let pairs = pairs(&mut Random::new(77));
    let n = pairs.len();
    let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    for contract in ["fast", "off"] {
        let unit = unit(&text(contract, 4));
        let zeros = || Given::Reals(vec![0.0; n]);
        let given = vec![int(n as i64), Given::Reals(x.clone()), Given::Reals(y.clone()), zeros(), zeros()];
        checker.check((&unit, "rests"), &[n], given, 0.0, |it| {
            let all = x.iter().zip(&y);
            *it[3].reals() = all.clone().map(|(x, y)| x % y).collect();
            let sum = |a: f64, b: f64| f64::from(a as f32 + b as f32);
            let whole = all.map(|(x, y)| modulo((*y).into(), (x % y).into(), sum) as f32);
            *it[4].reals() = whole.collect();
        });
        let unit = super::unit(&text(contract, 8));
        // Thirds have all digits of a double.
        let wide = |all: &[f32]| Given::Doubles(all.iter().map(|it| f64::from(*it) / 3.0).collect());
        let zeros = || Given::Doubles(vec![0.0; n]);
        let given = vec![int(n as i64), wide(&x), wide(&y), zeros(), zeros()];
        checker.check((&unit, "rests"), &[n], given, 0.0, |it| {
            let (x, y) = (it[1].doubles().clone(), it[2].doubles().clone());
            let all = x.iter().zip(&y);
            *it[3].doubles() = all.clone().map(|(x, y)| x % y).collect();
            *it[4].doubles() = all.map(|(x, y)| modulo(*y, x % y, |a, b| a + b)).collect();
        });
    }
}
