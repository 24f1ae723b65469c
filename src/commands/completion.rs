//! `completion`: the scripts for shells, and `__complete`, which they call.

use std::path::PathBuf;

use clap::CommandFactory;
use shimstat::node::{Id, Node};

use crate::cli::{Cli, Complete, Completion, Shell};
use crate::complete::{CommandLine, OnNode, candidates};
use crate::exit::Failure;
use crate::output;
use crate::show::text::escape;

/// Prints the script for a shell.
pub fn script(arguments: &Completion) -> Result<(), Failure> {
    output::answer(match arguments.shell {
        Shell::Bash => include_bytes!("../complete/kata-runtime.bash"),
        Shell::Zsh => include_bytes!("../complete/kata-runtime.zsh"),
        Shell::Fish => include_bytes!("../complete/kata-runtime.fish"),
    })
}

/// Prints the candidates for the word at the cursor, one per line, each with a tab and a description.
pub fn complete(arguments: &Complete) -> Result<(), Failure> {
    let mut program = Cli::command();
    program.build();
    let text: String = candidates(&arguments.words, &program, on_node)
        .iter()
        .map(|candidate| format!("{}\t{}\n", escape(&candidate.word), escape(&candidate.about)))
        .collect();
    output::answer(text.as_bytes())
}

/// The node that a line refers to, by its options.
fn on_node(line: &CommandLine) -> OnNode {
    let state_dirs = line.given("state_dirs").map(PathBuf::from).collect();
    let given = line.given("namespace").last().map(str::to_string);
    let namespace = given.or_else(|| std::env::var("CONTAINERD_NAMESPACE").ok());
    OnNode::of(&Node::new(
        state_dirs,
        namespace.filter(|namespace| Id::parse(namespace).is_ok()),
    ))
}
