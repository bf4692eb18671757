//! A deployment of its own in the Postgres of `KEPT_POSTGRES` for each test, dropped afterwards.

use std::sync::atomic::{AtomicU32, Ordering};

use kept_store::{Prefix, drop_all, migrate};

pub struct Deployment {
    pub url: String,
    pub prefix: Prefix,
}

impl Deployment {
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = std::env::var("KEPT_POSTGRES").expect("KEPT_POSTGRES names a Postgres to test with (`./kept test`)");
        let name = format!("st{}_{}_", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let prefix = Prefix::new(&name).expect("a prefix");
        drop_all(&url, &prefix).await.expect("what an older run with our pid left can be dropped");
        migrate(&url, &prefix).await.expect("migrations run");
        Self { url, prefix }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let (url, prefix) = (self.url.clone(), self.prefix.clone());
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(drop_all(&url, &prefix))
        });
        if let Err(error) = dropping.join().expect("dropping does not panic") {
            eprintln!("schemas of a test are left behind: {error}");
        }
    }
}
