use std::fmt::Write;

use proptest::prelude::*;

use super::*;

// What the recordings hold is told in their folder, and was counted by `ss`.
const DEV: &[u8] = include_bytes!("../testdata/proc-net/dev");
const TCP: &[u8] = include_bytes!("../testdata/proc-net/tcp");
const TCP6: &[u8] = include_bytes!("../testdata/proc-net/tcp6");
const UDP: &[u8] = include_bytes!("../testdata/proc-net/udp");
const UDP6: &[u8] = include_bytes!("../testdata/proc-net/udp6");

const DEV_HEADER: &str = concat!(
    "Inter-|   Receive                                                |  Transmit\n",
    " face |bytes    packets errs drop fifo frame compressed multicast",
    "|bytes    packets errs drop fifo colls carrier compressed\n",
);

fn count<C: SocketCounts>(text: &[u8]) -> Result<C, MalformedTable> {
    let mut table = SocketTable::<C>::default();
    table.feed(text)?;
    table.finish()
}

fn dev(rows: &str) -> Result<Vec<Interface>, MalformedTable> {
    parse_interfaces(format!("{DEV_HEADER}{rows}").as_bytes())
}

fn recorded(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("ASCII");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn recorded_interfaces() {
    let interface = |name: &str, rx: (u64, u64), tx: (u64, u64)| Interface {
        name: name.into(),
        rx_bytes: rx.0,
        rx_packets: rx.1,
        tx_bytes: tx.0,
        tx_packets: tx.1,
        ..Default::default()
    };
    assert_eq!(
        parse_interfaces(DEV),
        Ok(vec![
            interface("lo", (11_476, 70), (11_476, 70)),
            interface("veth1", (132, 2), (180, 2)),
            interface("veth0", (180, 2), (132, 2)),
        ])
    );
}

#[test]
fn an_interfaces_columns() {
    let expected = Interface {
        name: "eth0".into(),
        rx_bytes: 1,
        rx_packets: 2,
        rx_errors: 3,
        rx_dropped: 4,
        tx_bytes: 9,
        tx_packets: 10,
        tx_errors: 11,
        tx_dropped: 12,
    };
    let rows = [
        "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        "eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
    ];
    for row in rows {
        assert_eq!(dev(row), Ok(vec![expected.clone()]), "{row}");
    }
}

#[test]
fn names_and_counters_at_their_limits() {
    let row = format!("a:b:{} 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", u64::MAX);
    let interfaces = dev(&row).expect("well-formed");
    assert_eq!(
        (interfaces[0].name.as_str(), interfaces[0].rx_bytes),
        ("a:b", u64::MAX)
    );

    let text = [
        DEV_HEADER.as_bytes(),
        b" e\xff: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
    ]
    .concat();
    assert_eq!(parse_interfaces(&text).expect("well-formed")[0].name, "e\u{fffd}");
    assert_eq!(dev(""), Ok(vec![]), "a namespace without interfaces");
}

#[test]
fn an_interface_table_that_is_not_as_the_kernel_writes_it_has_no_numbers() {
    for rows in [
        "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n",
        "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
        "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 -1\n",
        "eth0: +1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        "eth0: 18446744073709551616 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        "eth0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        "   : 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
        "\n",
        // One digit of the last counter is missing, or is it?
        "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 1",
    ] {
        let error = dev(rows).expect_err(rows);
        assert_eq!(error.line, 3, "{rows:?}");
    }
    for text in ["", "Inter-|\n", "a: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"] {
        assert!(parse_interfaces(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn recorded_tcp_sockets() {
    let both = TcpCounts {
        listen: 3,
        established: 2,
        close_wait: 1,
        fin_wait2: 1,
        time_wait: 1,
        ..Default::default()
    };
    assert_eq!(count(TCP), Ok(TcpCounts { syn_sent: 1, ..both }));
    assert_eq!(count(TCP6), Ok(both));
}

#[test]
fn recorded_udp_sockets() {
    let expected = UdpCounts {
        listen: 2,
        dropped: 17,
        rx_queued: 3840,
        tx_queued: 0,
    };
    assert_eq!(count(UDP), Ok(expected));
    assert_eq!(count(UDP6), Ok(expected));
}

#[test]
fn the_queue_to_send_comes_first() {
    let text = recorded(UDP, "00000000:00000F00", "00000ABC:00000F00");
    let counts: UdpCounts = count(&text).expect("well-formed");
    assert_eq!((counts.tx_queued, counts.rx_queued), (0xABC, 0xF00));
}

#[test]
fn every_tcp_state() {
    let header = "  sl  local_address rem_address   st tx_queue rx_queue tr\n";
    let mut text = String::from(header);
    // As many sockets of a state as its number says.
    for state in 1..=11 {
        for _ in 0..state {
            writeln!(
                text,
                "   0: 0100007F:0035 00000000:0000 {state:02X} 00000000:00000000 00:00000000 00000000 0 0 0 1 0"
            )
            .expect("no I/O");
        }
    }
    let expected = TcpCounts {
        established: 1,
        syn_sent: 2,
        syn_recv: 3,
        fin_wait1: 4,
        fin_wait2: 5,
        time_wait: 6,
        close: 7,
        close_wait: 8,
        last_ack: 9,
        listen: 10,
        closing: 11,
    };
    assert_eq!(count(text.as_bytes()), Ok(expected));
    assert_eq!(count(header.as_bytes()), Ok(TcpCounts::default()), "no sockets");
}

#[test]
fn a_socket_table_that_is_not_as_the_kernel_writes_it_has_no_numbers() {
    for (from, to) in [
        (" 0A ", " 0G "),
        (" 0A ", " 00 "),
        (" 0A ", " 0C "),
        (" 0A ", " "),
        ("0: ", "0 "),
        ("   0: ", "   x: "),
        ("0100007F:E145", "0100007FE145"),
        ("0100007F:E145", "0100007F:"),
        ("0100007F:E145", "010000-F:E145"),
        ("00000000:00000000 00:", "0000000000000000 00:"),
        ("  sl ", "  ls "),
        ("\n   1:", "\n\n   1:"),
    ] {
        let text = recorded(TCP, from, to);
        assert!(count::<TcpCounts>(&text).is_err(), "{from:?} → {to:?}");
    }
    for (from, to) in [
        (" 17 ", " -1 "),
        (" 17 ", " "),
        (" 17 ", " 17 17 "),
        (" 17 ", " 99999999999999999999 "),
        ("drops", "     "),
        ("00000F00", "FFFFFFFFFFFFFFFFF"),
    ] {
        let text = recorded(UDP, from, to);
        assert!(count::<UdpCounts>(&text).is_err(), "{from:?} → {to:?}");
    }
    assert!(count::<UdpCounts>(TCP).is_err(), "a TCP table has no drops");
    assert!(count::<TcpCounts>(b"").is_err());
    assert!(count::<TcpCounts>(&[b' '; 4096]).is_err(), "a line without end");
}

#[test]
fn sums_that_do_not_fit_are_no_numbers() {
    let row = "0: 0100007F:0035 00000000:0000 07 0:0 00:00000000 00000000 0 0 1 2 0 18446744073709551615\n";
    let header = "sl local_address rem_address st tx_queue rx_queue drops\n";
    assert_eq!(
        count(format!("{header}{row}").as_bytes()),
        Ok(UdpCounts {
            listen: 1,
            dropped: u64::MAX,
            ..Default::default()
        })
    );
    let error = count::<UdpCounts>(format!("{header}{row}{row}").as_bytes());
    assert_eq!(error.map_err(|error| error.line), Err(3));
}

#[test]
fn an_error_stays() {
    let mut table = SocketTable::<TcpCounts>::default();
    let error = table.feed(b"no header\n").expect_err("malformed");
    assert_eq!(error.to_string(), "line 1: not as the kernel writes this table");
    assert_eq!(table.feed(TCP), Err(error));
    assert_eq!(table.finish(), Err(error));
}

#[test]
fn a_text_that_was_cut_off_is_an_error_unless_between_lines() {
    for end in 0..TCP.len() {
        let whole_lines = end > 0 && TCP[end - 1] == b'\n';
        assert_eq!(count::<TcpCounts>(&TCP[..end]).is_ok(), whole_lines, "{end}");
    }
    let header = DEV_HEADER.len();
    for end in 0..DEV.len() {
        let whole_lines = end >= header && DEV[end - 1] == b'\n';
        assert_eq!(parse_interfaces(&DEV[..end]).is_ok(), whole_lines, "{end}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse_interfaces(&bytes);
        let _ = parse_interfaces(&[DEV_HEADER.as_bytes(), &bytes].concat());
        for header in [&TCP[..150], &UDP[..128]] {
            let _ = count::<TcpCounts>(&[header, &bytes].concat());
            let _ = count::<UdpCounts>(&[header, &bytes].concat());
        }
    }

    #[test]
    fn it_does_not_matter_where_a_table_is_cut(
        table in prop::sample::select(&[TCP, TCP6][..]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(table.len())).collect();
        cuts.sort_unstable();
        let mut counted = SocketTable::<TcpCounts>::default();
        let mut from = 0;
        for cut in cuts.into_iter().chain([table.len()]) {
            prop_assert_eq!(counted.feed(&table[from..cut]), Ok(()));
            from = cut;
        }
        prop_assert_eq!(counted.finish(), count::<TcpCounts>(table));
    }

    #[test]
    fn interfaces_come_back_as_written(
        written in prop::collection::vec(("[a-z][a-z0-9.@_-]{0,14}", any::<[u64; 16]>()), 0..8)
    ) {
        let mut rows = String::new();
        for (name, numbers) in &written {
            let [rx_bytes, rest @ ..] = numbers;
            let rest: Vec<_> = rest.iter().map(|number| format!("{number:>5}")).collect();
            writeln!(rows, "{name:>6}: {rx_bytes:>7} {}", rest.join(" ")).expect("no I/O");
        }
        let read = dev(&rows).expect("well-formed");
        prop_assert_eq!(read.len(), written.len());
        for (interface, (name, n)) in read.iter().zip(&written) {
            prop_assert_eq!(&interface.name, name);
            prop_assert_eq!((interface.rx_bytes, interface.rx_dropped), (n[0], n[3]));
            prop_assert_eq!((interface.tx_bytes, interface.tx_dropped), (n[8], n[11]));
        }
    }
}

#[test]
fn the_pods_own_links_are_told_from_what_counts_their_packets_again() {
    let own = |name: &str| {
        Interface {
            name: name.into(),
            ..Interface::default()
        }
        .is_pods_own()
    };
    // CNI plugins' names, Multus' second network, macvlan; bridges that people made.
    for name in [
        "eth0", "net1", "ens3", "eth0.100", "bond0", "local0", "br0", "br-lan", "tap0", "my_kata",
    ] {
        assert!(own(name), "{name}");
    }
    let again = [
        "lo",
        "tap0_kata",
        "tap12_kata",
        "br0_kata",
        "veth12ab",
        "vethf00ba4",
        "docker0",
        "docker_gwbridge",
        "nerdctl0",
        "br-0123456789ab",
    ];
    for name in again {
        assert!(!own(name), "{name}");
    }
}
