//! The `sparkle` program.
fn main() {
    println!("{:?}", sparkle::devices());
}
