//! Benchmark suites: CSV files with one convolution a row.
//!
//! The columns are `name,N,C,H,W,K,kernel,stride,pad`, in any order; `kernel`, `stride` and `pad` hold for height and width.

use std::io::Read;
use std::path::Path;

use sparkle::{Conv2d, Conv2dDesc};

use crate::failure::Failure;

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

/// Reads a suite; `batch` replaces every N.
///
/// # Errors
/// Names the file, and the line and column if it was one.
pub fn read(path: &Path, batch: Option<i64>) -> Result<Vec<Layer>, Failure> {
    let at = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    parse(file, batch).map_err(at)
}

fn parse(file: impl Read, batch: Option<i64>) -> Result<Vec<Layer>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(file);
    let columns = columns(reader.headers().map_err(|error| error.to_string())?)?;
    let mut layers: Vec<Layer> = vec![];
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let layer = layer(&record, &columns, batch).map_err(|reason| format!("line {line}, {reason}"))?;
        if layers.iter().any(|other| other.name == layer.name) {
            return Err(format!("line {line}, column name: \"{}\" is there already", layer.name));
        }
        layers.push(layer);
    }
    if layers.is_empty() { Err("has no rows".to_owned()) } else { Ok(layers) }
}

/// Where each column is: `name` first, then [`SIZES`].
fn columns(headers: &csv::StringRecord) -> Result<[usize; 9], String> {
    let mut known = ["name"].into_iter().chain(SIZES);
    if let Some(unknown) = headers.iter().find(|header| !known.clone().any(|name| name == *header)) {
        return Err(format!(
            "line 1, column \"{unknown}\": no such column; expected name,{}",
            SIZES.join(",")
        ));
    }
    let mut columns = [0; 9];
    for column in &mut columns {
        let name = known.next().expect("as many names as columns");
        let mut found = (0..headers.len()).filter(|&index| &headers[index] == name);
        *column = found.next().ok_or_else(|| format!("line 1, column {name}: missing"))?;
        if found.next().is_some() {
            return Err(format!("line 1, column {name}: there twice"));
        }
    }
    Ok(columns)
}

fn layer(record: &csv::StringRecord, columns: &[usize; 9], batch: Option<i64>) -> Result<Layer, String> {
    let name = &record[columns[0]];
    if name.is_empty() {
        return Err("column name: empty".to_owned());
    }
    let mut sizes = [0i64; 8];
    for ((size, column), &index) in sizes.iter_mut().zip(SIZES).zip(&columns[1..]) {
        let text = &record[index];
        *size = text.parse().map_err(|_| format!("column {column}: \"{text}\" is no whole number"))?;
    }
    let [n, c, h, w, k, kernel, stride, pad] = sizes;
    let desc = Conv2dDesc {
        n: batch.unwrap_or(n),
        c,
        h,
        w,
        k,
        r: kernel,
        s: kernel,
        stride_h: stride,
        stride_w: stride,
        pad_h: pad,
        pad_w: pad,
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

/// The column an argument of the library comes from; none if it comes from several.
fn column_of(argument: &str) -> Option<&'static str> {
    match argument {
        "r" | "s" => Some("kernel"),
        "stride_h" | "stride_w" => Some("stride"),
        "pad_h" | "pad_w" => Some("pad"),
        _ => SIZES.into_iter().find(|column| column.eq_ignore_ascii_case(argument)),
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
    fn bad_rows_name_line_and_column() {
        let good = "a,1,3,8,8,4,3,1,1\n";
        assert_eq!(
            refused(&format!("{good}b,1,3,8,8,4,x,1,1\n")),
            "line 3, column kernel: \"x\" is no whole number"
        );
        assert_eq!(refused("b,1,3,8,8,4,3,0,1\n"), "line 2, column stride: 0; expected 1 to 2147483647");
        assert_eq!(refused("b,-1,3,8,8,4,3,1,1\n"), "line 2, column N: -1; expected 1 to 2147483647");
        assert!(
            refused("b,1,3,8,8,4,9,1,0\n")
                .starts_with("line 2, column kernel: 9; expected a kernel no larger")
        );
        assert_eq!(refused(&format!("{good}{good}")), "line 3, column name: \"a\" is there already");
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
        assert_eq!(refused("name,N,C,H,W,K,kernel,stride,pad,pad\n"), "line 1, column pad: there twice");
        assert_eq!(refused(""), "line 1, column name: missing");
    }
}
