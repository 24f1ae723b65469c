//! Shell completion. The shells' scripts (`kata-runtime completion <shell>`) call `kata-runtime __complete -- <words>`
//! and show its lines: each is a candidate and, after a tab, a description.
//!
//! Nothing here fails or waits: what is not known is not offered.

mod candidate;
mod node;

use clap::{Arg, Command};

pub use candidate::Candidate;
pub use node::OnNode;

/// The candidates for the last word; the others are the words before it, without the program's name. `on_node` tells what
/// is on the node that these words refer to.
pub fn candidates(
    words: &[String],
    program: &Command,
    on_node: impl FnOnce(&CommandLine) -> OnNode,
) -> Vec<Candidate> {
    let Some((current, before)) = words.split_last() else {
        return Vec::new();
    };
    let Some(line) = CommandLine::read(before, program) else {
        return Vec::new();
    };
    // bash splits words at the `=` of `--option=value`.
    let current = if current == "=" { "" } else { current.as_str() };
    let (fixed, typed, subject) = match (&line.awaits_value, current.split_once('=')) {
        (Some(option), _) => (String::new(), current, Some(*option)),
        (None, Some((name, value))) if name.starts_with("--") && !line.only_positionals => {
            match line.option(program, name).filter(|option| takes_value(option)) {
                Some(option) => (format!("{name}="), value, Some(option)),
                None => return Vec::new(),
            }
        }
        (None, _) if current.starts_with('-') && !line.only_positionals => {
            let options = line.options(program);
            return fitting(options.filter_map(long_option), current);
        }
        (None, _) => match line.subcommand {
            None => return fitting(subcommands(program), current),
            Some(subcommand) => (String::new(), current, subcommand.get_positionals().next()),
        },
    };
    let Some(subject) = subject else {
        return Vec::new();
    };
    let mut found = values(subject);
    if found.is_empty() {
        found = on_node(&line).values(subject.get_id().as_str(), typed);
    }
    fitting(found.into_iter(), typed)
        .into_iter()
        .map(|candidate| Candidate::new(format!("{fixed}{}", candidate.word), candidate.about))
        .collect()
}

/// What the words before the cursor say.
#[derive(Default)]
pub struct CommandLine<'a> {
    subcommand: Option<&'a Command>,
    /// The option whose value is at the cursor.
    awaits_value: Option<&'a Arg>,
    /// After a `--`.
    only_positionals: bool,
    /// The values of options by the options' ids.
    given: Vec<(&'a str, &'a str)>,
}

impl<'a> CommandLine<'a> {
    /// `None` if the subcommand is not ours: what follows it is for another program.
    fn read(words: &'a [String], program: &'a Command) -> Option<Self> {
        let mut line = Self::default();
        for word in words {
            if let Some(option) = line.awaits_value {
                if word != "=" {
                    line.given.push((option.get_id().as_str(), word));
                    line.awaits_value = None;
                }
            } else if line.only_positionals || !word.starts_with('-') || word == "-" {
                // Arguments after the subcommand do not change what can follow.
                if line.subcommand.is_none() {
                    line.subcommand = Some(program.find_subcommand(word)?);
                }
            } else if word == "--" {
                line.only_positionals = true;
            } else {
                line.read_option(word, program);
            }
        }
        Some(line)
    }

    fn read_option(&mut self, word: &'a str, program: &'a Command) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let Some(option) = self.option(program, name).filter(|option| takes_value(option)) else {
            return;
        };
        match value {
            Some(value) => self.given.push((option.get_id().as_str(), value)),
            None => self.awaits_value = Some(option),
        }
    }

    /// The options that the line can have: the subcommand's and those of every command.
    fn options(&self, program: &'a Command) -> impl Iterator<Item = &'a Arg> {
        self.subcommand
            .unwrap_or(program)
            .get_arguments()
            .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
    }

    /// The option with this name, `--long` or `-s`.
    fn option(&self, program: &'a Command, name: &str) -> Option<&'a Arg> {
        self.options(program)
            .find(|option| match (name.strip_prefix("--"), name.strip_prefix('-')) {
                (Some(long), _) => option.get_long() == Some(long),
                (None, Some(short)) => option
                    .get_short()
                    .is_some_and(|s| short.strip_prefix(s) == Some("")),
                (None, None) => false,
            })
    }

    /// The values that were given for an option.
    pub fn given(&self, id: &str) -> impl Iterator<Item = &'a str> {
        self.given
            .iter()
            .filter(move |(of, _)| *of == id)
            .map(|(_, value)| *value)
    }
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

fn long_option(option: &Arg) -> Option<Candidate> {
    Some(Candidate::new(
        format!("--{}", option.get_long()?),
        about(option.get_help()),
    ))
}

fn subcommands(program: &Command) -> impl Iterator<Item = Candidate> {
    program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| Candidate::new(command.get_name(), about(command.get_about())))
}

/// The values of an argument that takes one of a fixed set.
fn values(argument: &Arg) -> Vec<Candidate> {
    argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| Candidate::new(value.get_name(), about(value.get_help())))
        .collect()
}

/// A help's first line.
fn about(help: Option<&clap::builder::StyledStr>) -> String {
    let help = help.map(ToString::to_string).unwrap_or_default();
    help.lines().next().unwrap_or_default().to_string()
}

fn fitting(candidates: impl Iterator<Item = Candidate>, typed: &str) -> Vec<Candidate> {
    candidates
        .filter(|candidate| candidate.word.starts_with(typed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use shimstat::node::Node;

    use crate::cli::Cli;

    fn complete(words: &[&str]) -> Vec<String> {
        complete_on(words, &|_| {
            OnNode::of(&Node::new(vec!["/no/such/state".into()], None))
        })
    }

    fn complete_on(words: &[&str], on_node: &dyn Fn(&CommandLine) -> OnNode) -> Vec<String> {
        let words: Vec<_> = words.iter().map(|word| word.to_string()).collect();
        let found = candidates(&words, &program(), on_node);
        found.into_iter().map(|candidate| candidate.word).collect()
    }

    fn program() -> Command {
        let mut program = Cli::command();
        program.build();
        program
    }

    #[test]
    fn subcommands_options_and_values() {
        let all = complete(&[""]);
        assert!(all.contains(&"events".into()) && all.contains(&"completion".into()));
        assert!(!all.contains(&"__complete".into()), "it is not for people");
        assert_eq!(complete(&["ev"]), ["events"]);
        assert_eq!(complete(&["--time"]), ["--timeout"]);
        assert_eq!(complete(&["events", "--sta"]), ["--state", "--stats"]);
        let formats = ["pretty", "json", "table", "wide", "csv"];
        assert_eq!(complete(&["events", "--format", ""]), formats);
        assert_eq!(complete(&["events", "-o", ""]), formats);
        assert_eq!(complete(&["events", "--format", "j"]), ["json"]);
        assert_eq!(complete(&["events", "--format=j"]), ["--format=json"]);
        assert_eq!(complete(&["--timeout", "5s", "list", "--f"]), ["--format"]);
        assert_eq!(complete(&["completion", ""]), ["bash", "zsh", "fish"]);
    }

    #[test]
    fn bash_splits_at_the_equals_sign() {
        assert_eq!(complete(&["events", "--format", "=", "j"]), ["json"]);
        assert_eq!(
            complete(&["events", "--format", "="]),
            ["pretty", "json", "table", "wide", "csv"]
        );
        assert_eq!(
            complete(&["list", "--format", "=", "json", "--no"]),
            ["--no-trunc", "--no-headers"]
        );
    }

    #[test]
    fn nothing_is_offered_where_nothing_fits() {
        for words in [
            &[][..],
            &["check", ""],
            &["events", "--interval", ""],
            &["events", "--interval=1"],
            &["events", "--stats=x"],
            &["events", "--", "--format"],
            &["completion", "bash", "--form"],
            &["-x"],
        ] {
            assert!(complete(words).is_empty(), "{words:?}: {:?}", complete(words));
        }
    }

    #[test]
    fn the_line_says_which_node_is_meant() {
        for words in [
            &["--state", "/a", "events", "--state=/b", "-n", "k8s.io", "x"][..],
            &[
                "--state=/a",
                "-n",
                "k8s.io",
                "events",
                "--state",
                "/b",
                "--stats",
                "x",
            ],
            &[
                "--state",
                "=",
                "/a",
                "events",
                "--state",
                "=",
                "/b",
                "--namespace",
                "k8s.io",
                "x",
            ],
        ] {
            let seen = std::cell::RefCell::new(Vec::new());
            complete_on(words, &|line| {
                seen.borrow_mut()
                    .extend(line.given("state_dirs").map(str::to_string));
                seen.borrow_mut()
                    .extend(line.given("namespace").map(str::to_string));
                OnNode::of(&Node::new(vec!["/no/such/state".into()], None))
            });
            assert_eq!(*seen.borrow(), ["/a", "/b", "k8s.io"], "{words:?}");
        }
    }
}
