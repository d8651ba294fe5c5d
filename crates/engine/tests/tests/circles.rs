//! No circles between source files: a file must not use another file that uses it in turn, directly or through others.
//!
//! The scanner reads `use` items and paths in the code, and resolves each name to the file that defines it, through the
//! re-exports of other files. Files without definitions (a `mod.rs` that only re-exports) and test modules do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The crates of the workspace that are checked.
const CRATES: [&str; 13] = [
    "data",
    "shaping",
    "engine",
    "decoding",
    "http",
    "hub",
    "remote",
    "registry",
    "learning",
    "evaluation",
    "experiment",
    "server",
    "cli",
];

#[test]
fn no_file_depends_on_itself() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in CRATES {
        let mut sources = BTreeMap::new();
        read(&crates.join(name).join("src"), "", &mut sources);
        assert!(sources.contains_key("lib.rs") || sources.contains_key("main.rs"), "{name}");
        let circles = circles(&sources);
        assert!(circles.is_empty(), "circles in the crate {name}:\n{}", circles.join("\n"));
    }
}

/// Reads all `.rs` files below a folder, by their paths relative to it.
fn read(folder: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), sources);
        } else if path.ends_with(".rs") {
            sources.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// A source file, which is a module of the crate.
#[derive(Debug, Default)]
struct File {
    /// Path of the module, without `crate`.
    module: Vec<String>,
    /// Names of child modules in files of their own.
    children: BTreeSet<String>,
    /// Imported names with the paths that they stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of glob imports.
    globs: BTreeSet<Vec<String>>,
    /// Imports and other paths that make this file depend on others.
    paths: Vec<Vec<String>>,
    /// Whether the file has items other than `mod` and `use`.
    defines: bool,
}

/// Describes each circle among the files of a crate, given by their paths.
fn circles(sources: &BTreeMap<String, String>) -> Vec<String> {
    let files: BTreeMap<&str, File> =
        sources.iter().map(|(path, text)| (path.as_str(), File::parse(path, text))).collect();
    let by_module: BTreeMap<&[String], &str> =
        files.iter().map(|(path, file)| (file.module.as_slice(), *path)).collect();
    let tree = Tree { files: &files, by_module };

    // Names by the file that uses them and the file that defines them.
    let mut edges: BTreeMap<&str, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    for (path, file) in files.iter().filter(|(path, file)| file.defines && tree.is_declared(path)) {
        for names in &file.paths {
            if let Some(to) = tree.resolve(path, names, 0).map(|found| found.file)
                && to != *path
                && files[to].defines
            {
                let name = names.iter().filter(|name| !["crate", "self", "super"].contains(&&***name));
                let name = name.cloned().collect::<Vec<_>>().join("::");
                edges.entry(path).or_default().entry(to).or_default().insert(name);
            }
        }
    }
    let reachable: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|path| (*path, reachable(path, &edges))).collect();
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for (path, reached) in reachable.iter().filter(|(path, reached)| reached.contains(*path)) {
        let circle: BTreeSet<&str> = reached
            .iter()
            .copied()
            .filter(|other| reachable.get(other).is_some_and(|r| r.contains(path)))
            .collect();
        if done.is_disjoint(&circle) {
            let mut lines = Vec::new();
            for from in &circle {
                for (to, names) in edges[from].iter().filter(|(to, _)| circle.contains(*to)) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    lines.push(format!("  {from} uses {to}: {}", names.join(", ")));
                }
            }
            found.push(lines.join("\n"));
        }
        done.extend(circle);
    }
    found
}

fn reachable<'a>(
    from: &str,
    edges: &BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>,
) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(path) = open.pop() {
        for to in edges.get(path).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}

struct Tree<'a> {
    files: &'a BTreeMap<&'a str, File>,
    by_module: BTreeMap<&'a [String], &'a str>,
}

/// The end of a path: a file, and whether the path names the file's module itself.
struct Found<'a> {
    file: &'a str,
    is_module: bool,
}

impl<'a> Tree<'a> {
    /// Whether the file is part of the crate outside of tests: its parent declares it.
    fn is_declared(&self, path: &str) -> bool {
        let module = &self.files[path].module;
        let Some((name, parent)) = module.split_last() else { return true };
        let parent = self.by_module.get(parent);
        parent
            .is_some_and(|parent| self.files[parent].children.contains(name) && self.is_declared(parent))
    }

    /// The file that defines what a path in a file names; `None` for names of other crates.
    fn resolve(&self, from: &str, path: &[String], depth: usize) -> Option<Found<'a>> {
        let (first, rest) = path.split_first()?;
        let module = &self.files[from].module;
        let start = match first.as_str() {
            "crate" => *self.by_module.get(&[][..])?,
            "self" => *self.by_module.get(module.as_slice())?,
            "super" => *self.by_module.get(module.split_last()?.1)?,
            _ => return self.member(self.by_module.get(module.as_slice())?, path, true, depth),
        };
        match rest.first() {
            None => Some(Found { file: start, is_module: true }),
            Some(next) if next == "super" => self.resolve(start, rest, depth),
            Some(_) => self.member(start, rest, false, depth),
        }
    }

    /// The file that defines a path inside a module. A path that is `relative` may also begin with another crate.
    fn member(&self, file: &'a str, path: &[String], relative: bool, depth: usize) -> Option<Found<'a>> {
        let (first, rest) = path.split_first()?;
        let here = &self.files[file];
        let inside = |found: Found<'a>| match rest.is_empty() || !found.is_module {
            true => Some(found),
            false => self.member(found.file, rest, false, depth),
        };
        if here.children.contains(first) {
            let module: Vec<String> = here.module.iter().chain([first]).cloned().collect();
            let file = *self.by_module.get(module.as_slice())?;
            return inside(Found { file, is_module: true });
        }
        if depth > 8 {
            return None;
        }
        if let Some(target) = here.imports.get(first).filter(|target| target[..] != [first.clone()]) {
            // An import from another crate has no file here.
            return inside(self.resolve(file, target, depth + 1)?);
        }
        // Imports of whole modules are followed a few times only, as their own paths may begin with a name of another.
        for glob in here.globs.iter().filter(|_| depth < 3) {
            if let Some(found) =
                self.resolve(file, glob, depth + 1).filter(|found| found.is_module && found.file != file)
                && self.files[found.file].knows(first)
            {
                return self.member(found.file, path, false, depth + 1);
            }
        }
        (!relative).then_some(Found { file, is_module: false })
    }
}

impl File {
    fn parse(path: &str, text: &str) -> Self {
        let mut module: Vec<String> =
            path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
            module.pop();
        }
        let is_root = path.ends_with("mod.rs") || ["lib.rs", "main.rs"].contains(&path);
        let mut file = Self { module, ..Self::default() };
        let tokens = without_tests(&tokens(text));
        let (mut i, mut is_public) = (0, false);
        while i < tokens.len() {
            let next = |offset: usize| tokens.get(i + offset).map_or("", String::as_str);
            match next(0) {
                "#" => {
                    // An attribute.
                    i += 1 + usize::from(next(1) == "!");
                    i = end_of_block(&tokens, i);
                    continue;
                }
                "pub" => {
                    is_public = true;
                    i += 1;
                    if tokens.get(i).is_some_and(|token| token == "(") {
                        i = end_of_block(&tokens, i);
                    }
                    continue;
                }
                "mod" if next(2) == ";" => {
                    file.children.insert(next(1).to_owned());
                    i += 3;
                }
                "use" => {
                    let end = i + tokens[i..].iter().position(|token| token == ";").unwrap_or(0);
                    // The re-exports of a root of modules do not make it depend on the modules.
                    file.import(&tokens[i + 1..end], is_public && is_root);
                    i = end + 1;
                }
                first => {
                    file.defines = true;
                    let mut end = i + 1;
                    let mut names = vec![first.to_owned()];
                    while is_name(first)
                        && tokens.get(end).is_some_and(|token| token == "::")
                        && tokens.get(end + 1).is_some_and(|name| is_name(name))
                    {
                        names.push(tokens[end + 1].clone());
                        end += 2;
                    }
                    if names.len() > 1 {
                        file.paths.push(names);
                    }
                    i = end;
                }
            }
            is_public = false;
        }
        file
    }

    /// Records a `use` item.
    fn import(&mut self, tokens: &[String], is_reexport: bool) {
        for (name, path) in use_tree(tokens, &[]) {
            if name == "*" {
                self.globs.insert(path.clone());
            } else {
                self.imports.insert(name, path.clone());
            }
            if !is_reexport {
                self.paths.push(path);
            }
        }
    }

    /// Whether the file re-exports a name or has a module of this name.
    fn knows(&self, name: &str) -> bool {
        self.children.contains(name) || self.imports.contains_key(name)
    }
}

/// The names that a use tree imports, with their paths. Glob imports have the name `*`.
fn use_tree(tokens: &[String], prefix: &[String]) -> Vec<(String, Vec<String>)> {
    let mut path = prefix.to_vec();
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "::" => {}
            "*" => return vec![("*".to_owned(), path)],
            "as" => return vec![(tokens[i + 1].clone(), path)],
            "{" => {
                let inner = &tokens[i + 1..end_of_block(tokens, i) - 1];
                let mut found = Vec::new();
                let (mut start, mut depth) = (0, 0);
                for (at, token) in inner.iter().map(String::as_str).chain([","]).enumerate() {
                    match token {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        "," if depth == 0 => {
                            found.extend(use_tree(&inner[start..at], &path));
                            start = at + 1;
                        }
                        _ => {}
                    }
                }
                return found;
            }
            // `a::{self}` is `a`.
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        i += 1;
    }
    if path.len() == prefix.len() && tokens.is_empty() {
        return Vec::new();
    }
    path.last().cloned().map(|name| (name, path)).into_iter().collect()
}

/// The tokens without items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if !tokens[i..].iter().take(TEST.len()).eq(TEST.iter()) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        i += TEST.len();
        // The item ends with the first `;` or block outside of attributes.
        while i < tokens.len() {
            match tokens[i].as_str() {
                ";" => break,
                "{" => {
                    i = end_of_block(tokens, i) - 1;
                    break;
                }
                "(" | "[" => i = end_of_block(tokens, i),
                _ => i += 1,
            }
        }
        i += 1;
    }
    kept
}

/// The index behind the block that the bracket at `i` opens.
fn end_of_block(tokens: &[String], i: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(i) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a source text: names, `::` and single characters. Comments, literals and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let starts = |i: usize, with: &str| with.chars().enumerate().all(|(offset, c)| at(i + offset) == c);
    let (mut tokens, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        if starts(i, "//") {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if starts(i, "/*") {
            let mut depth = 0;
            loop {
                match () {
                    () if starts(i, "/*") => (depth, i) = (depth + 1, i + 2),
                    () if starts(i, "*/") => (depth, i) = (depth - 1, i + 2),
                    () => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' {
            // A character, or else a lifetime.
            if at(i + 1) == '\\' {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            } else if at(i + 2) == '\'' {
                i += 3;
            } else {
                i += 1;
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
            }
        } else if at(i).is_alphanumeric() || at(i) == '_' {
            let start = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            let hashes = (i..).take_while(|&i| at(i) == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && at(i + hashes) == '"' {
                // A raw string.
                let end = format!("\"{}", "#".repeat(hashes));
                i += hashes + 1;
                while i < chars.len() && !starts(i, &end) {
                    i += 1;
                }
                i += end.len();
            } else {
                tokens.push(word);
            }
        } else if starts(i, "::") {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !at(i).is_whitespace() {
                tokens.push(at(i).to_string());
            }
            i += 1;
        }
    }
    tokens
}

fn made_up(files: &[(&str, &str)]) -> Vec<String> {
    circles(&files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

#[test]
fn circles_are_found_through_reexports() {
    let found = made_up(&[
        ("lib.rs", "mod a;\nmod shapes;\npub use a::A;\npub use shapes::Square;"),
        (
            "a.rs",
            "use std::{\n    fmt,\n};\nuse crate::{\n    shapes::{self as forms, Circle},\n};\npub struct A(Circle);",
        ),
        (
            "shapes/mod.rs",
            "mod circle;\nmod square;\npub use circle::Circle;\npub(crate) use square::Square;",
        ),
        ("shapes/circle.rs", "pub struct Circle;\nfn f() { super::Square::new() }"),
        ("shapes/square.rs", "use super::super::A;\npub struct Square(Option<Box<A>>);"),
    ]);
    assert_eq!(
        found,
        ["  a.rs uses shapes/circle.rs: shapes::Circle\n  \
          shapes/circle.rs uses shapes/square.rs: Square::new\n  \
          shapes/square.rs uses a.rs: A"]
    );
}

#[test]
fn circles_are_found_through_modules_and_globs() {
    let found = made_up(&[
        ("main.rs", "mod a; mod b; fn main() { a::run() } struct Cli;"),
        ("a.rs", "use crate::b;\npub fn run() { b::go() }\npub struct A;"),
        ("b/mod.rs", "mod c;\npub use c::*;\nfn go() { c::go() }"),
        ("b/c.rs", "fn go() -> crate::a::A {}"),
        ("d.rs", "use crate::a;"),
    ]);
    assert_eq!(
        found,
        ["  a.rs uses b/mod.rs: b, b::go\n  b/c.rs uses a.rs: a::A\n  b/mod.rs uses b/c.rs: c::go"]
    );
    let found = made_up(&[
        ("main.rs", "mod a; fn main() { a::run() } struct Cli;"),
        ("a.rs", "pub fn run() -> super::Cli {}"),
    ]);
    assert_eq!(found, ["  a.rs uses main.rs: Cli\n  main.rs uses a.rs: a::run"]);
}

#[test]
fn comments_strings_and_tests_make_no_circle() {
    let found = made_up(&[
        ("lib.rs", "//! [`crate::a::A`]\nmod a;\nmod b;\npub use {a::A, b::B};"),
        ("a.rs", "use crate::B;\npub struct A(B);"),
        (
            "b.rs",
            "/// As [`crate::A`].\npub struct B;\n/* crate::A */ const C: &str = r#\"\" crate::A\"#;\nconst D: char = '\"';\n\
             #[cfg(test)]\nmod tests {\n    use crate::A;\n    fn f() { super::super::A::new() }\n}\n#[cfg(test)]\nmod more;",
        ),
        ("b/more.rs", "use crate::A;\nfn f() {}"),
    ]);
    assert_eq!(found, [""; 0]);
}
