//! Reading protobuf messages by the numbers of their fields, for services whose generated code would weigh more than
//! what is read of them: a guest's agent, a shim's sandbox service.
//!
//! Whoever sends them is untrusted. A message is read by a fixed list of its fields, so its depth is that of the list; whatever
//! else it carries is skipped. A message that was cut off anywhere is an error, because numbers that are missing would
//! pass for zeros.

use std::collections::BTreeMap;

use protobuf::CodedInputStream;
use protobuf::rt::{WireType, skip_field_for_tag};

/// The most elements of one list or map. A byte or two on the wire become a hundred in memory.
const MOST_ELEMENTS: usize = 4096;

/// Why bytes are not the message that they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Wire(#[from] protobuf::Error),
    #[error("a list of more than {MOST_ELEMENTS} elements")]
    TooMany,
}

pub(crate) type Result<T> = std::result::Result<T, MessageError>;

/// A message: what to do with each of its fields.
pub(crate) trait Message: Default {
    /// Reads the field of this number. `false`: there is no such field, or it is not sent like this.
    fn read_field(&mut self, number: u32, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool>;
}

/// The value of a field.
pub(crate) trait Field {
    /// Reads the value, or adds it to what is there. `false`: this type is not sent like this, and nothing was read.
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool>;
}

/// Defines messages by their fields' numbers, names and types.
macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($number:literal => $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$about])*
        #[derive(Debug, Default, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type),*
        }

        impl $crate::proto::Message for $name {
            fn read_field(
                &mut self,
                number: u32,
                wire: protobuf::rt::WireType,
                input: &mut protobuf::CodedInputStream<'_>,
            ) -> $crate::proto::Result<bool> {
                match number {
                    $($number => $crate::proto::Field::read(&mut self.$field, wire, input),)*
                    _ => Ok(false),
                }
            }
        }
    )*};
}
pub(crate) use messages;

/// Reads a whole message.
pub(crate) fn parse<M: Message>(bytes: &[u8]) -> Result<M> {
    let mut input = CodedInputStream::from_bytes(bytes);
    // Without it the reader takes the end of the bytes within a nested message for that message's end.
    input.push_limit(bytes.len() as u64)?;
    let mut message = M::default();
    fields(&mut message, &mut input)?;
    Ok(message)
}

/// Reads fields up to the limit that is set.
fn fields(message: &mut impl Message, input: &mut CodedInputStream<'_>) -> Result<()> {
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let known = match WireType::new(tag & 7) {
            Some(wire) => message.read_field(tag >> 3, wire, input)?,
            None => false,
        };
        if !known {
            skip_field_for_tag(tag, input)?;
        }
    }
    Ok(())
}

/// Reads what is inside a length-delimited value.
fn within<T>(
    input: &mut CodedInputStream<'_>,
    read: impl FnOnce(&mut CodedInputStream<'_>) -> Result<T>,
) -> Result<T> {
    let length = input.read_raw_varint64()?;
    let outer = input.push_limit(length)?;
    let value = read(input)?;
    input.pop_limit(outer);
    Ok(value)
}

fn push<T>(list: &mut Vec<T>, element: T) -> Result<()> {
    if list.len() >= MOST_ELEMENTS {
        return Err(MessageError::TooMany);
    }
    list.push(element);
    Ok(())
}

impl Field for u64 {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let fits = wire == WireType::Varint;
        if fits {
            *self = input.read_raw_varint64()?;
        }
        Ok(fits)
    }
}

impl Field for bool {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let mut number = 0;
        let fits = Field::read(&mut number, wire, input)?;
        if fits {
            *self = number != 0;
        }
        Ok(fits)
    }
}

impl Field for String {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let fits = wire == WireType::LengthDelimited;
        if fits {
            *self = input.read_string()?;
        }
        Ok(fits)
    }
}

impl<M: Message> Field for Option<M> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let fits = wire == WireType::LengthDelimited;
        if fits {
            let message = self.get_or_insert_default();
            within(input, |input| fields(message, input))?;
        }
        Ok(fits)
    }
}

impl<M: Message> Field for Vec<M> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let mut message = None;
        let fits = Field::read(&mut message, wire, input)?;
        if let Some(message) = message {
            push(self, message)?;
        }
        Ok(fits)
    }
}

impl Field for Vec<String> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let mut text = String::new();
        let fits = Field::read(&mut text, wire, input)?;
        if fits {
            push(self, text)?;
        }
        Ok(fits)
    }
}

impl Field for Vec<u8> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let fits = wire == WireType::LengthDelimited;
        if fits {
            *self = input.read_bytes()?;
        }
        Ok(fits)
    }
}

/// Packed or not: a reader has to take both.
impl Field for Vec<u64> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        match wire {
            WireType::Varint => push(self, input.read_raw_varint64()?)?,
            WireType::LengthDelimited => within(input, |input| {
                while !input.eof()? {
                    push(self, input.read_raw_varint64()?)?;
                }
                Ok(())
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// An entry of a map is a message of two fields.
#[derive(Default)]
struct Entry<V> {
    key: String,
    value: V,
}

impl<V: Field + Default> Message for Entry<V> {
    fn read_field(&mut self, number: u32, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        match number {
            1 => self.key.read(wire, input),
            2 => self.value.read(wire, input),
            _ => Ok(false),
        }
    }
}

impl<V: Field + Default> Field for BTreeMap<String, V> {
    fn read(&mut self, wire: WireType, input: &mut CodedInputStream<'_>) -> Result<bool> {
        let mut entry: Option<Entry<V>> = None;
        let fits = Field::read(&mut entry, wire, input)?;
        if let Some(entry) = entry {
            if self.len() >= MOST_ELEMENTS {
                return Err(MessageError::TooMany);
            }
            self.insert(entry.key, entry.value);
        }
        Ok(fits)
    }
}

/// A message whose field 1 is a text, and its only one.
pub(crate) fn text_message(text: &str) -> protobuf::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len().saturating_add(6));
    let mut output = protobuf::CodedOutputStream::vec(&mut bytes);
    output.write_string(1, text)?;
    output.flush()?;
    drop(output);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
