use super::*;

fn limits(version: CgroupVersion, files: &[(&str, &str)]) -> Limits {
    Limits::from_files(version, &|name| {
        let (_, text) = files.iter().find(|(file, _)| *file == name)?;
        Some(format!("{text}\n"))
    })
}

#[test]
fn limits_of_cgroup_v1() {
    let files = [
        ("cpu.cfs_quota_us", "150000"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.shares", "512"),
        ("memory.limit_in_bytes", "67108864"),
        ("memory.memsw.limit_in_bytes", "9223372036854771712"),
        ("memory.soft_limit_in_bytes", "33554432"),
        ("pids.max", "50"),
    ];
    let expected = Limits {
        cpu_quota: Some(Limit::At(150_000)),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        memory: Some(Limit::At(67_108_864)),
        memory_swap: Some(Limit::Unlimited),
        memory_reservation: Some(Limit::At(33_554_432)),
        pids: Some(Limit::At(50)),
    };
    assert_eq!(limits(CgroupVersion::V1, &files), expected);
    let none = [("cpu.cfs_quota_us", "-1"), ("pids.max", "max")];
    let none = limits(CgroupVersion::V1, &none);
    assert_eq!(
        (none.cpu_quota, none.pids),
        (Some(Limit::Unlimited), Some(Limit::Unlimited))
    );
    assert_eq!(Limit::Unlimited.or_zero(), 0);
    assert_eq!(Limit::At(50).or_zero(), 50);
}

#[test]
fn limits_of_cgroup_v2() {
    let files = [
        ("cpu.max", "max 50000"),
        ("cpu.weight", "39"),
        ("memory.max", "max"),
        ("memory.swap.max", "0"),
        ("memory.min", "4096"),
        ("pids.max", "max"),
    ];
    let expected = Limits {
        cpu_quota: Some(Limit::Unlimited),
        cpu_period: Some(50_000),
        cpu_shares: Some(998),
        memory: Some(Limit::Unlimited),
        memory_swap: Some(Limit::At(0)),
        memory_reservation: Some(Limit::At(4096)),
        pids: Some(Limit::Unlimited),
    };
    assert_eq!(limits(CgroupVersion::V2, &files), expected);
}

#[test]
fn what_has_no_file_or_no_number_has_no_limit_that_is_known() {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        assert_eq!(limits(version, &[]), Limits::default());
        let odd: Vec<_> = [
            "cpu.max",
            "cpu.weight",
            "cpu.shares",
            "cpu.cfs_quota_us",
            "memory.max",
            "pids.max",
            "cpu.cfs_period_us",
            "memory.limit_in_bytes",
        ]
        .map(|file| (file, ""))
        .into();
        assert_eq!(limits(version, &odd), Limits::default());
    }
}

// The figures are those of kubernetes/enhancements, KEP-2254, and of cAdvisor's own test.
#[test]
fn shares_come_back_from_their_weight() {
    for (weight, shares) in [
        (1, Some(2)),
        (100, Some(2597)),
        (10_000, Some(262_144)),
        (0, None),
        (10_001, None),
        (u64::MAX, None),
    ] {
        assert_eq!(shares_of_weight(weight), shares, "{weight}");
    }
}
