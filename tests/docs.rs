//! Links between the project's pages lead to files and headings that exist. What `docs/kernel.md` shows is what the
//! compiler does.

use std::fs;
use std::path::{Path, PathBuf};

/// All pages in `folder` and below it.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "md"));
    here.chain(folders.iter().flat_map(|folder| pages(folder))).collect()
}

/// The anchors of a page's headings, as GitHub derives them.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    headings
        .map(|it| it.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

/// The targets of a page's links within the project.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|it| !it.contains(char::is_whitespace) && !it.starts_with("http"))
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page)).to_vec();
    all.extend(["docs", "benchmarks"].iter().flat_map(|folder| pages(&root.join(folder))));
    let mut followed = 0;
    for path in &all {
        let page = fs::read_to_string(path).unwrap();
        for link in links(&page) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, it)| (file, Some(it)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}: no such file", path.display());
            if let Some(anchor) = anchor {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(
                    there.iter().any(|it| it == anchor),
                    "{}: {link}: not among {there:?}",
                    path.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links in {} pages", all.len());
}

/// The page about the kernel language.
fn kernel_page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kernel.md")).unwrap()
}

#[test]
fn the_kernel_page_lists_every_message() {
    use sparkle::kernel::diagnostics::{Code, Severity};
    let page = kernel_page();
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| K")).collect();
    let rows = Code::ALL.iter().map(|code| {
        let severity = match code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("| {code} | {severity} | {} |", code.title())
    });
    assert_eq!(listed, rows.collect::<Vec<_>>());
}

#[test]
fn the_kernels_of_the_kernel_page_are_what_it_says() {
    use sparkle::kernel::{compile, diagnostics::render_all};
    let page = kernel_page();
    let (mut compiled, mut refused) = (0, 0);
    for rest in page.split("```fortran\n").skip(1) {
        let (source, after) = rest.split_once("```\n").unwrap();
        // An example of an error is followed by its message.
        let expected = after.trim_start().strip_prefix("```text\n").map(|it| it.split_once("```").unwrap().0);
        let found = compile(source.as_bytes()).unwrap();
        let messages = render_all(&found.diagnostics, "saxpy.f90", source.as_bytes()).unwrap();
        assert_eq!(messages, expected.unwrap_or_default(), "{source}");
        assert_eq!(found.unit.is_some(), expected.is_none(), "{source}");
        *if expected.is_some() { &mut refused } else { &mut compiled } += 1;
    }
    assert!(compiled >= 6 && refused == 1, "{compiled} compiled, {refused} refused");
}

/// Readers can run what the tutorial shows, and another test does.
#[test]
fn the_tutorial_shows_parts_of_the_examples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fortran/examples/kernels");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|it| it == "f90"));
    let examples: Vec<String> = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = kernel_page();
    let (_, rest) = page.split_once("\n## Tutorial\n").unwrap();
    let (tutorial, _) = rest.split_once("\n## ").unwrap();
    let mut count = 0;
    for opening in ["```fortran\n", "```f90\n"] {
        for rest in tutorial.split(opening).skip(1) {
            let (part, _) = rest.split_once("```\n").unwrap();
            assert!(examples.iter().any(|example| example.contains(part)), "{part}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count}");
}

#[test]
fn the_kernel_page_lists_every_limit() {
    let page = kernel_page();
    let tree = sparkle::kernel::tree::MAX_ARGUMENTS;
    assert!(page.contains(&format!("| {}; {tree} |", sparkle::kernel::tree::MAX_RANK)));
    assert!(page.contains(&format!("up to {}.", sparkle::kernel::diagnostics::MAX_DIAGNOSTICS)));
}
