use super::*;
use proptest::prelude::*;

use crate::guest::messages::{
    GuestDetailsResponse, HealthCheckResponse, Interfaces, Metrics, StatsContainerResponse,
    VersionCheckResponse, VolumeStatsResponse,
};
use crate::guest::testing::{bytes, number};

messages! {
    Everything {
        1 => number: u64,
        2 => flag: bool,
        3 => text: String,
        4 => one: Option<Leaf>,
        5 => many: Vec<Leaf>,
        6 => texts: Vec<String>,
        7 => numbers: Vec<u64>,
        8 => map: BTreeMap<String, u64>,
        9 => leaves: BTreeMap<String, Option<Leaf>>,
    }

    Leaf {
        1 => value: u64,
    }
}

fn leaf(value: u64) -> Leaf {
    Leaf { value }
}

#[test]
fn every_kind_of_field_is_read_and_others_are_skipped() {
    let entry = |key: &str, value: Vec<u8>| [bytes(1, key.as_bytes()), value].concat();
    let message = [
        number(1, u64::MAX),
        number(2, 1),
        bytes(3, "grüße".as_bytes()),
        bytes(4, &number(1, 7)),
        bytes(5, &number(1, 1)),
        bytes(5, b""),
        bytes(6, b"a"),
        bytes(6, b"b"),
        // Unpacked, then packed: 3, 300.
        number(7, 5),
        bytes(7, &[3, 0xac, 2]),
        bytes(8, &entry("k", number(2, 9))),
        bytes(8, &entry("zero", Vec::new())),
        bytes(9, &entry("2MB", bytes(2, &number(1, 4)))),
        // Fields of later versions: a number, a text, 8 bytes, 4 bytes, a group with a field in it.
        number(100, 1),
        bytes(101, b"later"),
        vec![0xf1, 0x06, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0xfd, 0x06, 0, 0, 0, 0],
        vec![0x83, 0x07, 0x08, 0x01, 0x84, 0x07],
        // Known numbers, sent as what they are not.
        bytes(1, b"text"),
        number(3, 1),
        number(4, 1),
        number(8, 1),
    ]
    .concat();
    let expected = Everything {
        number: u64::MAX,
        flag: true,
        text: "grüße".into(),
        one: Some(leaf(7)),
        many: vec![leaf(1), leaf(0)],
        texts: vec!["a".into(), "b".into()],
        numbers: vec![5, 3, 300],
        map: BTreeMap::from([("k".into(), 9), ("zero".into(), 0)]),
        leaves: BTreeMap::from([("2MB".into(), Some(leaf(4)))]),
    };
    assert_eq!(parse::<Everything>(&message).unwrap(), expected);
    assert_eq!(parse::<Everything>(b"").unwrap(), Everything::default());
}

#[test]
fn a_message_that_was_cut_off_within_a_field_is_an_error() {
    // One field, so that every cut is within it; nested, so that the cut can be at the end of an inner field.
    let inner = [bytes(1, b"key"), number(2, 300)].concat();
    let message = bytes(8, &inner);
    assert!(parse::<Everything>(&message).is_ok());
    for length in 1..message.len() {
        assert!(parse::<Everything>(&message[..length]).is_err(), "{length}");
    }
    // An inner length that reaches beyond the outer message.
    let mut beyond = bytes(4, &number(1, 1));
    beyond[1] += 1;
    assert!(parse::<Everything>(&[beyond, number(1, 1)].concat()[..5]).is_err());
}

#[test]
fn what_is_no_message_is_an_error() {
    for broken in [
        &[0xff][..],
        // Field number 0, wire types 6 and 7, the end of a group that has not begun.
        &[0x02, 0x00],
        &[0x0e],
        &[0x0f],
        &[0x0c],
        // A number of eleven bytes, a text that is not UTF-8.
        &[
            0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
        ],
        &[0x1a, 0x01, 0xff],
        // Lengths of nearly 2^32 and 2^64, with nothing there.
        &[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ] {
        assert!(parse::<Everything>(broken).is_err(), "{broken:02x?}");
    }
}

#[test]
fn lists_and_depth_have_limits() {
    for element in [bytes(5, b""), bytes(6, b""), number(7, 0)] {
        assert!(parse::<Everything>(&element.repeat(MOST_ELEMENTS)).is_ok());
        let beyond = parse::<Everything>(&element.repeat(MOST_ELEMENTS + 1));
        assert!(matches!(beyond, Err(MessageError::TooMany)), "{element:02x?}");
    }
    let packed = bytes(7, &vec![0; MOST_ELEMENTS + 1]);
    assert!(matches!(parse::<Everything>(&packed), Err(MessageError::TooMany)));
    let entries: Vec<u8> = (0..=MOST_ELEMENTS)
        .flat_map(|key| bytes(8, &bytes(1, key.to_string().as_bytes())))
        .collect();
    assert!(matches!(
        parse::<Everything>(&entries),
        Err(MessageError::TooMany)
    ));
    // A thousand groups in each other, which only the skipping of unknown fields ever enters.
    assert!(parse::<Everything>(&[0x83, 0x07].repeat(1000)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::<Everything>(&noise);
        let _ = parse::<StatsContainerResponse>(&noise);
        let _ = parse::<Metrics>(&noise);
        let _ = parse::<GuestDetailsResponse>(&noise);
        let _ = parse::<Interfaces>(&noise);
        let _ = parse::<VolumeStatsResponse>(&noise);
        let _ = parse::<HealthCheckResponse>(&noise);
        let _ = parse::<VersionCheckResponse>(&noise);
    }
}
