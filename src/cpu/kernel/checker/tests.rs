//! Programs with planted faults, which the check finds at the right place, and right ones, for which it reports nothing.
//! All other tests of the engine run their kernels through the check, too (`cpu::kernel::tests::run`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::cpu::kernel::tests::{Item, text, unit};
use crate::kernel::bind::Launch;
use crate::kernel::describe;
use crate::kernel::diagnostics::{Code as Message, render_all};
use crate::kernel::tree::{BufferShape, Type, Unit};

/// A program of `tests/kernels/check`: `# 3 K701 7:5 extent=8,2 n=8` begins it, with the code and the place of its first
/// message, the index space and the integer scalars.
struct Planted {
    name: String,
    expected: String,
    extents: Vec<usize>,
    scalars: BTreeMap<String, i32>,
    text: String,
}

fn planted(file: &str) -> Vec<Planted> {
    let mut all: Vec<Planted> = Vec::new();
    for line in text(&format!("check/{file}")).lines() {
        let Some(head) = line.strip_prefix('#') else {
            let program = all.last_mut().unwrap();
            program.text += line;
            program.text += "\n";
            continue;
        };
        let words: Vec<&str> = head.split_whitespace().collect();
        let values = words[3..].iter().map(|word| word.split_once('=').unwrap());
        let (extents, scalars): (Vec<_>, Vec<_>) = values.partition(|(name, _)| *name == "extent");
        all.push(Planted {
            name: format!("{file} {}", words[0]),
            expected: format!("{} {}", words[1], words[2]),
            extents: extents[0].1.split(',').map(|it| it.parse().unwrap()).collect(),
            scalars: scalars
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
                .collect(),
            text: String::new(),
        });
    }
    all
}

/// Arguments for a kernel: integers as given, other scalars 0.5, arrays of the declared size. Integers are each position's half, so that
/// values repeat, and reals count from 1.
fn arguments(unit: &Unit, extents: &[usize], scalars: &BTreeMap<String, i32>) -> Vec<Item> {
    arguments_of(&unit.kernels[0], extents, scalars)
}

fn arguments_of(kernel: &Kernel, extents: &[usize], scalars: &BTreeMap<String, i32>) -> Vec<Item> {
    let values = kernel.arguments.iter().map(|argument| match argument.kind {
        ArgumentKind::Scalar => Some(match argument.ty {
            Type::Real32 => Value::Real32(0.5),
            _ => Value::Int32(scalars[&argument.name]),
        }),
        _ => None,
    });
    let (values, lengths): (Vec<_>, _) = (values.collect(), vec![8; kernel.arguments.len()]);
    let mut items = Vec::new();
    for (position, argument) in kernel.arguments.iter().enumerate() {
        let len = match &argument.kind {
            ArgumentKind::Index(_) => continue,
            ArgumentKind::Scalar => {
                items.push(match argument.ty {
                    Type::Real32 => Item::F(0.5),
                    _ => Item::I(scalars[&argument.name]),
                });
                continue;
            }
            ArgumentKind::Buffer(buffer) => match buffer.shape {
                BufferShape::Array(_) => {
                    let bounds =
                        describe::extents(&kernel.arguments, &kernel.code, position, &values, &lengths)
                            .unwrap();
                    bounds.into_iter().map(|it| it.unwrap_or(4) as usize).product()
                }
                BufferShape::Element { .. } => extents.iter().product(),
                BufferShape::Reduction(_) => 1,
            },
        };
        items.push(match argument.ty {
            Type::Real32 => Item::Fs((1..=len).map(|it| it as f32).collect()),
            Type::Int32 => Item::Is((0..len as i32).map(|it| it / 2).collect()),
            other => panic!("{other:?}"),
        });
    }
    items
}

fn checked(unit: &Arc<Unit>, extents: &[usize], items: &mut [Item]) -> Checked {
    let mut args: Vec<_> = items.iter_mut().map(Item::arg).collect();
    check(&Launch::new(unit, 0, extents, &mut args).unwrap(), Coverage::All).unwrap()
}

fn places(messages: &[Diagnostic]) -> Vec<String> {
    messages.iter().map(|it| format!("{} {}:{}", it.code, it.span.line, it.span.column)).collect()
}

#[test]
fn forty_planted_faults_are_found_at_their_places() {
    let mut wrong = String::new();
    for file in ["races.txt", "bounds.txt", "uninitialised.txt", "barriers.txt"] {
        let all = planted(file);
        assert_eq!(all.len(), 10, "{file}");
        for it in all {
            let compiled = crate::kernel::compile(it.text.as_bytes()).unwrap();
            let messages = match compiled.unit {
                // The compiler itself finds barriers that not all points reach.
                None => compiled.diagnostics,
                Some(unit) => {
                    let mut items = arguments(&unit, &it.extents, &it.scalars);
                    checked(&Arc::new(unit), &it.extents, &mut items).messages
                }
            };
            if places(&messages) != [it.expected.clone()] {
                let drawn = render_all(&messages, "test.f90", it.text.as_bytes()).unwrap();
                wrong += &format!("{}: expected {}\n{drawn}\n", it.name, it.expected);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn messages_say_who_and_where() {
    let all = planted("races.txt");
    let drawn = |it: &Planted| {
        let unit = Arc::new(crate::kernel::compile(it.text.as_bytes()).unwrap().unit.unwrap());
        let mut items = arguments(&unit, &it.extents, &it.scalars);
        let messages = checked(&unit, &it.extents, &mut items).messages;
        render_all(&messages, "test.f90", it.text.as_bytes()).unwrap()
    };
    let expected = "error[K701]: the points with i = 1 and i = 2 both access `y(1)`, and nothing orders them
 --> test.f90:6:12
  |
6 |     y(i) = y(i-1) + 1
  |            ^^^^^^ the point with i = 2 reads it
  |     ---- the point with i = 1 accesses it
";
    assert_eq!(drawn(&all[1]), expected);
    let got = drawn(&planted("bounds.txt")[3]);
    assert!(got.contains("subscript 1 of `u` is 5, its bounds are 1:4 (at i = 4, j = 1)"), "{got}");
    assert!(got.contains("declared here"), "{got}");
}

#[test]
fn the_examples_are_not_reported() {
    let mut checked = BTreeMap::new();
    for (file, name, extents, scalars) in [
        ("saxpy", "saxpy", &[70][..], &[("n", 70)][..]),
        ("stencil", "heat_step", &[9, 7], &[("n", 9), ("m", 7)]),
        (
            "im2col",
            "im2col",
            &[4, 3, 18],
            &[("width", 7), ("height", 5), ("channels", 2), ("side", 3), ("stride", 2), ("pad", 1)],
        ),
        ("softmax", "softmax", &[5], &[("rows", 5), ("columns", 6)]),
        ("dot", "dot", &[300], &[("n", 300)]),
        ("reduction", "summary", &[300], &[("n", 300)]),
        ("transpose", "transpose_tiles", &[35, 20], &[("n", 35), ("m", 20)]),
        ("scan", "scan_blocks", &[600], &[("n", 600)]),
        ("scan", "add_offsets", &[600], &[("n", 600)]),
        ("sgemm", "sgemm", &[18, 20], &[("m", 18), ("n", 20), ("k", 33)]),
        ("epilogue", "activate", &[50], &[("channels", 5)]),
        ("epilogue", "dense", &[18, 20], &[("m", 18), ("n", 20), ("k", 33)]),
    ] {
        let unit = unit(&text(&format!("../../fortran/examples/kernels/{file}.f90")));
        let index = unit.kernels.iter().position(|it| it.name == name).unwrap();
        let scalars = scalars.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let mut items = arguments_of(&unit.kernels[index], extents, &scalars);
        let mut args: Vec<_> = items.iter_mut().map(Item::arg).collect();
        let found = check(&Launch::new(&unit, index, extents, &mut args).unwrap(), Coverage::All).unwrap();
        assert_eq!(places(&found.messages), Vec::<String>::new(), "{name}");
        assert!(found.points > 0);
        checked.entry(file).or_insert_with(Vec::new).push((index, unit.kernels.len()));
    }
    // All kernels of all examples.
    assert_eq!(checked.len(), 10);
    assert!(checked.values().all(|its| its.len() == its[0].1), "{checked:?}");
}

/// A point may do with its own elements as it likes, and workgroups may hand over what barriers separate.
#[test]
fn right_programs_are_not_reported() {
    let right = "!@kernel(local_size=[16])
subroutine f(i, n, x, y)
  use sparkle_workgroup, only: barrier, local_index
  integer, value :: i, n
  real, intent(in) :: x(0:n-1)
  real, intent(inout) :: y(0:n-1)
  real :: tile(0:15) !@shared
  real :: total
  integer :: k, round
  k = local_index(1)
  total = 0
  do round = 1, 3
    if (round == 2) cycle
    tile(k) = 0
    if (i < n) tile(k) = x(i) * round
    call barrier()
    total = total + tile(15 - k) + tile(mod(k + 1, 16))
    call barrier()
  end do
  if (i < n) y(i) = total
  if (i < n) y(i) = y(i) + 1
  call barrier()
  if (i < n - 1 .and. k < 15) total = y(i + 1)
end subroutine
";
    let unit = unit(right);
    let scalars = BTreeMap::from([("n".to_owned(), 44)]);
    let mut items = arguments(&unit, &[44], &scalars);
    let found = checked(&unit, &[44], &mut items);
    assert_eq!(places(&found.messages), Vec::<String>::new());
    assert_eq!(found.points, 48);
    // x(i) * round, two sums, and the last one.
    assert_eq!(found.operations, 44 * 2 + 48 * 4 + 44);
}

#[test]
fn each_place_is_reported_once_and_results_are_those_of_a_launch() {
    let text = "!@kernel
pure subroutine f(i, n, y)
  integer, value :: i, n
  real, intent(inout) :: y(0:n-1)
  if (i >= n) y(i) = 7
  if (i < n) y(i) = 2 * y(i)
end subroutine
";
    let mut items = vec![Item::I(4), Item::Fs(vec![1.0, 2.0, 3.0, 4.0])];
    let found = checked(&unit(text), &[1000], &mut items);
    assert_eq!(places(&found.messages), ["K702 5:15"]);
    assert_eq!(found.messages[0].code, Message::OutOfBounds);
    assert_eq!(items[1], Item::Fs(vec![2.0, 4.0, 6.0, 8.0]));
}

#[test]
fn samples_count_operations_and_report_nothing() {
    let text = "!@kernel
pure subroutine f(i, n, x, y)
  integer, value :: i, n
  real, intent(in) :: x(0:n-1)
  real, intent(inout) :: y(1)
  integer :: k
  do k = 0, n - 1
    y(1) = sqrt(x(k)) + k * 2
  end do
end subroutine
";
    let unit = unit(text);
    let mut items = [Item::I(10), Item::Fs(vec![1.0; 10]), Item::Fs(vec![0.0])];
    let mut args: Vec<_> = items.iter_mut().map(Item::arg).collect();
    let launch = Launch::new(&unit, 0, &[1000], &mut args).unwrap();
    let found = check(&launch, Coverage::Sample(100)).unwrap();
    assert_eq!((found.points, found.operations, found.messages.len()), (100, 100 * 10 * 2, 0));
    let found = check(&launch, Coverage::Sample(u64::MAX)).unwrap();
    assert_eq!(found.points, 1000);
}
