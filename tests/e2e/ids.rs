//! Which container is meant: prefixes, namespaces, and what cannot be an id.

use crate::support::{for_each_containerd, fresh_id};

const IDLE: [&str; 2] = ["sleep", "1000"];

#[test]
fn a_prefix_that_fits_one_container_names_it() {
    for_each_containerd(|containerd| {
        let stem = fresh_id("p");
        let (first, second) = (format!("{stem}-one"), format!("{stem}-two"));
        let tasks = [&first, &second].map(|id| containerd.run_as("default", id, &[], &IDLE));
        for task in &tasks {
            let prefix = &task.id[..task.id.len() - 2];
            assert_eq!(
                containerd.ask(&["events", "--stats", prefix]).json()["id"],
                task.id.as_str()
            );
        }

        let ran = containerd.ask(&["events", "--stats", &stem]);
        let complaint = ran.complaint();
        assert!(
            complaint.contains(&format!("multiple containers found ({stem})")),
            "{complaint}"
        );
        assert!(
            complaint.contains(&first) && complaint.contains(&second),
            "{complaint}"
        );
        assert_eq!(containerd.ask(&["metrics", &stem]).code, Some(1));
    });
}

#[test]
fn a_full_id_is_meant_before_a_longer_one_that_begins_with_it() {
    for_each_containerd(|containerd| {
        let id = fresh_id("f");
        let longer = format!("{id}-more");
        let _tasks = [&longer, &id].map(|id| containerd.run_as("default", id, &[], &IDLE));
        assert_eq!(
            containerd.ask(&["events", "--stats", &id]).json()["id"],
            id.as_str()
        );
    });
}

#[test]
fn one_id_in_two_namespaces_is_ambiguous_until_the_namespace_is_given() {
    for_each_containerd(|containerd| {
        let id = fresh_id("n");
        let (blue, green) = (fresh_id("blue"), fresh_id("green"));
        containerd.run_as(&blue, &id, &["--memory-limit", "33554432"], &IDLE);
        containerd.run_as(&green, &id, &["--memory-limit", "50331648"], &IDLE);

        let ran = containerd.ask(&["events", "--stats", &id]);
        let complaint = ran.complaint();
        assert!(
            complaint.contains(&blue) && complaint.contains(&green),
            "both are named: {complaint}"
        );

        let limit = |event: serde_json::Value| event["data"]["memory"]["usage"]["limit"].as_u64();
        let in_blue = containerd
            .ask(&["--namespace", &blue, "events", "--stats", &id])
            .json();
        assert_eq!(limit(in_blue), Some(32 << 20));
        let env = [("CONTAINERD_NAMESPACE", green.as_str())];
        let in_green = containerd.ask_with(&["events", "--stats", &id], &env).json();
        assert_eq!(limit(in_green), Some(48 << 20));
    });
}
