//! `disk`, beside a running node and without one; and the budget that the node keeps by itself.

use serde_json::{Value, json};

use crate::support::crafted::Crafted;
use crate::support::registry::{ADDRESS, Registry};
use crate::support::small_disk::SmallDisk;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell_with};

const SETTINGS: [(&str, &str); 1] = [("JOB_REGISTRIES", ADDRESS)];

fn disk(world: &World, arguments: &[&str]) -> Value {
    let mut all = vec!["disk", "--json"];
    all.extend(arguments);
    let output = world.command(&all).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn names(images: &Value) -> Vec<&str> {
    let images = images.as_array().into_iter().flatten();
    images.filter_map(|image| image["names"][0].as_str()).collect()
}

#[tokio::test]
async fn the_disk_is_told_and_pruned_beside_a_running_node_and_without_one() {
    let world = World::start().await;
    let registry = Registry::start(&world.engine);
    registry.take_busybox(&world.engine, "app", "1").await;
    world.engine.import_busybox().await;
    let image = format!("{ADDRESS}/app:1");
    assert_eq!(disk(&world, &[])["images"], json!([]), "before the first start");
    let agent = world.agent(&SETTINGS);
    let script = "head -c 3000000 /dev/zero > /output/output; \
        while [ ! -e /output/go ]; do sleep 1; done; rm /output/go";
    world.publish("pulls", &shell_with(script, &json!({"image_name": image})));
    agent.wait_for("job pulls: running");
    let output = world.dir.path().join("data/jobs/pulls/1/output");
    eventually("its output counts", PATIENCE, || {
        (disk(&world, &[])["bytes"]["outputs"].as_u64()? > 2_900_000).then_some(())
    });
    let told = disk(&world, &["--prune"]);
    assert_eq!((names(&told["images"]), names(&told["removed"])), (vec![image.as_str()], vec![]));
    assert!(told["bytes"]["journal"].as_u64() > Some(0), "{told}");
    assert!(told["bytes"]["reserve"].as_u64() >= Some(16 << 20), "{told}");
    assert_eq!(told["disks"][0]["min_mib"], 64);
    std::fs::write(output.join("go"), "").expect("a mark");
    assert_eq!(last(&world.outcome("pulls"))["status"], "completed");
    world.wait_until_clean().await;
    let dry = eventually("the image may go", PATIENCE, || {
        let told = disk(&world, &["--prune", "--dry-run"]);
        (!names(&told["would_remove"]).is_empty()).then_some(told)
    });
    assert_eq!(names(&dry["images"]), [&image], "nothing went");
    let table = world.command(&["disk"]).output().expect("it runs");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains(&format!("image {image}: ")) && table.contains("journal"), "{table}");
    eventually("the image goes", PATIENCE, || {
        (names(&disk(&world, &["--prune"])["removed"]) == [&image]).then_some(())
    });
    // The node pulls again what it needs again.
    world.publish("again", &shell_with("echo x > /output/output", &json!({"image_name": image})));
    assert_eq!(last(&world.outcome("again"))["status"], "completed");
    drop(agent);
    eventually("without a node", PATIENCE, || {
        (names(&disk(&world, &["--prune"])["removed"]) == [&image]).then_some(())
    });
    world.engine.client().inspect_image("busybox:test").await.expect("the owner's stays");
}

#[tokio::test]
async fn a_node_whose_engine_is_short_of_room_removes_what_it_pulled_and_then_takes_no_job() {
    let world = World::start_with_engine_on(|at| SmallDisk::mount(at, 512)).await;
    let registry = Registry::start(&world.engine);
    registry.take_busybox(&world.engine, "app", "1").await;
    world.engine.import_busybox().await;
    let image = format!("{ADDRESS}/app:1");
    let agent = world.agent(&SETTINGS);
    world.publish("pulls", &shell_with("echo x > /output/output", &json!({"image_name": image})));
    assert_eq!(last(&world.outcome("pulls"))["status"], "completed");
    let engines = world.engine.disk.as_ref().expect("a disk");
    // DISK_FREE_MIN_MIB is 64 here, and images go at 96.
    engines.fill_but(80 << 10);
    agent.wait_for(&format!("the image {image} is removed to make room"));
    world.engine.client().inspect_image("busybox:test").await.expect("the owner's stays");
    engines.fill_but(40 << 10);
    agent.wait_for("no job is taken: ");
    engines.free();
    world.publish("again", &shell_with("echo x > /output/output", &json!({"image_name": image})));
    assert_eq!(last(&world.outcome("again"))["status"], "completed");
    world.wait_until_clean().await;
}

/// An image of some 90 MiB; `mark` tells it from others.
fn large(mark: u8) -> Crafted {
    Crafted::new(json!({})).with(&[("large", 0o644, &vec![mark; 90 << 20])])
}

#[tokio::test]
async fn a_node_above_its_budget_removes_of_what_it_pulled_what_was_used_longest_ago_and_is_idle() {
    let world = World::start().await;
    let registry = Registry::start(&world.engine);
    for (mark, name) in (1..).zip(["a", "b", "c"]) {
        registry.put(large(mark), name, "1");
    }
    large(4).load(&world.engine, "busybox:large").await;
    let agent = world.agent(&[("DISK_BUDGET_MIB", "256"), SETTINGS[0]]);
    let image = |name: &str| format!("{ADDRESS}/{name}:1");
    let begin = |id: &str, name: &str, script: &str| {
        world.publish(id, &shell_with(script, &json!({"image_name": image(name), "disk_mib": 16})));
    };
    let run = |id: &str, name: &str| {
        begin(id, name, "echo x > /output/output");
        assert_eq!(last(&world.outcome(id))["status"], "completed");
    };
    // Two of them fit beside the reserve of the journal.
    run("a-1", "a");
    run("b-1", "b");
    run("a-2", "a");
    let hold =
        "while [ ! -e /output/go ]; do sleep 1; done; rm /output/go; echo x > /output/output";
    begin("holds", "c", hold);
    agent.wait_for("job holds: running");
    let wait_for_end_of = |name: &str| {
        let line = format!("the image {} is removed to make room", image(name));
        // A look in the five seconds after the last use removes nothing, and the next comes a minute later.
        eventually(&line, 2 * PATIENCE, || agent.log().contains(&line).then_some(()));
    };
    wait_for_end_of("b");
    assert_eq!(pulled(&world), [image("a"), image("c")], "b was used longest ago");
    run("a-3", "a");
    run("b-2", "b");
    wait_for_end_of("a");
    assert_eq!(pulled(&world), [image("c"), image("b")], "what a job uses stays");
    let mark = world.output_folder("holds").join("go");
    std::fs::write(mark, "").expect("a mark");
    assert_eq!(last(&world.outcome("holds"))["status"], "completed");
    for owners in ["busybox:test", "busybox:large"] {
        world.engine.client().inspect_image(owners).await.expect("the owner's stay");
    }
    world.wait_until_clean().await;
}

/// The images that the node pulled and the engine has, the one that was used last at the end.
fn pulled(world: &World) -> Vec<String> {
    let told = disk(world, &[]);
    names(&told["images"]).into_iter().map(str::to_owned).collect()
}
