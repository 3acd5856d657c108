#[tokio::main]
async fn main() {
    lamda_node::artifact::install_crypto();
    let a: Vec<String> = std::env::args().collect();
    let l = tokio::net::TcpListener::bind(&a[2]).await.unwrap();
    lamda_node::artifact::store::serve(std::path::Path::new(&a[1]), l, std::future::pending())
        .await
        .unwrap();
}
