//! What keys do.

use super::keys::Key;
use super::tree::BY_NAME;
use crate::show::fields;

/// What keys mean at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Watch,
    /// A filter is being typed.
    Filter,
    Help,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Quit,
    Suspend,
    Redraw,
    /// By this many lines: down, or up if negative.
    Move(isize),
    Page(isize),
    First,
    Last,
    /// Folds or unfolds a pod.
    Fold,
    Collapse,
    Expand,
    FoldAll,
    /// By the field with this key, or by the name.
    Sort(char),
    Reverse,
    Pause,
    Details,
    Help,
    Filter,
    Type(char),
    Erase,
    /// Back to watching, with the filter.
    Leave,
    /// Back to watching, without the filter.
    Clear,
}

/// What a key does in a mode.
pub fn action(mode: Mode, key: Key) -> Option<Action> {
    let action = match (mode, key) {
        (_, Key::Control('c')) => Action::Quit,
        (_, Key::Control('z')) => Action::Suspend,
        (_, Key::Control('l')) => Action::Redraw,
        (Mode::Help, _) => Action::Leave,
        (_, Key::Up) => Action::Move(-1),
        (_, Key::Down) => Action::Move(1),
        (_, Key::PageUp) => Action::Page(-1),
        (_, Key::PageDown) => Action::Page(1),
        (Mode::Filter, key) => match key {
            Key::Enter => Action::Leave,
            Key::Escape => Action::Clear,
            Key::Backspace => Action::Erase,
            Key::Char(character) => Action::Type(character),
            _ => return None,
        },
        (Mode::Watch, key) => return watch(key),
    };
    Some(action)
}

fn watch(key: Key) -> Option<Action> {
    Some(match key {
        Key::Char('q') => Action::Quit,
        Key::Char('k') => Action::Move(-1),
        Key::Char('j') => Action::Move(1),
        Key::Home | Key::Char('g') => Action::First,
        Key::End | Key::Char('G') => Action::Last,
        Key::Enter => Action::Fold,
        Key::Left => Action::Collapse,
        Key::Right => Action::Expand,
        Key::Char('f') => Action::FoldAll,
        Key::Char('r') => Action::Reverse,
        Key::Char(' ') => Action::Pause,
        Key::Char('d') => Action::Details,
        Key::Char('?' | 'h') => Action::Help,
        Key::Char('/') => Action::Filter,
        Key::Escape => Action::Clear,
        Key::Char(key) if key == BY_NAME || fields::sorted_by(key).is_some() => Action::Sort(key),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_sort_do_nothing_else() {
        let sorting: Vec<char> = fields::TOP
            .iter()
            .filter_map(|field| Some(field.top?.sort?.key))
            .chain([BY_NAME])
            .collect();
        assert_eq!(sorting, ['c', 'm', 'n', 'b', 'p', 'a']);
        for key in sorting {
            assert_eq!(action(Mode::Watch, Key::Char(key)), Some(Action::Sort(key)));
        }
        assert_eq!(action(Mode::Watch, Key::Char('x')), None);
    }

    #[test]
    fn while_a_filter_is_typed_letters_are_letters() {
        assert_eq!(action(Mode::Watch, Key::Char('q')), Some(Action::Quit));
        assert_eq!(action(Mode::Filter, Key::Char('q')), Some(Action::Type('q')));
        assert_eq!(action(Mode::Filter, Key::Escape), Some(Action::Clear));
        assert_eq!(action(Mode::Filter, Key::Down), Some(Action::Move(1)));
        assert_eq!(action(Mode::Help, Key::Char('q')), Some(Action::Leave));
        for mode in [Mode::Watch, Mode::Filter, Mode::Help] {
            assert_eq!(action(mode, Key::Control('c')), Some(Action::Quit));
        }
    }
}
