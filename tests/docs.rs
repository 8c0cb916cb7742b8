//! Links between the project's pages lead to files and headings that exist.

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
