//! Random statements.

use std::fmt::Write;

use super::{Generator, Loop};

impl Generator<'_> {
    fn block(&mut self, depth: usize, most: i64) {
        self.indent += 1;
        for _ in 0..self.random.between(1, most) {
            self.statement(depth);
        }
        self.indent -= 1;
    }

    pub(super) fn statement(&mut self, depth: usize) {
        let last = if depth == 0 || self.left == 0 { 6 } else { 14 };
        self.left = self.left.saturating_sub(1);
        match self.random.between(0, last) {
            0 | 1 => {
                let (to, e) = (self.random.pick(&["k1", "k2", "k3"]), self.integer(3));
                line!(self, "{to} = {e}");
            }
            2 => {
                let (to, e) = (self.random.pick(&["z1", "z2", "z3"]), self.real(3));
                // Whole and small again.
                line!(self, "{to} = real(modulo(int({e}), 1999) - 999)");
                self.reach("real assignment");
            }
            3 => {
                let (to, l) = (self.random.pick(&["l1", "l2"]), self.logical(2));
                line!(self, "{to} = {l}");
                self.reach("logical assignment");
            }
            4 => {
                let (at, e) = (self.integer(1), self.integer(2));
                line!(self, "p(iand({at}, 7)) = {e}");
                self.reach("private array");
            }
            5 => self.exchange(),
            6 => self.leave(),
            7 | 8 => self.branch(depth),
            9 => self.select(depth),
            10 | 11 => self.counted(depth),
            12 => self.repeated(depth),
            13 if self.is_wide => self.wide(),
            _ => {
                let (y, e) = (self.element("y"), self.integer(2));
                line!(self, "{y} = {y} + {e}");
                self.reach("element");
            }
        }
    }

    fn exchange(&mut self) {
        let (u, v) =
            self.random.pick(&[("k1", "k2"), ("k2", "k3"), ("p(iand(k3, 3))", "k2"), ("p(2)", "p(7)")]);
        // Not what a subscript reads: some versions of gfortran undefine it too early.
        let w = if u == "k1" { "k3" } else { "k1" };
        line!(self, "call exchange({u}, {v}, {w})");
        self.reach("call");
    }

    /// `exit`, `cycle` or, outside of loops, nothing.
    fn leave(&mut self) {
        let word = self.random.pick(&["exit", "cycle"]);
        let l = self.logical(2);
        let named: Vec<String> = self.loops.iter().filter_map(|it| it.name.clone()).collect();
        if !named.is_empty() && self.chance(2) {
            let name = &named[self.random.between(0, named.len() as i64 - 1) as usize];
            line!(self, "if ({l}) {word} {name}");
            self.reach(&format!("{word} named"));
        } else if !self.loops.is_empty() {
            line!(self, "if ({l}) {word}");
            self.reach(word);
        } else {
            line!(self, "continue");
            self.reach("continue");
        }
    }

    fn branch(&mut self, depth: usize) {
        let l = self.logical(3);
        line!(self, "if ({l}) then");
        self.block(depth - 1, 3);
        for _ in 0..self.random.between(0, 2) {
            let l = self.logical(2);
            line!(self, "else if ({l}) then");
            self.block(depth - 1, 2);
            self.reach("else if");
        }
        if self.chance(2) {
            line!(self, "else");
            self.block(depth - 1, 2);
            self.reach("else");
        }
        line!(self, "end if");
    }

    fn select(&mut self, depth: usize) {
        if self.chance(4) {
            let l = self.logical(2);
            line!(self, "select case ({l})");
            line!(self, "case (.true.)");
            self.block(depth - 1, 2);
            line!(self, "end select");
            self.reach("select logical");
            return;
        }
        let e = self.integer(2);
        line!(self, "select case (mod({e}, 12))");
        for case in ["(:-6)", "(-5, -2:0)", "(1)", "(2:4, 6)", "(9:)"] {
            if !self.chance(3) {
                line!(self, "case {case}");
                self.block(depth - 1, 2);
            }
        }
        if self.chance(2) {
            line!(self, "case default");
            self.block(depth - 1, 2);
            self.reach("case default");
        }
        line!(self, "end select");
        self.reach("select");
    }

    /// A name for a loop, or none.
    fn label(&mut self) -> (Option<String>, String, String) {
        if self.chance(2) {
            return (None, String::new(), String::new());
        }
        self.names += 1;
        let name = format!("loop_{}", self.names);
        (Some(name.clone()), format!("{name}: "), format!(" {name}"))
    }

    fn counted(&mut self, depth: usize) {
        let level = self.loops.len() + 1;
        if level > 3 {
            return self.exchange();
        }
        let (name, before, after) = self.label();
        let e = self.integer(1);
        let bounds = match self.random.between(0, 4) {
            0 => "1, 5".to_owned(),
            1 => format!("iand({e}, 3), 6"),
            2 => format!("7, iand({e}, 7) - 1, -2"),
            3 => format!("-3, iand({e}, 15), 4"),
            _ => format!("iand({e}, 3), 9 - iand({e}, 5), iand({e}, 1) * 2 + 1"),
        };
        line!(self, "{before}do j{level} = {bounds}");
        self.loops.push(Loop { name, variable: Some(format!("j{level}")) });
        self.block(depth - 1, 3);
        self.loops.pop();
        line!(self, "end do{after}");
        self.reach("do");
    }

    fn repeated(&mut self, depth: usize) {
        let level = self.loops.len() + 1;
        if level > 3 {
            return self.exchange();
        }
        let (name, before, after) = self.label();
        let (e, l) = (self.integer(1), self.logical(2));
        let is_while = self.chance(2);
        if is_while {
            line!(self, "c{level} = iand({e}, 7)");
            line!(self, "{before}do while (c{level} > 0 .and. ({l} .or. c{level} > 5))");
            line!(self, "  c{level} = c{level} - 1");
        } else {
            line!(self, "c{level} = 0");
            line!(self, "{before}do");
            line!(self, "  c{level} = c{level} + 1");
            line!(self, "  if (c{level} > iand({e}, 3) + 1 .or. c{level} > 4) exit");
        }
        self.loops.push(Loop { name, variable: None });
        self.block(depth - 1, 3);
        self.loops.pop();
        line!(self, "end do{after}");
        self.reach(if is_while { "do while" } else { "endless do" });
    }

    /// Statements on 64-bit numbers.
    fn wide(&mut self) {
        let (e, z) = (self.integer(2), self.small());
        let name =
            self.random.pick(&["multiply", "shift", "modulo", "dim", "double", "double divide", "long max"]);
        self.reach(&format!("wide {name}"));
        match name {
            "multiply" => line!(self, "w1 = w2 * 1000003_int64 + {e}"),
            "shift" => line!(self, "w2 = ieor(ishft(w1, 13), ishft(w1, -{}))", self.random.between(0, 40)),
            "modulo" => line!(self, "w1 = modulo(w1, 1000_int64) - mod(w2, 77_int64) + w1 / 9_int64"),
            "dim" => line!(self, "w2 = dim(w1, w2) - abs(w1) + merge(w1, int({e}, int64), w1 > w2)"),
            "double" => line!(self, "d1 = floor(dble({z}) * 0.25d0) + max(d2, min(d1, 64.0d0)) - abs(d1)"),
            "double divide" => {
                line!(self, "d2 = real(mod({e}, 1000), real64) / 8.0d0 - sign(3.0d0, d1 + 0.5d0)")
            }
            _ => line!(self, "w1 = max(w1, w2, 5_int64) + not(w2) + sign(w1, w2)"),
        }
        // Small enough to stay exact.
        line!(self, "d1 = mod(d1, 4096.0d0)");
    }
}
