//! The S3 server of the tests as a process: prints its endpoint, serves until its input ends.

use std::io::{Read, Write};

use lakehouse_tests::s3::{Cloud, Lax, Server};

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = runtime.block_on(Server::start(Cloud::S3, Lax::Not))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", server.endpoint())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
