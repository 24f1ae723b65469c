use super::*;
use crate::node::machine::GuestProtection;
use crate::node::proc_fs::testing::Tree;

const MIB: u64 = 1 << 20;

fn part(roots: Roots<'_>, part: Part, pids: &[u32]) -> HostProcesses {
    HostProcesses {
        part,
        processes: pids
            .iter()
            .map(|pid| ProcessUsage::read_in(roots, *pid).unwrap())
            .collect(),
    }
}

/// A VMM, virtiofsd and a shim whose memory is given in kB: anonymous, files, shared, huge pages.
fn sandbox(tree: &Tree, vmm: [u64; 4]) -> Vec<HostProcesses> {
    let [anon, file, shmem, hugetlb] = vmm;
    tree.process(10, "containerd-shim", 1, 0)
        .with_memory(10, 30_000, 10_000, 0, 0)
        .process(20, "qemu-system-x86", 10, 0)
        .with_memory(20, anon, file, shmem, hugetlb)
        .process(30, "virtiofsd", 10, 0)
        .with_memory(30, 5_000, 1_000, 70_000, 0);
    vec![
        part(tree.roots(), Part::Vmm, &[20]),
        part(tree.roots(), Part::Virtiofsd, &[30]),
        part(tree.roots(), Part::Shim, &[10]),
    ]
}

#[test]
fn shared_guest_memory_is_told_from_the_vmms_own() {
    let tree = Tree::new();
    // Kata 4.1.0's Go shim with QEMU, as its page had it: rssanon, rssfile, rssshmem, hugetlbpages.
    let sandbox = sandbox(&tree, [216_300, 36_884, 217_392, 0]);
    let memory = SandboxMemory::of(&sandbox, MachineKind::Local);
    let shared = 222_609_408;
    assert_eq!(
        memory.guest,
        Some(GuestMemory {
            shared,
            ..GuestMemory::default()
        })
    );
    assert_eq!(
        memory.own,
        [
            (Part::Vmm, Some(221_491_200 + 37_769_216)),
            (Part::Virtiofsd, Some(6_000 << 10)),
            (Part::Shim, Some(40_000 << 10)),
        ]
    );
    let processes: u64 = sandbox.iter().map(|part| part.memory().unwrap()).sum();
    assert_eq!(memory.total(), Some(processes), "the parts add up");
}

#[test]
fn huge_pages_are_the_guests() {
    let tree = Tree::new();
    let memory = SandboxMemory::of(
        &sandbox(&tree, [20_000, 10_000, 0, 2_097_152]),
        MachineKind::Local,
    );
    assert_eq!(memory.guest.unwrap().huge_pages, 2048 * MIB);
    assert_eq!(memory.own[0], (Part::Vmm, Some(30_000 << 10)));
}

#[test]
fn what_cannot_be_told_apart_is_not_guessed() {
    let tree = Tree::new();
    let anonymous = SandboxMemory::of(&sandbox(&tree, [900_000, 10_000, 0, 0]), MachineKind::Local);
    assert_eq!(anonymous.guest, None);
    assert_eq!(anonymous.own[0], (Part::Vmm, Some(910_000 << 10)));
    assert_eq!(anonymous.total(), Some((910_000 + 6_000 + 40_000) << 10));
    // What QEMU has of a TDX guest's memory is what the guest shares with it.
    let tdx = MachineKind::Confidential(Some(GuestProtection::Tdx));
    let hidden = SandboxMemory::of(&sandbox(&tree, [216_300, 36_884, 217_392, 0]), tdx);
    assert_eq!(
        (hidden.guest, hidden.own[0]),
        (None, (Part::Vmm, Some((216_300 + 36_884 + 217_392) << 10)))
    );

    tree.process(20, "qemu-system-x86", 10, 0);
    let zombie = vec![part(tree.roots(), Part::Vmm, &[20])];
    let memory = SandboxMemory::of(&zombie, MachineKind::Local);
    assert_eq!((memory.own, memory.guest), (vec![(Part::Vmm, None)], None));
    let memory = SandboxMemory::of(&zombie, MachineKind::Local);
    assert_eq!(memory.total(), None);
    assert_eq!(SandboxMemory::of(&[], MachineKind::Local).total(), None);
}

/// A mapping as `smaps` shows it; sizes in kB.
fn mapping(
    size: u64,
    permissions: &str,
    name: &str,
    rss: u64,
    pss: u64,
    anonymous: u64,
    huge: u64,
) -> String {
    let end = 0x7f00_0000_0000 + size * 1024;
    format!(
        "7f0000000000-{end:x} {permissions} 00000000 00:01 1027                       {name}\n\
         Size:           {size:8} kB\nKernelPageSize:        4 kB\nRss:            {rss:8} kB\n\
         Pss:            {pss:8} kB\nPss_Dirty:             0 kB\nAnonymous:      {anonymous:8} kB\n\
         Shared_Hugetlb:        0 kB\nPrivate_Hugetlb: {huge:7} kB\nTHPeligible:           0\n\
         VmFlags: rd wr sh mr mw me ms dd \n"
    )
}

#[test]
fn mappings_tell_the_guests_memory_in_every_case() {
    let tree = Tree::new();
    let sandbox = sandbox(&tree, [900_000, 10_000, 300_000, 0]);
    let vmm = [
        mapping(5_000, "r-xp", "/usr/bin/qemu-system-x86_64", 4_000, 1_000, 0, 0),
        mapping(90_000, "rw-p", "[heap]", 8_000, 8_000, 8_000, 0),
        mapping(60_000, "rw-p", "", 2_000, 2_000, 2_000, 0),
        mapping(1 << 20, "rwxp", "", 200_000, 200_000, 200_000, 0),
        mapping(1 << 20, "rw-p", "", 600_000, 600_000, 600_000, 0),
        mapping(1 << 20, "rw-s", "/memfd:a ram (deleted)", 300_000, 150_000, 0, 0),
        mapping(
            1 << 20,
            "rw-p",
            "/run/vc/vm/template/memory",
            50_000,
            30_000,
            20_000,
            0,
        ),
        mapping(
            1 << 21,
            "rw-s",
            "/mnt/huge/qemu_back_mem (deleted)",
            0,
            0,
            0,
            1 << 21,
        ),
        mapping(
            1 << 20,
            "r--s",
            "/opt/kata/share/kata-containers/kata.img",
            40_000,
            500,
            0,
            0,
        ),
    ];
    tree.file(20, "smaps", &vmm.concat());
    let virtiofsd = [
        mapping(1 << 20, "rw-s", "/memfd:a ram (deleted)", 70_000, 35_000, 0, 0),
        mapping(1 << 20, "rw-p", "", 5_000, 5_000, 5_000, 0),
        mapping(2_000, "r-xp", "/usr/libexec/virtiofsd", 1_000, 300, 0, 0),
    ];
    tree.file(30, "smaps", &virtiofsd.concat());
    tree.file(
        10,
        "smaps",
        &mapping(1 << 20, "rw-p", "", 30_000, 30_000, 30_000, 0),
    );
    let read = |kind, most| SandboxMemory::read_mappings_in(tree.roots(), &sandbox, kind, most);
    let memory = read(MachineKind::Local, 4096 * MIB).unwrap();
    let expected = GuestMemory {
        anonymous: (600_000 + 20_000) << 10,
        shared: (300_000 + 30_000) << 10,
        huge_pages: 2048 * MIB,
    };
    assert_eq!(memory.guest, Some(expected));
    let own = [
        (Part::Vmm, Some((1_000 + 8_000 + 2_000 + 200_000 + 500) << 10)),
        (Part::Virtiofsd, Some(5_300 << 10)),
        (Part::Shim, Some(30_000 << 10)),
    ];
    assert_eq!(memory.own, own);

    let hidden = read(MachineKind::Confidential(None), 4096 * MIB).unwrap();
    assert_eq!((hidden.guest, hidden.total()), (None, memory.total()));
    let refused = read(MachineKind::Local, 1024 * MIB).unwrap_err();
    assert!(
        matches!(refused, MappingsError::TooMuch { pid: 20, resident, .. } if resident == 1_210_000 << 10),
        "{refused}"
    );
    std::fs::remove_file(tree.roots().path(30, "smaps")).unwrap();
    assert!(matches!(
        read(MachineKind::Local, u64::MAX),
        Err(MappingsError::Read(_))
    ));
}

#[test]
fn odd_lines_are_passed_over() {
    for odd in [
        "",
        "\n",
        "x",
        "7f-1 rw-p\n",
        "zz-yy rw-p 0 0 0\n",
        "Rss: 1 kB\n",
        "1-2 rw-s 0 0:0 0 /memfd:x\n",
    ] {
        assert_eq!(sort_mappings(odd, true), (GuestMemory::default(), 0), "{odd:?}");
    }
}

/// This process as a VMM: 256 MiB of a guest's memory of each kind, of which it touches some.
#[test]
fn the_kernels_own_mappings() {
    const SIZE: usize = 256 << 20;
    let map = |flags, fd| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        start
    };
    let touch = |start: *mut libc::c_void, bytes: usize| {
        // SAFETY: within the mapping, which nobody else has.
        unsafe { start.cast::<u8>().write_bytes(1, bytes) };
    };
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { libc::memfd_create(c"ram".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: the descriptor is our own.
    assert_eq!(unsafe { libc::ftruncate(fd, SIZE as libc::off_t) }, 0);
    let anonymous = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1);
    let shared = map(libc::MAP_SHARED, fd);
    // SAFETY: the kernel is only asked not to make huge pages of it, which would count as touched in full.
    unsafe { libc::madvise(anonymous, SIZE, libc::MADV_NOHUGEPAGE) };
    touch(anonymous, 48 << 20);
    touch(shared, 32 << 20);

    let us = || vec![part(Roots::host(), Part::Vmm, &[std::process::id()])];
    let memory = SandboxMemory::read_mappings(&us(), MachineKind::Local, u64::MAX).unwrap();
    let expected = GuestMemory {
        anonymous: 48 * MIB,
        shared: 32 * MIB,
        huge_pages: 0,
    };
    assert_eq!(memory.guest, Some(expected));
    let own = memory.own[0].1.unwrap();
    assert!((MIB / 4..64 * MIB).contains(&own), "{own}");

    let by_status = SandboxMemory::of(&us(), MachineKind::Local);
    assert_eq!(by_status.guest.unwrap().shared, 32 * MIB);
    assert!(
        by_status.own[0].1.unwrap() >= 48 * MIB,
        "anonymous memory cannot be told apart"
    );
}
