//! Rules about what no file may name: the machine that it was written on, and registry hosts (which one
//! a machine uses is its own setting).

use super::{Finding, SourceFile};

/// Folders in the root of one machine. Written without their slash, so that this file passes.
const MACHINE_FOLDERS: [&str; 2] = ["work", "root"];

/// Words that give away a registry or mirror in the host of a URL.
const REGISTRY_WORDS: [&str; 7] = ["registry", "mirror", "proxy", "artifactory", "nexus", "index", "pypi"];

/// First labels of registry hosts, each of which occurs with some of the domains below.
const REGISTRY_LABELS: [&str; 8] = ["index", "static", "deb", "security", "snapshot", "ftp", "files", "archive"];

/// Domains of registries. Their other hosts (documentation) may be named.
const REGISTRY_DOMAINS: [&str; 5] = [".crates.io", ".debian.org", ".ubuntu.com", ".pythonhosted.org", ".rust-lang.org"];

/// Paths that exist on one machine only.
pub fn machine_paths(file: &SourceFile) -> Vec<Finding> {
    let find = |line: &str| {
        MACHINE_FOLDERS
            .iter()
            .find(|folder| has_rooted_path(line, folder))
            .map(|folder| format!("names the path /{folder}, which other machines do not have"))
    };
    find_lines(file, find)
}

/// Whether the line holds an absolute path that begins with this folder.
fn has_rooted_path(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}");
    line.match_indices(&path).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + path.len()..].chars().next();
        let continues = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        !before.is_some_and(|c| continues(c) || matches!(c, '.' | '/' | '}' | '*' | '~'))
            && !after.is_some_and(continues)
    })
}

/// Hosts of package registries.
pub fn registry_hosts(file: &SourceFile) -> Vec<Finding> {
    // The message does not repeat the host: it may come to lie in a log.
    let found = || "names the host of a package registry".to_owned();
    let find = |line: &str| {
        let host_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let mut words = line.split(|c| !host_like(c)).filter(|word| word.contains('.'));
        (words.any(is_registry_host) || url_hosts(line).any(has_registry_word)).then(found)
    };
    find_lines(file, find)
}

fn is_registry_host(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    REGISTRY_LABELS.contains(&label) && REGISTRY_DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// The hosts of all URLs in a line.
fn url_hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").map(|(start, separator)| {
        let rest = &line[start + separator.len()..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "._-@".contains(c)));
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn has_registry_word(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    REGISTRY_WORDS.iter().any(|word| host.contains(word))
}

fn find_lines(file: &SourceFile, find: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let lines = file.text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let message = find(line)?;
            Some(Finding { path: file.path.clone(), line: index + 1, message })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn paths_in(line: &str) -> usize {
        machine_paths(&sample("a.md", line)).len()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(paths_in(&format!("see /{folder}/main")), 1);
            assert_eq!(paths_in(&format!("\"/{folder}\"")), 1);
            assert_eq!(paths_in(&format!("cd /{folder}")), 1);
        }
    }

    #[test]
    fn words_that_only_look_alike_are_not() {
        for line in [
            "the work/root of a tree",
            "network/worker",
            "/workspace/a",
            "src/work/a",
            "https://example.org/root",
            "./root",
            "/rooted",
        ] {
            assert_eq!(paths_in(line), 0, "{line}");
        }
    }

    #[test]
    fn registry_hosts_are_found_with_and_without_a_scheme() {
        for (label, domain) in [("index", "crates.io"), ("deb", "debian.org")] {
            let line = format!("from {label}.{domain} it comes");
            assert_eq!(registry_hosts(&sample("a.md", &line)).len(), 1, "{line}");
        }
        let line = format!("https://{}.corp.example/crates", "mirror");
        assert_eq!(registry_hosts(&sample("Cargo.lock", &line)).len(), 1, "{line}");
    }

    #[test]
    fn the_lock_file_and_ordinary_links_pass() {
        for line in [
            "source = \"registry+https://github.com/rust-lang/crates.io-index\"",
            "published on crates.io, documented at https://doc.rust-lang.org/std",
            "see files.rs and index.html",
        ] {
            assert!(registry_hosts(&sample("a.md", line)).is_empty(), "{line}");
        }
    }
}
