//! The README's tables list all commands and variables. Commands and variables that pages name exist.

mod program;

const README: &str = include_str!("../../README.md");

/// The first cells of the rows of the README's table whose header row begins with `head`.
fn first_cells(head: &str) -> Vec<&'static str> {
    let table = README.split(&format!("\n| {head} |")).nth(1).expect("README.md has that table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`')).collect()
}

/// The first word of each line under the `heading` of a help text.
fn listed<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
    let list = help.split(&format!("{heading}:\n")).nth(1).expect("that heading").lines();
    let entries = list.take_while(|line| !line.is_empty());
    entries.filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn the_tables_list_all_commands_and_variables() {
    let folder = program::folder();
    let help = program::sparkle(folder.path(), &["--help"]);
    let mut commands = listed(program::stdout(&help), "Commands");
    // Builds for users lack `patterns`.
    commands.retain(|command| *command != "help" && !(cfg!(feature = "patterns") && *command == "patterns"));
    commands.sort_unstable();
    assert!(commands.len() >= 10, "{commands:?}");
    let rows = first_cells("command");
    // A row may have several commands, or a command twice, with other arguments.
    let names = rows.iter().flat_map(|row| row.split("`, `"));
    let mut listed_here: Vec<&str> = names
        .map(|name| name.strip_prefix("sparkle ").expect("a command").split(' ').next().unwrap())
        .collect();
    listed_here.sort_unstable();
    listed_here.dedup();
    assert_eq!(listed_here, commands);
    // `sparkle info` lists every variable that is read. Foreign ones are mentioned in the rows of ours.
    let info = program::json(&program::sparkle(folder.path(), &["info", "--json"]));
    let names = info["environment"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    let (mut ours, others): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with("SPARKLE_"));
    ours.sort_unstable();
    let mut listed_here = first_cells("variable");
    listed_here.sort_unstable();
    assert_eq!(listed_here, ours);
    assert!(!others.is_empty() && others.iter().all(|name| README.contains(name)), "{others:?}");
}

/// The commands in a page's backquotes and code blocks: texts that begin with `sparkle`.
fn typed(page: &str) -> Vec<Vec<&str>> {
    let spans = page.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
    let lines = page.split("```").skip(1).step_by(2).flat_map(str::lines);
    spans
        .chain(lines)
        .filter_map(|text| text.trim().strip_prefix("sparkle "))
        .map(|text| text.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect())
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect()
}

/// The name of an option: `--json[=FILE]` is `--json`.
fn option_name(word: &str) -> &str {
    word.split(['[', '=']).next().unwrap_or(word)
}

#[test]
fn commands_that_pages_name_exist_with_their_options() {
    let (folder, root) = (program::folder(), program::root());
    let mut pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page)).to_vec();
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    let mut helps = std::collections::BTreeMap::new();
    let help_of =
        |helps: &mut std::collections::BTreeMap<String, String>, page: &std::path::Path, command: &[&str]| {
            let make = || {
                let output = program::sparkle(folder.path(), &[command, &["--help"]].concat());
                assert!(
                    output.status.success(),
                    "{}: there is no `sparkle {}`",
                    page.display(),
                    command.join(" ")
                );
                program::stdout(&output).to_owned()
            };
            helps.entry(command.join(" ")).or_insert_with(make).clone()
        };
    let (mut commands, mut options) = (0, 0);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for words in typed(&text) {
            // Only builds with the feature have it.
            if words[0] == "patterns" && !cfg!(feature = "patterns") {
                continue;
            }
            // A command, or a command and one of its own.
            let mut command = vec![words[0]];
            let mut help = help_of(&mut helps, &page, &command);
            let inner = words.get(1).filter(|word| word.chars().all(char::is_alphanumeric));
            if let Some(word) = inner.filter(|_| help.contains("\nCommands:")) {
                command.push(word);
                help = help_of(&mut helps, &page, &command);
            }
            let command = command.join(" ");
            let known: Vec<&str> = help.split_whitespace().map(option_name).collect();
            for option in words.iter().filter(|word| word.starts_with("--")).map(|word| option_name(word)) {
                assert!(known.contains(&option), "{}: `sparkle {command}` has no {option}", page.display());
                options += 1;
            }
            commands += 1;
        }
    }
    assert!(commands > 15 && options > 10 && helps.len() >= 10, "{commands} {options} {helps:?}");
}

/// The library knows all variables that pages and the header name.
#[test]
fn variables_that_pages_name_exist() {
    let (folder, root) = (program::folder(), program::root());
    let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "include/sparkle.h"];
    let mut pages = pages.map(|page| root.join(page)).to_vec();
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md" || ending == "h"));
    let header = std::fs::read_to_string(root.join("include/sparkle.h")).unwrap();
    // Constants of the header are no variables.
    let defined = |name: &str| {
        let ours = header.lines().filter(|line| !line.trim_start().starts_with("//"));
        ours.flat_map(|line| line.split(|it: char| !it.is_alphanumeric() && it != '_'))
            .any(|word| word == name)
    };
    let mut names = std::collections::BTreeSet::new();
    for page in pages {
        let text = std::fs::read_to_string(page).unwrap();
        for word in text.split(|it: char| !it.is_alphanumeric() && it != '_') {
            if word.starts_with("SPARKLE_") && !word.ends_with('_') && !defined(word) {
                names.insert(word.to_owned());
            }
        }
    }
    assert!(names.len() >= 9, "{names:?}");
    let mut command = program::program(folder.path());
    command.args(["info", "--json"]);
    command.envs(names.iter().map(|name| (name, "x")));
    let info = program::json(&command.output().unwrap());
    for ignored in info["ignored"].as_array().unwrap() {
        assert!(ignored["expected"].is_string(), "{ignored}");
    }
}
