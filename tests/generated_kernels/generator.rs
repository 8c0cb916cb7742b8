//! Random kernels of the language that reach every statement and intrinsic, with results that are exact: integers, and
//! reals that are small multiples of a quarter.

use std::collections::BTreeSet;
use std::fmt::Write;

use sparkle::problem::exact::Random;

/// A kernel.
pub struct Generated {
    pub name: String,
    pub dims: usize,
    /// Whether it has 64-bit numbers, which not all devices have.
    pub is_wide: bool,
}

/// A file of kernels, and a Fortran file that calls each of them for all points.
pub struct File {
    pub kernels: Vec<Generated>,
    pub text: String,
    pub drivers: String,
}

/// The first extent of all index spaces, and the second of those with two dimensions.
pub const EXTENTS: [usize; 2] = [61, 5];

/// Functions whose results are rounded to integers, each with arguments where it is defined.
type Function = (&'static str, fn(f64) -> f64);
const FUNCTIONS: [Function; 13] = [
    ("sqrt", f64::sqrt),
    ("exp", f64::exp),
    ("log", f64::ln),
    ("log10", f64::log10),
    ("sin", f64::sin),
    ("cos", f64::cos),
    ("tan", f64::tan),
    ("asin", f64::asin),
    ("acos", f64::acos),
    ("atan", f64::atan),
    ("sinh", f64::sinh),
    ("cosh", f64::cosh),
    ("tanh", f64::tanh),
];

pub struct Generator<'r> {
    random: Random,
    /// What has been written, by name.
    pub reached: &'r mut BTreeSet<String>,
    body: String,
    indent: usize,
    /// Loops around the statement.
    loops: Vec<Loop>,
    dims: usize,
    base: i64,
    is_wide: bool,
    /// Whether y is an element, not an array.
    is_element: bool,
    names: usize,
    /// Statements until the kernel has [`MOST_STATEMENTS`].
    left: usize,
}

/// Statements of a kernel. After these, blocks that are open still get the statements that they need. Mesa's software driver
/// takes time that grows with the square of a kernel's length.
const MOST_STATEMENTS: usize = 12;

/// A loop around a statement: its name, if it has one, and its variable.
struct Loop {
    name: Option<String>,
    variable: Option<String>,
}

/// Writes a line.
macro_rules! line {
    ($generator:expr, $($text:tt)*) => {{
        let text = format!($($text)*);
        let indent = 2 * $generator.indent;
        writeln!($generator.body, "{:indent$}{text}", "").unwrap();
    }};
}

mod statements;

impl<'r> Generator<'r> {
    /// A file of `count` kernels. The same seed gives the same file.
    pub fn file(seed: u64, count: usize, reached: &'r mut BTreeSet<String>) -> File {
        let mut it = Generator {
            random: Random::new(seed),
            reached,
            body: String::new(),
            indent: 1,
            loops: vec![],
            dims: 1,
            base: 0,
            is_wide: false,
            is_element: false,
            names: 0,
            left: 0,
        };
        let module = format!("generated_{seed}");
        let mut text = format!(
            "module {module}\n  use iso_fortran_env, only: int32, int64, real32, real64\n  implicit none\ncontains\n"
        );
        let mut drivers = String::new();
        let kernels = (0..count).map(|number| it.kernel(number, &module, &mut drivers)).collect();
        it.procedures();
        text += &it.body;
        writeln!(text, "end module {module}").unwrap();
        File { kernels, text, drivers }
    }

    fn chance(&mut self, of: i64) -> bool {
        self.random.between(1, of) == 1
    }

    fn reach(&mut self, what: &str) {
        if !self.reached.contains(what) {
            self.reached.insert(what.to_owned());
        }
    }

    fn kernel(&mut self, number: usize, module: &str, drivers: &mut String) -> Generated {
        self.dims = if self.chance(4) { 2 } else { 1 };
        self.base = self.random.between(0, 1);
        self.is_wide = self.chance(6);
        self.is_element = self.dims == 1 && self.chance(5);
        let name = format!("kernel_{number}");
        let contract = self.random.pick(&["", ", contract=off"]);
        let local = self.random.pick(&["", ", local_size_x=32"]);
        let (index, size) = if self.dims == 2 { ("i, j", "n, m") } else { ("i", "n") };
        let (operator, most) = (
            self.random.pick(&["+", "*", "min", "max", "iand", "ior"]),
            self.random.pick(&["+", "min", "max"]),
        );
        let reduces = self.chance(8);
        line!(self, "!@kernel(dims={}, base={}{contract}{local})", self.dims, self.base);
        let mut totals = "";
        if reduces {
            totals = ", ti, tr";
            line!(self, "!@reduce({operator}: ti)");
            line!(self, "!@reduce({most}: tr)");
            self.reach(&format!("reduce {operator}"));
            self.reach(&format!("reduce real {most}"));
        }
        line!(self, "subroutine {name}({index}, {size}, a, b, flag, x, r, y, s, f{totals})");
        self.indent += 1;
        line!(self, "integer(int32), value :: {index}, {size}, a");
        line!(self, "real(real32), value :: b");
        line!(self, "logical, value :: flag");
        let shape = match (self.dims, self.base) {
            (2, 0) => "(0:n-1, 0:m-1)",
            (2, _) => "(n, m)",
            (_, 0) => "(0:n-1)",
            _ => self.random.pick(&["(n)", "(:)", "(*)"]),
        };
        // Two arrays always have a known size.
        let sized = if shape == "(*)" || shape == "(:)" { "(n)" } else { shape };
        line!(self, "integer(int32), intent(in) :: x{sized}");
        line!(self, "real(real32), intent(in) :: r{sized}");
        let of_y = if self.is_element { "" } else { sized };
        line!(self, "integer(int32), intent(inout) :: y{of_y}");
        let stars = if shape == "(:)" { sized } else { shape };
        line!(self, "real(real32), intent(inout) :: s{stars}");
        line!(self, "logical, intent(inout) :: f{sized}");
        if reduces {
            line!(self, "integer(int32), intent(inout) :: ti");
            line!(self, "real(real32), intent(inout) :: tr");
        }
        line!(self, "integer(int32) :: k1, k2, k3, c1, c2, c3, j1, j2, j3, p(0:7)");
        line!(self, "real(real32) :: z1, z2, z3, q(2, 0:2)");
        line!(self, "logical :: l1, l2");
        if self.is_wide {
            line!(self, "integer(int64) :: w1, w2");
            line!(self, "real(real64) :: d1, d2");
            line!(self, "w1 = {}; w2 = a; d1 = b; d2 = 3.0d0", self.element("x"));
        }
        let (x, r) = (self.element("x"), self.element("r"));
        line!(
            self,
            "k1 = {x}; k2 = a; k3 = {index}; c1 = 0; c2 = 0; c3 = 0; j1 = 0; j2 = 0; j3 = 0",
            index = "i"
        );
        line!(self, "z1 = {r}; z2 = b; z3 = 1; l1 = flag; l2 = .false.");
        line!(self, "do j1 = 0, 7");
        line!(self, "  p(j1) = {x} + j1");
        line!(self, "end do");
        line!(self, "do j1 = 0, 5");
        line!(self, "  q(mod(j1, 2) + 1, j1 / 2) = j1");
        line!(self, "end do");
        self.left = MOST_STATEMENTS;
        for _ in 0..self.random.between(3, 7) {
            if self.left > 0 {
                self.statement(3);
            }
        }
        if reduces {
            let (e, z) = (self.integer(2), self.small());
            match operator {
                "+" | "*" => line!(self, "ti = ti {operator} ({e})"),
                _ => line!(self, "ti = {operator}(ti, {e})"),
            }
            match most {
                "+" => line!(self, "tr = tr + {z}"),
                _ => line!(self, "tr = {most}({z}, tr)"),
            }
        }
        let (y, s, f) = (self.element("y"), self.element("s"), self.element("f"));
        if self.chance(5) {
            let l = self.logical(1);
            line!(self, "if ({l}) return");
            self.reach("return");
        }
        line!(self, "{y} = ieor({y}, k1) + k2 * 3 - k3 + p(iand(k1, 7))");
        line!(self, "{s} = {s} + z1 - 2 * z2 + q(2, iand(k2, 1))");
        line!(self, "{f} = ({f} .neqv. l1) .or. l2");
        if self.is_wide {
            line!(self, "{y} = {y} + int(ieor(w1, ishft(w2, -7)), int32) + int(d1 - d2)");
        }
        self.indent -= 1;
        line!(self, "end subroutine {name}\n");
        self.driver(module, &name, totals, drivers);
        Generated { name, dims: self.dims, is_wide: self.is_wide }
    }

    /// A subroutine that calls a kernel for each point.
    fn driver(&self, module: &str, name: &str, totals: &str, drivers: &mut String) {
        let (first, size, point) = match self.dims {
            2 => (self.base, "n, m", "i, j"),
            _ => (self.base, "n", "i"),
        };
        let (shape, last) = if self.dims == 2 { ("n, m", "") } else { ("n", "") };
        let y = if self.is_element { format!("y(i + {})", 1 - first) } else { "y".to_owned() };
        let (inner, end) = match self.dims {
            2 => (format!("do j = {first}, m - 1 + {first}\n"), "end do\n"),
            _ => (String::new(), ""),
        };
        write!(
            drivers,
            "subroutine run_{name}(n, m, a, b, flag, x, r, y, s, f, ti, tr) bind(C)
  use {module}
  integer(4), value :: n, m, a, flag
  real(4), value :: b
  integer(4) :: x({shape}), y({shape}), ti
  real(4) :: r({shape}), s({shape}), tr
  logical :: f({shape})
  integer(4) :: i, j
  {inner}do i = {first}, n - 1 + {first}
    call {name}({point}, {size}, a, b, flag /= 0, x, r, {y}, s, f{totals})
  end do
  {end}{last}end subroutine
"
        )
        .unwrap();
    }

    /// The procedures that kernels call.
    fn procedures(&mut self) {
        self.body += "  pure function turned(u, v) result(w)
    integer(int32), intent(in) :: u
    integer(int32), value :: v
    integer(int32) :: w, t
    w = u
    if (btest(v, 2)) return
    do t = 1, iand(v, 3)
      w = w * 3 - t
      if (w > 1000) return
    end do
    w = ieor(w, v)
  end function turned

  pure real(real32) function halved(u)
    real(real32), intent(in) :: u
    halved = u * 0.5
    if (u < 0) halved = -aint(halved)
  end function halved

  pure subroutine exchange(u, v, w)
    integer(int32), intent(inout) :: u, v
    integer(int32), intent(out) :: w
    w = u
    u = v
    v = turned(w, u)
  end subroutine exchange
";
    }

    /// The point's element of an array.
    fn element(&self, array: &str) -> String {
        match (self.dims, array) {
            (1, "y") if self.is_element => "y".to_owned(),
            (1, _) => format!("{array}(i)"),
            _ => format!("{array}(i, j)"),
        }
    }

    /// An element of an array that no point changes.
    fn any_element(&mut self, array: &str) -> String {
        let (base, e) = (self.base, self.integer(1));
        match self.dims {
            1 => format!("{array}(modulo({e}, n) + {base})"),
            _ => format!(
                "{array}(modulo({e}, n) + {base}, modulo(j + {}, m) + {base})",
                self.random.between(0, 4)
            ),
        }
    }

    /// An integer of any size.
    fn integer(&mut self, depth: usize) -> String {
        if depth == 0 || self.chance(5) {
            return self.integer_leaf();
        }
        let which = self.random.between(0, 27);
        let (u, v) = (self.integer(depth - 1), self.integer(depth - 1));
        let name = [
            "+",
            "-",
            "*",
            "/",
            "negate",
            "mod",
            "modulo",
            "iand",
            "ior",
            "ieor",
            "not",
            "ishft",
            "abs",
            "min",
            "max",
            "sign",
            "dim",
            "merge",
            "power",
            "int",
            "nint",
            "floor",
            "ceiling",
            "call",
            "bits",
            "length",
            "rounded function",
            "atan2",
        ][which as usize];
        self.reach(&format!("integer {name}"));
        match name {
            "+" | "-" | "*" => match self.random.between(0, 3) {
                0 => format!("({u} {name} {})", self.random.between(0, 1000)),
                1 => format!("({} {name} {u})", self.random.between(0, 1000)),
                _ => format!("({u} {name} {v})"),
            },
            "/" => {
                let sign =
                    self.random.pick(&["iand({v}, 63) + 1", "(-2) - iand({v}, 31)"]).replace("{v}", &v);
                format!("({u} / ({sign}))")
            }
            "negate" => format!("(-{u})"),
            "mod" | "modulo" => {
                let by = self.random.pick(&["iand({v}, 63) + 1", "(-2) - iand({v}, 31)"]).replace("{v}", &v);
                format!("{name}({u}, {by})")
            }
            "iand" | "ior" | "ieor" | "sign" | "dim" => format!("{name}({u}, {v})"),
            "not" | "abs" => format!("{name}({u})"),
            "ishft" => {
                let by = self
                    .random
                    .pick(&["iand({v}, 31)", "(-iand({v}, 31))", "5", "-9", "32"])
                    .replace("{v}", &v);
                format!("ishft({u}, {by})")
            }
            "min" | "max" => match self.chance(3) {
                true => format!("{name}({u}, {v}, {})", self.integer(0)),
                false => format!("{name}({u}, {v})"),
            },
            "merge" => format!("merge({u}, {v}, {})", self.logical(depth - 1)),
            "power" => match self.chance(2) {
                true => format!("({u} ** {})", self.random.between(0, 4)),
                false => format!("({u} ** iand({v}, 3))"),
            },
            "int" => format!("int({})", self.real(depth - 1)),
            "nint" | "floor" | "ceiling" => format!("{name}({} * 0.25)", self.small()),
            "call" => format!("turned({u}, {v})"),
            "bits" => self
                .random
                .pick(&["ieor(a, int(z'1f00ff'))", "(k1 + int(b'1011'))", "ior(int(o'777'), k2)"])
                .to_owned(),
            "length" => match self.dims {
                1 => self.random.pick(&["size(x)", "lbound(r, 1)", "ubound(x, 1)"]).to_owned(),
                _ => self.random.pick(&["size(x)", "size(x, 2)", "lbound(r, 1)", "ubound(x, 2)"]).to_owned(),
            },
            "atan2" => self.rounded_function2(),
            _ => self.rounded_function(),
        }
    }

    fn integer_leaf(&mut self) -> String {
        match self.random.between(0, 11) {
            0 => "k1".into(),
            1 => "k2".into(),
            2 => "k3".into(),
            3 => "a".into(),
            4 => self.random.pick(&["i", "n", "c1", "c2"]).into(),
            5 => self.element("x"),
            6 => {
                // A shallow subscript.
                let (base, by) = (self.base, self.random.between(1, 99));
                match self.dims {
                    1 => format!("x(modulo(i * {by} + k2, n) + {base})"),
                    _ => format!("x(modulo(i * {by} + k2, n) + {base}, modulo(j - {by}, m) + {base})"),
                }
            }
            7 => "p(iand(k3, 7))".into(),
            8 => "ieor(huge(k1), k2)".into(),
            9 => match self.loops.iter().rev().find_map(|it| it.variable.clone()) {
                Some(variable) => variable,
                None => "k1".into(),
            },
            // No expression is constant, since compilers would complain about one that overflows.
            10 => format!("(k3 + ({}))", self.random.between(-9, 99)),
            _ => format!("({} - k1)", self.random.between(0, 1000)),
        }
    }

    /// A function of a real constant, rounded to an integer where that is far from doubtful.
    fn rounded_function(&mut self) -> String {
        loop {
            let (name, f) = self.random.pick(&FUNCTIONS);
            let at = self.random.between(1, 7) as f64 * 0.125;
            let value = 16.0 * f(at);
            if (value - value.floor() - 0.5).abs() > 0.05 {
                self.reach(&format!("function {name}"));
                // Not a constant for compilers.
                return format!("nint(16.0 * {name}({at:?} + 0.0 * z1))");
            }
        }
    }

    fn rounded_function2(&mut self) -> String {
        loop {
            let (u, v) = (self.random.between(1, 9) as f64 * 0.25, self.random.between(1, 9) as f64 * 0.25);
            let is_power = self.chance(2);
            let value = 16.0 * if is_power { u.powf(v) } else { u.atan2(v) };
            if (value - value.floor() - 0.5).abs() > 0.05 && value < 1e4 {
                self.reach(if is_power { "real power" } else { "function atan2" });
                return match is_power {
                    true => format!("nint(16.0 * ({u:?} + 0.0 * z1) ** ({v:?} + 0.0 * z2))"),
                    false => format!("nint(16.0 * atan2({u:?} + 0.0 * z1, {v:?} + 0.0 * z2))"),
                };
            }
        }
    }

    /// A whole number of at most 1000, as a real.
    fn small(&mut self) -> String {
        match self.random.between(0, 6) {
            0 => "z1".into(),
            1 => "z2".into(),
            2 => "z3".into(),
            3 => "b".into(),
            4 => self.element("r"),
            5 => "q(iand(k1, 1) + 1, iand(k2, 1))".into(),
            _ => format!("{}.0", self.random.between(0, 60)),
        }
    }

    /// A multiple of a quarter below 10^7.
    fn real(&mut self, depth: usize) -> String {
        if depth == 0 || self.chance(6) {
            return self.small();
        }
        let (u, v) = (self.small(), self.small());
        let name = self.random.pick(&[
            "+",
            "-",
            "product",
            "quarter",
            "negate",
            "abs",
            "min",
            "max",
            "sign",
            "dim",
            "merge",
            "mod",
            "modulo",
            "aint",
            "real",
            "square",
            "divide",
            "call",
            "any",
            "tiny",
            "product sum",
        ]);
        self.reach(&format!("real {name}"));
        match name {
            "+" | "-" => format!("({} {name} {})", self.real(depth - 1), self.real(depth - 1)),
            "product" => format!("({u} * {v})"),
            "product sum" => {
                format!("({u} * {v} {} {})", self.random.pick(&["+", "-"]), self.real(depth - 1))
            }
            "quarter" => format!("({u} * 0.25)"),
            "divide" => format!("({u} / {})", self.random.pick(&["2.0", "4.0", "(-2.0)"])),
            "negate" => format!("(-{})", self.real(depth - 1)),
            "abs" => format!("abs({})", self.real(depth - 1)),
            "min" | "max" => format!("{name}({}, {})", self.real(depth - 1), self.real(depth - 1)),
            "sign" => format!("sign({u}, {v} + 0.5)"),
            "dim" => format!("dim({u}, {v})"),
            "merge" => format!("merge({u}, {v}, {})", self.logical(1)),
            "mod" | "modulo" => format!("{name}({u}, {})", self.random.pick(&["8.0", "16.0", "(-4.0)"])),
            "aint" => format!("aint({u} * 0.25)"),
            "real" => format!("real(mod({}, 1000), real32)", self.integer(1)),
            "square" => format!("({u} ** 2)"),
            "call" => format!("halved({u})"),
            "any" => self.any_element("r"),
            _ => format!("({u} + 0.0 * (tiny(z1) + epsilon(z1)))"),
        }
    }

    fn logical(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.random.between(0, 3) {
                0 => "l1".into(),
                1 => "l2".into(),
                2 => "flag".into(),
                _ => self.element("f"),
            };
        }
        let name = self.random.pick(&[
            "==", "/=", "<", "<=", ">", ">=", ".lt.", ".ge.", "and", "or", "not", "eqv", "neqv", "btest",
            "nan", "merge",
        ]);
        self.reach(&format!("logical {name}"));
        match name {
            "and" | "or" | "eqv" | "neqv" => {
                format!("({} .{name}. {})", self.logical(depth - 1), self.logical(depth - 1))
            }
            "not" => format!("(.not. {})", self.logical(depth - 1)),
            "btest" => format!("btest({}, iand({}, 31))", self.integer(1), self.integer(0)),
            "nan" => format!("({u} /= {u})", u = self.small()),
            "merge" => {
                format!("merge({}, {}, {})", self.logical(0), self.logical(0), self.logical(depth - 1))
            }
            compare => match self.chance(3) {
                true => format!("({} {compare} {})", self.real(1), self.real(1)),
                false => format!("({} {compare} {})", self.integer(1), self.integer(1)),
            },
        }
    }
}
