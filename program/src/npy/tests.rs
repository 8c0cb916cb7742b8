use sparkle::problem::exact::Random;

use super::*;

/// A file with exactly the header `dict`.
fn with_header(version: u8, dict: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((dict.len() as u16).to_le_bytes()),
        _ => bytes.extend((dict.len() as u32).to_le_bytes()),
    }
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    bytes
}

fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    with_header(1, &dict, data)
}

/// Parses a file of known length, and the same bytes from a pipe. Both have the same outcome.
fn parse(bytes: &[u8]) -> Result<Array, String> {
    let known = super::parse(bytes, Some(bytes.len() as u64)).map_err(|failure| failure.to_string());
    let piped = super::parse(Dripping(bytes, 0), None).map_err(|failure| failure.to_string());
    match (&known, &piped) {
        (Ok(known), Ok(piped)) => assert_eq!(bits(known), bits(piped)),
        _ => assert_eq!(known.as_ref().err(), piped.as_ref().err()),
    }
    known
}

fn bits(array: &Array) -> (Vec<usize>, Vec<u32>) {
    (array.shape.clone(), array.data.iter().map(|value| value.to_bits()).collect())
}

/// Returns a few bytes per read, and is interrupted before every other read.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1 % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let some = self.0.len().min(buffer.len()).min(1 + self.1 % 7);
        buffer[..some].copy_from_slice(&self.0[..some]);
        self.0 = &self.0[some..];
        Ok(some)
    }
}

fn bytes<const SIZE: usize>(values: &[f32], encode: fn(f32) -> [u8; SIZE]) -> Vec<u8> {
    values.iter().flat_map(|&value| encode(value)).collect()
}

#[test]
fn what_was_written_is_read() {
    let array =
        Array { shape: vec![2, 1, 3], data: vec![1.0, -2.5, f32::MAX, -0.0, 1e-40, f32::NEG_INFINITY] };
    let long = Array { shape: vec![3, CHUNK], data: Random::new(1).reals(3 * CHUNK) };
    let empty = Array { shape: vec![0, 4], data: vec![] };
    let scalar = Array { shape: vec![], data: vec![7.0] };
    for array in [array, long, empty, scalar] {
        let mut bytes = vec![];
        write(&mut bytes, &array.shape, &array.data).unwrap();
        assert_eq!(parse(&bytes).unwrap(), array);
        assert_eq!((bytes.len() - 4 * array.data.len()) % 64, 0, "elements begin at a multiple of 64");
    }
}

#[test]
fn every_encoding_gives_the_same_array() {
    let expected = Array { shape: vec![2, 3], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
    let c = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let fortran = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
    for (descr, order, data) in [
        ("'<f4'", "False", bytes(&c, f32::to_le_bytes)),
        ("'>f4'", "False", bytes(&c, f32::to_be_bytes)),
        ("'<f8'", "False", bytes(&c, |value| f64::from(value).to_le_bytes())),
        ("'>f8'", "False", bytes(&c, |value| f64::from(value).to_be_bytes())),
        ("'<f4'", "True", bytes(&fortran, f32::to_le_bytes)),
        ("'>f8'", "True", bytes(&fortran, |value| f64::from(value).to_be_bytes())),
    ] {
        assert_eq!(parse(&file(descr, order, "(2, 3)", &data)).unwrap(), expected, "{descr} {order}");
    }
}

/// NumPy 2.4 reads each of them as the same array.
#[test]
fn headers_that_numpy_reads() {
    let data = bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], f32::to_ne_bytes);
    let wide = bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], |value| f64::from(value).to_ne_bytes());
    let expected = Array { shape: vec![2, 3], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
    let mut dicts = vec![
        "{'descr': '=f4', 'fortran_order': False, 'shape': (2L, 3L), }".to_owned(),
        "{u'descr': u'f4', u'fortran_order': False, u'shape': (2, 3)}\n".to_owned(),
        "{\"shape\":(2,3,),\"fortran_order\":False,\"descr\":\"=f4\"}".to_owned(),
        " \t{ 'fortran_order' : False , # a note\n\n 'shape' : ( 0x2 , 1_2-9 ), }".replace("1_2-9", "+3"),
        "{'descr': '=' \"f4\", 'shape': (2, \\\n 3), 'fortran_order': (False)}   \n\n".to_owned(),
        "{'descr': '''=f4''', 'shape': (2, 3), 'fortran_order': True, 'fortran_order': False}".to_owned(),
        "{'de\\x73cr': r'=f4', 'shape': (2, 3), 'fortran_order': False}".to_owned(),
    ];
    dicts[3] = dicts[3].replace("{ ", "{ 'descr': 'float32', ");
    for name in ["=f4", "f4", "|f4", "float32", "f", "single", "=f", "f04"] {
        dicts.push(format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (2, 3), }}"));
    }
    for dict in &dicts {
        for version in [1, 2, 3] {
            let read = parse(&with_header(version, dict, &data));
            // Python 2, which wrote an L after some numbers, did not have version 3.
            let known = version < 3 || !dict.contains("2L");
            assert_eq!(read.as_ref().ok(), known.then_some(&expected), "{version} {dict}: {read:?}");
        }
    }
    for name in ["f8", "=f8", "|f8", "float64", "double", "float", "d"] {
        let dict = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (2, 3), }}");
        assert_eq!(parse(&with_header(1, &dict, &wide)).as_ref(), Ok(&expected), "{name}");
    }
}

#[test]
fn shapes_of_every_rank() {
    let data = bytes(&[1.0, 2.0], f32::to_ne_bytes);
    for (text, shape, len) in [
        ("()", vec![], 1),
        ("(2,)", vec![2], 2),
        ("(0,)", vec![0], 0),
        (
            "(0, 9223372036854775807, 9223372036854775807)",
            vec![0, isize::MAX as usize, isize::MAX as usize],
            0,
        ),
        ("(1, 1, 1, 1, 2)", vec![1, 1, 1, 1, 2], 2),
    ] {
        for order in ["False", "True"] {
            let array = parse(&file("'f4'", order, text, &data)).unwrap();
            assert_eq!((&array.shape, &array.data[..]), (&shape, &[1.0, 2.0][..len]), "{text}");
        }
    }
}

#[test]
fn fortran_order_of_four_sides() {
    let value = |i: [usize; 4]| (((i[0] * 3 + i[1]) * 4 + i[2]) * 5 + i[3]) as f32;
    let stored: Vec<f32> = (0..120).map(|at| value([at % 2, at / 2 % 3, at / 6 % 4, at / 24])).collect();
    let array = parse(&file("'f4'", "True", "(2, 3, 4, 5)", &bytes(&stored, f32::to_ne_bytes))).unwrap();
    assert_eq!(array.data, (0..120).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn numbers_keep_their_bits() {
    let odd = [f32::NAN.to_bits(), 0x7f80_0001, 0xffc0_1234, (-0.0f32).to_bits(), 1, f32::INFINITY.to_bits()];
    let data: Vec<u8> = odd.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(bits(&parse(&file("'<f4'", "False", "(6,)", &data)).unwrap()).1, odd);
    let wide = [f64::INFINITY, f64::NEG_INFINITY, -0.0, 1.0 + 2f64.powi(-25), 1e-310];
    let data: Vec<u8> = wide.iter().flat_map(|value| value.to_le_bytes()).collect();
    let read = parse(&file("'<f8'", "False", "(5,)", &data)).unwrap();
    assert_eq!(bits(&read).1, wide.map(|value| (value as f32).to_bits()));
}

#[test]
fn float16_and_integers_are_converted() {
    let read = |descr: &str, count: usize, data: &[u8]| {
        parse(&file(descr, "False", &format!("({count},)"), data)).unwrap().data
    };
    assert_eq!(
        read("'<f2'", 3, &[0x00, 0x3c, 0x01, 0x00, 0x00, 0xfc]),
        [1.0, 2f32.powi(-24), f32::NEG_INFINITY]
    );
    assert_eq!(read("'>f2'", 2, &[0x3c, 0x00, 0xc1, 0x00]), [1.0, -2.5]);
    assert_eq!(read("'|u1'", 3, &[0, 128, 255]), [0.0, 128.0, 255.0]);
    assert_eq!(read("'|i1'", 2, &[128, 255]), [-128.0, -1.0]);
    assert_eq!(read("'>i4'", 2, &[0, 0, 1, 2, 255, 255, 255, 254]), [258.0, -2.0]);
    assert_eq!(read("'<u8'", 1, &[255; 8]), [2f32.powi(64)]);
    let columns = file("'|u1'", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]);
    assert_eq!(parse(&columns).unwrap().data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn anything_else_is_refused_with_dtype_and_shape() {
    let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
    let message = refused(&file("'<c8'", "False", "(2, 3)", &[0; 48]));
    assert_eq!(message, "dtype '<c8', shape (2, 3); expected float16, float32, float64 or an integer type");
    let structured = refused(&file("[('a', '<f4'), ('b', '|S2')]", "False", "(1,)", &[0; 6]));
    assert_eq!(
        structured,
        "dtype [('a', '<f4'), ('b', '|S2')], shape (1,); expected float16, float32, float64 or an integer type"
    );
    for descr in
        ["'<c8'", "'|b1'", "'<f16'", "'|V4'", "('<f4', (2,))", "'(1,)f4'", "b'<f4'", "None", "7", "{'a': 1}"]
    {
        assert!(
            refused(&file(descr, "False", "(1,)", &[0; 16]))
                .contains("expected float16, float32, float64 or"),
            "{descr}"
        );
    }
    for descr in ["'|O'", "'O'", "'object'"] {
        assert!(
            refused(&file(descr, "False", "(1,)", &[0; 8])).contains("pickled Python objects are not read"),
            "{descr}"
        );
    }
    assert!(refused(&file("'<f4'", "False", "(2, 3)", &[0; 23])).ends_with("needs 24 bytes of data, has 23"));
    for (descr, big) in [("'<f8'", 1e300), ("'<f8'", -3.5e38)] {
        let message = refused(&file(descr, "False", "(2,)", &[0f64, big].map(f64::to_le_bytes).concat()));
        assert!(message.ends_with(&format!("element 1 is {big:e}, which float32 cannot hold")), "{message}");
    }
    let long = refused(&file(&format!("'{}'", "x".repeat(10_000)), "False", "(1,)", &[0; 4]));
    assert!(long.len() < 400 && long.contains("xxx..., shape (1,)"), "{long}");
}

#[test]
fn malformed_files_are_refused() {
    let good = file("'<f4'", "False", "(2, 3)", &[0; 24]);
    let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
    for length in 0..good.len() {
        refused(&good[..length]);
    }
    assert!(refused(b"PK\x03\x04 an archive").starts_with("is an archive and not a .npy file"));
    assert_eq!(refused(b"1 2 3"), "is no .npy file");
    let mut later = good.clone();
    later[6] = 4;
    assert_eq!(refused(&later), "has version 4.0 of the .npy format; expected 1.0, 2.0 or 3.0");
    for sides in ["(4294967296, 4294967296, 4294967296)", "(9223372036854775807,)", "(2305843009213693952,)"]
    {
        assert!(
            refused(&file("'<f4'", "False", sides, &[0; 4])).contains("no array of reasonable size"),
            "{sides}"
        );
    }
    let mut endless = with_header(2, "{}", &[]);
    endless[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(&endless).contains("no array of reasonable size"));
    for (descr, order, shape) in [
        ("'<f4'", "Maybe", "(1,)"),
        ("'<f4'", "0", "(1,)"),
        ("'<f4'", "'False'", "(1,)"),
        ("'<f4'", "False", "[1]"),
        ("'<f4'", "False", "1"),
        ("'<f4'", "False", "(-1, 1)"),
        ("'<f4'", "False", "(1.0,)"),
        ("'<f4'", "False", "('1',)"),
        ("'<f4'", "False", "(True, 1)"),
        ("'<f4'", "False", "(9223372036854775808,)"),
        ("'<f4'", "False", "(1,), 'more': 1"),
        ("'<f4'", "False", "(1,), 7: 1"),
    ] {
        let message = refused(&file(descr, order, shape, &[0; 4]));
        assert!(message.starts_with("is no .npy file: "), "{order} {shape}: {message}");
    }
    assert!(
        refused(&with_header(1, "{'descr': '<f4', 'shape': (1,)}", &[0; 4]))
            .contains("lacks one of the entries")
    );
    assert!(refused(&with_header(1, "('descr', '<f4')", &[0; 4])).contains("no dictionary"));
    let mut latin = with_header(3, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } #?", &[0; 4]);
    let last = latin.len() - 5;
    latin[last] = 0xff;
    assert!(refused(&latin).contains("not UTF-8"));
    latin[6] = 1;
    latin.drain(10..12);
    assert_eq!(parse(&latin).unwrap().data, [0.0], "versions 1 and 2 are Latin-1");
}

/// Reading any header ends, with an error or with as many elements as the shape says.
#[test]
fn mutated_headers_are_read_or_refused() {
    const PIECES: [&[u8]; 22] = [
        b"(",
        b")",
        b"[",
        b"{",
        b"}",
        b"'",
        b"\"",
        b",",
        b":",
        b"\\",
        b"#",
        b"L",
        b"0",
        b"9",
        b"-",
        b"_",
        b"0x",
        b"u'",
        b"\n",
        b"\xff",
        b"\0",
        b"99999999999",
    ];
    let (mut random, mut read, mut refused) = (Random::new(7), 0, 0);
    for round in 0..30_000 {
        let descr = random.pick(&["'<f4'", "'>f8'", "u'f4'", "[('a', '<f4')]", "('f4', (2,))"]);
        let order = random.pick(&["True", "False"]);
        let shape = random.pick(&["(2, 3)", "(2L, 3L)", "()", "(0, 7)", "(4,)"]);
        let mut bytes = file(descr, order, shape, &[0; 48]);
        for _ in 0..random.between(0, 3) {
            let at = random.between(0, (bytes.len() as i64 - 49).max(1)) as usize;
            match random.between(0, 3) {
                0 => bytes[at] = random.bits() as u8,
                1 => drop(bytes.remove(at)),
                2 => drop(bytes.splice(at..at, random.pick(&PIECES).iter().copied())),
                _ => bytes.truncate(at.max(9)),
            }
        }
        // Mostly, the stated length is right.
        if round % 4 != 0 && bytes.len() > 58 {
            let length = (bytes.len() - 58) as u16;
            bytes[8..10].copy_from_slice(&length.to_le_bytes());
        }
        match super::parse(&bytes[..], Some(bytes.len() as u64)) {
            Ok(array) => {
                let count = array.shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side));
                let empty = array.shape.contains(&0);
                assert_eq!(array.data.len(), if empty { 0 } else { count.unwrap() });
                read += 1;
            }
            Err(failure) => {
                assert!(!failure.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(read > 3000 && refused > 3000, "{read} read, {refused} refused");
}
