//! Reading protobuf messages from untrusted senders.

use protobuf::{CodedInputStream, Message};

/// Reads a whole message. The library's own `parse_from_bytes` (3.7.2) takes an end of the bytes within a nested
/// message for that message's end, so that numbers which were cut off would pass for zeros: a limit prevents it.
pub(crate) fn parse<M: Message>(bytes: &[u8]) -> protobuf::Result<M> {
    let mut input = CodedInputStream::from_bytes(bytes);
    input.push_limit(bytes.len() as u64)?;
    let message = M::parse_from(&mut input)?;
    input.check_eof()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::api::{StateResponse, StatsResponse};
    use protobuf::MessageField;

    #[test]
    fn a_message_that_was_cut_off_anywhere_inside_a_field_is_an_error() {
        let mut reply = StatsResponse::new();
        let any = reply.stats.mut_or_insert_default();
        any.type_url = "io.containerd.cgroups.v1.Metrics".into();
        any.value = vec![7; 40];
        let bytes = reply.write_to_bytes().unwrap();
        assert_eq!(parse::<StatsResponse>(&bytes).unwrap(), reply);
        for length in 1..bytes.len() {
            assert!(parse::<StatsResponse>(&bytes[..length]).is_err(), "{length}");
        }
        let mut state = StateResponse::new();
        state.exited_at = MessageField::some(Default::default());
        assert_eq!(
            parse::<StateResponse>(&state.write_to_bytes().unwrap()).unwrap(),
            state
        );
    }
}
