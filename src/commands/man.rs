//! `__man`: the manual pages, for packages. Not in the program that is shipped: build with `--features man`.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{Cli, ManPages};
use crate::exit::Failure;

/// Writes one page for the program and one for each of its commands.
pub fn write(arguments: &ManPages) -> Result<(), Failure> {
    let directory = &arguments.directory;
    write_in(directory)
        .map_err(|error| Failure::new(format!("write manual pages to {}: {error}", directory.display())))
}

fn write_in(directory: &Path) -> io::Result<()> {
    let mut program = Cli::command();
    program.build();
    let commands: Vec<_> = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .cloned()
        .collect();
    let names: Vec<_> = commands.iter().map(name).collect();
    let own = name(&program);
    page(directory, program, &names)?;
    commands
        .into_iter()
        .try_for_each(|command| page(directory, command, std::slice::from_ref(&own)))
}

/// `kata-runtime`, or `kata-runtime-list`.
fn name(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned()
}

fn page(directory: &Path, command: Command, see_also: &[String]) -> io::Result<()> {
    let file = directory.join(format!("{}.1", name(&command)));
    let after = command.get_after_long_help().map(ToString::to_string);
    // What follows the options is laid out by hand, and clap_mangen would fill its lines.
    let has_commands = command.get_subcommands().any(|command| !command.is_hide_set());
    let man = Man::new(command.after_help("").after_long_help(""))
        .manual("User Commands")
        .source(concat!("kata-runtime ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    for part in after.iter().flat_map(|after| after.split("\n\n")) {
        match part.split_once(":\n") {
            Some((heading, lines)) => verbatim(&mut roff, &heading.to_uppercase(), lines),
            None => verbatim(&mut roff, "NOTES", part),
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    for (index, name) in see_also.iter().enumerate() {
        let end = if index + 1 == see_also.len() {
            "(1)"
        } else {
            "(1), "
        };
        roff.text([bold(name), roman(end)]);
    }
    roff.to_writer(&mut text)?;
    fs::write(file, text)
}

/// A section whose lines stay as they are.
fn verbatim(roff: &mut Roff, heading: &str, text: &str) {
    roff.control("SH", [heading]).control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}
