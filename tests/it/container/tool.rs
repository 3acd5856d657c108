//! The image of the node's own containers.

use futures_util::TryStreamExt as _;
use lamda_node::container::ContainerSpec;
use lamda_node::container::docker::PROGRAM;

use super::{Bench, spec};

#[tokio::test]
async fn the_tool_image_is_imported_once_runs_alone_and_replaces_older_ones() {
    let bench = Bench::start().await;
    let client = bench.engine.client();
    let old = bollard::query_parameters::CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo("lamda-node/probe")
        .tag("1")
        .build();
    let empty = tar::Builder::new(Vec::new()).into_inner().unwrap();
    let empty = bollard::body_full(empty.into());
    client
        .create_image(Some(old), Some(empty), None)
        .try_for_each(|_| async { Ok(()) })
        .await
        .unwrap();
    let image_id = bench.docker.tool_image().await.unwrap();
    assert_eq!(bench.docker.tool_image().await.unwrap(), image_id);
    let listed = client.list_images(None::<bollard::query_parameters::ListImagesOptions>).await;
    let tags: Vec<String> = listed.unwrap().into_iter().flat_map(|image| image.repo_tags).collect();
    let ours: Vec<&String> = tags.iter().filter(|tag| tag.starts_with("lamda-node/")).collect();
    assert!(matches!(ours[..], [tag] if tag != "lamda-node/probe:1"), "{tags:?}");

    // It needs no library and no shell: it answers that it knows no such subcommand.
    let command = Some([PROGRAM, "what"].map(str::to_owned).to_vec());
    let (_, ending) = bench.finish(&ContainerSpec { command, ..spec("tool", &image_id) }).await;
    assert_eq!(ending.exit.code, 64, "{ending:?}");
}
