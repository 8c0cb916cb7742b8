//! Benchmark suites: CSV files with one convolution per row.
//!
//! The columns are `name,N,C,H,W,K,kernel,stride,pad`, in any order; `kernel`, `stride` and `pad` hold for height and
//! width. Optional columns: `groups` and `dilation`, 1 by default; `kernel_w` and `pad_w`, by default the values of
//! `kernel` and `pad`, which hold for the height alone if these columns exist.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use sparkle::{Conv2d, Conv2dDesc};

use crate::failure::Failure;
use crate::memory;

/// One row.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The row's name, unique within its suite.
    pub name: String,
    /// The convolution.
    pub problem: Conv2d,
}

/// The columns after `name`.
const SIZES: [&str; 8] = ["N", "C", "H", "W", "K", "kernel", "stride", "pad"];

/// The columns that may be missing.
const OPTIONAL: [&str; 4] = ["groups", "dilation", "kernel_w", "pad_w"];

/// The most bytes of a suite.
const MAX_BYTES: u64 = 16 << 20;

/// The most memory that reading takes, per byte of the file: a field may be empty, a row may have twenty characters.
const MEMORY_PER_BYTE: usize = 128;

/// The index of each column: `name`, [`SIZES`] and [`OPTIONAL`].
struct Columns {
    name: usize,
    sizes: [usize; 8],
    optional: [Option<usize>; 4],
}

/// Reads a suite; `batch` replaces every N.
///
/// # Errors
/// Names the file, and the line and column where it applies.
pub fn read(path: &Path, batch: Option<i64>) -> Result<Vec<Layer>, Failure> {
    let at = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let mut text = vec![];
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
    read.map_err(|error| at(format!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(at(format!("has more than {MAX_BYTES} bytes; expected a suite of layers")));
    }
    memory::check(path.display(), text.len() * MEMORY_PER_BYTE)?;
    parse(&text[..], batch).map_err(at)
}

fn parse(file: impl Read, batch: Option<i64>) -> Result<Vec<Layer>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(file);
    let columns = columns(reader.headers().map_err(|error| error.to_string())?)?;
    let (mut layers, mut names) = (vec![], HashSet::new());
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let layer = layer(&record, &columns, batch).map_err(|reason| format!("line {line}, {reason}"))?;
        if !names.insert(layer.name.clone()) {
            return Err(format!("line {line}, column name: \"{}\" is not unique", layer.name));
        }
        layers.push(layer);
    }
    if layers.is_empty() { Err("has no rows".to_owned()) } else { Ok(layers) }
}

fn columns(headers: &csv::StringRecord) -> Result<Columns, String> {
    let known = ["name"].into_iter().chain(SIZES).chain(OPTIONAL);
    if let Some(unknown) = headers.iter().find(|&header| !known.clone().any(|name| name == header)) {
        return Err(format!(
            "line 1, column \"{unknown}\": no such column; expected name,{} and perhaps {}",
            SIZES.join(","),
            OPTIONAL.join(",")
        ));
    }
    let find = |name: &str| {
        let mut found = (0..headers.len()).filter(|&index| &headers[index] == name);
        let column = found.next();
        if found.next().is_some() { Err(format!("line 1, column {name}: appears twice")) } else { Ok(column) }
    };
    let must = |name: &str| find(name)?.ok_or_else(|| format!("line 1, column {name}: missing"));
    let mut columns = Columns { name: must("name")?, sizes: [0; 8], optional: [None; 4] };
    for (column, name) in columns.sizes.iter_mut().zip(SIZES) {
        *column = must(name)?;
    }
    for (column, name) in columns.optional.iter_mut().zip(OPTIONAL) {
        *column = find(name)?;
    }
    Ok(columns)
}

fn layer(record: &csv::StringRecord, columns: &Columns, batch: Option<i64>) -> Result<Layer, String> {
    let name = &record[columns.name];
    if name.is_empty() {
        return Err("column name: empty".to_owned());
    }
    let number = |column: &str, index: usize| {
        let text = &record[index];
        text.parse().map_err(|_| format!("column {column}: \"{text}\" is not a whole number"))
    };
    let mut sizes = [0i64; 8];
    for ((size, column), &index) in sizes.iter_mut().zip(SIZES).zip(&columns.sizes) {
        *size = number(column, index)?;
    }
    let [n, c, h, w, k, kernel, stride, pad] = sizes;
    let mut optional = [1, 1, kernel, pad];
    for ((size, column), &index) in optional.iter_mut().zip(OPTIONAL).zip(&columns.optional) {
        *size = index.map_or(Ok(*size), |index| number(column, index))?;
    }
    let [groups, dilation, kernel_w, pad_w] = optional;
    let desc = Conv2dDesc {
        n: batch.unwrap_or(n),
        c,
        h,
        w,
        k,
        r: kernel,
        s: kernel_w,
        stride_h: stride,
        stride_w: stride,
        pad_h: pad,
        pad_w,
        dilation_h: dilation,
        dilation_w: dilation,
        groups,
        ..Default::default()
    };
    let problem = Conv2d::new(desc).map_err(|error| match &error {
        sparkle::Error::InvalidArgument { argument, value, expected } => match column_of(argument) {
            Some(column) => format!("column {column}: {value}; expected {expected}"),
            None => error.to_string(),
        },
        _ => error.to_string(),
    })?;
    Ok(Layer { name: name.to_owned(), problem })
}

/// The column that an argument of the library comes from; `None` if it comes from several.
fn column_of(argument: &str) -> Option<&'static str> {
    match argument {
        "r" | "s" => Some("kernel"),
        "stride_h" | "stride_w" => Some("stride"),
        "pad_h" | "pad_w" => Some("pad"),
        "dilation_h" | "dilation_w" => Some("dilation"),
        _ => SIZES.into_iter().chain(OPTIONAL).find(|column| column.eq_ignore_ascii_case(argument)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "name,N,C,H,W,K,kernel,stride,pad\n";

    fn refused(rows: &str) -> String {
        parse(format!("{HEADER}{rows}").as_bytes(), None).unwrap_err()
    }

    #[test]
    fn rows_become_layers() {
        let text = format!("{HEADER}first,1,3,224,224,64,7,2,3\n# a note\n second , 2,8,7,9,4,1,1,0\n");
        let layers = parse(text.as_bytes(), None).unwrap();
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].problem.flops(), 2 * 64 * 112 * 112 * 3 * 49);
        let sizes = layers[1].problem.sizes();
        assert_eq!((layers[1].name.as_str(), sizes.n, sizes.h, sizes.w, sizes.q), ("second", 2, 7, 9, 9));
        let batch = parse(text.as_bytes(), Some(32)).unwrap();
        assert!(batch.iter().all(|layer| layer.problem.sizes().n == 32));
        let shuffled = "pad,name,N,C,H,W,K,stride,kernel\n1,a,1,2,5,5,3,2,3\n";
        let sizes = *parse(shuffled.as_bytes(), None).unwrap()[0].problem.sizes();
        assert_eq!((sizes.pad_h, sizes.r, sizes.stride_w, sizes.p), (1, 3, 2, 3));
    }

    #[test]
    fn columns_that_may_be_missing() {
        let header = "pad_w,groups,name,N,C,H,W,K,kernel,kernel_w,stride,pad,dilation\n";
        let layers = parse(format!("{header}4,2,a,1,4,20,30,6,1,3,1,0,2\n").as_bytes(), None).unwrap();
        let sizes = layers[0].problem.sizes();
        assert_eq!((sizes.r, sizes.s, sizes.pad_h, sizes.pad_w), (1, 3, 0, 4));
        assert_eq!((sizes.groups, sizes.dilation_h, sizes.dilation_w), (2, 2, 2));
        assert_eq!((sizes.p, sizes.q), (20, 34));
        let refused = parse(format!("{header}4,3,a,1,4,20,30,6,1,3,1,0,2\n").as_bytes(), None).unwrap_err();
        assert_eq!(refused, "line 2, column groups: 3; expected a divisor of c = 4 and of k = 6");
        let refused = parse(format!("{header}4,2,a,1,4,20,30,6,1,3,1,0,0\n").as_bytes(), None).unwrap_err();
        assert!(refused.starts_with("line 2, column dilation: 0;"), "{refused}");
    }

    #[test]
    fn bad_rows_name_line_and_column() {
        let good = "a,1,3,8,8,4,3,1,1\n";
        assert_eq!(
            refused(&format!("{good}b,1,3,8,8,4,x,1,1\n")),
            "line 3, column kernel: \"x\" is not a whole number"
        );
        assert_eq!(refused("b,1,3,8,8,4,3,0,1\n"), "line 2, column stride: 0; expected 1 to 2147483647");
        assert_eq!(refused("b,-1,3,8,8,4,3,1,1\n"), "line 2, column N: -1; expected 0 to 2147483647");
        assert!(
            refused("b,1,3,8,8,4,9,1,0\n")
                .starts_with("line 2, column kernel: 9; expected a kernel no larger")
        );
        assert_eq!(refused(&format!("{good}{good}")), "line 3, column name: \"a\" is not unique");
        assert_eq!(refused(",1,3,8,8,4,3,1,1\n"), "line 2, column name: empty");
        assert!(refused("b,1,3,8,8,4,3,1\n").contains("line: 2"), "{}", refused("b,1,3,8,8,4,3,1\n"));
        assert!(
            refused("b,2147483647,2147483647,8,8,4,3,1,1\n").starts_with("line 2, input size n*c*h*w is")
        );
        assert_eq!(refused(""), "has no rows");
    }

    #[test]
    fn bad_headers_name_the_column() {
        let refused = |text: &str| parse(text.as_bytes(), None).unwrap_err();
        assert_eq!(refused("name,N,C,H,W,K,kernel,stride\n"), "line 1, column pad: missing");
        assert!(
            refused("name,N,C,H,W,K,kernel,stride,padding\n")
                .starts_with("line 1, column \"padding\": no such")
        );
        assert_eq!(refused("name,N,C,H,W,K,kernel,stride,pad,pad\n"), "line 1, column pad: appears twice");
        assert_eq!(refused(""), "line 1, column name: missing");
    }
}
