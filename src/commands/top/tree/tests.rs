use super::*;
use crate::commands::top::fixtures::{no_address, pod, row, row_of, shown, tree, using};
use crate::commands::top::row::Health;

fn order(sort: char) -> TreeOrder {
    TreeOrder {
        sort,
        reverse: false,
        filter: String::new(),
        folded: HashSet::new(),
    }
}

/// The ids of the lines in an order.
fn sorted(tree: &Tree, order: &TreeOrder) -> Vec<String> {
    shown(tree, &tree.lines(order))
}

/// Two pods and two plain containers.
fn node() -> Tree {
    tree(vec![
        using(row("alone", None), 20.0, 100 << 20),
        using(row("idle", None), 0.0, 1 << 20),
        using(pod("pod1", "shop", "web"), 0.0, 1 << 20),
        using(row("app1", Some("pod1")), 5.0, 30 << 20),
        using(row("side1", Some("pod1")), 40.0, 10 << 20),
        using(pod("pod2", "shop", "db"), 1.0, 1 << 20),
        using(row("app2", Some("pod2")), 2.0, 500 << 20),
    ])
}

/// A number of the first pod.
fn of_pod1(tree: &Tree, field: &Field) -> Option<f64> {
    tree.pods().find(|pod| pod.id == "pod1").unwrap().number(field)
}

#[test]
fn pods_stand_with_their_containers_by_what_they_use_together() {
    let node = node();
    assert_eq!(
        sorted(&node, &order('c')),
        ["pod1", "|-side1", "`-app1", "alone", "pod2", "`-app2", "idle"]
    );
    assert_eq!(
        sorted(&node, &order('m')),
        ["pod2", "`-app2", "alone", "pod1", "|-app1", "`-side1", "idle"]
    );
    assert_eq!(
        sorted(&node, &order(BY_NAME)),
        ["alone", "idle", "pod2", "`-app2", "pod1", "|-app1", "`-side1"],
        "pods by their names: shop/db, shop/web"
    );
    let reversed = TreeOrder {
        reverse: true,
        ..order('c')
    };
    assert_eq!(
        sorted(&node, &reversed),
        ["idle", "pod2", "`-app2", "alone", "pod1", "|-app1", "`-side1"]
    );
}

#[test]
fn the_network_is_sorted_by_both_directions_together() {
    let mut node = tree(vec![
        using(row("a", None), 1.0, 1),
        using(row("b", None), 1.0, 1),
        using(row("c", None), 1.0, 1),
    ]);
    for (id, rx, tx) in [
        ("a", Some(5.0), Some(1.0)),
        ("b", Some(4.0), Some(3.0)),
        ("c", None, Some(9.0)),
    ] {
        let rates = &mut row_of(&mut node, id).rates;
        (rates.rx_bytes, rates.tx_bytes) = (rx, tx);
    }
    assert_eq!(sorted(&node, &order('n')), ["c", "b", "a"]);
}

#[test]
fn what_nobody_measured_is_last_whichever_way() {
    let mut node = node();
    row_of(&mut node, "alone").take(Err(no_address()));
    for reverse in [false, true] {
        let order = TreeOrder {
            reverse,
            ..order('c')
        };
        assert_eq!(sorted(&node, &order).last().unwrap(), "alone");
    }
}

#[test]
fn a_pod_uses_what_its_members_use_where_all_of_them_answer() {
    let mut node = node();
    assert_eq!(of_pod1(&node, &fields::CPU), Some(45.0));
    assert_eq!(of_pod1(&node, &fields::MEMORY), Some(f64::from(41 << 20)));
    assert_eq!(of_pod1(&node, &fields::LIMIT), None, "the members have no limits");
    row_of(&mut node, "app1").take(Err(no_address()));
    assert_eq!(of_pod1(&node, &fields::CPU), None);
    row_of(&mut node, "app1").health = Health::Stopped("exited".into());
    assert_eq!(
        of_pod1(&node, &fields::CPU),
        Some(40.0),
        "what has stopped uses nothing"
    );
}

#[test]
fn what_a_pod_shares_is_no_sum_and_what_is_rarely_counted_needs_one_who_counts() {
    let mut node = node();
    // Each of them reports the pod's network: 2048 bytes per second.
    assert_eq!(of_pod1(&node, &fields::RX), Some(2048.0));
    assert_eq!(of_pod1(&node, &fields::READ), None);
    row_of(&mut node, "app1").rates.read_bytes = Some(7.0);
    row_of(&mut node, "side1").rates.read_bytes = Some(5.0);
    assert_eq!(
        of_pod1(&node, &fields::READ),
        Some(12.0),
        "the sandbox reads nothing"
    );
    row_of(&mut node, "app1").rates.throttled = Some(0.25);
    assert_eq!(of_pod1(&node, &fields::THROTTLED), Some(0.25));
}

#[test]
fn a_pods_limit_is_that_of_its_containers() {
    let mut node = node();
    for id in ["app1", "side1"] {
        let sample = row_of(&mut node, id).sample.as_mut().unwrap();
        sample.stats.memory.usage.limit = Some(64 << 20);
    }
    assert_eq!(of_pod1(&node, &fields::LIMIT), Some(f64::from(128 << 20)));
    let of_limit = fields::TOP
        .iter()
        .find(|field| field.heading == "OF LIMIT")
        .unwrap();
    assert_eq!(of_pod1(&node, of_limit), Some(41.0 / 128.0));
}

#[test]
fn folding_and_filtering() {
    let node = node();
    let mut folded = order('c');
    folded.folded.insert("/run/x/pod1".into());
    assert_eq!(
        sorted(&node, &folded),
        ["+pod1(2)", "alone", "pod2", "`-app2", "idle"]
    );
    let filtered = |text: &str| {
        let filter = text.to_string();
        sorted(&node, &TreeOrder { filter, ..order('c') })
    };
    assert_eq!(
        filtered("SHOP/we"),
        ["pod1", "|-side1", "`-app1"],
        "a pod with all that is in it"
    );
    assert_eq!(
        filtered("app"),
        ["pod1", "`-app1", "pod2", "`-app2"],
        "containers with their pods"
    );
    assert_eq!(filtered("nothing"), [""; 0]);
}

#[test]
fn containers_whose_sandbox_has_no_bundle_get_a_line_over_them() {
    let node = tree(vec![
        using(row("a", Some("gone")), 1.0, 1 << 20),
        using(row("b", Some("gone")), 2.0, 1 << 20),
        using(row("alone", None), 50.0, 1),
    ]);
    assert_eq!(sorted(&node, &order('c')), ["alone", "gone", "|-b", "`-a"]);
    let pod = node.pods().next().unwrap();
    assert_eq!(
        (pod.title.as_str(), pod.number(&fields::CPU)),
        ("gone", Some(3.0))
    );
    let filtered = TreeOrder {
        filter: "GON".into(),
        ..order('c')
    };
    assert_eq!(sorted(&node, &filtered), ["gone", "|-b", "`-a"]);
}

#[test]
fn equal_names_in_two_of_containerds_namespaces_are_told_apart() {
    let container = |namespace: &str| {
        let known = row("web", None).container;
        let bundle = shimstat::node::Bundle {
            namespace: namespace.into(),
            path: format!("/run/{namespace}/web").into(),
            ..known.bundle.clone()
        };
        let description = known.description().unwrap().clone();
        Arc::new(Container::new(bundle, known.source.clone(), description))
    };
    let mut tree = Tree::default();
    tree.update(vec![
        container("moby"),
        container("default"),
        row("other", None).container,
    ]);
    let titles: Vec<_> = tree.groups.iter().map(|group| group.title.as_str()).collect();
    assert_eq!(titles, ["default:web", "other", "moby:web"]);
}

#[test]
fn what_comes_and_goes_and_what_is_made_anew() {
    let mut node = node();
    let containers = |node: &Tree| node.containers().to_vec();
    let before = containers(&node);
    // The same id, another container.
    let anew = row("idle", None).container;
    let mut now: Vec<_> = before.iter().filter(|one| one.id() != "alone").cloned().collect();
    *now.iter_mut().find(|one| one.id() == "idle").unwrap() = anew;
    node.update(now.clone());
    assert_eq!(node.rows().count(), 6);
    assert_eq!(row_of(&mut node, "idle").health, Health::Waiting);
    assert!(
        matches!(row_of(&mut node, "app1").health, Health::Answers(_)),
        "known by now"
    );
    // A late answer about one that has gone is nobody's.
    node.answer(&before[0], Err(no_address()));
    let app1 = now.iter().find(|one| one.id() == "app1").unwrap();
    node.answer(app1, Err(no_address()));
    assert_eq!(
        row_of(&mut node, "app1").health,
        Health::Failed("its shim's address is not known: /run/x/address: the address is empty".into())
    );
}

#[test]
fn a_pods_past_is_that_of_all_its_containers() {
    let mut node = node();
    node.note_pods();
    // It is kept where a container comes or goes.
    node.update(
        node.containers()
            .iter()
            .filter(|one| one.id() != "side1")
            .cloned()
            .collect(),
    );
    let pod1 = node.pods().find(|pod| pod.id == "pod1").unwrap();
    assert_eq!(pod1.cpu.last(10).collect::<Vec<_>>(), [Some(45.0)]);
    assert_eq!(
        row_of(&mut node, "app1").cpu.last(10).collect::<Vec<_>>(),
        [None, Some(5.0)],
        "a first sample has no rate"
    );
}
