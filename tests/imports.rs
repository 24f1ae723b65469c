//! Imports point down: no file imports another that imports it back, directly or by a detour, and no command imports
//! another command. And a name means one type in each crate.

#![allow(clippy::restriction)] // A test may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The crates below the program.
const CRATES: [&str; 4] = ["exporter-web", "go-duration", "promtext", "shimstat"];

#[test]
fn no_files_import_each_other() {
    let circles: BTreeSet<_> = sources()
        .iter()
        .flat_map(|sources| Imports::read(sources).circles())
        .collect();
    assert!(circles.is_empty(), "files that import each other: {circles:#?}");
}

#[test]
fn no_command_imports_another() {
    let program = Imports::read(&root().join("src"));
    // `events`, of `commands::events::show`.
    let command = |module: &Module| match module.as_slice() {
        [commands, command, ..] if commands == "commands" => Some(command.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (from, targets) in &program.edges {
        for to in targets {
            if let (Some(one), Some(other)) = (command(from), command(to))
                && one != other
            {
                found.push(format!("{} imports {}", name(from), name(to)));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_types_name_is_used_once_in_a_crate() {
    // One of the two is compiled.
    const ALTERNATIVES: [&str; 1] = ["WebConfig"];
    for sources in sources() {
        let imports = Imports::read(&sources);
        let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (module, file) in &imports.files {
            for r#type in &file.types {
                homes.entry(r#type).or_default().push(name(module));
            }
        }
        homes.retain(|r#type, homes| homes.len() > 1 && !ALTERNATIVES.contains(r#type));
        assert!(homes.is_empty(), "{}: {homes:#?}", sources.display());
    }
}

#[test]
fn circles_are_found_through_re_exports_and_not_in_tests() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    write("lib.rs", "mod a;\nmod b;\nmod c;\npub use b::Two;\n");
    write("a/mod.rs", "mod inner;\npub use inner::One;\n");
    write("a/inner.rs", "pub struct One(crate::Two);\n");
    write(
        "b.rs",
        "use crate::a::{self, One as Uno};\npub struct Two(Vec<Uno>);\n",
    );
    write(
        "c.rs",
        "/// crate::a::One\nfn f() { println!(\"{:?}\", crate::a::One::new()) }\n#[cfg(test)]\nmod tests { use super::f; }\n",
    );
    let imports = Imports::read(dir.path());
    let expected = ["a::inner imports b", "b imports a::inner"].map(str::to_string);
    assert_eq!(imports.circles(), BTreeSet::from(expected));
    assert_eq!(
        imports.edges[&vec!["c".to_string()]],
        BTreeSet::from([vec!["a".to_string(), "inner".to_string()]])
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `src` directories of the program and of the crates.
fn sources() -> Vec<PathBuf> {
    let crates = CRATES.map(|name| root().join("crates").join(name).join("src"));
    crates.into_iter().chain([root().join("src")]).collect()
}

/// A module that has a file of its own, by its path in its crate; empty for the crate itself.
type Module = Vec<String>;

fn name(module: &Module) -> String {
    match module.as_slice() {
        [] => "the crate's root".to_string(),
        module => module.join("::"),
    }
}

/// A path as it is written, from the module that it is written in.
type Written = Vec<String>;

/// One file: what it brings into scope by name, and every path in it.
#[derive(Default)]
struct File {
    module: Module,
    names: BTreeMap<String, Written>,
    paths: BTreeSet<Written>,
    /// The types that it defines, outside of functions and inline modules.
    types: Vec<String>,
}

/// Which file of a crate imports which others. Tests are left out.
struct Imports {
    files: BTreeMap<Module, File>,
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    fn read(sources: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(sources, &Vec::new(), &mut files);
        assert!(!files.is_empty(), "no sources in {}", sources.display());
        let mut imports = Self {
            files,
            edges: BTreeMap::new(),
        };
        imports.edges = imports
            .files
            .values()
            .map(|file| {
                let targets = file.paths.iter().filter_map(|path| imports.target(file, path, 0));
                (
                    file.module.clone(),
                    targets.filter(|target| *target != file.module).collect(),
                )
            })
            .collect();
        imports
    }

    /// The file with the item that a path leads to, through re-exports; `None` for other crates' and for modules.
    fn target(&self, file: &File, path: &[String], depth: usize) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut module = file.module.clone();
        let mut rest = rest;
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while let Some((next, others)) = rest.split_first()
                    && next == "super"
                {
                    module.pop();
                    rest = others;
                }
            }
            name => {
                module.push(name.to_string());
                if !self.files.contains_key(&module) {
                    let written = file
                        .names
                        .get(name)
                        .filter(|written| *written != path && depth < 8)?;
                    let whole: Vec<_> = written.iter().chain(rest).cloned().collect();
                    return self.target(file, &whole, depth + 1);
                }
            }
        }
        while let Some((next, others)) = rest.split_first() {
            module.push(next.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                break;
            }
            rest = others;
        }
        let item = rest.first()?;
        let file = self.files.get(&module)?;
        match file.names.get(item) {
            Some(written) if depth < 8 => {
                let whole: Vec<_> = written.iter().chain(rest.iter().skip(1)).cloned().collect();
                self.target(file, &whole, depth + 1)
            }
            _ => Some(module),
        }
    }

    /// The imports that are part of a circle: `a imports b`, where b imports a, directly or by a detour.
    fn circles(&self) -> BTreeSet<String> {
        let edges = self
            .edges
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
        let circular = edges.filter(|(from, to)| self.reached(to).contains(from));
        circular
            .map(|(from, to)| format!("{} imports {}", name(from), name(to)))
            .collect()
    }

    fn reached<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(self.edges[module].iter().filter(|to| reached.insert(*to)));
        }
        reached
    }
}

fn collect(directory: &Path, module: &Module, files: &mut BTreeMap<Module, File>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if stem == "tests" || stem == "testdata" {
            continue;
        }
        let mut inner = module.clone();
        if path.is_dir() {
            inner.push(stem.to_string());
            collect(&path, &inner, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            if !matches!(stem, "lib" | "main" | "mod") {
                inner.push(stem.to_string());
            }
            let text = fs::read_to_string(&path).unwrap();
            let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let mut file = File {
                module: inner.clone(),
                types: types(&tokens),
                ..File::default()
            };
            file.read(tokens, 0);
            files.insert(inner, file);
        }
    }
}

impl File {
    /// Notes what code imports, and every path in it; `depth` inline modules are around it.
    fn read(&mut self, tokens: TokenStream, depth: usize) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            let here = rest;
            rest = after;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let is_for_tests = after
                        .first()
                        .is_some_and(|list| list.to_string().starts_with("[cfg (test"));
                    if is_for_tests {
                        // Without the item that it stands before.
                        let end = after.iter().position(|token| is_brace(token) || is(token, ';'));
                        rest = after.get(end.unwrap_or(after.len()) + 1..).unwrap_or_default();
                    }
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let end = after
                        .iter()
                        .position(|token| is(token, ';'))
                        .unwrap_or(after.len());
                    self.read_use(&after[..end], &Written::new());
                    rest = &after[end..];
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let Some(TokenTree::Group(body)) = after.get(1) {
                        self.read(body.stream(), depth + 1);
                        rest = &after[2..];
                    }
                }
                TokenTree::Ident(_) => {
                    let (path, after) = path(here);
                    // From an inline module, `super` leads to the file around it.
                    if path.len() > 1 && !(depth > 0 && path[0] == "super") {
                        self.paths.insert(path);
                    }
                    rest = after;
                }
                TokenTree::Group(group) => self.read(group.stream(), depth),
                _ => {}
            }
        }
    }

    /// Reads one tree of a `use`, or several separated by commas.
    fn read_use(&mut self, tokens: &[TokenTree], before: &Written) {
        for tree in tokens.split(|token| is(token, ',')) {
            let (own, rest) = path(tree);
            let mut whole: Written = before.iter().chain(&own).cloned().collect();
            if whole.last().is_some_and(|last| last == "self") && whole.len() > 1 {
                whole.pop();
            }
            match rest {
                [TokenTree::Group(group)] => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.read_use(&inner, &whole);
                    continue;
                }
                [TokenTree::Punct(_)] => whole.push("*".to_string()),
                [_as, TokenTree::Ident(name)] => {
                    self.names.insert(name.to_string(), whole.clone());
                }
                _ => {
                    if let Some(name) = whole.last() {
                        self.names.insert(name.clone(), whole.clone());
                    }
                }
            }
            self.paths.insert(whole);
        }
    }
}

fn types(file: &TokenStream) -> Vec<String> {
    let tokens: Vec<_> = file.clone().into_iter().collect();
    let definition = |pair: &[TokenTree]| match pair {
        [TokenTree::Ident(keyword), TokenTree::Ident(name)]
            if ["struct", "enum", "trait"].contains(&keyword.to_string().as_str()) =>
        {
            Some(name.to_string())
        }
        _ => None,
    };
    tokens.windows(2).filter_map(definition).collect()
}

/// The path that tokens begin with, `a::b::c`, and what comes after it and two colons.
fn path(mut tokens: &[TokenTree]) -> (Written, &[TokenTree]) {
    let mut path = Written::new();
    while let [TokenTree::Ident(ident), rest @ ..] = tokens {
        path.push(ident.to_string());
        tokens = match rest {
            [first, second, rest @ ..] if is(first, ':') && is(second, ':') => rest,
            _ => return (path, rest),
        };
    }
    (path, tokens)
}

fn is(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}
