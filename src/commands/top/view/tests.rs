use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::style::Modifier;
use shimstat::node::{HostProcesses, Part, ProcessMemory, ProcessUsage};
use shimstat::shim::ShimError;
use shimstat::shim::address::Address;
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{AskError, NotRunning};

use super::*;
use crate::commands::top::fixtures::{pod, row, row_of, sample, tree, using};
use crate::commands::top::host::{HostSide, VmSide};
use crate::commands::top::input::Action;
use crate::commands::top::row::{Health, History, TopRow};
use crate::guest_side::{Filesystem, GuestMemory, GuestSide, Interface, Usage};
use shimstat::node::processes::{self, HostLinks, SandboxMemory, VmUsage};
use shimstat::stats;

const THEME: Theme = Theme {
    colour: false,
    unicode: true,
};

const PLAIN: &str = "c5c13644fc76177770b386095d99bb9446fc7555630d07d5ce5b1339f4f156a2";

/// A node with a pod and two containers, one of which is hung.
fn model() -> Model {
    let mut model = Model::new(Duration::from_secs(2));
    let limited = |mut row: TopRow, limit| {
        row.sample.as_mut().unwrap().stats.memory.usage.limit = Some(limit);
        row
    };
    let mut hung = using(row("hung", None), 1.0, 1);
    hung.take(Err(AskError::Unanswered {
        address: Address::Path("/s".into()),
        call: "Stats",
        waited: Duration::from_secs(12),
    }));
    model.tree = tree(vec![
        using(pod("p", "shop", "web-7d4b9"), 0.0, 1 << 20),
        limited(using(row("nginx", Some("p")), 49.6, 48 << 20), 64 << 20),
        using(row(PLAIN, None), 1.5, 30 << 20),
        hung,
    ]);
    model
}

fn drawn(model: &mut Model, theme: &Theme, width: u16, height: u16) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw(model, theme, &mut buffer);
    buffer
}

fn text(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    (0..area.height)
        .map(|y| {
            let mut line = String::new();
            let mut skip = 0;
            for x in 0..area.width {
                let symbol = buffer.cell((x, y)).map_or(" ", |cell| cell.symbol());
                if skip == 0 {
                    line.push_str(symbol);
                    skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
                } else {
                    skip -= 1;
                }
            }
            line.trim_end().to_string()
        })
        .collect()
}

#[test]
fn eighty_by_twenty_four() {
    let mut model = model();
    model.tree.note_pods();
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    // Written by hand from the numbers in `model`: 4096 and 1024 bytes in two seconds, three processes each.
    assert_eq!(
        screen[..8],
        [
            "kata-runtime top  1 pod, 3 containers, 1 hung, CPU 51.1%, memory 79MiB  every 2s",
            "NAME                CPU%▼   MEM OF LIMIT  RX/s  TX/s  RD/s  WR/s  PIDS THR%  OOM",
            "▾ shop/web-7d4b9     49.6   49M ██████░░    2K  512B     -     -     6    -    -",
            "└ nginx              49.6   48M ██████░░                 -     -     3    -    -",
            "  c5c13644fc76        1.5   30M        -    2K  512B     -     -     3    -    -",
            "  hung              HUNG: no answer to Stats for 12s",
            "",
            "",
        ]
    );
    assert!(
        screen[14].starts_with("── shop/web-7d4b9 ─ p, in k8s.io ──"),
        "{}",
        screen[14]
    );
    assert!(
        screen[15].starts_with("state     running, pid 4321   "),
        "{}",
        screen[15]
    );
    assert!(screen[15].ends_with("CPU, 0-50%, last 44s"), "{}", screen[15]);
    assert!(screen[16].starts_with("memory    49MiB working set, 64MiB limit"));
    assert!(
        screen[17].starts_with("cpu       49.6%, 6 pids"),
        "{}",
        screen[17]
    );
    assert_eq!(screen[23], KEYS);
    assert_eq!(screen.len(), 24);
}

#[test]
fn what_is_hung_or_stopped_reads_without_colour_and_is_dim() {
    let mut model = model();
    let stopped = TaskState {
        status: TaskStatus::Stopped,
        pid: 0,
        exit_status: Some(137),
        exited_at: None,
    };
    row_of(&mut model.tree, PLAIN).take(Err(AskError::NotRunning(NotRunning::Stopped(stopped))));
    let buffer = drawn(&mut model, &THEME, 80, 24);
    let screen = text(&buffer);
    assert_eq!(screen[4], "  c5c13644fc76      stopped, exit status 137");
    for (y, name) in [(4, "c5"), (5, "hung")] {
        let cell = buffer.cell((2, y)).unwrap();
        assert_eq!(cell.symbol(), &name[..1]);
        assert!(cell.modifier.contains(Modifier::DIM));
    }
    assert!(!buffer.cell((2, 3)).unwrap().modifier.contains(Modifier::DIM));
    assert!(
        buffer.cell((2, 2)).unwrap().modifier.contains(Modifier::REVERSED),
        "selected"
    );
    assert!(
        !buffer
            .cell((34, 2))
            .unwrap()
            .modifier
            .contains(Modifier::REVERSED),
        "but for its bar"
    );
}

/// What each part of a sandbox on this host would use.
fn host_side(model: &mut Model) -> HostSide {
    let process = |pid| ProcessUsage {
        pid,
        name: "x".into(),
        parent: 1,
        started: 5,
        threads: 1,
        cpu: Duration::ZERO,
        memory: ProcessMemory {
            rss: Some(8 << 20),
            rss_shmem: Some(0),
            hugetlb: Some(0),
            ..ProcessMemory::default()
        },
    };
    let (lines, place) = model.lines();
    let mut host = HostSide::read(&model.tree, &lines[place], None).unwrap();
    host.parts = [Part::Vmm, Part::Vhost, Part::Virtiofsd, Part::Shim]
        .map(|part| {
            let processes = match part {
                Part::Virtiofsd => vec![process(7751), process(7760)],
                _ => vec![process(70)],
            };
            (HostProcesses { part, processes }, Some(0.0))
        })
        .into();
    host
}

#[test]
fn the_pane_has_a_line_for_every_process_of_a_sandbox() {
    let mut model = model();
    model.tree.note_pods();
    model.host = Some(host_side(&mut model));
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    for (y, line) in [
        (19, "VMM       0.0%, 8MiB resident, pid 70"),
        (20, "vhost     0.0%, 8MiB resident, pid 70"),
        (21, "virtiofsd 0.0%, 16MiB resident, pid 7751 7760"),
        (22, "shim      0.0%, 8MiB resident, pid 70"),
    ] {
        assert!(screen[y].starts_with(line), "{screen:#?}");
    }
}

#[test]
fn of_a_virtual_machine_the_pane_says_what_it_costs() {
    let mut model = model();
    model.tree.note_pods();
    let mut host = host_side(&mut model);
    host.vm = Some(VmSide {
        usage: VmUsage {
            threads: None,
            memory: SandboxMemory {
                guest: Some(processes::GuestMemory {
                    shared: 312 << 20,
                    ..processes::GuestMemory::default()
                }),
                own: vec![(Part::Vmm, Some(45 << 20))],
            },
            cgroup: None,
            disk: Vec::new(),
            links: Some(HostLinks {
                pod: vec![stats::Interface {
                    rx_dropped: 3,
                    ..stats::Interface::default()
                }],
                taps: Vec::new(),
            }),
        },
        shows_memory: true,
        waiting: Some(12.34),
        overhead: (Some(5.2), Some(120 << 20)),
    });
    model.host = Some(host);
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    for (y, line) in [
        (19, "VMM       0.0%, 45MiB, guest 312MiB, steal 12.3%, "),
        (20, "virtiofsd 0.0%, 16MiB resident, pid 7751 7760"),
        (21, "shim      0.0%, 8MiB resident, pid 70"),
        (22, "overhead  5.2%, 120MiB, 3 packets dropped"),
    ] {
        assert!(screen[y].starts_with(line), "{screen:#?}");
    }
}

#[test]
fn the_panes_text_leaves_no_room_to_a_graph_with_nothing_in_it() {
    let mut model = model();
    let long = "the shim's bundle has an address that is long enough for sixty columns";
    for row in model.tree.rows_mut() {
        row.cpu = History::default();
        row.health = Health::Failed(long.into());
    }
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    assert!(
        screen[15].starts_with("state     the shim's") && screen[15].contains("sixty"),
        "{screen:#?}"
    );
    assert!(!screen[15].contains("CPU, 0"));
    model.tree.note_pods();
    assert!(
        !text(&drawn(&mut model, &THEME, 80, 24))[15].contains("CPU, 0"),
        "nothing was measured"
    );
}

#[test]
fn a_rest_is_told_to_the_millisecond() {
    let mut row = row("late", None);
    row.take(Err(AskError::Resting {
        address: Address::Path("/s".into()),
        call: "Stats",
        took: Duration::from_secs(4),
        rest: Duration::from_millis(420),
    }));
    let expected = "its last Stats took 4s; it is asked again in 420ms";
    assert_eq!(row.health, Health::Hung(expected.into()));
    row.take(Err(AskError::NotRunning(NotRunning::Gone(ShimError::Closed {
        address: Address::Path("/s".into()),
    }))));
    let expected = "shim gone: /s closed the connection before it answered";
    assert_eq!(row.health, Health::Stopped(expected.into()));
}

#[test]
fn every_size_can_be_drawn() {
    let mut model = model();
    for details in [true, false] {
        model.details = details;
        for mode in [Mode::Watch, Mode::Filter, Mode::Help] {
            model.mode = mode;
            for (width, height) in [
                (0, 0),
                (1, 1),
                (19, 4),
                (20, 4),
                (33, 7),
                (60, 18),
                (80, 5),
                (500, 200),
            ] {
                drawn(&mut model, &THEME, width, height);
            }
        }
    }
}

#[test]
fn the_selected_line_stays_in_sight() {
    let mut model = Model::new(Duration::from_secs(1));
    let rows = (0..100).map(|n| using(row(&format!("c{n:02}"), None), 1.0, 1));
    model.tree = tree(rows.collect());
    model.details = false;
    let names = |model: &mut Model| {
        let screen = text(&drawn(model, &THEME, 80, 10));
        screen[2..9]
            .iter()
            .map(|line| line[2..5].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&mut model),
        ["c00", "c01", "c02", "c03", "c04", "c05", "c06"]
    );
    model.act(Action::Move(8));
    assert_eq!(names(&mut model)[6], "c08");
    model.act(Action::Move(-1));
    assert_eq!(names(&mut model)[6], "c08", "no more is scrolled than is needed");
    model.act(Action::Last);
    assert_eq!(
        names(&mut model),
        ["c93", "c94", "c95", "c96", "c97", "c98", "c99"]
    );
    model.act(Action::Page(-1));
    assert_eq!(names(&mut model)[0], "c93");
    model.act(Action::Page(-1));
    assert_eq!(names(&mut model)[0], "c87");
    model.update(model.tree.containers()[..3].to_vec());
    assert_eq!(
        text(&drawn(&mut model, &THEME, 80, 10))[2][2..5],
        *"c00",
        "no empty room"
    );
}

#[test]
fn names_from_pods_can_neither_act_nor_break_the_columns() {
    let mut model = Model::new(Duration::from_secs(2));
    model.tree = tree(vec![
        using(pod("p1", "shop", "\x1b[2J\x1b[31mevil\r\n"), 2.0, 1 << 20),
        using(pod("p2", "日本語", "東京特許許可局許可局長"), 1.0, 1 << 20),
    ]);
    let buffer = drawn(&mut model, &THEME, 80, 24);
    let screen = text(&buffer);
    assert!(screen.iter().all(|line| !line.chars().any(char::is_control)));
    assert_eq!(
        screen[2],
        "▾ shop/\\u{1b}[2J\\u…   2.0    1M        -    2K  512B     -     -     3    -    -"
    );
    // Cut between two characters of two columns each; what follows is where it belongs.
    let wide = &screen[3];
    assert!(wide.starts_with("▾ 日本語/東京特許…"), "{wide}");
    assert!(
        wide.ends_with("    1.0    1M        -    2K  512B     -     -     3    -    -"),
        "{wide}"
    );
    assert_eq!(unicode_width::UnicodeWidthStr::width(wide.as_str()), 80);
}

#[test]
fn a_terminal_of_ascii_gets_ascii() {
    let ascii = Theme {
        colour: false,
        unicode: false,
    };
    let mut model = model();
    let rows = model
        .tree
        .rows()
        .cloned()
        .chain([using(pod("p2", "日本", "x"), 1.0, 1)]);
    model.tree = tree(rows.collect());
    let screen = text(&drawn(&mut model, &ascii, 80, 24));
    assert!(screen.iter().all(|line| line.is_ascii()), "{screen:#?}");
    assert!(screen[2].contains("######.."));
}

#[test]
fn modes_say_what_they_are() {
    let mut model = model();
    model.act(Action::Pause);
    assert!(text(&drawn(&mut model, &THEME, 80, 24))[0].ends_with(" PAUSED"));
    model.act(Action::Filter);
    for character in "ngi\u{1b}".chars() {
        model.act(Action::Type(character));
    }
    assert_eq!(
        text(&drawn(&mut model, &THEME, 80, 24))[23],
        "/ngi\\u{1b}_   enter keeps it, esc clears it"
    );
    model.act(Action::Erase);
    model.act(Action::Leave);
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    assert_eq!(screen[23], "filter: ngi   esc clears it, / changes it");
    assert!(screen[2].contains("shop/web") && screen[3].contains("nginx") && screen[4].is_empty());
    model.act(Action::Help);
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    assert!(screen.iter().any(|line| line.contains("working set")));
    assert!(
        screen[22].starts_with("HUNG") && !screen.iter().any(|line| line.contains('…')),
        "all of the help fits 80 columns and 24 lines: {screen:#?}"
    );
    model.fault = Some("read /run/x: permission denied".into());
    assert!(text(&drawn(&mut model, &THEME, 80, 24))[0].contains("permission denied"));
}

#[test]
fn an_empty_node_says_so() {
    let mut model = Model::new(Duration::from_secs(2));
    assert_eq!(
        text(&drawn(&mut model, &THEME, 80, 24))[2],
        "no containers on this node"
    );
    model.order.filter = "x".into();
    assert_eq!(
        text(&drawn(&mut model, &THEME, 80, 24))[2],
        "nothing matches the filter"
    );
}

#[test]
fn memory_near_its_limit_and_kills_stand_out() {
    let colours = Theme {
        colour: true,
        unicode: true,
    };
    let mut model = model();
    let start = Instant::now();
    row_of(&mut model.tree, "nginx").take(Ok(sample(start, 9, |stats| {
        stats.memory.usage.usage = Some(60 << 20);
        stats.memory.usage.limit = Some(64 << 20);
        stats.memory.oom_kill = Some(2);
    })));
    let buffer = drawn(&mut model, &colours, 80, 24);
    let screen = text(&buffer);
    let y = screen.iter().position(|line| line.contains("nginx")).unwrap() as u16;
    // 94 % of eight columns; the kills at the end of the line.
    assert!(screen[usize::from(y)].contains("████████") && screen[usize::from(y)].ends_with("   2"));
    assert_eq!(buffer.cell((34, y)).unwrap().fg, ratatui::style::Color::Red);
    assert_eq!(buffer.cell((79, y)).unwrap().fg, ratatui::style::Color::Red);
}

#[test]
fn the_pane_has_room_for_what_a_guest_tells() {
    let mut model = model();
    model.host = Some(host_side(&mut model));
    let interface = |name: &str, address: &str| Interface {
        addresses: vec![address.into()],
        mtu: 1500,
        name: name.into(),
    };
    model.guest = Some(Arc::new(GuestSide {
        filesystems: vec![Filesystem {
            bytes: Usage {
                total: Some(100 << 20),
                used: Some(40 << 20),
                available: None,
            },
            mount: "/data\u{1b}[1m".into(),
            device: Some("sda".into()),
            ..Filesystem::default()
        }],
        interfaces: Some(vec![
            interface("lo", "127.0.0.1/8"),
            interface("eth0", "10.0.0.2/24"),
        ]),
        memory: Some(GuestMemory {
            total: 399 << 20,
            used: Some(64 << 20),
        }),
        seccomp: None,
        version: "4.1.0".into(),
    }));
    model.guests_tell = true;
    let screen = text(&drawn(&mut model, &THEME, 80, 24));
    for (y, line) in [
        (
            17,
            "guest     64MiB of 399MiB in use, eth0 10.0.0.2/24, agent 4.1.0",
        ),
        (18, "in it     /data"),
        (22, "shim      0.0%, 8MiB resident, pid 70"),
    ] {
        assert!(screen[y].starts_with(line), "{screen:#?}");
    }
    assert!(screen[18].contains("(sda) 40MiB of 100MiB") && !screen[18].contains('\u{1b}'));
}

#[test]
fn what_cannot_be_seen_from_here_is_said() {
    let mut model = model();
    let last = |model: &mut Model| text(&drawn(model, &THEME, 80, 24)).pop().unwrap();
    assert!(last(&mut model).starts_with("q quit"));
    for (hidden, said) in [
        (Hidden::Forbidden, "CAP_SYS_PTRACE"),
        (Hidden::Pids, "--pid=host"),
    ] {
        model.hidden = Some(hidden);
        let line = last(&mut model);
        assert!(line.contains(said) && line.contains("q quit"), "{line}");
    }
}
